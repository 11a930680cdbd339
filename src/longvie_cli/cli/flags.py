"""How a flag is spelled: its heading in the help, its text, what a shell completes it with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import typer

# The headings of a help.
ARGUMENTS = "Arguments"
COMMON = "Most used"
INPUT = "Input"
LENGTH = "Length"
LOOK = "Look"
MODEL = "Model"
OUTPUT = "Output"
MACHINE = "Machine"
CONSOLE = "Console"
PANELS = (ARGUMENTS, COMMON, INPUT, LENGTH, LOOK, MODEL, OUTPUT, MACHINE, CONSOLE)


def flag(
    panel: str,
    text: str,
    *names: str,
    metavar: str | None = None,
    values: Sequence[str] | Callable[[], Sequence[str]] = (),
    **others: Any,
) -> Any:
    """Return how a flag is typed and described.

    Args:
        panel: Heading of the help that it stands under.
        text: What it does.
        names: As they are typed, where they are not `--` and the name of its setting.
        metavar: What stands for the value in the help.
        values: What a shell offers to complete the value with, where it is not a `Literal`.
        others: As `typer.Option` takes them.
    """
    return typer.Option(
        *names,
        help=text,
        metavar=metavar,
        rich_help_panel=panel,
        autocompletion=completed_with(values) if values else None,
        show_envvar=False,
        **others,
    )


def completed_with(
    values: Sequence[str] | Callable[[], Sequence[str]],
) -> Callable[[str], list[str]]:
    """Return the function that a shell's completion asks for the values that begin so."""

    def complete(incomplete: str) -> list[str]:
        known = values() if callable(values) else values
        return [value for value in known if value.startswith(incomplete)]

    return complete
