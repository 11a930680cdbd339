"""The engines on the embedded presets: the same frames, and what the fused one saves.

    OMP_NUM_THREADS=1 python -m pytest tests/unit/engine/test_engines.py -m slow -s

prints the table of docs/engine.md. Seconds are of the processor, so that other work on the machine
counts little; the engines take turns, the best turn is printed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from longvie_cli.engine.loader import load_pipeline
from longvie_cli.media.frames import frames_from_pixels
from longvie_cli.models.conditioning import Conditioning
from longvie_cli.models.pipeline import Engine, LongViePipeline
from longvie_cli.settings.presets import Preset, load_preset

ENGINES: tuple[Engine, ...] = ("reference", "fused")
TURNS = 3

Value = TypeVar("Value")


def smooth_video(preset: Preset, num_frames: int, seed: int) -> np.ndarray:
    """Return frames whose colours drift slowly, as those of controls and pictures do."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, num_frames // 4 + 2, 8, 12, generator=generator)
    size = (num_frames, preset.height, preset.width)
    video = F.interpolate(coarse, size, mode="trilinear", align_corners=True)[0]
    return (video * 255).byte().permute(1, 2, 3, 0).numpy()


def conditioning(pipeline: LongViePipeline, preset: Preset, *, later: bool) -> Conditioning:
    """Return what a clip is given; a later one has history."""
    video = smooth_video(preset, preset.history_frames, 1)
    return pipeline.prepare_conditioning(
        (preset.num_frames, preset.height, preset.width),
        prompt="Green hills at noon, clear sky, a calm lake",
        image=video[-1],
        dense=smooth_video(preset, preset.num_frames, 2),
        sparse=smooth_video(preset, preset.num_frames, 3),
        history=video if later else None,
        negative_prompt=None if preset.guidance_scale == 1 else "",
    )


def timed(work: Callable[[], Value]) -> tuple[Value, float]:
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


@dataclass
class Pair:
    """The embedded preset under both engines."""

    preset: Preset
    pipelines: dict[Engine, LongViePipeline]

    def denoise(self, engine: Engine, given: Conditioning) -> Tensor:
        preset, pipeline = self.preset, self.pipelines[engine]
        noise = pipeline.prepare_noise(0, preset.num_frames, preset.height, preset.width)
        return pipeline.denoise(
            noise,
            given,
            num_inference_steps=preset.num_inference_steps,
            guidance_scale=preset.guidance_scale,
        )

    def frames(self, latents: Tensor) -> np.ndarray:
        return frames_from_pixels(self.pipelines["fused"].decode_latents(latents)[0])


@pytest.fixture(scope="module")
def pair() -> Pair:
    preset = load_preset("tiny")
    return Pair(preset, {engine: load_pipeline(preset, engine=engine) for engine in ENGINES})


@pytest.mark.slow
@torch.no_grad()
def test_the_fused_engine_makes_the_same_frames_sooner(pair: Pair) -> None:
    preset, pipeline = pair.preset, pair.pipelines["fused"]
    first = conditioning(pipeline, preset, later=False)
    later, encoding = timed(lambda: conditioning(pipeline, preset, later=True))
    seconds: dict[Engine, list[float]] = {engine: [] for engine in ENGINES}
    made: dict[tuple[Engine, str], Tensor] = {
        (engine, "first"): pair.denoise(engine, first) for engine in ENGINES
    }
    for _ in range(TURNS):
        for engine in ENGINES:
            latents, taken = timed(lambda engine=engine: pair.denoise(engine, later))
            made[engine, "later"] = latents
            seconds[engine].append(taken)
    for clip in ("first", "later"):
        reference, fused = (made[engine, clip] for engine in ENGINES)
        # Rounding of every step is carried on, and multiplied by guidance.
        assert (fused - reference).abs().max() <= 1e-4
        moved = np.abs(pair.frames(fused).astype(int) - pair.frames(reference))
        assert moved.max() <= 1
        assert (moved > 0).mean() <= 1e-4
    _, decoding = timed(lambda: pair.frames(made["fused", "later"]))
    slow, fast = (min(seconds[engine]) for engine in ENGINES)
    print(
        f"\n| {preset.num_inference_steps} steps, guidance "
        f"{preset.guidance_scale:g} | {slow:.2f} s | {fast:.2f} s | {slow / fast:.2f} | "
        f"{encoding:.2f} s | {decoding:.2f} s |"
    )
    assert fast < slow
