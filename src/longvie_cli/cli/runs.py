"""`longvie redo`, `resume` and `status`: runs that exist."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longvie_cli.cli import flags as f
from longvie_cli.cli.command import command

if TYPE_CHECKING:
    from longvie_cli.cli.console import Console
    from longvie_cli.result import JobResult, ReportResult
    from longvie_cli.settings.requests import RedoRequest, RunRequest


class Run:
    """The run that is meant."""

    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The run folder (OUT.longvie), or its OUT.mp4.")
    ]


class Redoing:
    """What is made again, and what is new about it."""

    clip: Annotated[int, f.flag(f.LENGTH, "First clip to make again, from 0.", metavar="K", min=0)]
    new_prompt: Annotated[
        str | None,
        f.flag(
            f.LOOK,
            "New prompt of this clip and of those after it that shared its prompt.",
            *("-p", "--prompt"),
            metavar="TEXT",
        ),
    ]
    new_seed: Annotated[
        int | None,
        f.flag(
            f.LOOK,
            "New seed of this clip and of those after it that shared its seed.",
            "--seed",
            metavar="N",
            min=0,
        ),
    ]


class Watching:
    """Whether a run is looked at once."""

    watch: Annotated[
        bool,
        f.flag(
            f.CONSOLE,
            "Keep looking until the run is finished: redrawn on a terminal, else a line a change, "
            "on stderr.",
            "--watch",
        ),
    ]


@command(
    *(Run, Redoing),
    examples=(
        "longvie redo out.longvie --clip 7",
        'longvie redo out.mp4 --clip 7 --prompt "the same valley in snow"',
        "longvie redo out.mp4 --clip 7 --seed 12",
    ),
    together=True,
)
def redo(request: RedoRequest, console: Console) -> JobResult:
    """Forget the clips of a run from one on and make them again.

    The clips before it stay byte for byte, and the output is replaced when everything is done.
    Killed at any time, `longvie resume` (or the same command) goes on with the same frames.
    """
    from longvie_cli.workflows import resume as workflow

    return workflow.redo(request, console)


@command(Run, examples=("longvie resume out.longvie",), together=True)
def resume(request: RunRequest, console: Console) -> JobResult:
    """Go on with a run that stopped, as the command that began it would.

    Everything it needs is in the run folder; a finished run returns at once.
    """
    from longvie_cli.workflows import resume as workflow

    return workflow.resume(request, console)


@command(
    *(Run, Watching),
    examples=(
        "longvie status out.longvie",
        "longvie status out.longvie --watch",
        "longvie status out.mp4",
    ),
)
def status(request: RunRequest, console: Console, watch: bool) -> ReportResult:
    """Say where a run stands: clips, time left, who works on it, what is damaged.

    Writes nothing and waits for nobody, so it can be asked at any time.
    """
    from longvie_cli.workflows import status as workflow

    if not watch:
        return workflow.status(request)
    with console.redrawn() as draw:
        return workflow.watch(request, lambda report: draw(report.lines))
