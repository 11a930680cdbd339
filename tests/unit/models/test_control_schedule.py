"""When and how strongly the control branches run: what is off is not computed at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from longvie_cli.errors import InputError
from longvie_cli.models.flow_matching import controlled_steps
from longvie_cli.models.pipeline import LongViePipeline
from small_models import small_pipeline

HEIGHT, WIDTH, NUM_FRAMES = 32, 48, 5
BRANCHES = {
    "dense": ("dense_proj_in", "dense_blocks"),
    "sparse": ("sparse_proj_in", "sparse_blocks"),
    "shared": ("control_text_proj", "control_time_proj", "control_proj_out"),
}


@pytest.fixture(scope="module")
def pipeline() -> LongViePipeline:
    return small_pipeline()


def frames(count: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)


CONTROLS: dict[str, Any] = {"dense": frames(NUM_FRAMES, 1), "sparse": frames(NUM_FRAMES, 2)}


@contextmanager
def watched(pipeline: LongViePipeline) -> Iterator[dict[str, Any]]:
    """Count evaluations, the runs of every control module by branch, and the videos encoded."""
    seen: dict[str, Any] = {"evaluations": [], "videos": 0}
    running: Counter[str] = Counter()
    hooks = []

    def begin(*_: object) -> None:
        running.clear()

    def end(*_: object) -> None:
        seen["evaluations"].append(dict(running))

    hooks.append(pipeline.transformer.register_forward_pre_hook(begin))
    hooks.append(pipeline.transformer.register_forward_hook(end))
    for branch, names in BRANCHES.items():
        for name in names:
            for module in pipeline.transformer.get_submodule(name).modules():

                def count(*_: object, branch: str = branch) -> None:
                    running[branch] += 1

                hooks.append(module.register_forward_hook(count))
    encode = pipeline.encode_video

    def encode_and_count(pixels: Tensor, **stills: Any) -> Tensor:
        seen["videos"] += len(pixels)
        return encode(pixels, **stills)

    pipeline.encode_video = encode_and_count  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        del pipeline.encode_video
        for hook in hooks:
            hook.remove()


def run(pipeline: LongViePipeline, steps: int = 2, **options: Any) -> np.ndarray:
    arguments: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": 3.0}
    return pipeline("a hill", frames(1)[0], num_frames=NUM_FRAMES, **(arguments | options)).frames


@pytest.mark.parametrize(
    ("options", "branches", "videos"),
    [
        ({}, {"dense", "sparse", "shared"}, 5),
        ({"depth_strength": 0.0}, {"sparse", "shared"}, 3),
        ({"track_strength": 0.0}, {"dense", "shared"}, 3),
        ({"depth_strength": 0.0, "track_strength": 0.0}, set(), 1),
        ({"control_start": 0.1, "control_end": 0.2}, set(), 1),
    ],
)
def test_a_branch_that_is_off_runs_no_module_and_is_not_encoded(
    pipeline: LongViePipeline, options: dict[str, float], branches: set[str], videos: int
) -> None:
    with watched(pipeline) as seen:
        run(pipeline, **CONTROLS, **options)
    assert len(seen["evaluations"]) == 4
    assert all(set(evaluation) == branches for evaluation in seen["evaluations"])
    # The picture, and a video and its first frame of each control that is on.
    assert seen["videos"] == videos


def test_outside_the_range_both_evaluations_run_without_control(pipeline: LongViePipeline) -> None:
    with watched(pipeline) as seen:
        run(pipeline, steps=5, **CONTROLS, control_start=0.2, control_end=0.6)
    controlled = [bool(evaluation) for evaluation in seen["evaluations"]]
    assert controlled == [False] * 2 + [True] * 4 + [False] * 4


def test_the_schedule_is_two_runs_joined(pipeline: LongViePipeline) -> None:
    def halted(step: int, options: dict[str, Any]) -> Tensor:
        """Return the latents after a step of a run with these options."""
        kept: list[Tensor] = []

        def keep(_: object, step_index: int, timestep: Tensor, values: dict[str, Any]) -> None:
            if step_index == step:
                kept.append(values["latents"].clone())

        run(pipeline, steps=4, callback_on_step_end=keep, **options)
        return kept[0]

    scheduled = CONTROLS | {"control_end": 0.5}
    assert torch.equal(halted(1, scheduled), halted(1, CONTROLS))
    swapped = halted(1, CONTROLS)

    def swap(_: object, step_index: int, timestep: Tensor, values: dict[str, Any]) -> Any:
        return {"latents": swapped} if step_index == 1 else None

    rest = run(pipeline, steps=4, callback_on_step_end=swap)
    # The picture is encoded beside the controls there and alone here: 4e-7 of rounding, which may
    # move a value over the edge of a byte.
    moved = np.abs(run(pipeline, steps=4, **scheduled).astype(int) - rest)
    assert moved.max() <= 1
    assert (moved > 0).mean() <= 1e-3


def test_four_steps_without_guidance_are_four_evaluations(pipeline: LongViePipeline) -> None:
    with watched(pipeline) as seen:
        run(pipeline, steps=4, guidance_scale=1.0, **CONTROLS)
    assert len(seen["evaluations"]) == 4


@pytest.mark.parametrize(
    ("steps", "start", "end", "expected"),
    [
        (50, 0.0, 1.0, range(50)),
        (50, 0.0, 0.6, range(30)),
        (100, 0.29, 0.57, range(29, 57)),
        (50, 0.6, 1.0, range(30, 50)),
        (4, 0.1, 0.2, range(0)),
        (4, 0.1, 0.3, range(1, 2)),
        (1, 0.0, 0.5, range(1)),
    ],
)
def test_the_steps_of_a_range(steps: int, start: float, end: float, expected: range) -> None:
    assert list(controlled_steps(steps, start, end)) == list(expected)


@given(st.integers(1, 200), st.integers(0, 100), st.integers(0, 100), st.integers(0, 100))
def test_ranges_that_meet_cover_each_step_once(steps: int, a: int, b: int, c: int) -> None:
    low, middle, high = sorted((a, b, c))
    if not low < middle < high:
        return
    first = controlled_steps(steps, low / 100, middle / 100)
    second = controlled_steps(steps, middle / 100, high / 100)
    assert [*first, *second] == list(controlled_steps(steps, low / 100, high / 100))


@pytest.mark.parametrize(("start", "end"), [(0.5, 0.5), (0.6, 0.2), (-0.1, 1.0), (0.0, 1.1)])
def test_a_wrong_range_is_refused(pipeline: LongViePipeline, start: float, end: float) -> None:
    with pytest.raises(InputError, match="0 <= start < end <= 1"):
        run(pipeline, **CONTROLS, control_start=start, control_end=end)
