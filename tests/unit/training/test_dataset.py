"""Samples of worlds, and the order of a run; `test_prepare.py` has those of `prepare`."""

from __future__ import annotations

import numpy as np
import pytest

from longvie_cli.training.dataset import (
    ClipSize,
    Sample,
    WorldSamples,
    sample_number,
)

SIZE = ClipSize(num_frames=5, height=16, width=24, history_frames=4)


def worlds(flights: int | None = None) -> WorldSamples:
    return WorldSamples(SIZE, fps=16, seed=3, track_columns=3, track_rows=2, flights=flights)


def same(first: Sample, second: Sample) -> bool:
    return first.prompt == second.prompt and all(
        np.array_equal(getattr(first, name), getattr(second, name))
        for name in ("video", "dense", "sparse", "history")
    )


@pytest.mark.slow
def test_a_number_is_one_sample_whenever_it_is_asked_for() -> None:
    source = worlds()
    first = [source.sample(number) for number in range(2)]
    again = worlds()
    for number in reversed(range(2)):
        assert same(again.sample(number), first[number])
    assert not same(first[0], first[1])


def test_samples_have_the_shapes_of_the_clip() -> None:
    sample = worlds().sample(1)
    for frames in (sample.video, sample.dense, sample.sparse):
        assert (frames.shape, frames.dtype) == ((5, 16, 24, 3), np.uint8)
    assert sample.history.shape == (4, 16, 24, 3)
    assert sample.prompt
    assert sample.video.std() > 0
    assert sample.dense.std() > 0


def test_a_history_is_what_comes_just_before() -> None:
    sample = worlds().sample(0)
    steps = np.concatenate([sample.history, sample.video]).astype(int)
    jumps = np.abs(np.diff(steps, axis=0)).mean(axis=(1, 2, 3))
    assert jumps[3] < 3 * np.median(jumps)


def test_every_epoch_has_each_sample_once_in_an_order_of_its_own() -> None:
    samples = worlds(flights=5)
    epochs = [[sample_number(samples, 5 * epoch + i, seed=1) for i in range(5)] for epoch in (0, 1)]
    assert all(sorted(epoch) == list(range(5)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    # Asked for in the middle, as a resumed run does.
    assert sample_number(samples, 7, seed=1) == epochs[1][2]
    assert [sample_number(samples, i, seed=2) for i in range(5)] != epochs[0]


def test_worlds_never_repeat() -> None:
    assert [sample_number(worlds(), position, seed=1) for position in (0, 1, 10**9)] == [
        *(0, 1, 10**9)
    ]
