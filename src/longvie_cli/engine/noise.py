"""The one noise of a run: drawn once, shared by all its clips, never changed."""

from __future__ import annotations

from torch import Tensor

from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.settings.presets import Preset


def draw_noise(pipeline: LongViePipeline, preset: Preset, seed: int) -> Tensor:
    """Return the noise [1, channels, frames, height, width] that every clip starts from.

    One noise for all clips keeps their looks together (arXiv 2512.13604, unified noise). Float32 on
    the CPU, so that a seed means the same video on every device.
    """
    return pipeline.prepare_noise(seed, preset.num_frames, preset.height, preset.width)


def first_frame_noise(noise: Tensor) -> Tensor:
    """Return the part of a run's noise that a first frame made alone starts from."""
    return noise[:, :, :1]
