"""Training inputs made worse on purpose, so that the model holds out against its own mistakes.

The paper degrades the depth control in stage 1 (features and data) and the conditioning picture in
stage 2 (arXiv 2512.13604, sections on adaptive control and degradation-aware training; the numbers
of the release beside them are in `settings/training.py`). What is drawn depends on nothing but the
seed and the number of the sample: every process and every resumed run degrades a sample alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longvie_cli.media.frames import Frames
from longvie_cli.models.longvie import LongVieTransformer3DModel
from longvie_cli.settings.training import (
    ColourDrift,
    Degradation,
    DepthDegradation,
    FrameDegradation,
)
from longvie_cli.worlds.seeding import scalar_stream, tensor_stream

# Of the side of a picture: how smooth the field of a colour drift is (spec 7.4 B).
_DRIFT_BLUR = 0.08
_DRIFT_REACH = 0.1


@contextmanager
def scaled_dense_tokens(transformer: LongVieTransformer3DModel, factor: float) -> Iterator[None]:
    """Multiply the dense branch's tokens by `factor` before its input linear, while this runs.

    Feature-level degradation as the release does it. From outside, because inference must never
    draw such a factor; the release's second pipeline left it on there.
    """

    def scale(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
        (tokens,) = inputs
        return (tokens * factor,)

    handle = transformer.dense_proj_in.register_forward_pre_hook(scale)
    try:
        yield
    finally:
        handle.remove()


class Redraw(Protocol):
    """How frames come out of the autoencoder, and out of the model, once more."""

    def reencode(self, frames: Frames) -> Frames:
        """Return frames [n, height, width, 3] encoded and decoded once, 8 bits again."""

    def regenerate(self, frames: Frames, num_steps: int, noise: torch.Generator) -> Frames:
        """Return frames noised and denoised over the last `num_steps` of 50 steps."""


@dataclass(frozen=True)
class Degraded:
    """Frames after their degradation.

    Args:
        frames: [n, height, width, 3], 8-bit RGB.
        applied: What was done, in words; empty where nothing was.
    """

    frames: Frames
    applied: tuple[str, ...] = ()


class Degrader:
    """Degrades samples by their number.

    Args:
        settings: Probabilities and strengths.
        seed: Of the training run.
    """

    def __init__(self, settings: Degradation, seed: int) -> None:
        self.settings = settings
        self.seed = seed

    def amount(self, step: int) -> float:
        """Return what all probabilities are multiplied by at an optimizer step, 0 to 1.

        The paper switches every degradation off for the first iterations and phases it in.
        """
        since = step - self.settings.off_steps
        if since < 0:
            return 0.0
        return min(1.0, (since + 1) / (self.settings.phase_in_steps + 1))

    def dense_factor(self, number: int, amount: float = 1.0) -> float:
        """Return the factor on the dense branch of a sample; mostly 1."""
        draws, asked = self._draws(number, "dense scale"), self.settings.dense_scale
        drawn = draws.random() < asked.probability * amount
        return draws.uniform(*asked.range) if drawn else 1.0

    def depth(self, frames: Frames, number: int, amount: float = 1.0) -> Degraded:
        """Return the depth control of a clip, uint8 [frames, height, width, 3], maybe worse."""
        draws, asked = self._draws(number, "depth"), self.settings.depth
        if draws.random() >= asked.probability * amount:
            return Degraded(frames)
        operators = ["scales", "blur"]
        draws.shuffle(operators)
        # One, two or three of the two operators, as the release counts: both with 2/3.
        chosen = operators[: draws.randint(1, 3)]
        pixels = torch.from_numpy(frames.astype(np.float32)).permute(0, 3, 1, 2)
        applied = []
        for name in chosen:
            if name == "scales":
                pixels = _fused_scales(pixels, draws, asked.scales)
            elif (kernel := _blur_kernel(draws, asked)) is not None:
                pixels = F.avg_pool2d(pixels, kernel, stride=1, padding=kernel // 2)
            else:
                continue
            applied.append(name)
        return Degraded(_as_frames(pixels), tuple(applied))

    def frame(self, frames: Frames, number: int, redraw: Redraw, amount: float = 1.0) -> Degraded:
        """Return the conditioning picture [1, height, width, 3], maybe worse."""
        return self._redrawn(frames, number, "frame", self.settings.frame, redraw, amount)

    def history(self, frames: Frames, number: int, redraw: Redraw, amount: float = 1.0) -> Degraded:
        """Return the history frames [n, height, width, 3], all of them alike, maybe worse."""
        return self._redrawn(frames, number, "history", self.settings.history, redraw, amount)

    def drops_history(self, number: int) -> bool:
        """Return whether a sample is trained on as if it were the first clip of a video."""
        return self._draws(number, "no history").random() < self.settings.no_history

    def _redrawn(
        self,
        frames: Frames,
        number: int,
        name: str,
        asked: FrameDegradation,
        redraw: Redraw,
        amount: float,
    ) -> Degraded:
        draws = self._draws(number, name)
        applied = []
        if draws.random() < asked.probability * amount:
            if draws.random() < asked.reencode_share:
                cycles = _weighted(draws, asked.cycles, asked.cycle_weights)
                for _ in range(cycles):
                    frames = redraw.reencode(frames)
                if cycles:
                    applied.append(f"{cycles} cycles")
            else:
                steps = _weighted(draws, asked.regenerate_steps, asked.regenerate_weights)
                noise = tensor_stream(self.seed, name, "noise", number)
                frames = redraw.regenerate(frames, steps, noise)
                applied.append(f"{steps} steps")
        drift = asked.colour_drift
        if draws.random() < drift.probability * amount:
            field = tensor_stream(self.seed, name, "drift", number)
            frames = drift_colours(frames, drift, draws, field)
            applied.append("colour drift")
        return Degraded(frames, tuple(applied))

    def _draws(self, number: int, name: str) -> Random:
        return scalar_stream(self.seed, name, number)


def drift_colours(
    frames: Frames, asked: ColourDrift, draws: Random, field: torch.Generator
) -> Frames:
    """Return frames tinted towards a colour near their common mean, by one smooth field for all.

    Args:
        frames: uint8 [n, height, width, 3].
        asked: Strengths.
        draws: Draws colour and strength.
        field: Draws where the tint is stronger.
    """
    pixels = frames.astype(np.float64) / 255
    offset = [draws.uniform(-_DRIFT_REACH, _DRIFT_REACH) for _ in range(3)]
    target = np.clip(pixels.mean(axis=(0, 1, 2)) + offset, 0, 1)
    height, width = frames.shape[1:3]
    strength = draws.uniform(*asked.tint)
    smooth = _smooth_field(height, width, field)
    tint = np.clip(strength * (1 + asked.spatial * (smooth - 0.5)), 0, 1)[..., None]
    mixed = (1 - tint) * pixels + tint * target
    # Truncated, as the release stores its pictures.
    return (255 * mixed).astype(np.uint8)


def _smooth_field(height: int, width: int, generator: torch.Generator) -> np.ndarray:
    """Return blurred uniform noise [height, width], stretched to 0..1."""
    field = torch.rand(1, 1, height, width, generator=generator, dtype=torch.float64)
    sigma = _DRIFT_BLUR * width
    reach = max(1, round(4 * sigma))
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    # Both edges are continued by their own values: a kernel may be wider than the picture.
    for axis in (2, 3):
        length = field.shape[axis]
        index = (torch.arange(-reach, length + reach)).clamp(0, length - 1)
        padded = field.index_select(axis, index)
        shape = [1, 1, 1, 1]
        shape[axis] = -1
        field = F.conv2d(padded, kernel.view(shape))
    low, high = field.min(), field.max()
    return ((field - low) / (high - low).clamp(min=1e-12))[0, 0].numpy()


def _fused_scales(pixels: Tensor, draws: Random, scales: int) -> Tensor:
    """Return a random convex mean of a picture at several scales, one of them left out."""
    height, width = pixels.shape[-2:]
    kept = list(range(scales + 1))
    kept.remove(draws.choice(kept))
    weights = [draws.random() for _ in kept]
    fused = torch.zeros_like(pixels)
    for level, weight in zip(kept, weights, strict=True):
        size = (max(1, height >> level), max(1, width >> level))
        small = F.interpolate(pixels, size, mode="bilinear", align_corners=False)
        back = F.interpolate(small, (height, width), mode="bilinear", align_corners=False)
        fused += (weight / sum(weights)) * back
    return fused


def _blur_kernel(draws: Random, asked: DepthDegradation) -> int | None:
    if draws.random() >= asked.blur_probability:
        return None
    return draws.randint(*asked.blur_kernel) | 1


def _weighted(draws: Random, values: Sequence[int], weights: Sequence[float]) -> int:
    return draws.choices(values, weights)[0]


def _as_frames(pixels: Tensor) -> Frames:
    return pixels.permute(0, 2, 3, 1).clamp(0, 255).to(torch.uint8).contiguous().numpy()
