"""Clips denoised by all processes that torchrun started: the first one leads, the others help.

The first process does the whole job, as it would alone. Of each clip it tells the others what is
denoised; they denoise the same and keep nothing. So the run folder, the files and the terminal are
the first one's alone, and what encoding and decoding come to cannot differ between processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, distributed

from longvie_cli.engine.loader import load_pipeline
from longvie_cli.engine.memory import models_of_preset
from longvie_cli.errors import UsageError
from longvie_cli.models.conditioning import Conditioning
from longvie_cli.models.denoising import DenoisingTask
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.parallel.clip_parallel import ClipParallel, Degrees
from longvie_cli.parallel.group import own_device
from longvie_cli.parallel.processes import Place
from longvie_cli.settings.presets import Preset
from longvie_cli.settings.sampling import Sampling


@dataclass(frozen=True)
class _Load:
    """Tells helpers to load a pipeline.

    Args:
        preset: Of what.
        sampling: How it is run.
        degrees: Who does what.
    """

    preset: Preset
    sampling: Sampling
    degrees: Degrees


class Leader:
    """What the first process tells the others.

    Args:
        place: Of this process.
    """

    def __init__(self, place: Place) -> None:
        self._place = place

    def degrees(self, preset: Preset, sampling: Sampling) -> Degrees:
        """Return how the processes would work on the clips of a preset.

        Raises:
            UsageError: So many processes cannot, or there are not enough GPUs for them.
            OSError: The preset's configs are not there.
        """
        device, here = torch.device(sampling.device), self._place.local_count
        if device.index is not None:
            raise UsageError(
                f"--device {sampling.device}: {self._place.count} processes take a GPU each.",
                hint="Pass --device cuda, and choose GPUs by CUDA_VISIBLE_DEVICES.",
            )
        if device.type == "cuda" and here > torch.cuda.device_count():
            raise UsageError(
                f"{here} processes, but this machine has {torch.cuda.device_count()} CUDA devices.",
                hint=f"Pass --nproc-per-node {torch.cuda.device_count()} to torchrun.",
            )
        config = models_of_preset(preset).transformer.config
        heads = [config.num_attention_heads]
        if config.num_control_layers:
            heads.append(config.control_num_attention_heads)
        return Degrees.of(self._place.count, guided=sampling.guidance_scale != 1, heads=heads)

    def load(self, preset: Preset, sampling: Sampling, **options: Any) -> LongViePipeline:
        """Return a pipeline like that of `load_pipeline`, whose clips all processes denoise.

        Args:
            preset: As there.
            sampling: As there.
            options: As there.
        """
        degrees = self.degrees(preset, sampling)
        _tell(_Load(preset, sampling, degrees))
        pipeline = load_pipeline(preset, _placed(sampling, self._place), **options)
        distributed.barrier()
        pipeline.use_parallel(ClipParallel(degrees), announce=_tell)
        return pipeline

    def release(self) -> None:
        """Let the helpers go."""
        _tell(None)


def help_first_process(place: Place) -> None:
    """Denoise what the first process tells, until it lets this one go.

    Raises:
        OtherProcessEnded: Another process has ended before.
    """
    pipeline: LongViePipeline | None = None
    while (told := _hear()) is not None:
        if isinstance(told, _Load):
            pipeline = None
            sampling = _placed(told.sampling, place)
            pipeline = load_pipeline(
                told.preset, sampling, text_encoder=False, warn=_unsaid, fell_back=_unsaid
            )
            distributed.barrier()
            pipeline.use_parallel(ClipParallel(told.degrees))
        else:
            assert isinstance(told, DenoisingTask) and pipeline is not None
            conditioning = _moved(told.conditioning, pipeline._execution_device)
            pipeline.denoise(told.noise, conditioning, **told.numbers)


def _tell(told: _Load | DenoisingTask | None) -> None:
    if isinstance(told, DenoisingTask):
        # Tensors would be sought on the GPU of the first process.
        conditioning = _moved(told.conditioning, torch.device("cpu"))
        told = DenoisingTask(told.noise.cpu(), conditioning, told.numbers)
    distributed.broadcast_object_list([told], src=0, device=torch.device("cpu"))


def _hear() -> _Load | DenoisingTask | None:
    told: list[Any] = [None]
    distributed.broadcast_object_list(told, src=0, device=torch.device("cpu"))
    return told[0]


def _placed(sampling: Sampling, place: Place) -> Sampling:
    return replace(sampling, device=own_device(sampling.device, place))


def _moved(conditioning: Conditioning, device: torch.device) -> Conditioning:
    values: Sequence[tuple[str, Any]] = [
        (field.name, getattr(conditioning, field.name)) for field in fields(conditioning)
    ]
    tensors = {name: value.to(device) for name, value in values if isinstance(value, Tensor)}
    return replace(conditioning, **tensors)


def _unsaid(notice: str) -> None:
    """The first process says it."""
