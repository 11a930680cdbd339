"""The `longvie` command: its sub-commands, and the exit code of the process."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from longvie_cli.cli import (
    bench,
    doctor,
    evaluate,
    extend,
    extract_controls,
    generate,
    models,
    prepare,
    runs,
    stitch,
    train,
)
from longvie_cli.cli.boundary import report_usage_error
from longvie_cli.cli.help import HelpfulCommand, HelpfulGroup, epilog, show_help
from longvie_cli.cli.interpreter import keep_docstrings, let_threads_sleep
from longvie_cli.cli.options import Version, show_version

app = typer.Typer(
    name="longvie",
    cls=HelpfulGroup,
    help="Minutes of controllable video, clip after clip, on local disk.",
    epilog=epilog(
        (
            "longvie doctor",
            'longvie generate --prompt "green hills, morning fog" --seconds 10 -o flight.mp4',
            "longvie help generate",
        )
    ),
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
models_app = typer.Typer(
    cls=HelpfulGroup,
    help=models.HELP,
    short_help=models.HELP,
    epilog=epilog(models.EXAMPLES),
    invoke_without_command=True,
    rich_markup_mode=None,
)
for _name, _command in {
    "list": models.list_models,
    "pull": models.pull,
    "verify": models.verify,
    "path": models.path,
    "convert": models.convert,
}.items():
    _command.add_to(models_app, _name)
for _name, _command in {
    "generate": generate.generate,
    "extend": extend.extend,
    "stitch": stitch.stitch,
    "redo": runs.redo,
    "resume": runs.resume,
    "status": runs.status,
    "extract-controls": extract_controls.extract_controls,
    "evaluate": evaluate.evaluate,
    "prepare": prepare.prepare,
    "train": train.train,
    "bench": bench.bench,
    "doctor": doctor.doctor,
}.items():
    _command.add_to(app, _name)
app.add_typer(models_app, name="models")
app.command("help", cls=HelpfulCommand)(show_help)


@app.command("version", cls=HelpfulCommand)
def version() -> None:
    """Show the version, as --version does."""
    show_version(True)


@app.callback()
@models_app.callback()
def group(context: typer.Context, version: Version = False) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), color=context.color)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code."""
    if arguments is None:
        keep_docstrings()
    let_threads_sleep()
    _open_standard_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    color = False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None
    try:
        code = app(args=given, prog_name="longvie", standalone_mode=False, color=color)
    except typer.TyperException as error:
        code = report_usage_error(error, json_result="--json" in given)
    except BrokenPipeError:
        # The reader of a help text left (`longvie --help | head -1`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 0
    sys.exit(code or 0)


def _open_standard_streams() -> None:
    """Open those of stdin, stdout and stderr that the caller closed (`>&-`), on nothing.

    Otherwise the next file or pipe that is opened would get their number, and what is printed would
    end up in it.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        mode = "r" if name == "stdin" else "w"
        nothing = os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY)
        os.dup2(nothing, descriptor)
        if nothing != descriptor:
            os.close(nothing)
        setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))
