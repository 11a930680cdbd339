"""`LongViePipeline.generate`: the clips of a long video, one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from longvie_cli.errors import ControlError, InputError
from longvie_cli.models.long_video import ControlPair
from longvie_cli.models.pipeline import LongViePipeline
from small_models import small_pipeline

HEIGHT, WIDTH, NUM_FRAMES = 32, 48, 9
QUICK: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 3.0}


@pytest.fixture(scope="module")
def pipeline() -> LongViePipeline:
    return small_pipeline()


def frames(count: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)


def pair(index: int) -> ControlPair:
    return frames(NUM_FRAMES, 10 + index), frames(NUM_FRAMES, 20 + index)


def by_hand(
    pipeline: LongViePipeline, prompts: list[str], seeds: list[int], controls: list[ControlPair]
) -> list[np.ndarray]:
    image, history, clips = frames(1)[0], None, []
    for prompt, seed, (dense, sparse) in zip(prompts, seeds, controls, strict=True):
        made = pipeline(prompt, image, dense, sparse, history=history, seed=seed, **QUICK).frames
        clips.append(made if history is None else made[1:])
        history = np.concatenate(clips)[-8:]
        image = history[-1]
    return clips


def assert_equal(made: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert [len(clip) for clip in made] == [len(clip) for clip in expected]
    assert all(np.array_equal(one, other) for one, other in zip(made, expected, strict=True))


@pytest.fixture(scope="module")
def three_by_hand(pipeline: LongViePipeline) -> list[np.ndarray]:
    return by_hand(pipeline, ["a hill"] * 3, [5] * 3, [pair(index) for index in range(3)])


@pytest.mark.parametrize("kind", ["list", "function", "iterator"])
def test_is_the_calls_one_after_another(
    pipeline: LongViePipeline, three_by_hand: list[np.ndarray], kind: str
) -> None:
    controls = [pair(index) for index in range(3)]
    given: Any = {"list": controls, "function": pair, "iterator": iter(controls)}[kind]
    options = {"num_clips": 3} if kind == "function" else {}
    made = list(pipeline.generate("a hill", frames(1)[0], given, seed=5, **options, **QUICK))
    assert [len(clip) for clip in made] == [9, 8, 8]
    assert_equal(made, three_by_hand)


def test_prompts_and_seeds_per_clip(pipeline: LongViePipeline) -> None:
    controls = [pair(0), pair(1)]
    made = list(
        pipeline.generate(["hill", "sea"], frames(1)[0], iter(controls), seed=[3, 4], **QUICK)
    )
    assert_equal(made, by_hand(pipeline, ["hill", "sea"], [3, 4], controls))


def test_goes_on_from_history(pipeline: LongViePipeline) -> None:
    whole = list(pipeline.generate("a hill", frames(1)[0], [pair(0), pair(1)], **QUICK))
    rest = list(pipeline.generate("a hill", None, [pair(1)], history=whole[0][-8:], **QUICK))
    assert_equal(rest, whole[1:])


def test_without_controls_the_clips_have_the_given_shape(pipeline: LongViePipeline) -> None:
    made = list(
        pipeline.generate("a hill", frames(1)[0], num_clips=2, num_frames=NUM_FRAMES, **QUICK)
    )
    assert [clip.shape for clip in made] == [(9, HEIGHT, WIDTH, 3), (8, HEIGHT, WIDTH, 3)]


def test_clips_are_made_when_asked_for_from_one_noise(pipeline: LongViePipeline) -> None:
    asked: list[int] = []
    starts: list[Tensor] = []

    def controls() -> Iterator[ControlPair]:
        for index in range(1000):
            asked.append(index)
            yield pair(index)

    hook = pipeline.transformer.register_forward_pre_hook(lambda _, args: starts.append(args[0]))
    try:
        clips = pipeline.generate(
            "a hill", frames(1)[0], controls(), num_inference_steps=1, guidance_scale=1.0
        )
        assert asked == []
        next(clips)
        next(clips)
        assert asked == [0, 1]
    finally:
        hook.remove()
    channels = pipeline.vae.config.z_dim
    # All but the first latent frame, which history is blended into.
    first, second = (start[:, :channels, 1:] for start in starts)
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"prompt": ["a", "b"], "controls": [pair(0)]}, "prompt 2, controls 1"),
        ({"prompt": "a", "controls": pair}, "needs num_clips"),
        ({"prompt": "a"}, "needs num_clips"),
        ({"prompt": []}, "at least 1"),
        ({"prompt": "a", "seed": [1, 2], "num_clips": 3}, "seed 2, num_clips 3"),
    ],
)
def test_disagreeing_numbers_are_refused_at_once(
    pipeline: LongViePipeline, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        pipeline.generate(image=frames(1)[0], **arguments)


def test_controls_that_run_out_or_do_not_fit_are_refused(pipeline: LongViePipeline) -> None:
    clips = pipeline.generate(["a", "b"], frames(1)[0], iter([pair(0)]), **QUICK)
    next(clips)
    with pytest.raises(InputError, match="end after 1 of 2 clips"):
        next(clips)
    wrong = (frames(NUM_FRAMES)[:, :16], None)
    clips = pipeline.generate("a", frames(1)[0], [wrong], height=HEIGHT, width=WIDTH)
    with pytest.raises(ControlError, match="dense control"):
        next(clips)
