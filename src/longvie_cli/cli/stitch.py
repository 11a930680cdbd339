"""`longvie stitch`: clips or runs joined into one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longvie_cli.cli import options as o
from longvie_cli.cli.boundary import execute

if TYPE_CHECKING:
    from longvie_cli.cli.console import Console
    from longvie_cli.result import JobResult
    from longvie_cli.settings.requests import StitchRequest

EPILOG = o.epilog(
    "longvie stitch out.longvie -o out.mp4",
    "longvie stitch first.mp4 second.mp4 --audio music.mp3 -o both.mp4",
)


def stitch(
    context: typer.Context,
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN_OR_CLIPS...", help="Run folders and mp4 files, in order."),
    ],
    output: o.Output,
    audio: o.AudioOfInputs = None,
    overwrite: o.Overwrite = None,
    no_clobber: o.NoClobber = None,
    embed_metadata: o.EmbedMetadata = None,
    dry_run: o.DryRun = False,
    config: o.Config = None,
    json_result: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
    debug: o.Debug = False,
    version: o.Version = False,
) -> None:
    """Join the clips of runs, or single files, into one mp4 without encoding a frame again.

    Their sound goes along, each beside its own frames.
    """

    def request_model() -> type[StitchRequest]:
        from longvie_cli.settings.requests import StitchRequest

        return StitchRequest

    def work(request: StitchRequest, console: Console) -> JobResult:
        from longvie_cli.workflows import stitch as workflow

        return workflow.plan(request, console) if dry_run else workflow.stitch(request, console)

    execute(context, request_model, work)
