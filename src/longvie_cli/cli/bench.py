"""`longvie bench`: how fast a preset runs here, engine by engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from longvie_cli.cli import flags as f
from longvie_cli.cli import options as o
from longvie_cli.cli.command import command

if TYPE_CHECKING:
    from longvie_cli.cli.console import Console
    from longvie_cli.result import ReportResult
    from longvie_cli.settings.requests import BenchRequest


class Benchmark:
    """What is compared, and how often."""

    engine: Annotated[
        str | None,
        f.flag(
            f.MODEL,
            "Engines to compare, with commas: reference, a plain diffusers loop of the same model; "
            "fused; bf16, fused in bfloat16; fp8 and int8, fused, products in 8 bits. Default "
            "reference,fused.",
            metavar="LIST",
            values=("reference,fused", "reference,fused,bf16,fp8"),
        ),
    ]
    random_weights: Annotated[
        bool | None,
        f.flag(
            f.MODEL,
            "Random weights of the preset's sizes: times are the same, the video is noise.",
            "--random-weights",
        ),
    ]
    repeats: Annotated[
        int | None, f.flag(f.LENGTH, "Clips of each engine; default 3.", metavar="N")
    ]
    memory_limit: Annotated[
        str | None,
        f.flag(
            f.MACHINE,
            "Take no more of the GPU than this, as in 24GB; with --dry-run, plan for a GPU of "
            "that size.",
            metavar="SIZE",
        ),
    ]
    picture: Annotated[
        Path | None,
        f.flag(f.OUTPUT, "Write a picture of the roofline here.", metavar="FILE.svg"),
    ]
    overwrite: Annotated[
        bool | None, f.flag(f.OUTPUT, "Replace the picture if it is there.", "--overwrite")
    ]


@command(
    *(Benchmark, o.DryRun, o.Preset, o.Size, o.Sampling, o.Device, o.Machine),
    examples=(
        "longvie bench",
        "longvie bench --engine reference,fused,bf16 --picture roofline.svg",
        "longvie bench --preset longvie2 --random-weights --engine reference,fused,fp8 --json",
        "longvie bench --preset longvie2 --engine fused,fp8 --memory-limit 24GB --dry-run",
    ),
)
def bench(request: BenchRequest, console: Console, dry_run: bool) -> ReportResult:
    """Measure how fast a preset makes a clip here, engine by engine, and where the time goes.

    Each engine runs in a process of its own and they take turns; figures are medians. For every
    stage (encode, self-attention, cross-attention, FFN, control branches, glue, decode, IO) it
    says seconds, operations a second and their share of what this machine was seen to do in the
    same run, and how far the latents are from those of the reference.
    """
    from longvie_cli.workflows import bench as workflow

    return workflow.plan(request, console) if dry_run else workflow.bench(request, console)
