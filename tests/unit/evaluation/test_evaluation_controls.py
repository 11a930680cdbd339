"""Which control frame a frame of a video was made for, and how depth and control agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from longvie_cli.controls.files import ControlClips, FrameRange
from longvie_cli.evaluation.controllability import (
    PlacedControls,
    _agreement,
    frames_with_controls,
)
from longvie_cli.timeline import ClipGeometry

CONTROLS = ControlClips(
    clips=(),
    videos={},
    frame_counts=(),
    geometry=ClipGeometry(9, 16),
    num_frames=17,
    height=64,
    width=96,
    first_image=None,
    ranges=(FrameRange(0, 9), FrameRange(8, 17)),
)


def test_frames_go_with_the_controls_they_were_made_for() -> None:
    placed = PlacedControls(CONTROLS)
    assert [placed.control_frame(frame) for frame in (0, 5, 16, 17)] == [0, 5, 16, None]
    assert frames_with_controls(placed, 30) == 17 and frames_with_controls(placed, 10) == 10
    later = replace(placed, first_frame=4, first_video_frame=31)
    assert [later.control_frame(frame) for frame in (30, 31, 43, 44)] == [None, 4, 16, None]
    assert (later.video_frame(4), later.video_frame(16), later.video_frame(3)) == (31, 43, None)
    assert frames_with_controls(later, 60) == 13
    # What is only joined so far begins with the frame after the one that the controls begin with.
    assert replace(placed, first_video_frame=-1).control_frame(0) == 1


def test_controls_are_played_back_and_forth() -> None:
    placed = PlacedControls(CONTROLS, pingpong=True)
    played = [placed.control_frame(frame) for frame in (0, 16, 17, 32, 33, 48)]
    assert played == [0, 16, 15, 0, 1, 16]


@pytest.mark.parametrize("rate", [24.0, 29.97, 8.0])
def test_another_rate_is_laid_beside_by_time(rate: float) -> None:
    placed = PlacedControls(CONTROLS, frames_per_frame=16 / rate)
    for frame in range(int(rate)):
        control = placed.control_frame(frame)
        assert control is not None
        assert abs(control / 16 - frame / rate) <= 0.5 / 16 + 1e-9


def test_depth_agrees_up_to_scale_and_shift_but_not_upside_down() -> None:
    draw = np.random.default_rng(0)
    nearness = draw.uniform(0.1, 0.9, (6, 20, 30)).astype(np.float32)
    frames = np.arange(6)
    same = _agreement(frames, 3 * nearness + 5, nearness, "m")
    assert same is not None
    assert same.l1 == pytest.approx(0, abs=1e-5) and same.correlation == pytest.approx(1)
    assert same.correlation_elsewhere == pytest.approx(0, abs=0.05)
    turned = _agreement(frames, -3 * nearness + 5, nearness, "m")
    assert turned is not None
    assert turned.correlation == pytest.approx(-1)
    assert turned.l1 == pytest.approx(np.abs(nearness - nearness.mean()).mean(), rel=1e-3)
    noisy = nearness + draw.normal(0, 0.1, nearness.shape).astype(np.float32)
    between = _agreement(frames, noisy, nearness, "m")
    assert between is not None
    expected = np.corrcoef(noisy.ravel(), nearness.ravel())[0, 1]
    assert between.correlation == pytest.approx(expected, abs=1e-5)
    assert _agreement(frames, np.full_like(nearness, np.nan), nearness, "m") is None
    # What is flat has no correlation, and 0 would say that it is known to be none.
    for one, other in (
        (np.full_like(nearness, 0.3), nearness),
        (nearness, np.full_like(nearness, 0.7)),
    ):
        flat = _agreement(frames, one, other, "m")
        assert flat is not None
        assert flat.correlation is None and np.isnan(flat.correlations).all()
