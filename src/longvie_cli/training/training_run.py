"""A training stage of the real recipe: samples, rates and validation for the loop that trains.

A step's samples do not depend on the number of the processes that share them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from longvie_cli.disk.durable import write_atomic
from longvie_cli.errors import OutputConflictError
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.progress import Progress
from longvie_cli.settings.training import LEARNING_RATES, STEPS, Stage, TrainingSettings
from longvie_cli.training.dataset import Samples
from longvie_cli.training.loop import LoopSettings, TrainingLoop, process_place, wait_for_all
from longvie_cli.training.run_checks import (
    check_same_settings,
    check_sharded,
    check_shares,
    deciding,
)
from longvie_cli.training.sharding import shard
from longvie_cli.training.stage_loss import StageLoss
from longvie_cli.training.stages import freeze_for
from longvie_cli.training.validation import Validation

_FIRST_FACTOR = 1 / 3


class TrainingRun(TrainingLoop):
    """One stage in one folder, taken up where its newest checkpoint stands.

    Beside what every loop writes, `validation/` (a clip each time) lies in the folder.

    Args:
        folder: Made if needed.
        stage: What is trained.
        settings: How.
        pipeline: The model; its transformer is trained in place, in float32.
        samples: What it is trained on.
        progress: Told of steps, stage `training`.
        validation: Samples kept aside; None: the run is not validated.
        fps: Of the validation's clips.
    """

    def __init__(
        self,
        folder: Path,
        stage: Stage,
        settings: TrainingSettings,
        pipeline: LongViePipeline,
        samples: Samples,
        *,
        progress: Progress | None = None,
        validation: Samples | None = None,
        fps: int = 16,
    ) -> None:
        self.stage: Stage = stage
        self.settings = settings
        self.transformer: nn.Module = pipeline.transformer
        self.loss = StageLoss(pipeline, samples, stage, settings)
        self.validation = (
            None
            if validation is None
            else Validation(pipeline, validation, stage, settings, fps=fps)
        )
        num_processes = process_place()[1]
        check_shares(settings.batch, num_processes)
        for name in ("vae", "text_encoder", "image_encoder"):
            getattr(pipeline, name).requires_grad_(False)
        names = freeze_for(self.transformer, stage)
        if settings.sharded:
            check_sharded(settings, num_processes)
            shard(pipeline.transformer)
        parameters = dict(self.transformer.named_parameters())
        trained = {name: parameters[name] for name in names}
        super().__init__(
            folder,
            trained,
            lambda parts: torch.optim.AdamW(
                parts.values(),
                lr=settings.learning_rate or LEARNING_RATES[stage],
                weight_decay=settings.weight_decay,
            ),
            LoopSettings(
                num_steps=settings.steps or STEPS[stage],
                ema_decay=settings.ema_decay,
                max_grad_norm=settings.max_grad_norm,
                keep_checkpoints=settings.keep_checkpoints,
                sharded=settings.sharded,
            ),
            progress=progress,
        )
        pipeline.transformer.train()
        if settings.gradient_checkpointing:
            pipeline.transformer.enable_gradient_checkpointing()

    def _add_gradients(self) -> tuple[Tensor, dict[str, float]]:
        share = self.settings.batch // self.num_processes
        first = self.step * self.settings.batch + self.rank * share
        total = torch.zeros((), dtype=torch.float64)
        for position in range(first, first + share):
            loss = self.loss.at(position, step=self.step).total / self.settings.batch
            loss.backward()
            total = total.to(loss.device) + loss.detach()
        return total, {}

    def _learning_rate(self) -> float:
        factor = _FIRST_FACTOR if self.step < self.settings.first_steps else 1.0
        return (self.settings.learning_rate or LEARNING_RATES[self.stage]) * factor

    def _identity(self) -> dict[str, Any]:
        return {"stage": self.stage, "settings": deciding(self.settings)}

    def _check_identity(self, checkpoint: Path, state: Mapping[str, Any]) -> None:
        if set(state["trained"]) != set(self.names) or state["stage"] != self.stage:
            raise OutputConflictError(
                f"{checkpoint}: belongs to stage {state['stage']} or to another model, not to "
                f"{self.stage} of this one.",
                hint="Name another output folder.",
            )
        check_same_settings(checkpoint, state["settings"], self.settings)

    def _is_checkpoint_due(self) -> bool:
        return self.step % self.settings.checkpoint_every == 0

    def _after_step(self, loss: float) -> None:
        """Note the loss of the averaged weights on the samples kept aside, and write a clip."""
        if self.step != self.loop.num_steps and self.step % self.settings.validate_every:
            return
        # With sharded weights all have to take part.
        if self.validation is not None and (self.rank == 0 or self.settings.sharded):
            with self._average_in_place():
                held_out = self.validation.loss()
                clip = self.validation.clip()
            if self.rank == 0:
                place = self.folder / "validation" / f"step-{self.step:08d}"
                self.validation.write_clip(place.with_suffix(".mp4"), clip)
                row = {"step": self.step, "loss": held_out}
                write_atomic(place.with_suffix(".json"), json.dumps(row).encode() + b"\n")
                self._log.show({"step": self.step, "validation_loss": held_out})
                self.progress.message(f"step {self.step}: validation loss {held_out:.4f}")
        wait_for_all()
