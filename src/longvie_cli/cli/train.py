"""`longvie train`: a stage of training, from its file to a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from longvie_cli.cli import flags as f
from longvie_cli.cli import options as o
from longvie_cli.cli.command import command

if TYPE_CHECKING:
    from longvie_cli.cli.console import Console
    from longvie_cli.result import TrainResult
    from longvie_cli.settings.training import Stage


class Training:
    """What is trained, how, and where it is kept."""

    stage: Annotated[
        Literal["base", "control", "degradation", "history"],
        typer.Argument(
            metavar="STAGE",
            help="base: all but the control branches; control: these alone; degradation: these, on "
            "pictures made worse; history: these and all self-attention.",
        ),
    ]
    config: Annotated[
        Path,
        f.flag(
            f.INPUT,
            "Settings of the stage, YAML; docs/training.md says all. Relative paths in it start "
            "from its folder.",
            metavar="F.yaml",
        ),
    ]
    output: Annotated[
        Path | None,
        f.flag(
            f.OUTPUT,
            "Run folder; default F.train beside F.yaml.",
            *("-o", "--output"),
            metavar="DIR",
        ),
    ]


@command(
    Training,
    o.DryRun,
    examples=(
        "longvie train control --config examples/train/tiny-control.yaml -o runs/control",
        "longvie train control --config control.yaml --dry-run",
        "torchrun --nproc-per-node 8 -m longvie_cli train history --config history.yaml -o run",
        "longvie generate --weights runs/control/preset -p '...' --seconds 4 -o out.mp4",
    ),
    together=True,
)
def train(
    stage: Stage, config: Path, output: Path | None, dry_run: bool, console: Console
) -> TrainResult:
    """Train one stage of the model: base, control, degradation or history.

    Stopped or killed at any moment, the same command goes on from the newest checkpoint with the
    same losses. The run folder holds checkpoints, losses.jsonl, validation clips and, at the end,
    the model: preset/ for generate --weights, released/ in the format of Vchitect/LongVie2.
    Processes of torchrun share the samples of each step.
    """
    from longvie_cli.workflows import train as workflow

    if dry_run:
        return workflow.plan(stage, config, output, console)
    return workflow.train(stage, config, output, console)
