"""The edge between the command line and the work: settings in, errors to exit codes out."""

from __future__ import annotations

import difflib
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from longvie_cli.cli.signals import Interrupted, stop_on_signals
from longvie_cli.errors import LongVieError, ResumableError, StoppedBySignal, UsageError
from longvie_cli.parallel.processes import place_of_process
from longvie_cli.progress import command_line

if TYPE_CHECKING:
    from longvie_cli.cli.console import Console
    from longvie_cli.result import CommandResult
    from longvie_cli.settings.requests import Request

SCHEMA_VERSION = 1
# How much later a process ends that fails as the first one does, and leaves the words to it.
_LATER_SECONDS = 3.0


def execute(
    flags: Mapping[str, Any],
    request_model: Callable[[], type[Request]] | None,
    settings: Mapping[str, Any],
    work: Callable[..., CommandResult],
    *,
    together: bool,
) -> None:
    """Run one command to its exit code: resolve the request, do the work, print the result.

    Args:
        flags: Every flag by name, those of the console among them.
        request_model: Imports and returns the request of this command; None if it has none.
        settings: The flags that are settings of that request; None where one was not given.
        work: The workflow, called with `request` and `console`.
        together: Whether several processes of torchrun share the work; else they are refused.
    """
    console = _console(json_result=flags["json"], quiet=flags["quiet"])
    _quiet_libraries(flags["verbose"] or 0)

    asked: list[Request] = []

    def resolve_and_work() -> CommandResult:
        if not together:
            _refuse_several_processes()
        if request_model is None:
            return work(console=console)
        from longvie_cli.settings.resolve import resolve

        request, notes = resolve(
            request_model(),
            settings,
            config=flags["config"],
            environment=os.environ,
            working_folder=Path.cwd(),
        )
        for note in notes:
            console.warning(note)
        asked.append(request)
        console.begin_own_part()
        return work(request=request, console=console)

    with console.only_results_on_stdout():
        code = _guarded(
            console,
            resolve_and_work,
            debug=flags["debug"],
            to_go_on=lambda: _command_to_go_on(asked[0] if asked else None),
        )
    raise typer.Exit(code)


def report_usage_error(error: typer.TyperException, *, json_result: bool) -> int:
    """Say that the command line itself is wrong and return the exit code."""
    console = _console(json_result=json_result, quiet=False)
    return _fail(console, _in_our_words(error), debug=False)


def _refuse_several_processes() -> None:
    count = place_of_process().count
    if count > 1:
        raise UsageError(
            f"torchrun: each of its {count} processes would do all of this command.",
            hint="Run it without torchrun; generate, extend, redo, resume and train share work.",
        )


def _console(*, json_result: bool, quiet: bool) -> Console:
    from longvie_cli.cli.console import Console

    console = Console(json_result=json_result, quiet=quiet)
    if rank := place_of_process().rank:
        console.follow(rank)
    return console


def _in_our_words(error: typer.TyperException) -> UsageError:
    """Return an error of Typer's as what is wrong, the flag first, and what to do about it."""
    # Typer's own classes have no public names; what they know is asked for by name.
    context: Any = getattr(error, "ctx", None)
    parameter: Any = getattr(error, "param", None)
    reason: Any = error.__cause__
    message = error.format_message()
    hint = f"`{context.command_path if context else 'longvie'} --help` says what it takes."
    if context is not None and hasattr(error, "possibilities"):
        name = error.option_name  # type: ignore[attr-defined]  # goes with `possibilities`
        message = f"{name}: there is no such flag."
        if isinstance(context.command, TyperGroup):
            hint = f"Flags follow the command: `{context.command_path} COMMAND {name}`."
        elif error.possibilities:
            hint = f"Did you mean {error.possibilities[0]}?"
    elif parameter is not None and hasattr(reason, "errors"):
        value = reason.errors()[0]["input"]
        text = error.message.removeprefix("Value error, ").removeprefix("Input ")
        text = text if text.startswith(repr(value)) else f"{value!r} {text}."
        message = f"{parameter.opts[-1]}: {text}"
        choices = re.findall("'([^']+)'", text.removeprefix(repr(value)))
        if near := difflib.get_close_matches(str(value), choices, n=1):
            hint = f"Did you mean {near[0]}?"
    elif "unexpected extra argument" in message:
        hint = f"Put quotes around a text with spaces. {hint}"
    return UsageError(message, hint=hint)


