"""The `longvie` command: its sub-commands, and the exit code of the process."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Sequence

import typer

from longvie_cli.cli import extend, extract_controls, generate, models, runs, stitch
from longvie_cli.cli.boundary import report_usage_error
from longvie_cli.cli.options import EXIT_CODES, Version

app = typer.Typer(
    name="longvie",
    help="Minutes of controllable video, clip after clip, on local disk.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def longvie(version: Version = False) -> None:
    """Minutes of controllable video, clip after clip, on local disk."""


def _add(
    name: str, command: Callable[..., None], epilog: str, *, to: typer.Typer | None = None
) -> None:
    # Typer keeps the line breaks of a docstring; the help shall fill the width of the terminal.
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    (to or app).command(name, help=text, epilog=epilog)(command)


_add("generate", generate.generate, generate.EPILOG)
_add("extend", extend.extend, extend.EPILOG)
_add("stitch", stitch.stitch, stitch.EPILOG)
_add("redo", runs.redo, runs.REDO_EPILOG)
_add("resume", runs.resume, runs.RESUME_EPILOG)
_add("status", runs.status, runs.STATUS_EPILOG)
_add("extract-controls", extract_controls.extract_controls, extract_controls.EPILOG)

models_app = typer.Typer(
    help=models.HELP,
    epilog=models.EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
_add("list", models.list_models, models.LIST_EPILOG, to=models_app)
_add("pull", models.pull, models.PULL_EPILOG, to=models_app)
_add("verify", models.verify, models.VERIFY_EPILOG, to=models_app)
_add("path", models.path, models.PATH_EPILOG, to=models_app)
_add("convert", models.convert, models.CONVERT_EPILOG, to=models_app)
app.add_typer(models_app, name="models")


@models_app.callback()
def models_callback(version: Version = False) -> None:
    """Fetch, check and find the weights that presets stand on."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code."""
    _open_standard_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(args=given, prog_name="longvie", standalone_mode=False)
    except typer.TyperException as error:
        code = report_usage_error(error.format_message(), json_result="--json" in given)
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
