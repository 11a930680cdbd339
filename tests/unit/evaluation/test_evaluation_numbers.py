"""Drift, seams, motion and consistency against frames whose truth is known, without files."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from longvie_cli.evaluation.consistency import describe_picture, measure_consistency
from longvie_cli.evaluation.drift import (
    first_and_last,
    measure_colour_drift,
    measure_drift,
    theil_sen_slope,
)
from longvie_cli.evaluation.motion import Freeze, FreezeFinder, measure_motion
from longvie_cli.evaluation.quality import block_steps, pixel_noise, sampling_step, sharpness
from made_frames import sliding, texture

LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)


def test_a_slope_is_found_beside_a_quarter_of_nonsense() -> None:
    draw = np.random.default_rng(1)
    times = np.arange(400) / 16
    values = 100 + 3.0 * times + draw.normal(0, 0.5, 400)
    values[draw.choice(400, 100, replace=False)] = draw.uniform(0, 255, 100)
    assert theil_sen_slope(times, values) == pytest.approx(3.0, abs=0.35)
    assert abs(np.polyfit(times, values, 1)[0] - 3.0) > 0.35, "least squares would be off"


def test_a_slope_of_many_values_is_that_of_their_means() -> None:
    times = np.arange(20_000) / 24
    assert theil_sen_slope(times, 0.25 * times - 7) == pytest.approx(0.25, rel=1e-9)


def test_drift_compares_the_first_with_the_last_15_percent() -> None:
    times = np.arange(100) / 10
    values = np.concatenate([np.full(15, 50.0), np.linspace(50, 60, 70), np.full(15, 60.0)])
    drift = measure_drift(times, values, least=1)
    assert drift is not None
    assert (drift.start, drift.end, drift.change) == (50.0, 60.0, pytest.approx(0.2))
    assert drift.slope_per_minute == pytest.approx(60 * 10 / 7, rel=0.05)
    first, last = first_and_last(np.arange(100))
    assert (first[-1], last[0]) == (14, 85)


def test_no_change_is_relative_to_nothing_and_short_videos_have_no_drift() -> None:
    times = np.arange(20) / 10
    drift = measure_drift(times, np.linspace(0, 1, 20), least=1)
    assert drift is not None and drift.change is None
    assert measure_drift(times[:7], np.ones(7), least=1) is None
    assert measure_drift(times, np.full(20, np.nan), least=1) is None


def test_colour_drift_is_a_distance_in_cielab() -> None:
    times = np.arange(120) / 2
    lab = np.stack([np.full(120, 50.0), 0.1 * times, -0.2 * times], axis=1)
    drift, distances = measure_colour_drift(times, lab) or pytest.fail("long enough")
    assert drift.slope_per_minute == pytest.approx(60 * np.hypot(0.1, 0.2), rel=1e-6)
    assert drift.change == pytest.approx(np.hypot(0.1, 0.2) * 51, rel=1e-6)
    assert distances[-1] == pytest.approx(drift.change or 0, rel=0.2)


@pytest.mark.parametrize("deviation", [2.0, 8.0])
def test_noise_is_measured_in_levels(deviation: float) -> None:
    draw = np.random.default_rng(2)
    luma = np.ascontiguousarray(texture(120, 200) @ LUMA)
    noisy = luma + draw.normal(0, deviation, luma.shape).astype(np.float32)
    assert pixel_noise(luma) < 0.5
    assert pixel_noise(noisy) == pytest.approx(deviation, rel=0.1)


def test_sharpness_falls_as_a_picture_is_blurred() -> None:
    luma = np.ascontiguousarray(texture(120, 200) @ LUMA)
    blurred = [sharpness(cv2.GaussianBlur(luma, (0, 0), by)) for by in (0.5, 1, 2, 4)]
    assert blurred == sorted(blurred, reverse=True)
    assert blurred[-1] < 0.5 * blurred[0]


def test_blocks_of_eight_are_told_from_other_ones() -> None:
    luma = np.ascontiguousarray(texture(128, 192) @ LUMA)
    assert block_steps(luma) == pytest.approx(1.0, abs=0.03)
    for size, blocky in ((8, True), (7, False)):
        steps = np.random.default_rng(3).normal(0, 6, (128 // size + 1, 192 // size + 1))
        added = np.kron(steps, np.ones((size, size)))[:128, :192]
        assert (block_steps(luma + added.astype(np.float32)) > 1.5) is blocky
    assert block_steps(luma[:5, :5]) == 1.0


@pytest.mark.parametrize(
    ("num_frames", "most", "step"), [(1, 256, 1), (256, 256, 1), (257, 256, 2), (4800, 256, 19)]
)
def test_pictures_are_chosen_evenly_and_never_too_many(
    num_frames: int, most: int, step: int
) -> None:
    assert sampling_step(num_frames, most) == step
    assert len(range(0, num_frames, step)) <= most


def _freezes(frames: Sequence[np.ndarray], fps: float = 16) -> tuple[Freeze, ...]:
    finder = FreezeFinder(fps)
    for frame in frames:
        finder.add(frame)
    return finder.finish()


def test_a_freeze_is_found_with_its_first_frame_and_its_length() -> None:
    frames = sliding(60)
    frames[40:] = frames[40]
    assert _freezes(frames) == (Freeze(40, 20),)
    frames = sliding(60)
    frames[10:30] = frames[10]
    assert _freezes(frames) == (Freeze(10, 20),)
    assert _freezes(sliding(60)) == ()
    assert _freezes([sliding(1)[0]] * 30) == (Freeze(0, 30),)


def test_what_moves_slowly_or_in_one_corner_is_no_freeze() -> None:
    slow = np.clip(texture(96, 160)[None] + 0.2 * np.arange(60)[:, None, None, None], 0, 255)
    assert _freezes(slow.round().astype(np.uint8)) == ()
    still = np.repeat(sliding(1), 60, axis=0)
    still[:, 20:36, 20:36] = sliding(60, height=16, width=16)
    assert _freezes(still) == ()


def test_frames_shown_twice_are_no_freeze() -> None:
    assert _freezes(np.repeat(sliding(30), 2, axis=0), fps=24) == ()


def test_motion_is_compared_between_both_ends() -> None:
    flow = np.concatenate([[np.nan], np.linspace(4, 1, 99)]).astype(np.float32)
    motion = measure_motion(flow, ())
    assert motion is not None
    assert motion.mean == pytest.approx(2.5)
    assert motion.last_over_first == pytest.approx(1.21 / 3.79, rel=0.02)
    assert measure_motion(np.array([np.nan], np.float32), ()) is None
    still = measure_motion(np.zeros(20, np.float32), ())
    assert still is not None and still.last_over_first is None


def _lab(picture: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)


def test_a_description_has_unit_length_and_tells_pictures_apart() -> None:
    one, other = texture(96, 160, 1), texture(96, 160, 2)
    mine = describe_picture(_lab(one)).astype(np.float64)
    assert np.linalg.norm(mine) == pytest.approx(1, abs=2e-3)
    noise = np.random.default_rng(0).normal(0, 2, one.shape)
    alike = describe_picture(_lab(np.clip(one + noise, 0, 255)))
    tinted = describe_picture(_lab(np.clip(one * (1.0, 0.8, 0.6), 0, 255)))
    stripes = np.broadcast_to(127 + 100 * np.sin(np.arange(160) / 3)[:, None], (96, 160, 3))
    cosines = [
        float(mine @ describe_picture(_lab(picture)))
        for picture in (one, np.clip(one + noise, 0, 255), other)
    ]
    assert cosines[0] == pytest.approx(1, abs=2e-3)
    assert cosines[0] > cosines[1] > 0.97
    assert mine @ tinted < 0.93 < mine @ alike
    assert mine @ describe_picture(_lab(stripes)) < 0.6


def test_consistency_is_the_mean_cosine_of_pairs_so_far_apart() -> None:
    draw = np.random.default_rng(4)
    times = np.arange(100) * 0.25
    angles = np.cumsum(draw.uniform(0, 0.03, 100))
    descriptions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    gaps = {gap.seconds: gap for gap in measure_consistency(times, descriptions)}
    assert list(gaps) == [0.25, 1, 2, 5, 10, 20]
    for seconds, gap in gaps.items():
        apart = round(seconds * 4)
        pairs = [
            float(np.cos(angles[index] - angles[index + apart])) for index in range(100 - apart)
        ]
        assert gap.pairs == len(pairs)
        assert gap.similarity == pytest.approx(np.mean(pairs), abs=1e-9)
    similarities = [gap.similarity for gap in gaps.values()]
    assert similarities == sorted(similarities, reverse=True)


def test_gaps_that_do_not_fit_are_left_out() -> None:
    assert measure_consistency(np.array([0.0]), np.ones((1, 2))) == ()
    few = measure_consistency(np.arange(8) * 0.25, np.ones((8, 1)))
    assert [gap.seconds for gap in few] == [0.25, 1]
