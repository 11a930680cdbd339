"""Clips of a run: continued from a tail, one noise, progress, running out of memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from longvie_cli.engine.clip_generator import ClipGenerator
from longvie_cli.errors import ResumableError
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.progress import SilentProgress
from longvie_cli.settings.presets import Preset, TrackGrid
from longvie_cli.settings.sampling import Sampling
from small_models import small_pipeline

HEIGHT, WIDTH, NUM_FRAMES = 32, 48, 9


def small_preset(**changes: Any) -> Preset:
    numbers: dict[str, Any] = {
        "name": "small",
        "num_frames": NUM_FRAMES,
        "fps": 16,
        "height": HEIGHT,
        "width": WIDTH,
        "num_inference_steps": 2,
        "guidance_scale": 2.0,
        "flow_shift": 5.0,
        "max_text_tokens": 20,
        "track_grid": TrackGrid(columns=4, rows=3),
    }
    return Preset(**(numbers | changes))


def small_sampling(*, seed: int = 5, **chosen: Any) -> Sampling:
    return Sampling.of(small_preset(), seed=seed, **chosen)


@pytest.fixture(scope="module")
def pipeline() -> LongViePipeline:
    return small_pipeline()


def control(seed: int) -> np.ndarray:
    shape = (NUM_FRAMES, HEIGHT, WIDTH, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


class Steps(SilentProgress):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.said: list[tuple[str, int]] = []

    def start(self, stage: str, total: int, *, done: int = 0) -> None:
        self.said.append((f"start {stage}", total))

    def advance(self, stage: str, amount: int = 1, *, detail: str = "") -> None:
        self.said.append((stage, amount))

    def finish(self, stage: str) -> None:
        self.said.append((f"finish {stage}", 0))


def test_a_new_generator_continues_from_a_tail_with_the_same_frames(
    pipeline: LongViePipeline,
) -> None:
    generator = ClipGenerator(pipeline, small_preset(), small_sampling())
    first = generator.generate(0, "a hill", image=control(9)[0], dense=control(1))
    tail = first.tail(8)
    assert np.array_equal(tail, first.frames[-8:])
    second = generator.generate(1, "a hill", history=tail, dense=control(2))
    fresh = ClipGenerator(pipeline, small_preset(), small_sampling())
    again = fresh.generate(1, "a hill", image=tail[-1], history=tail, dense=control(2))
    assert (second.index, again.index) == (1, 1)
    assert np.array_equal(second.frames, again.frames)
    assert second.timings.total_seconds > second.timings.decode_seconds > 0


def test_is_the_pipelines_own_call(pipeline: LongViePipeline) -> None:
    preset = small_preset(negative_prompt="fog", guidance_scale=3.0)
    sampling = Sampling.of(preset, seed=7, track_strength=0.5)
    made = ClipGenerator(pipeline, preset, sampling).generate(
        0, "a hill", image=control(9)[0], dense=control(1), sparse=control(2)
    )
    expected = pipeline(
        "a hill",
        control(9)[0],
        control(1),
        control(2),
        negative_prompt="fog",
        guidance_scale=3.0,
        num_inference_steps=2,
        track_strength=0.5,
        seed=7,
    ).frames
    assert np.array_equal(made.frames, expected)


def test_a_clip_with_a_seed_of_its_own_has_its_own_noise(pipeline: LongViePipeline) -> None:
    generator = ClipGenerator(pipeline, small_preset(), small_sampling())

    def made(generator: ClipGenerator, **options: int) -> np.ndarray:
        return generator.generate(0, "a hill", image=control(9)[0], **options).frames

    shared = made(generator)
    own = made(generator, seed=6)
    assert not np.array_equal(own, shared)
    assert np.array_equal(
        own, made(ClipGenerator(pipeline, small_preset(), small_sampling(seed=6)))
    )
    # And the run's noise is as it was.
    assert np.array_equal(made(generator), shared)


def test_the_control_range_reaches_the_pipeline(pipeline: LongViePipeline) -> None:
    generator = ClipGenerator(
        pipeline,
        small_preset(),
        small_sampling(seed=7, num_inference_steps=4, control_start=0.25, control_end=0.5),
    )
    made = generator.generate(0, "a hill", image=control(9)[0], dense=control(1))
    options: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 2.0, "seed": 7}
    inputs = ("a hill", control(9)[0], control(1))
    expected = pipeline(*inputs, **options, control_start=0.25, control_end=0.5).frames
    assert np.array_equal(made.frames, expected)
    assert not np.array_equal(made.frames, pipeline(*inputs, **options).frames)


def test_first_frame_starts_from_the_runs_noise(pipeline: LongViePipeline) -> None:
    generator = ClipGenerator(pipeline, small_preset(), small_sampling())
    starts = []
    hook = pipeline.transformer.register_forward_pre_hook(lambda _, args: starts.append(args[0]))
    try:
        made = generator.first_frame("a hill", dense=control(1)[0], sparse=control(2)[0])
    finally:
        hook.remove()
    assert made.shape == (HEIGHT, WIDTH, 3) and made.dtype == np.uint8
    noise = pipeline.prepare_noise(5, NUM_FRAMES, HEIGHT, WIDTH)
    assert torch.equal(starts[0][:, : noise.shape[1]], noise[:, :, :1])


def test_every_step_is_reported(pipeline: LongViePipeline) -> None:
    progress = Steps()
    generator = ClipGenerator(
        pipeline, small_preset(), small_sampling(num_inference_steps=3), progress=progress
    )
    generator.generate(0, "a hill", image=control(9)[0])
    assert progress.said == [
        ("start steps", 3),
        ("steps", 1),
        ("steps", 1),
        ("steps", 1),
        ("finish steps", 0),
    ]


def test_a_prompt_is_encoded_once_for_neighbouring_clips(pipeline: LongViePipeline) -> None:
    generator = ClipGenerator(pipeline, small_preset(), small_sampling())
    calls: list[object] = []
    hook = pipeline.text_encoder.register_forward_hook(lambda *_: calls.append(None))
    try:
        for clip_index in range(2):
            generator.generate(clip_index, "a hill", image=control(9)[0])
    finally:
        hook.remove()
    assert len(calls) == 2, "one for the prompt, one for the negative prompt"


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (lambda: torch.OutOfMemoryError("CUDA out of memory"), ResumableError),
        (lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory"), ResumableError),
        (lambda: MemoryError(), ResumableError),
        (lambda: RuntimeError("shapes differ"), RuntimeError),
    ],
)
def test_out_of_memory_says_that_the_command_continues(
    pipeline: LongViePipeline, failure: Callable[[], Exception], expected: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise failure()

    hook = pipeline.transformer.register_forward_pre_hook(fail)
    try:
        with pytest.raises(expected) as caught:
            ClipGenerator(pipeline, small_preset(), small_sampling()).generate(
                0, "a hill", image=control(9)[0]
            )
    finally:
        hook.remove()
    assert type(caught.value) is expected
