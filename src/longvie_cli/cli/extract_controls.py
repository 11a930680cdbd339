"""`longvie extract-controls`: depth and point tracks of a video, a path or a landscape."""

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
    from longvie_cli.settings.requests import ExtractControlsRequest


class Extracting:
    """What controls are taken from and where they go."""

    output: Annotated[
        Path, f.flag(f.OUTPUT, "The folder to make.", "-o", "--output", metavar="DIR")
    ]
    video: Annotated[
        Path | None, typer.Argument(metavar="VIDEO", help="The video to take controls from.")
    ]
    image: Annotated[
        Path | None,
        f.flag(f.INPUT, "Picture that --camera goes through, in place of a video.", metavar="FILE"),
    ]
    seed: Annotated[
        int | None,
        f.flag(
            f.LOOK,
            "Of the landscape: all there is to fly over, or what lies beyond the picture.",
            metavar="N",
        ),
    ]
    prompt: Annotated[
        str | None, f.flag(f.LOOK, "Text for cond.json.", "-p", "--prompt", metavar="TEXT")
    ]
    preview: Annotated[
        bool | None,
        f.flag(
            f.OUTPUT,
            "Also write preview.mp4 (source, depth and tracks side by side) and contact_sheet.png.",
            "--preview",
        ),
    ]
    overwrite: Annotated[
        bool | None,
        f.flag(f.OUTPUT, "Replace controls in the folder that were made otherwise.", "--overwrite"),
    ]


@command(
    Extracting,
    *(o.Camera, o.Length, o.Cuts, o.Size, o.Fit, o.Tracking, o.ReadyDepth, o.Depth),
    *(o.DryRun, o.Preset, o.Device, o.Offline),
    examples=(
        "longvie extract-controls ref.mp4 --preview -o controls/",
        "longvie extract-controls --image photo.jpg --camera 'forward 2, turn 30' -o controls/",
        "longvie extract-controls --seed 7 --seconds 10 -o controls/",
        "longvie extract-controls ref.mp4 --depth-model base --dry-run -o controls/",
        "longvie generate --controls controls/ --prompt '...' -o out.mp4",
    ),
)
def extract_controls(request: ExtractControlsRequest, console: Console, dry_run: bool) -> JobResult:
    """Write the depth and point tracks of a source, clip by clip, with their cond.json.

    The source is a VIDEO, a path (--camera) through a picture (--image) or over a landscape, or a
    flight over the landscape of a --seed. Depth is normalized once over the whole source. The
    folder is in the released LongVie format and is what generate --controls takes; of a path it is
    what generate would make for itself. Stopped, the same command goes on.
    """
    from longvie_cli.workflows import extract_controls as workflow

    if dry_run:
        return workflow.plan(request, console)
    return workflow.extract_controls(request, console)
