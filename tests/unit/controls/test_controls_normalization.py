"""Depth to grey: one pair of percentiles for a whole video, exact however it is read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from longvie_cli.controls.normalization import (
    DepthRange,
    PercentileSketch,
    depth_bytes,
    depth_percentiles,
    normalize_video_depth,
)
from longvie_cli.errors import ControlError

HALF_FLOATS = st.floats(-60000, 60000, width=16).filter(
    lambda value: value == 0 or abs(value) > 1e-4
)


def test_near_is_black_and_far_is_white() -> None:
    disparity = np.linspace(0, 10, 1000, dtype=np.float32)
    pictures = depth_percentiles(disparity).depth_bytes(disparity)
    assert pictures[0] == 255 and pictures[-1] == 0
    assert (np.diff(pictures.astype(int)) <= 0).all()


def test_bytes_are_truncated_not_rounded() -> None:
    assert depth_bytes(np.array([0.0, 0.999 / 255, 1.999 / 255, 1.0])).tolist() == [0, 0, 1, 255]


def test_the_tail_that_fills_no_clip_does_not_count() -> None:
    disparity = np.linspace(0, 1, 9 * 100, dtype=np.float32).reshape(9, 10, 10)
    with_tail = np.concatenate([disparity, np.full((3, 10, 10), 1e6, np.float32)])
    ours, range_with_tail = normalize_video_depth(with_tail, stride=4)
    np.testing.assert_array_equal(ours, normalize_video_depth(disparity, stride=4)[0])
    assert range_with_tail == depth_percentiles(disparity)


@given(
    arrays.arrays(np.float16, st.integers(2, 400), elements=HALF_FLOATS),
    st.integers(1, 7),
)
def test_sketch_equals_numpy_over_the_same_values(values: np.ndarray, num_parts: int) -> None:
    sketch = PercentileSketch()
    for part in np.array_split(values, num_parts):
        sketch.add(part)
    assert sketch.num_values == values.size
    low, high = np.percentile(values.astype(np.float32), np.array([5.0, 95.0]))
    if low == high:
        with pytest.raises(ControlError, match="one depth"):
            sketch.depth_range()
    else:
        assert sketch.depth_range() == DepthRange(float(low), float(high))


def test_sketch_equals_numpy_on_a_video_of_frames() -> None:
    rng = np.random.default_rng(5)
    frames = rng.gamma(2.0, 3.0, (40, 30, 50)).astype(np.float16)
    frames[:, :6] = 0
    sketch = PercentileSketch()
    for frame in frames:
        sketch.add(frame)
    assert sketch.depth_range() == depth_percentiles(frames.astype(np.float32))


@given(st.floats(0.125, 64.0), st.floats(-100, 100))
def test_scale_and_offset_of_the_estimator_do_not_matter(scale: float, offset: float) -> None:
    disparity = np.random.default_rng(0).random((5, 9, 9))
    expected, _ = normalize_video_depth(disparity, stride=4)
    ours, _ = normalize_video_depth(disparity * scale + offset, stride=4)
    # float64 rounding of values up to 164, over a range of at least 0.1.
    np.testing.assert_allclose(ours, expected, atol=1e-11)


def test_depth_that_is_not_finite_is_refused() -> None:
    values = np.array([1, np.nan, np.inf, -np.inf, 2], np.float16)
    with pytest.raises(ControlError, match="3 of 5 depth values are not finite"):
        PercentileSketch().add(values)


def test_a_video_of_one_depth_is_refused() -> None:
    with pytest.raises(ControlError, match="one depth: percentiles 5 and 95 are both 3"):
        normalize_video_depth(np.full((5, 4, 4), 3.0, np.float32), stride=4)


def test_nothing_to_normalize_is_refused() -> None:
    with pytest.raises(ControlError, match="no frame was read"):
        PercentileSketch().depth_range()
