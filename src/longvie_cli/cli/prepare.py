"""`longvie prepare`: long videos become training samples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from longvie_cli.cli import flags as f
from longvie_cli.cli import options as o
from longvie_cli.cli.command import command

if TYPE_CHECKING:
    from longvie_cli.cli.console import Console
    from longvie_cli.result import PrepareResult
    from longvie_cli.settings.requests import PrepareRequest


class Preparing:
    """What is cut into samples, what they are called, and where they go."""

    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="VIDEOS", help="Videos of any length, size, rate and number of scenes."
        ),
    ]
    output: Annotated[
        Path, f.flag(f.OUTPUT, "The folder to make.", "-o", "--output", metavar="DATA")
    ]
    captions: Annotated[
        Path | None,
        f.flag(
            f.INPUT,
            "YAML or JSON of captions, {VIDEO: text}; default a text file beside each video, "
            "NAME.txt for NAME.mp4, plain or with lines `[0s-20s] text`.",
            metavar="FILE",
        ),
    ]
    captioner: Annotated[
        Path | None,
        f.flag(
            f.INPUT,
            "Folder of an image captioning model of transformers (BLIP, GIT): it captions the "
            "clips that have none, by the picture in their middle.",
            metavar="DIR",
        ),
    ]
    uncaptioned: Annotated[
        Literal["drop", "empty"] | None,
        f.flag(
            f.INPUT,
            "What becomes of clips without a caption: drop (default), or keep with an empty one.",
        ),
    ]
    overwrite: Annotated[
        bool | None,
        f.flag(f.OUTPUT, "Replace samples in the folder that were made otherwise.", "--overwrite"),
    ]


@command(
    *(Preparing, o.Size, o.Fit, o.Tracking, o.Depth, o.DryRun, o.Preset, o.Device, o.Offline),
    examples=(
        "longvie prepare films/*.mp4 --dry-run -o data/",
        "longvie prepare films/*.mp4 --preset longvie2 -o data/",
        "longvie prepare walk.mp4 --captions captions.yaml --depth-model small -o data/",
        "longvie prepare walk.mp4 --uncaptioned empty -o data/",
    ),
)
def prepare(request: PrepareRequest, console: Console, dry_run: bool) -> PrepareResult:
    """Cut long videos into training samples: clips with controls, captions and history.

    Each video is decoded once to count its frames and to find its scenes, and each scene is cut
    into clips of the preset's length; the up to 16 frames before a clip in its scene go along as
    its history. What is too short, still, flat, uncaptioned or damaged is dropped, with a table
    of the reasons. Stopped, the same command goes on and ends with the same bytes.
    """
    from longvie_cli.workflows import prepare as workflow

    return workflow.plan(request, console) if dry_run else workflow.prepare(request, console)
