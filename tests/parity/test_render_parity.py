"""Golden family `render`: track pictures and depth bytes, not one byte different."""

from __future__ import annotations

import numpy as np
import pytest

from longvie_cli.controls.normalization import depth_bytes, normalize_video_depth
from longvie_cli.controls.rendering import render_tracks

from .golden import Golden, numbered, read_golden

RELEASED_STRIDE = 80


@pytest.fixture(scope="module")
def golden() -> Golden:
    return read_golden("render_cases")


def test_track_pictures_equal_the_recorded_ones(golden: Golden) -> None:
    names = [key.removesuffix(".tracks") for key in golden if key.endswith(".tracks")]
    assert names
    for name in names:
        frames = golden[f"{name}.frames"].numpy()
        _, height, width, _ = frames.shape
        ours = render_tracks(golden[f"{name}.tracks"].numpy(), height=height, width=width)
        assert int((ours != frames).sum()) == 0, name


def test_normalized_depth_and_percentiles_equal_the_recorded_ones(golden: Golden) -> None:
    names = [key.removesuffix(".input") for key in golden if key.endswith(".input")]
    assert names
    for name in names:
        normalized, depth_range = normalize_video_depth(
            golden[f"{name}.input"].numpy(), stride=_stride(golden, name)
        )
        assert [depth_range.high, depth_range.low] == golden[f"{name}.p95_p5"].tolist(), name
        np.testing.assert_array_equal(normalized, golden[f"{name}.normalised"].numpy(), name)


def test_depth_clips_equal_the_recorded_ones(golden: Golden) -> None:
    names = numbered(golden, r"depth\d+(?=\.clip)")
    assert names
    for name in names:
        stride = _stride(golden, name)
        normalized, _ = normalize_video_depth(golden[f"{name}.input"].numpy(), stride=stride)
        clips = numbered(golden, rf"{name}\.clip\d+")
        assert len(clips) == (len(normalized) - 1) // stride
        for clip_index, key in enumerate(clips):
            start = stride * clip_index
            ours = depth_bytes(normalized[start : start + stride + 1])
            assert int((ours != golden[f"{key}_uint8"].numpy()).sum()) == 0, key


def _stride(golden: Golden, name: str) -> int:
    """Frames from one recorded clip to the next; inputs too short for a clip say nothing."""
    first_clip = golden.get(f"{name}.clip0_uint8")
    return RELEASED_STRIDE if first_clip is None else len(first_clip) - 1
