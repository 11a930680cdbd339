"""`longvie redo`, `resume` and `status`: runs that exist."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longvie_cli.cli import options as o
from longvie_cli.cli.boundary import execute

if TYPE_CHECKING:
    from longvie_cli.cli.console import Console
    from longvie_cli.result import JobResult, ReportResult
    from longvie_cli.settings.requests import RedoRequest, RunRequest

REDO_EPILOG = o.epilog(
    "longvie redo out.longvie --clip 7",
    'longvie redo out.mp4 --clip 7 --prompt "the same valley in snow"',
    "longvie redo out.mp4 --clip 7 --seed 12",
)
RESUME_EPILOG = o.epilog("longvie resume out.longvie")
STATUS_EPILOG = o.epilog(
    "longvie status out.longvie", "longvie status out.longvie --watch", "longvie status out.mp4"
)

Run = Annotated[
    Path, typer.Argument(metavar="RUN", help="The run folder (OUT.longvie), or its OUT.mp4.")
]


def redo(
    context: typer.Context,
    run: Run,
    clip: Annotated[
        int,
        typer.Option(
            "--clip", min=0, help="First clip to make again, from 0.", rich_help_panel=o.JOB
        ),
    ],
    new_prompt: Annotated[
        str | None,
        typer.Option(
            "-p",
            "--prompt",
            help="New prompt of this clip and of those after it that shared its prompt.",
            rich_help_panel=o.JOB,
        ),
    ] = None,
    new_seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            min=0,
            help="New seed of this clip and of those after it that shared its seed.",
            rich_help_panel=o.JOB,
        ),
    ] = None,
    config: o.Config = None,
    json_result: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
    debug: o.Debug = False,
    version: o.Version = False,
) -> None:
    """Forget the clips of a run from one on and make them again.

    The clips before it stay byte for byte, and the output is replaced when everything is done.
    Killed at any time, `longvie resume` (or the same command) goes on with the same frames.
    """

    def request_model() -> type[RedoRequest]:
        from longvie_cli.settings.requests import RedoRequest

        return RedoRequest

    def work(request: RedoRequest, console: Console) -> JobResult:
        from longvie_cli.workflows import resume as workflow

        return workflow.redo(request, console)

    execute(context, request_model, work)


def resume(
    context: typer.Context,
    run: Run,
    config: o.Config = None,
    json_result: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
    debug: o.Debug = False,
    version: o.Version = False,
) -> None:
    """Go on with a run that stopped, as the command that began it would.

    Everything it needs is in the run folder; a finished run returns at once.
    """

    def work(request: RunRequest, console: Console) -> JobResult:
        from longvie_cli.workflows import resume as workflow

        return workflow.resume(request, console)

    execute(context, _run_request, work)


def status(
    context: typer.Context,
    run: Run,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Keep looking until the run is finished: redrawn on a terminal, else a line a "
            "change, on stderr.",
            rich_help_panel=o.JOB,
        ),
    ] = False,
    config: o.Config = None,
    json_result: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
    debug: o.Debug = False,
    version: o.Version = False,
) -> None:
    """Say where a run stands: clips, time left, who works on it, what is damaged.

    Writes nothing and waits for nobody, so it can be asked at any time.
    """

    def work(request: RunRequest, console: Console) -> ReportResult:
        from longvie_cli.workflows import status as workflow

        if not watch:
            return workflow.status(request)
        with console.redrawn() as draw:
            return workflow.watch(request, lambda report: draw(report.lines))

    execute(context, _run_request, work)


def _run_request() -> type[RunRequest]:
    from longvie_cli.settings.requests import RunRequest

    return RunRequest
