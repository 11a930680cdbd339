"""The loop of any training: steps, average, checkpoints, log; killed at any step it goes on.

Processes started together (torchrun, gloo or NCCL) share the samples of each step and add up their
gradients; each holds the whole model, or its part of every weight (`sharded`).
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers.training_utils import EMAModel
from filelock import FileLock, Timeout
from torch import Tensor, distributed, nn

from longvie_cli.disk.durable import make_folder
from longvie_cli.errors import InputError, OutputConflictError, ResumableError
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.training.checkpoints import (
    SHARDS,
    begin_sharded,
    finished_checkpoints,
    load_checkpoint,
    save_checkpoint,
    shards_of_part,
)
from longvie_cli.training.loss_log import LossLog
from longvie_cli.training.run_checks import check_steps
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
)

logger = logging.getLogger(__name__)

CHECKPOINTS_NAME = "checkpoints"
"""Folder of a training's checkpoints in its own."""
LOCK_NAME = ".lock"
"""What keeps other runs out of a folder."""


class Optimizer(Protocol):
    """What a training asks of torch's optimizers, or of several that act as one."""

    param_groups: list[dict[str, Any]]

    @property
    def state(self) -> Mapping[Any, Any]:
        """Moments by parameter."""
        ...

    def step(self) -> Any:
        """Change the parameters by their gradients."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds of it."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put that back."""
        ...


@dataclass(frozen=True)
class LoopSettings:
    """How a loop goes, whatever it trains.

    Args:
        num_steps: Optimizer steps in all.
        ema_decay: Of the averaged weights, 0..1; None: none are kept.
        max_grad_norm: Longer gradients are cut to this norm; None: never.
        keep_checkpoints: How many stay.
        sharded: Weights, moments and average are cut over the processes.
    """

    num_steps: int
    ema_decay: float | None
    max_grad_norm: float | None
    keep_checkpoints: int
    sharded: bool = False


@dataclass(frozen=True)
class TrainingResult:
    """Where a training stands.

    Args:
        step: Optimizer steps taken.
        loss: Of the last step; None where none was taken now.
        checkpoint: Its folder.
    """

    step: int
    loss: float | None
    checkpoint: Path


