"""A stage of the embedded model's training: any modules and loss, in the loop of every training."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from longvie_cli.errors import InputError, OutputConflictError
from longvie_cli.training.checkpoints import finished_checkpoints
from longvie_cli.training.loop import (
    CHECKPOINTS_NAME,
    LoopSettings,
    TrainingLoop,
    averaged_weights,
)
from longvie_cli.training.loss_log import LOSSES_NAME
from longvie_cli.training.optimizers import MuonWithAdamW

logger = logging.getLogger(__name__)

# Checkpoints are some hundred MB; losing three minutes to a kill costs less than one each step.
CHECKPOINT_SECONDS = 180.0
LOG_STEPS = 25

LossOfStep = Callable[[int, torch.Generator], tuple[Tensor, dict[str, float]]]
"""Takes the step's index and a generator; returns the loss and numbers for the log."""


@dataclass(frozen=True)
class StageSettings:
    """How a stage is optimised.

    Args:
        num_steps: Optimizer steps.
        learning_rate: Its peak; `warmup_cosine` shapes it.
        seed: Of all that is drawn. The generator of a step is seeded by the step, so that a resumed
            stage draws what an unbroken one draws.
        muon: Muon for the hidden matrices instead of AdamW for all.
        ema_decay: Of the averaged weights, which are what is shipped.
        weight_decay: Of all weights.
    """

    num_steps: int
    learning_rate: float
    seed: int
    muon: bool = False
    ema_decay: float = 0.999
    weight_decay: float = 0.01


def warmup_cosine(step_index: int, num_steps: int, *, warmup_steps: int = 100) -> float:
    """Return the learning-rate factor: linear warm-up, then a half cosine down to 2 %."""
    if step_index < warmup_steps:
        return (step_index + 1) / warmup_steps
    done = (step_index - warmup_steps) / max(1, num_steps - warmup_steps)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class _Stage(TrainingLoop):
    """One stage in its own folder of the work folder."""

    def __init__(
        self,
        folder: Path,
        modules: Mapping[str, nn.Module],
        compute_loss: LossOfStep,
        settings: StageSettings,
        stop_after_seconds: float | None,
    ) -> None:
        self.settings = settings
        self._compute_loss = compute_loss
        self._stop_after = stop_after_seconds
        self._began = self._saved_at = self._stepped_at = time.monotonic()
        self._recent: list[float] = []

        def optimizer(parts: dict[str, nn.Parameter]) -> Any:
            decay = settings.weight_decay
            if settings.muon:
                return MuonWithAdamW(parts, weight_decay=decay)
            return torch.optim.AdamW(parts.values(), weight_decay=decay, betas=(0.9, 0.95))

        super().__init__(
            folder,
            {
                name: parameter
                for name, parameter in nn.ModuleDict(modules).named_parameters()
                if parameter.requires_grad
            },
            optimizer,
            LoopSettings(
                num_steps=settings.num_steps,
                ema_decay=settings.ema_decay,
                max_grad_norm=1.0,
                keep_checkpoints=1,
            ),
        )

    def _add_gradients(self) -> tuple[Tensor, dict[str, float]]:
        seed = (self.settings.seed * 1_000_003 + self.step) * self.num_processes + self.rank
        loss, numbers = self._compute_loss(self.step, torch.Generator().manual_seed(seed))
        share = loss / self.num_processes
        share.backward()
        now = time.monotonic()
        numbers = numbers | {"seconds": round(now - self._stepped_at, 4)}
        self._stepped_at = now
        return share, numbers

    def _learning_rate(self) -> float:
        settings = self.settings
        return settings.learning_rate * warmup_cosine(self.step, settings.num_steps)

    def _identity(self) -> dict[str, Any]:
        return {"stage": self.folder.name}

    def _check_identity(self, checkpoint: Path, state: Mapping[str, Any]) -> None:
        sizes = {name: tensor.shape for name, tensor in state["trained"].items()}
        own = dict(zip(self.names, (part.shape for part in self.parameters), strict=True))
        if (state["stage"], sizes) != (self.folder.name, own):
            raise OutputConflictError(
                f"{checkpoint}: belongs to another stage, or to a model of other layers.",
                hint="Name another work folder, or remove that of the stage.",
            )

    def _after_step(self, loss: float) -> None:
        self._recent.append(loss)
        if self.step % LOG_STEPS == 0:
            mean = sum(self._recent) / len(self._recent)
            logger.info("%s: step %d, loss %.4f", self.folder.name, self.step, mean)
            self._recent = []

    def _is_checkpoint_due(self) -> bool:
        due = self._in_any_process(time.monotonic() - self._saved_at > CHECKPOINT_SECONDS)
        if due:
            self._saved_at = time.monotonic()
        return due

    def _has_to_stop(self) -> bool:
        limit = self._stop_after
        return self._in_any_process(limit is not None and time.monotonic() - self._began > limit)

    def _in_any_process(self, flag: bool) -> bool:
        if not distributed.is_initialized():
            return flag
        shared = torch.tensor(int(flag))
        distributed.all_reduce(shared, distributed.ReduceOp.MAX)
        return bool(shared)


