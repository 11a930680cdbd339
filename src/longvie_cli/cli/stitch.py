"""`longvie stitch`: clips or runs joined into one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longvie_cli.cli import flags as f
from longvie_cli.cli import options as o
from longvie_cli.cli.command import command

if TYPE_CHECKING:
    from longvie_cli.cli.console import Console
    from longvie_cli.result import JobResult
    from longvie_cli.settings.requests import StitchRequest


class Joining:
    """What is joined, and its sound."""

    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN_OR_CLIP", help="Run folders and mp4 files, in order."),
    ]
    audio: Annotated[
        str | None,
        f.flag(
            f.OUTPUT,
            "Sound of the file; default that of each input, beside its own frames. source: of the "
            "video a run was made from, also where the run is silent.",
            metavar="none|source|FILE",
            values=("none", "source"),
        ),
    ]


@command(
    *(Joining, o.Output, o.DryRun, o.Replacing, o.EmbeddedSettings),
    examples=(
        "longvie stitch out.longvie -o out.mp4",
        "longvie stitch first.mp4 second.mp4 --audio music.mp3 -o both.mp4",
    ),
)
def stitch(request: StitchRequest, console: Console, dry_run: bool) -> JobResult:
    """Join the clips of runs, or single files, into one mp4 without encoding a frame again.

    Their sound goes along, each beside its own frames.
    """
    from longvie_cli.workflows import stitch as workflow

    return workflow.plan(request, console) if dry_run else workflow.stitch(request, console)
