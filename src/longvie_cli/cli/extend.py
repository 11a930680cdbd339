"""`longvie extend`: more of a video that exists."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from longvie_cli.cli import flags as f
from longvie_cli.cli import options as o
from longvie_cli.cli.command import command

if TYPE_CHECKING:
    from longvie_cli.cli.console import Console
    from longvie_cli.result import JobResult
    from longvie_cli.settings.requests import ExtendRequest


class Continuing:
    """What is continued, and the flags that mean something else where a video goes on."""

    previous: Annotated[Path, typer.Argument(metavar="PREVIOUS.mp4", help="The video to continue.")]
    first_frame: Annotated[
        Literal["video", "prompt"] | None,
        f.flag(
            f.INPUT,
            "Where a scene begins anew (--at-cut restart): with the source's picture, or one made "
            "from the prompt; default as in the earlier video.",
        ),
    ]
    audio: Annotated[
        str | None,
        f.flag(
            f.OUTPUT,
            "Sound of what is added: source, of the video it goes on with; FILE, of the whole "
            "video, gone on with from here. none: no sound at all. Default as in the earlier "
            "video, which keeps its own.",
            metavar="none|source|FILE",
            values=("none", "source"),
        ),
    ]


@command(
    *o.MAKING,
    Continuing,
    examples=(
        "longvie extend out.mp4 --seconds 10 -o longer.mp4",
        'longvie extend out.mp4 --prompt "night falls" --minutes 1 -o night.mp4',
        'longvie extend out.mp4 --camera "turn left 90 in 6s, forward" --minutes 1 -o on.mp4',
        "longvie extend out.mp4 --video next.mp4 --depth-model small --audio source -o on.mp4",
        'longvie extend phone.mp4 --video ref.mp4 --prompt "snowy forest" --clips 2 -o on.mp4',
    ),
    together=True,
)
def extend(request: ExtendRequest, console: Console, dry_run: bool) -> JobResult:
    """Continue a video of ours without loss, or any other mp4 from its last frames.

    Goes on with what is left of the run's source, with a new --video or --controls, or along a
    --camera path through its last frame. The length is what is added. The earlier frames are
    copied, not encoded again; what is not said is as it was when the earlier video was made.
    """
    from longvie_cli.workflows import extend as workflow

    return workflow.plan(request, console) if dry_run else workflow.extend(request, console)
