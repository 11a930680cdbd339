"""`longvie extract-controls`: depth and point tracks of a video, a path or a landscape."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longvie_cli.cli import options as o
from longvie_cli.cli.boundary import execute

if TYPE_CHECKING:
    from longvie_cli.cli.console import Console
    from longvie_cli.result import JobResult
    from longvie_cli.settings.requests import ExtractControlsRequest

EPILOG = o.epilog(
    "longvie extract-controls ref.mp4 --preview -o controls/",
    "longvie extract-controls --image photo.jpg --camera 'forward 2, turn 30 in 10s' -o controls/",
    "longvie extract-controls --seed 7 --seconds 10 -o controls/",
    "longvie extract-controls ref.mp4 --depth-model base --dry-run -o controls/",
    "longvie generate --controls controls/ --prompt '...' -o out.mp4",
)


def extract_controls(
    context: typer.Context,
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="DIR", help="The folder to make.", rich_help_panel=o.JOB
        ),
    ],
    video: Annotated[
        Path | None,
        typer.Argument(metavar="VIDEO", help="The video to take controls from."),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(
            "--image",
            metavar="FILE",
            help="Picture that --camera goes through, in place of a video.",
            rich_help_panel=o.JOB,
        ),
    ] = None,
    camera: o.Camera = None,
    fov: o.Fov = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            help="Of the landscape: all there is to fly over, or what lies beyond the picture.",
            rich_help_panel=o.JOB,
        ),
    ] = None,
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
    size: o.Size = None,
    fit: o.FitOption = None,
    tracker: o.Tracker = None,
    track_grid: o.TrackGridOption = None,
    accept_noncommercial: o.AcceptNoncommercial = None,
    depth: o.Depth = None,
    depth_polarity: o.DepthPolarity = None,
    depth_model: o.DepthModel = None,
    depth_smoothing: o.DepthSmoothing = None,
    dry_run: o.DryRun = False,
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
    """Write the depth and point tracks of a source, clip by clip, with their cond.json.

    The source is a VIDEO, a path (--camera) through a picture (--image) or over a landscape, or a
    flight over the landscape of a --seed. Depth is normalized once over the whole source. The
    folder is in the released LongVie format and is what generate --controls takes; of a path it is
    what generate would make for itself. Stopped, the same command goes on.
    """

    def request_model() -> type[ExtractControlsRequest]:
        from longvie_cli.settings.requests import ExtractControlsRequest

        return ExtractControlsRequest

    def work(request: ExtractControlsRequest, console: Console) -> JobResult:
        from longvie_cli.workflows import extract_controls as workflow

        if dry_run:
            return workflow.plan(request, console)
        return workflow.extract_controls(request, console)

    execute(context, request_model, work)
