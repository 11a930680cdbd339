"""`longvie generate`: a whole video from a prompt and a source of controls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from longvie_cli.cli import flags as f
from longvie_cli.cli import options as o
from longvie_cli.cli.command import command

if TYPE_CHECKING:
    from longvie_cli.cli.console import Console
    from longvie_cli.result import JobResult
    from longvie_cli.settings.requests import GenerateRequest


class FirstFrame:
    """Flags of the first frame."""

    image: Annotated[Path | None, f.flag(f.INPUT, "Picture to begin with.", metavar="FILE")]
    first_frame: Annotated[
        Literal["video", "prompt"] | None,
        f.flag(
            f.INPUT,
            "The first frame: of the source, or made from the prompt and the source's geometry.",
        ),
    ]


class Report:
    """What is made beside the video."""

    report: Annotated[
        Path | None,
        f.flag(
            f.OUTPUT,
            "Report of `longvie evaluate`, written at the end.",
            metavar="R.html",
        ),
    ]


@command(
    *(*o.MAKING, FirstFrame, Report),
    examples=(
        'longvie generate --video ref.mp4 -p "snowy mountains at dawn" --seconds 10 -o out.mp4',
        'longvie generate --video ref.mp4 --first-frame prompt -p "red desert dunes" -o out.mp4',
        'longvie generate --prompt "green hills, morning fog" --minutes 1 --seed 7 -o flight.mp4',
        'longvie generate --image photo.jpg --camera forward -p "a valley" --minutes 1 -o out.mp4',
        "longvie generate --controls controls/ --image first.png -o out.mp4",
    ),
    together=True,
)
def generate(
    request: GenerateRequest, console: Console, dry_run: bool, report: Path | None
) -> JobResult:
    """Make a video from a prompt, following the geometry and motion of a source.

    The source is a video (--video), controls made before (--controls), a camera path (--camera)
    through the --image or over a landscape, or, with none of them, a flight over a landscape drawn
    from the seed. Killed at any time, the same command goes on where it stopped and gives the same
    frames.
    """
    from longvie_cli.workflows import generate as workflow

    if dry_run:
        return workflow.plan(request, console, report=report)
    return workflow.generate(request, console, report=report)
