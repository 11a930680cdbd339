"""One resumable training stage: steps, schedule, averaged weights, checkpoints, log."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

from longvie_cli.training.optimizers import Optimizers

logger = logging.getLogger(__name__)

# Checkpoints are a few tens of MB; losing five minutes to a kill costs less than writing each step.
CHECKPOINT_SECONDS = 180.0
LOG_STEPS = 25


def warmup_cosine(step_index: int, num_steps: int, *, warmup_steps: int = 100) -> float:
    """Return the learning-rate factor: linear warm-up, then a half cosine down to 2 %."""
    if step_index < warmup_steps:
        return (step_index + 1) / warmup_steps
    done = (step_index - warmup_steps) / max(1, num_steps - warmup_steps)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def process_place() -> tuple[int, int]:
    """Return this process's rank and the number of processes that train together."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


class AveragedWeights:
    """An exponential moving average of parameters in float32; what is shipped is the average."""

    def __init__(self, modules: Mapping[str, nn.Module], decay: float) -> None:
        self.decay = decay
        self.modules = modules
        self.shadow = {
            f"{name}.{key}": value.detach().float().clone()
            for name, module in modules.items()
            for key, value in module.named_parameters()
        }

    @torch.no_grad()
    def update(self, step_index: int) -> None:
        """Fold the current parameters in; the first steps count more (Adam-style warm start)."""
        decay = min(self.decay, (1 + step_index) / (10 + step_index))
        for name, module in self.modules.items():
            for key, value in module.named_parameters():
                self.shadow[f"{name}.{key}"].lerp_(value.detach().float(), 1 - decay)

    @torch.no_grad()
    def copy_to_modules(self) -> None:
        """Write the average into the modules' parameters."""
        for name, module in self.modules.items():
            for key, value in module.named_parameters():
                value.copy_(self.shadow[f"{name}.{key}"])


def _any_process(flag: bool) -> bool:
    """Return whether the flag is set in any process, so that all of them stop at the same step."""
    if not distributed.is_initialized():
        return flag
    shared = torch.tensor(int(flag))
    distributed.all_reduce(shared, distributed.ReduceOp.MAX)
    return bool(shared)


class _Log:
    """Averages the numbers of a few steps into one JSON line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []
        self.began = time.monotonic()

    def add(self, step: int, row: dict[str, float]) -> None:
        """Take the numbers of a step; write a line once `LOG_STEPS` are together."""
        self.rows.append(row)
        if step % LOG_STEPS:
            return
        line: dict[str, float] = {"step": step}
        for key in sorted({key for each in self.rows for key in each}):
            values = [each[key] for each in self.rows if key in each]
            line[key] = round(sum(values) / len(values), 5)
        now = time.monotonic()
        line["seconds_per_step"] = round((now - self.began) / len(self.rows), 4)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        logger.info("%s %s", self.path.stem, line)
        self.rows, self.began = [], now


def run_stage(
    name: str,
    folder: Path,
    *,
    modules: Mapping[str, nn.Module],
    num_steps: int,
    learning_rate: float,
    compute_loss: Callable[[int, torch.Generator], tuple[Tensor, dict[str, float]]],
    seed: int,
    ema_decay: float = 0.999,
    muon: bool = False,
    weight_decay: float = 0.01,
    stop_after_seconds: float | None = None,
) -> AveragedWeights:
    """Train `modules` for `num_steps` steps, going on from the stage's checkpoint if there is one.

    Args:
        name: The stage; names its checkpoint `<name>.pt` and log `<name>.jsonl` in `folder`.
        modules: What is trained; parameters without a gradient stay as they are.
        compute_loss: Takes the step index and a generator, returns the loss and numbers for the
            log. The generator is seeded by the step, so a resumed run draws what an unbroken one
            draws.
        stop_after_seconds: End early (with a checkpoint) after this long; the schedule still
            spans `num_steps`, so the next call goes on with it.

    Returns:
        The averaged weights (not yet copied into the modules).

    Raises:
        FloatingPointError: the gradient is not finite.
    """
    optimizers = Optimizers(
        modules, learning_rate=learning_rate, weight_decay=weight_decay, muon=muon
    )
    average = AveragedWeights(modules, ema_decay)
    checkpoint = folder / f"{name}.pt"
    start = _restore(checkpoint, modules, optimizers, average) if checkpoint.exists() else 0
    for module in modules.values():
        module.train()
    rank, world_size = process_place()
    log = _Log(folder / f"{name}.jsonl")
    began = saved_at = time.monotonic()
    for step in range(start, num_steps):
        draws = torch.Generator().manual_seed((seed * 1_000_003 + step) * world_size + rank)
        loss, numbers = compute_loss(step, draws)
        norm = optimizers.step(loss, warmup_cosine(step, num_steps))
        average.update(step)
        if rank == 0:
            log.add(step + 1, {"loss": loss.item(), "grad_norm": norm, **numbers})
        now = time.monotonic()
        stop = _any_process(stop_after_seconds is not None and now - began > stop_after_seconds)
        due = stop or now - saved_at > CHECKPOINT_SECONDS or step + 1 == num_steps
        if due and rank == 0:
            _save(checkpoint, step + 1, modules, optimizers, average)
            saved_at = time.monotonic()
        if stop:
            logger.info("%s: stopped at step %d of %d", name, step + 1, num_steps)
            break
    for module in modules.values():
        module.eval()
    return average


def _save(
    checkpoint: Path,
    step: int,
    modules: Mapping[str, nn.Module],
    optimizers: Optimizers,
    average: AveragedWeights,
) -> None:
    part = checkpoint.with_suffix(".part")
    torch.save(
        {
            "step": step,
            "modules": {key: module.state_dict() for key, module in modules.items()},
            "optimizers": [optimizer.state_dict() for optimizer in optimizers.all],
            "average": average.shadow,
        },
        part,
    )
    os.replace(part, checkpoint)


def _restore(
    checkpoint: Path,
    modules: Mapping[str, nn.Module],
    optimizers: Optimizers,
    average: AveragedWeights,
) -> int:
    """Put a checkpoint back; return its step."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    for key, module in modules.items():
        module.load_state_dict(state["modules"][key])
    for optimizer, saved in zip(optimizers.all, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    average.shadow = state["average"]
    logger.info("%s: going on from step %d", checkpoint.stem, state["step"])
    return int(state["step"])


def load_average(folder: Path, name: str, modules: Mapping[str, nn.Module]) -> int:
    """Put the averaged weights of a stage's checkpoint into modules; return its step.

    Raises:
        FileNotFoundError: the stage has not run yet.
    """
    checkpoint = folder / f"{name}.pt"
    if not checkpoint.exists():
        raise FileNotFoundError(f"{checkpoint}: run the stage {name} first")
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    for key, module in modules.items():
        module.load_state_dict(state["modules"][key])
        average = {
            parameter: state["average"][f"{key}.{parameter}"]
            for parameter, _ in module.named_parameters()
        }
        module.load_state_dict(average, strict=False)
        module.eval()
    return int(state["step"])
