"""`longvie extract-controls`: depth and point tracks of a video."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longvie_cli.cli import options as o
from longvie_cli.cli.boundary import execute

if TYPE_CHECKING:
    from longvie_cli.cli.console import Console
    from longvie_cli.settings.requests import ExtractControlsRequest
    from longvie_cli.workflows.result import JobResult

EPILOG = o.epilog(
    "longvie extract-controls ref.mp4 -o controls/",
    "longvie generate --controls controls/ --prompt '...' -o out.mp4",
)


def extract_controls(
    context: typer.Context,
    video: Annotated[
        Path, typer.Argument(metavar="VIDEO", help="The video to take controls from.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="DIR", help="The folder to make.", rich_help_panel=o.JOB
        ),
    ],
    prompt: Annotated[
        str | None,
        typer.Option("-p", "--prompt", help="Text for cond.json.", rich_help_panel=o.JOB),
    ] = None,
    minutes: o.Minutes = None,
    seconds: o.Seconds = None,
    clips: o.Clips = None,
    at_cut: o.AtCutOption = None,
    preview: Annotated[
        bool | None,
        typer.Option(
            "--preview",
            help="Also write preview.mp4 (source, depth and tracks side by side) and "
            "contact_sheet.png into the folder.",
            rich_help_panel=o.JOB,
        ),
    ] = None,
    fit: o.FitOption = None,
    tracker: o.Tracker = None,
    track_grid: o.TrackGridOption = None,
    accept_noncommercial: o.AcceptNoncommercial = None,
    depth: o.Depth = None,
    depth_polarity: o.DepthPolarity = None,
    depth_model: o.DepthModel = None,
    depth_smoothing: o.DepthSmoothing = None,
    preset: o.PresetOption = None,
    device: o.Device = None,
    overwrite: Annotated[
        bool | None,
        typer.Option(
            "--overwrite",
            help="Replace controls in the folder that were made otherwise.",
            rich_help_panel=o.JOB,
        ),
    ] = None,
    offline: o.Offline = None,
    config: o.Config = None,
    json_result: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
    debug: o.Debug = False,
    version: o.Version = False,
) -> None:
    """Write the depth and point tracks of a video, clip by clip, with their cond.json.

    Depth is normalized once over the whole video. The folder is in the released LongVie format
    and is what generate --controls takes. Stopped, the same command goes on.
    """

    def request_model() -> type[ExtractControlsRequest]:
        from longvie_cli.settings.requests import ExtractControlsRequest

        return ExtractControlsRequest

    def work(request: ExtractControlsRequest, console: Console) -> JobResult:
        from longvie_cli.workflows import extract_controls as workflow

        return workflow.extract_controls(request, console)

    execute(context, request_model, work)