class TrainingLoop(ABC):
    """A training in one folder, taken up where its newest checkpoint stands.

    `checkpoints/step-N/`, `losses.jsonl` (a line a step) and, where TensorBoard is installed,
    `tensorboard/` lie in the folder.

    Args:
        folder: Made if needed.
        parameters: What is trained, by name; float32, changed in place.
        make_optimizer: Given what it works on, by name: the parameters, or the parts of them that
            are here.
        settings: How.
        progress: Told of steps, stage `training`.
    """

    def __init__(
        self,
        folder: Path,
        parameters: Mapping[str, nn.Parameter],
        make_optimizer: Callable[[dict[str, nn.Parameter]], Optimizer],
        settings: LoopSettings,
        *,
        progress: Progress | None = None,
    ) -> None:
        self.folder = folder
        self.loop = settings
        self.progress = progress or SilentProgress()
        self.rank, self.num_processes = process_place()
        self.names, self.parameters = list(parameters), list(parameters.values())
        # What optimizer and average work on: the parameters, or the parts that are here.
        self.parts = own_parts(self.parameters)
        types = {parameter.dtype for parameter in self.parameters}
        if types != {torch.float32}:
            # Steps of 1e-5 are lost in bfloat16 weights.
            raise ValueError(f"a model in training must be float32, not {types}")
        self.optimizer = make_optimizer(dict(zip(self.names, self.parts, strict=True)))
        decay = settings.ema_decay
        self.average = None if decay is None else EMAModel(self.parts, decay=decay)
        self.step = 0
        self._saved = -1
        # Weights, optimizer, average and step belong together: a checkpoint can be written.
        self._is_whole = False
        self._log = LossLog(folder)

    @abstractmethod
    def _add_gradients(self) -> tuple[Tensor, dict[str, float]]:
        """Add this process's gradients of the step `self.step`; those of all processes add up.

        Returns:
            Its share of the loss, and further numbers for the log.
        """

    @abstractmethod
    def _learning_rate(self) -> float:
        """Return the learning rate of the step `self.step`."""

    @abstractmethod
    def _identity(self) -> dict[str, Any]:
        """Return what a checkpoint says of the training that it belongs to, as JSON values."""

    @abstractmethod
    def _check_identity(self, checkpoint: Path, state: Mapping[str, Any]) -> None:
        """Do nothing if a checkpoint's `_identity` is this training's.

        Raises:
            OutputConflictError: It is another's.
        """

    @abstractmethod
    def _is_checkpoint_due(self) -> bool:
        """Return whether to write one after the step just taken, the last one apart."""

    @abstractmethod
    def _after_step(self, loss: float) -> None:
        """Look at the model after the step just taken; a checkpoint of it may follow."""

    def _has_to_stop(self) -> bool:
        """Return whether to end before all steps are taken, in every process alike."""
        return False

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
        self.progress.start("training", self.loop.num_steps, done=self.step)
        loss = None
        try:
            while self.step < self.loop.num_steps:
                loss = self._take_step()
                self._after_step(loss)
                stop = self._has_to_stop()
                if stop or self.step == self.loop.num_steps or self._is_checkpoint_due():
                    checkpoint = self._save()
                self.progress.advance("training", detail=f"loss {loss:.4f}")
                if stop:
                    break
        except KeyboardInterrupt:
            # In the middle of an update the checkpoint before stays the newest. The others of a
            # group may be at another step, so nobody is waited for.
            alone = self.rank == 0 and not self.loop.sharded
            if alone and self._is_whole and self.step > self._saved:
                self._write_checkpoint()
            raise
        self.progress.finish("training")
        assert checkpoint is not None, "a run of at least one step ends with a checkpoint"
        return TrainingResult(self.step, loss, checkpoint)

    def _take_step(self) -> float:
        for parameter in self.parameters:
            parameter.grad = None
        share, numbers = self._add_gradients()
        # On the parameters' device: NCCL reduces nothing else.
        total = share.detach().to(self.parameters[0].device, torch.float64)
        norm = self._sum_over_processes(total)
        if not (torch.isfinite(norm) and torch.isfinite(total)):
            raise ResumableError(
                f"{self.folder}: step {self.step + 1}: loss {float(total):g}, gradient norm "
                f"{float(norm):g}.",
                hint="Go on from the last checkpoint with a lower learning_rate or a "
                "max_grad_norm, in a new folder.",
            )
        if self.loop.max_grad_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parts, self.loop.max_grad_norm, norm)
        rate = self._learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # Before the update: a line too many is cut off when the run goes on, none is ever missing.
        following = self.step + 1
        if self.rank == 0:
            row = {"step": following, "loss": float(total), "grad_norm": float(norm), "lr": rate}
            self._log.append(row | numbers)
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
        if self.loop.sharded:
            return norm_of_parts(self.parts)
        gradients = [part.grad for part in self.parts if part.grad is not None]
        if distributed.is_initialized():
            for gradient in gradients:
                distributed.all_reduce(gradient)
        return nn.utils.get_total_norm(gradients)

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
        folder, shards = self.folder / CHECKPOINTS_NAME, None
        if self.loop.sharded:
            if self.rank == 0:
                begin_sharded(folder, self.step)
            wait_for_all()
            shards = shards_of_part(folder, self.step)
            write_shards(self._cut_tensors(), shards)
        if self.rank == 0:
            self._write_checkpoint(shards)
        wait_for_all()
        return finished_checkpoints(folder)[-1]

    def _write_checkpoint(self, shards: Path | None = None) -> None:
        trained = dict(zip(self.names, map(Tensor.detach, self.parts), strict=True))
        state = self._identity() | {
            "step": self.step,
            "trained": trained,
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
        }
        if shards is not None:
            shapes = [list(parameter.shape) for parameter in self.parameters]
            state = without_parts(state, dict(zip(self.names, shapes, strict=True)))
        keep = self.loop.keep_checkpoints
        save_checkpoint(self.folder / CHECKPOINTS_NAME, self.step, state, keep=keep, shards=shards)
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
        found = finished_checkpoints(self.folder / CHECKPOINTS_NAME)
        checkpoint = found[-1] if found else None
        if checkpoint is not None:
            state = load_checkpoint(checkpoint)
            self._check_identity(checkpoint, state)
            if self.loop.sharded:
                state = with_empty_parts(state, self.parts)
            else:
                for name, parameter in zip(self.names, self.parameters, strict=True):
                    parameter.copy_(state["trained"][name])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
                self.average.to(self.parts[0].device)
            if self.loop.sharded:
                read_shards(self._cut_tensors(), checkpoint / SHARDS)
            self.step = self._saved = int(state["step"])
            logger.info("%s: going on from step %d", self.folder, self.step)
        check_steps(self.folder, self.step, self.loop.num_steps)
        self._is_whole = True
        if self.rank == 0:
            self._log.cut(self.step)
        wait_for_all()
        return checkpoint


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder; the first process does it for all of a group.

    Raises:
        OutputConflictError: Another run is in it, or it cannot be made.
    """
    if process_place()[0] > 0:
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


def averaged_weights(checkpoint: Path) -> dict[str, Tensor]:
    """Return the averaged weights of a checkpoint by name (the trained ones without an average).

    Raises:
        InputError: It is damaged.
    """
    state = load_checkpoint(checkpoint)
    trained = state["trained"]
    values: list[Tensor]
    if "shards" in state:
        kind = "trained" if state["average"] is None else "average"
        values = read_whole(checkpoint / SHARDS, kind, trained)
    elif state["average"] is not None:
        values = state["average"]["shadow_params"]
    else:
        values = list(trained.values())
    return dict(zip(trained, values, strict=True))


@torch.no_grad()
def load_average(module: nn.Module, checkpoint: Path) -> None:
    """Put the averaged weights of a checkpoint into a module.

    Raises:
        InputError: It is damaged, or of another model.
    """
    parameters = dict(module.named_parameters())
    for name, value in averaged_weights(checkpoint).items():
        if name not in parameters or parameters[name].shape != value.shape:
            raise InputError(f"{checkpoint}: its {name} does not fit this model.")
        parameters[name].copy_(value)


def process_place() -> tuple[int, int]:
    """Return this process's rank and the number of processes that train together."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def wait_for_all() -> None:
    """Wait until all processes that train together are here."""
    if distributed.is_initialized():
        distributed.barrier()