def _guarded(
    console: Console,
    job: Callable[[], CommandResult],
    *,
    debug: bool,
    to_go_on: Callable[[], str],
) -> int:
    try:
        with stop_on_signals():
            result = job()
    except Interrupted as error:
        return _fail(console, _stopped(error.signal_number, to_go_on()), debug=debug)
    except Exception as error:
        return _fail(console, _explained(error, to_go_on), debug=debug)
    fields: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        **result.facts(),
        "warnings": console.warnings,
    }
    try:
        console.result(result, fields)
    except ResumableError as error:
        console.error(error, debug=debug)
        return error.exit_code
    return result.exit_code


def _fail(console: Console, error: LongVieError, *, debug: bool) -> int:
    console.error(error, debug=debug)
    if console.is_said_elsewhere(error) and not isinstance(error, ResumableError | StoppedBySignal):
        # torchrun ends all processes with the first one that fails; let that be the one that says
        # why.
        time.sleep(_LATER_SECONDS)
    if console.json_result:
        stopped = isinstance(error, ResumableError | StoppedBySignal)
        fields: Mapping[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "status": "stopped" if stopped else "error",
            "output": None,
            "run_dir": None,
            "frames": None,
            "seconds": None,
            "seed": None,
            "warnings": console.warnings,
            "error": {
                "code": error.exit_code,
                "message": error.message,
                "hint": error.hint,
            },
        }
        # Where stdout takes nothing, the exit code still says it.
        with suppress(ResumableError):
            console.result(None, fields)
    return error.exit_code


def _stopped(signal_number: int, to_go_on: str) -> StoppedBySignal:
    return StoppedBySignal(signal_number, hint=f"To go on: {to_go_on}")


def _explained(error: Exception, to_go_on: Callable[[], str]) -> LongVieError:
    """Return the error in the words of our own tree; anything unforeseen is a plain failure."""
    if isinstance(error, LongVieError):
        return error
    if isinstance(error, OSError):
        from longvie_cli.disk.durable import known_storage_error

        known = known_storage_error(error.filename or "A file", error)
        if known is not None:
            known.__cause__ = error
            return known
    if _is_out_of_memory(error):
        explained: LongVieError = ResumableError(
            "Out of memory. Everything finished so far is saved.",
            hint=f"Close other programs, then: {to_go_on()}",
        )
    else:
        text = " ".join(str(error).split())
        explained = LongVieError(
            f"Unexpected failure: {type(error).__name__}: {text}",
            hint="Run again with --debug for the traceback.",
        )
    explained.__cause__ = error
    return explained


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    # PyTorch's CPU allocator has no exception type of its own.
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate" in str(error)


def _command_to_go_on(request: Request | None) -> str:
    """Return `longvie resume RUN` where the request has begun a run, else the same command.

    Under torchrun it is torchrun's, for as many processes.
    """
    from longvie_cli.run_folder.layout import RunFolder
    from longvie_cli.settings.requests import ExtendRequest, GenerateRequest

    launcher = place_of_process().launcher
    if isinstance(request, GenerateRequest | ExtendRequest):
        folder = RunFolder.of(request.output, request.run_dir)
        # Either of these may have been stopped before it made the run its own.
        replaces = request.overwrite or request.from_clip is not None
        if folder.is_begun and not replaces:
            return command_line([*launcher, "resume", str(folder.root)])
    return command_line([*launcher, *sys.argv[1:]])


def _quiet_libraries(verbosity: int) -> None:
    from longvie_cli.cli.console import ShownRecord

    for name, value in {
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "DIFFUSERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
    }.items():
        os.environ.setdefault(name, value)
    levels = (logging.WARNING, logging.INFO, logging.DEBUG)
    logging.setLogRecordFactory(ShownRecord)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.WARNING)
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.ERROR)
    logging.getLogger("longvie_cli").setLevel(levels[min(verbosity, 2)])
    if not verbosity:
        warnings.simplefilter("ignore")
