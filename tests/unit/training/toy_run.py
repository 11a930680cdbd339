"""A training run at toy size, here and as a program: `toy_run.py FOLDER STAGE [KILL]`.

KILL `at-N`: SIGKILL after step N was taken and logged. `save-N`: SIGKILL in the middle of writing
the N-th checkpoint, before it has its name. `join-R`: process R of two.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.progress import SilentProgress
from longvie_cli.settings.training import (
    ColourDrift,
    Degradation,
    DenseScale,
    DepthDegradation,
    FrameDegradation,
    Stage,
    TrainingSettings,
)
from longvie_cli.training.dataset import Sample
from longvie_cli.training.loop import TrainingResult
from longvie_cli.training.training_run import TrainingRun
from small_models import small_pipeline

# Everything happens often, so that whatever is drawn is drawn within a few samples.
OFTEN = FrameDegradation(
    probability=0.7,
    reencode_share=0.5,
    regenerate_steps=(1, 2),
    regenerate_weights=(1, 1),
    cycles=(1, 2),
    cycle_weights=(1, 1),
    colour_drift=ColourDrift(probability=0.5),
)
SETTINGS = TrainingSettings(
    seed=5,
    steps=6,
    batch=2,
    learning_rate=1e-3,
    first_steps=2,
    checkpoint_every=2,
    dtype="float32",
    degradation=Degradation(
        dense_scale=DenseScale(probability=0.5),
        depth=DepthDegradation(probability=0.5),
        frame=OFTEN,
        history=OFTEN,
    ),
)


class ToySamples:
    """Three smooth clips of 5 frames 16x24 that move, with 8 frames before them."""

    length = 3

    def sample(self, number: int) -> Sample:
        rng = np.random.default_rng(number)
        tile = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
        film = np.stack([np.roll(tile, shift, axis=1) for shift in range(13)])
        grey = np.repeat(film.mean(axis=-1, keepdims=True), 3, axis=-1).astype(np.uint8)
        return Sample(film[8:], grey[8:], film[8:] // 2, film[:8], f"clip {number}")


def toy_pipeline() -> LongViePipeline:
    return small_pipeline()


def toy_run(folder: Path, stage: Stage = "history", **changes: Any) -> TrainingRun:
    progress = changes.pop("progress", None)
    pipeline = changes.pop("pipeline", None) or toy_pipeline()
    validation = changes.pop("validation", None)
    settings = SETTINGS.model_copy(update=changes)
    return TrainingRun(
        folder, stage, settings, pipeline, ToySamples(), progress=progress, validation=validation
    )


def train(folder: Path, stage: Stage = "history", **changes: Any) -> TrainingResult:
    return toy_run(folder, stage, **changes).run()


class _KilledAt(SilentProgress):
    def __init__(self, step: int) -> None:
        self.left = step

    def advance(self, stage: str, amount: int = 1, *, detail: str = "") -> None:
        self.left -= amount
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _kill_in_save(number: int) -> None:
    """Die at the `number`-th renaming of a checkpoint, when all of it has been written."""
    left, rename = [number], os.rename

    def dying(source: Any, target: Any) -> None:
        left[0] -= not str(target).endswith(".part")
        if left[0] == 0:
            state = Path(source) / "state.pt"
            os.truncate(state, state.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)

    os.rename = dying


def main(folder: str, stage: Any, how: str = "at-0") -> None:
    torch.set_num_threads(1)
    what, _, number = how.partition("-")
    progress = _KilledAt(int(number)) if what == "at" else None
    if what == "save":
        _kill_in_save(int(number))
    if what == "join":
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}.meeting", rank=int(number), world_size=2
        )
    train(Path(folder), stage, progress=progress)
    if what == "join":
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
