"""How help is shown: flags under headings by subject, every text whole, quick to start.

Typer's own Rich tables leave a third of the line to the text, read `[clip 0-3]` as markup and take
longer to import than all the rest of a help; its plain formatter does none of it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from longvie_cli.cli import flags as f

EXIT_CODES = (
    "Exit codes: 0 done; 1 failure; 2 usage; 3 weights or an optional dependency missing; "
    "4 output exists or run locked; 5 bad input (media, controls, settings); 75 stopped, the same "
    "command continues; 129 terminal closed; 130 Ctrl-C; 143 SIGTERM."
)
_EXAMPLE_INDENT = "    "
# A longer name of a flag has a line to itself.
_WIDEST_NAME = 24


def epilog(examples: Sequence[str]) -> str:
    """Return the end of a help, in Markdown: examples, one a line, and the exit codes."""
    lines = "\n".join(f"{_EXAMPLE_INDENT}{example}" for example in examples)
    return f"Examples:\n\n{lines}\n\n{EXIT_CODES}"


# Typer vendors the classes of contexts and formatters and gives them no public name: Any here.
class _Sections:
    """The help of a command or group, its flags in sections by their panels."""

    def get_params(self: Any, ctx: Any) -> Any:
        parameters = super().get_params(ctx)  # type: ignore[misc]  # of Command
        for parameter in parameters:
            if not parameter.expose_value:
                # --help and the like: Typer would read their None through pydantic, which takes
                # longer to import than all the rest of a help.
                parameter.default = False
        return parameters

    def format_help_text(self: Any, ctx: Any, formatter: Any) -> None:
        for paragraph in (self.help or "").split("\n\n"):
            formatter.write_paragraph()
            formatter.write(_filled(paragraph, formatter.width) + "\n")

    def format_options(self: Any, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {panel: [] for panel in f.PANELS}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            names, text = record
            panel = parameter.rich_help_panel or f.CONSOLE
            if parameter.param_type_name == "argument":
                panel, names = f.ARGUMENTS, parameter.metavar
            sections[panel].append((names, text))
        for panel, rows in sections.items():
            if rows:
                _write_section(formatter, panel, rows)
        if isinstance(self, TyperGroup):
            commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
            rows = [(name, command.get_short_help_str()) for name, command in commands if command]
            _write_section(formatter, "Commands", rows)

    def format_epilog(self: Any, ctx: Any, formatter: Any) -> None:
        for paragraph in (self.epilog or "").split("\n\n"):
            if paragraph.startswith(_EXAMPLE_INDENT):
                # There to be copied: never broken over lines.
                formatter.write(textwrap.indent(textwrap.dedent(paragraph), "  ") + "\n")
            else:
                formatter.write_paragraph()
                formatter.write(_filled(paragraph, formatter.width, indent="") + "\n")

    def shell_complete(self: Any, ctx: Any, incomplete: str) -> Any:
        items = super().shell_complete(ctx, incomplete)  # type: ignore[misc]  # of Command
        for item in items:
            # A shell shows a line of it, which Typer reads as markup and breaks at the 80th column.
            text = (item.help or "").translate(str.maketrans("[]", "()"))
            item.help = textwrap.shorten(text, 72, placeholder="...")
        return items


class HelpfulCommand(_Sections, TyperCommand):
    """A command whose help has sections."""


class HelpfulGroup(_Sections, TyperGroup):
    """A group of commands whose help has sections."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands, those about the program itself last."""
        return sorted(self.commands, key=lambda name: name in ("help", "version"))


def show_help(
    context: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND", help="As in `longvie help models pull`."),
    ] = None,
) -> None:
    """Show the help of a command, or of all."""
    shown: Any = context.find_root()
    for name in names or ():
        if not isinstance(shown.command, TyperGroup):
            shown.fail(f"{shown.command_path} has no commands of its own.")
        _, command, _ = shown.command.resolve_command(shown, [name])
        shown = typer.Context(command, info_name=name, parent=shown)
    typer.echo(shown.get_help(), color=context.color)


def _write_section(formatter: Any, heading: str, rows: Sequence[tuple[str, str]]) -> None:
    column = min(max(len(name) for name, _ in rows), _WIDEST_NAME) + 2
    formatter.write_paragraph()
    formatter.write(typer.style(f"{heading}:", bold=True) + "\n")
    for name, text in rows:
        lines = _filled(text, formatter.width - column, indent="").splitlines()
        shown = "  " + typer.style(name, fg="cyan")
        if len(name) <= column - 2 and lines:
            shown += " " * (column - len(name)) + lines.pop(0)
        indented = [" " * (column + 2) + line for line in lines]
        formatter.write("\n".join([shown, *indented]) + "\n")


def _filled(text: str, width: int, *, indent: str = "  ") -> str:
    # Flags are copied out of a help: none is broken at its hyphens.
    return textwrap.fill(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
