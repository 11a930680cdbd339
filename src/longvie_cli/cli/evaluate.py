"""`longvie evaluate`: is it still good after five minutes?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longvie_cli.cli import flags as f
from longvie_cli.cli.command import command

if TYPE_CHECKING:
    from longvie_cli.cli.console import Console
    from longvie_cli.result import ReportResult
    from longvie_cli.settings.requests import EvaluateRequest


class Evaluating:
    """What is measured, and against what."""

    video: Annotated[
        Path,
        typer.Argument(
            metavar="VIDEO", help="Any video, of longvie or not; or a run folder, finished or not."
        ),
    ]
    reference: Annotated[
        Path | None,
        f.flag(
            f.INPUT, "What it should look like: PSNR, SSIM and VMAF against it.", metavar="VIDEO"
        ),
    ]
    controls: Annotated[
        Path | None,
        f.flag(
            f.INPUT,
            "Controls that it was to follow, a folder or cond.json; default those of its run.",
            metavar="DIR|FILE",
        ),
    ]
    run: Annotated[
        Path | None,
        f.flag(
            f.INPUT,
            "Its run folder: where clips begin, and its controls; default the one beside it.",
            metavar="RUN",
        ),
    ]
    compare: Annotated[
        list[Path] | None,
        f.flag(
            f.INPUT, "Another video, measured in the same way; may be repeated.", metavar="VIDEO"
        ),
    ]
    report: Annotated[
        Path | None,
        f.flag(
            f.OUTPUT,
            "Write a report here: one page with player, curves, pictures and settings.",
            metavar="R.html",
        ),
    ]
    overwrite: Annotated[
        bool | None, f.flag(f.OUTPUT, "Replace the report if it is there.", "--overwrite")
    ]


@command(
    Evaluating,
    examples=(
        "longvie evaluate out.mp4 --report out.html",
        "longvie evaluate out.mp4 --reference ref.mp4 --json",
        "longvie evaluate any.mp4 --controls out/controls",
        "longvie evaluate snow.mp4 --compare dunes.mp4 --compare hills.mp4",
    ),
)
def evaluate(request: EvaluateRequest, console: Console) -> ReportResult:
    """Measure a video: drift, seams, motion, consistency over time, fidelity to its controls.

    A file of longvie is read with the clips and controls of its run folder. Nothing is downloaded;
    what needs a network that is not here is named as not measured. docs/evaluation.md says what
    every number means.
    """
    from longvie_cli.workflows import evaluate as workflow

    return workflow.evaluate(request, console)
