"""A command made of what it does and the groups of flags it takes.

`@command(o.Length, o.Sampling, examples=...)` over a function says all there is to say of one: its
docstring is the help, the annotation of `request` the request that flags and settings are resolved
to, and parameters after `console` are flags that are no settings, such as `dry_run`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from typer.models import OptionInfo

from longvie_cli.cli import flags as f
from longvie_cli.cli import options as o
from longvie_cli.cli.boundary import execute
from longvie_cli.cli.help import HelpfulCommand, epilog

if TYPE_CHECKING:
    from longvie_cli.result import CommandResult
    from longvie_cli.settings.requests import Request

Work = Callable[..., "CommandResult"]


@dataclass(frozen=True)
class Command:
    """A command of `longvie`.

    Args:
        work: What it does; called with `request` and `console`, and with the flags that are no
            settings, by their names.
        groups: Classes whose annotations are its flags, by the key of their setting.
        examples: Command lines for its help.
        together: Whether the processes that torchrun starts share its work.
    """

    work: Work
    groups: tuple[type, ...]
    examples: tuple[str, ...]
    together: bool

    def flags(self) -> dict[str, Any]:
        """Return the annotations of all flags by key; a later group's stands for an earlier's."""
        config = (o.Config,) if self._takes_settings() else ()
        groups = (*self.groups, *config, o.Console)
        flags: dict[str, Any] = {}
        for group in groups:
            flags |= inspect.get_annotations(group, eval_str=True)
        return flags

    def request_model(self) -> type[Request]:
        """Import and return the class of its request."""
        requests = import_module("longvie_cli.settings.requests")
        model: type[Request] = getattr(requests, self.work.__annotations__["request"])
        return model

    def add_to(self, app: typer.Typer, name: str) -> None:
        """Make it a command of an app."""

        def run(context: typer.Context, **values: Any) -> None:
            self._run(values)

        first = inspect.Parameter(
            "context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context
        )
        run.__signature__ = inspect.Signature([first, *self._parameters()])  # type: ignore[attr-defined]  # read by Typer
        # Typer keeps the line breaks of a docstring; the help shall fill the width of the terminal.
        paragraphs = inspect.cleandoc(self.work.__doc__ or "").split("\n\n")
        text = [" ".join(paragraph.split()) for paragraph in paragraphs]
        app.command(
            name,
            cls=HelpfulCommand,
            help="\n\n".join(text),
            short_help=text[0],
            epilog=epilog(self.examples),
        )(run)

    def _parameters(self) -> list[inspect.Parameter]:
        flags = self.flags()
        common = [key for key in o.MOST_USED if key in flags]
        if 2 * len(common) <= len(o.MOST_USED):
            common = []
        parameters = []
        for key in dict.fromkeys((*common, *flags)):
            kind, info = get_args(flags[key])
            if key in common and isinstance(info, OptionInfo):
                info = copy(info)
                info.rich_help_panel = f.COMMON
            parameters.append(
                inspect.Parameter(
                    key,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=_default_of(kind),
                    annotation=Annotated[kind, info],
                )
            )
        return sorted(parameters, key=_panel)

    def _run(self, values: Mapping[str, Any]) -> None:
        given = set(inspect.signature(self.work).parameters) - {"request", "console"}
        console_flags = inspect.get_annotations(o.Console)
        settings = {
            key: value
            for key, value in values.items()
            if key not in given and key not in console_flags and key != "config"
        }
        execute(
            values,
            self.request_model if self._takes_settings() else None,
            settings,
            partial(self.work, **{key: values[key] for key in given}),
            together=self.together,
        )

    def _takes_settings(self) -> bool:
        return "request" in self.work.__annotations__


def command(
    *groups: type, examples: Sequence[str], together: bool = False
) -> Callable[[Work], Command]:
    """Return the decorator that makes a `Command` of a function."""
    return lambda work: Command(work, groups, tuple(examples), together)


def _default_of(kind: Any) -> Any:
    if kind is bool:
        return False
    return None if NoneType in get_args(kind) else inspect.Parameter.empty


def _panel(parameter: inspect.Parameter) -> int:
    _, info = get_args(parameter.annotation)
    return f.PANELS.index(info.rich_help_panel or f.ARGUMENTS)
