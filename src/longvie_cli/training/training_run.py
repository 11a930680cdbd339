"""The loop of a training stage: steps, average, checkpoints, log; killed at any step it goes on.

Processes started together (torchrun, gloo or NCCL) share the samples of each step and average
their gradients; each holds the whole model. A step's samples do not depend on their number.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from filelock import FileLock, Timeout
from torch import Tensor, distributed, nn

from longvie_cli.disk.durable import make_folder, write_atomic
from longvie_cli.errors import InputError, OutputConflictError, ResumableError
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.settings.training import LEARNING_RATES, STEPS, Stage, TrainingSettings
from longvie_cli.training.checkpoints import (
    SHARDS,
    begin_sharded,
    finished_checkpoints,
    load_checkpoint,
    save_checkpoint,
    shards_of_part,
)
from longvie_cli.training.dataset import Samples
from longvie_cli.training.loss_log import LossLog
from longvie_cli.training.run_checks import (
    check_same_settings,
    check_sharded,
    check_shares,
    check_steps,
    deciding,
)
from longvie_cli.training.sharded_state import (
    MOMENTS,
    read_shards,
    read_whole,
    with_empty_parts,
    without_parts,
    write_shards,
)
from longvie_cli.training.sharding import (
    hand_over_gradients,
    norm_of_parts,
    own_parts,
    put_together,
    shard,
)
from longvie_cli.training.stage_loss import StageLoss
from longvie_cli.training.stages import freeze_for
from longvie_cli.training.validation import Validation

logger = logging.getLogger(__name__)

_FIRST_FACTOR = 1 / 3
LOCK_NAME = ".lock"
"""What keeps other runs out of a folder."""


@dataclass(frozen=True)
class TrainingResult:
    """Where a stage stands.

    Args:
        step: Optimizer steps taken.
        loss: Of the last step; None where none was taken now.
        checkpoint: Its folder.
    """

    step: int
    loss: float | None
    checkpoint: Path


class TrainingRun:
    """One stage in one folder, taken up where its newest checkpoint stands.

    `checkpoints/step-N/`, `losses.jsonl` (a line a step), `validation/` (a clip each time) and,
    where TensorBoard is installed, `tensorboard/` lie in the folder.

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
        self.folder = folder
        self.stage: Stage = stage
        self.settings = settings
        self.progress = progress or SilentProgress()
        self.num_steps = settings.steps or STEPS[stage]
        self.transformer: nn.Module = pipeline.transformer
        self.loss = StageLoss(pipeline, samples, stage, settings)
        self.validation = (
            None
            if validation is None
            else Validation(pipeline, validation, stage, settings, fps=fps)
        )
        self.rank, self.num_processes = _place()
        check_shares(settings.batch, self.num_processes)
        for name in ("vae", "text_encoder", "image_encoder"):
            getattr(pipeline, name).requires_grad_(False)
        self.names = freeze_for(self.transformer, stage)
        if settings.sharded:
            check_sharded(settings, self.num_processes)
            shard(pipeline.transformer)
        parameters = dict(self.transformer.named_parameters())
        self.parameters = [parameters[name] for name in self.names]
        # What optimizer and average work on: the parameters, or the parts that are here.
        self.parts = own_parts(self.parameters)
        types = {parameter.dtype for parameter in self.parameters}
        if types != {torch.float32}:
            # Steps of 1e-5 are lost in bfloat16 weights.
            raise ValueError(f"a transformer in training must be float32, not {types}")
        pipeline.transformer.train()
        if settings.gradient_checkpointing:
            pipeline.transformer.enable_gradient_checkpointing()
        self.optimizer = torch.optim.AdamW(
            self.parts,
            lr=settings.learning_rate or LEARNING_RATES[stage],
            weight_decay=settings.weight_decay,
        )
        decay = settings.ema_decay
        self.average = None if decay is None else EMAModel(self.parts, decay=decay)
        self.step = 0
        self._saved = -1
        # Weights, optimizer, average and step belong together: a checkpoint can be written.
        self._is_whole = False
        self._log = LossLog(folder)

    def run(self) -> TrainingResult:
        """Hold the folder and take the steps that are left; see `take_steps`."""
        with held(self.folder):
            return self.take_steps()

    def take_steps(self) -> TrainingResult:
        """Take the steps that are left; a checkpoint at intervals, at the end and when interrupted.

        Raises:
            OutputConflictError: Another process trains here, or the folder belongs to another run.
            InputError: A checkpoint is damaged.
            ResumableError: The loss or its gradient is not finite.
        """
        checkpoint = self._take_up()
        self.progress.start("training", self.num_steps, done=self.step)
        loss = None
        try:
            while self.step < self.num_steps:
                loss = self._take_step()
                last = self.step == self.num_steps
                if last or self.step % self.settings.validate_every == 0:
                    self._validate()
                if last or self.step % self.settings.checkpoint_every == 0:
                    checkpoint = self._save()
                self.progress.advance("training", detail=f"loss {loss:.4f}")
        except KeyboardInterrupt:
            # In the middle of an update the checkpoint before stays the newest. The others of a
            # group may be at another step, so nobody is waited for.
            alone = self.rank == 0 and not self.settings.sharded
            if alone and self._is_whole and self.step > self._saved:
                self._write_checkpoint()
            raise
        self.progress.finish("training")
        assert checkpoint is not None, "a run of at least one step ends with a checkpoint"
        return TrainingResult(self.step, loss, checkpoint)

    def _take_step(self) -> float:
        settings = self.settings
        share = settings.batch // self.num_processes
        first = self.step * settings.batch + self.rank * share
        self.transformer.zero_grad(set_to_none=True)
        # On the parameters' device: NCCL reduces nothing else.
        total = torch.zeros((), dtype=torch.float64, device=self.parameters[0].device)
        for position in range(first, first + share):
            loss = self.loss.at(position, step=self.step).total / settings.batch
            loss.backward()
            total += loss.detach()
        norm = self._sum_over_processes(total)
        if not (torch.isfinite(norm) and torch.isfinite(total)):
            raise ResumableError(
                f"{self.folder}: step {self.step + 1}: loss {float(total):g}, gradient norm "
                f"{float(norm):g}.",
                hint="Go on from the last checkpoint with a lower learning_rate or a "
                "max_grad_norm, in a new folder.",
            )
        if settings.max_grad_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parts, settings.max_grad_norm, norm)
        factor = _FIRST_FACTOR if self.step < settings.first_steps else 1.0
        rate = (settings.learning_rate or LEARNING_RATES[self.stage]) * factor
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # Before the update: a line too many is cut off when the run goes on, none is ever missing.
        following = self.step + 1
        if self.rank == 0:
            self._log.append(
                {"step": following, "loss": float(total), "grad_norm": float(norm), "lr": rate}
            )
        self._is_whole = False
        self.optimizer.step()
        if self.average is not None:
            self.average.step(self.parts)
        self.step = following
        self._is_whole = True
        return float(total)

    def _sum_over_processes(self, total: Tensor) -> Tensor:
        """Replace gradients and the loss by their sums over all processes; return the norm."""
        if distributed.is_initialized():
            distributed.all_reduce(total)
        # What no sample of a process reaches has no gradient there; it decays all the same, so that
        # one process does what several do.
        hand_over_gradients(self.parameters, self.parts)
        if self.settings.sharded:
            return norm_of_parts(self.parts)
        gradients = [part.grad for part in self.parts if part.grad is not None]
        if distributed.is_initialized():
            for gradient in gradients:
                distributed.all_reduce(gradient)
        return nn.utils.get_total_norm(gradients)

    def _validate(self) -> None:
        """Note the loss of the averaged weights on the samples kept aside, and write a clip."""
        # With sharded weights all have to take part.
        if self.validation is not None and (self.rank == 0 or self.settings.sharded):
            with self._average_in_place():
                loss = self.validation.loss()
                clip = self.validation.clip()
            if self.rank == 0:
                place = self.folder / "validation" / f"step-{self.step:08d}"
                self.validation.write_clip(place.with_suffix(".mp4"), clip)
                row = {"step": self.step, "loss": loss}
                write_atomic(place.with_suffix(".json"), json.dumps(row).encode() + b"\n")
                self._log.show({"step": self.step, "validation_loss": loss})
                self.progress.message(f"step {self.step}: validation loss {loss:.4f}")
        _wait_for_all()

    @contextmanager
    def _average_in_place(self) -> Iterator[None]:
        if self.average is None:
            yield
            return
        self._is_whole = False
        self.average.store(self.parts)
        self.average.copy_to(self.parts)
        try:
            yield
        finally:
            self.average.restore(self.parts)
            self._is_whole = True

    def _save(self) -> Path:
        folder, shards = self.folder / "checkpoints", None
        if self.settings.sharded:
            if self.rank == 0:
                begin_sharded(folder, self.step)
            _wait_for_all()
            shards = shards_of_part(folder, self.step)
            write_shards(self._cut_tensors(), shards)
        if self.rank == 0:
            self._write_checkpoint(shards)
        _wait_for_all()
        return finished_checkpoints(folder)[-1]

    def _write_checkpoint(self, shards: Path | None = None) -> None:
        trained = dict(zip(self.names, map(Tensor.detach, self.parts), strict=True))
        state = {
            "step": self.step,
            "stage": self.stage,
            "settings": deciding(self.settings),
            "trained": trained,
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
        }
        if shards is not None:
            shapes = [list(parameter.shape) for parameter in self.parameters]
            state = without_parts(state, dict(zip(self.names, shapes, strict=True)))
        keep = self.settings.keep_checkpoints
        save_checkpoint(self.folder / "checkpoints", self.step, state, keep=keep, shards=shards)
        self._saved = self.step

    def _cut_tensors(self) -> dict[str, Tensor]:
        """Return all that is cut over the processes: weights, moments and average, by name."""
        kinds: dict[str, list[Any]] = {"trained": list(self.parts)}
        for moment in MOMENTS:
            kinds[moment] = [self.optimizer.state[part][moment] for part in self.parts]
        if self.average is not None:
            kinds["average"] = self.average.shadow_params
        return {
            f"{kind}.{name}": put_together(part, parameter)
            for kind, parts in kinds.items()
            for name, part, parameter in zip(self.names, parts, self.parameters, strict=True)
        }

    @torch.no_grad()
    def _take_up(self) -> Path | None:
        """Put the newest checkpoint back, if there is one, and cut the log at its step."""
        found = finished_checkpoints(self.folder / "checkpoints")
        checkpoint = found[-1] if found else None
        if checkpoint is not None:
            state = load_checkpoint(checkpoint)
            self._check_same_run(checkpoint, state)
            if self.settings.sharded:
                state = with_empty_parts(state, self.parts)
            else:
                for name, parameter in zip(self.names, self.parameters, strict=True):
                    parameter.copy_(state["trained"][name])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
                self.average.to(self.parts[0].device)
            if self.settings.sharded:
                read_shards(self._cut_tensors(), checkpoint / SHARDS)
            self.step = self._saved = int(state["step"])
            logger.info("%s: going on from step %d", self.folder, self.step)
        check_steps(self.folder, self.step, self.num_steps)
        self._is_whole = True
        if self.rank == 0:
            self._log.cut(self.step)
        _wait_for_all()
        return checkpoint

    def _check_same_run(self, checkpoint: Path, state: dict[str, Any]) -> None:
        if set(state["trained"]) != set(self.names) or state["stage"] != self.stage:
            raise OutputConflictError(
                f"{checkpoint}: belongs to stage {state['stage']} or to another model, not to "
                f"{self.stage} of this one.",
                hint="Name another output folder.",
            )
        check_same_settings(checkpoint, state["settings"], self.settings)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder; the first process does it for all of a group.

    Raises:
        OutputConflictError: Another run is in it, or it cannot be made.
    """
    if _place()[0] > 0:
        yield
        return
    make_folder(folder)
    try:
        lock = FileLock(folder / LOCK_NAME, timeout=0)
        lock.acquire()
    except Timeout as reason:
        raise OutputConflictError(
            f"{folder}: another process trains here.",
            hint="Wait for it, stop it, or name another output folder.",
        ) from reason
    try:
        yield
    finally:
        lock.release()


@torch.no_grad()
def load_average(transformer: nn.Module, checkpoint: Path) -> None:
    """Put the averaged weights of a checkpoint into a transformer (the trained ones without).

    Raises:
        InputError: It is damaged, or of another model.
    """
    state = load_checkpoint(checkpoint)
    trained = state["trained"]
    parameters = dict(transformer.named_parameters())
    values: list[Tensor]
    if "shards" in state:
        kind = "trained" if state["average"] is None else "average"
        values = read_whole(checkpoint / SHARDS, kind, trained)
    elif state["average"] is not None:
        values = state["average"]["shadow_params"]
    else:
        values = list(trained.values())
    for name, value in zip(trained, values, strict=True):
        if name not in parameters or parameters[name].shape != value.shape:
            raise InputError(f"{checkpoint}: its {name} does not fit this model.")
        parameters[name].copy_(value)


def _place() -> tuple[int, int]:
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def _wait_for_all() -> None:
    if distributed.is_initialized():
        distributed.barrier()