def run_stage(
    name: str,
    work: Path,
    modules: Mapping[str, nn.Module],
    compute_loss: LossOfStep,
    settings: StageSettings,
    *,
    stop_after_seconds: float | None = None,
) -> int:
    """Train `modules`, going on where the stage stands; they end with the averaged weights.

    Args:
        name: The stage; its folder in `work` holds checkpoints and log.
        work: The work folder.
        modules: What is trained; parameters without a gradient stay as they are.
        compute_loss: The loss of a step.
        settings: How.
        stop_after_seconds: End early (with a checkpoint) after this long; the schedule still
            spans all steps, so the next call goes on with it.

    Returns:
        The step it stands at.

    Raises:
        ResumableError: The loss or its gradient is not finite.
    """
    for module in modules.values():
        module.train()
    stage = _Stage(work / name, modules, compute_loss, settings, stop_after_seconds)
    result = stage.run()
    assert stage.average is not None, "every stage has an average"
    stage.average.copy_to(stage.parts)
    for module in modules.values():
        module.eval()
    if result.step < settings.num_steps:
        logger.info("%s: stopped at step %d of %d", name, result.step, settings.num_steps)
    return result.step


def stage_checkpoint(work: Path, name: str) -> Path | None:
    """Return the newest checkpoint of a stage; None where it has not run."""
    found = finished_checkpoints(work / name / CHECKPOINTS_NAME)
    return found[-1] if found else None


@torch.no_grad()
def load_stage(work: Path, name: str, modules: Mapping[str, nn.Module]) -> None:
    """Put the averaged weights of a stage into some of its modules.

    Raises:
        FileNotFoundError: The stage has not run yet.
        InputError: Its weights are of another model, or say nothing of a module.
    """
    checkpoint = stage_checkpoint(work, name)
    if checkpoint is None:
        raise FileNotFoundError(f"{work / name}: run the stage {name} first")
    weights = averaged_weights(checkpoint)
    for key, module in modules.items():
        own = {k.removeprefix(f"{key}."): v for k, v in weights.items() if k.startswith(f"{key}.")}
        parameters = dict(module.named_parameters())
        if not own or any(
            k not in parameters or parameters[k].shape != v.shape for k, v in own.items()
        ):
            raise InputError(f"{checkpoint}: what it says of {key} does not fit this model.")
        for parameter, value in own.items():
            parameters[parameter].copy_(value)
        module.eval()


def stage_losses(work: Path) -> dict[str, Any]:
    """Return of every stage that ran the means of its first and last steps, and its seconds."""
    summary: dict[str, Any] = {}
    for path in sorted(work.glob(f"*/{LOSSES_NAME}")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if rows:
            summary[path.parent.name] = {
                "steps": rows[-1]["step"],
                "first": _means(rows[:LOG_STEPS]),
                "last": _means(rows[-LOG_STEPS:]),
                "seconds": round(sum(row["seconds"] for row in rows)),
            }
    return summary


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    keys = sorted({key for row in rows for key in row} - {"step", "lr"})
    found = {key: [row[key] for row in rows if key in row] for key in keys}
    return {key: round(sum(values) / len(values), 5) for key, values in found.items()}
