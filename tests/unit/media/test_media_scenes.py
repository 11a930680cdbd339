"""Cuts are found at their frame; fast flights, flashes, fades and noise are none."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from longvie_cli.media.frames import resize_frame
from longvie_cli.media.probe import probe_video
from longvie_cli.media.reader import count_frames
from longvie_cli.media.scenes import (
    SMALL_HEIGHT,
    SMALL_WIDTH,
    CutDetector,
    SceneScan,
    scan_scenes,
)
from longvie_cli.media.writer import VideoWriter
from longvie_cli.worlds import EVALUATION_SEED_START, Flight

NUM_FLIGHTS = 8
NUM_JOINS = 200


def find_cuts(frames: Iterable[np.ndarray]) -> list[int]:
    detector = CutDetector()
    cuts = [cut for frame in frames for cut in detector.add(frame)]
    return [*cuts, *detector.finish()]


def small_flight(seed: int, *, num_frames: int, step: int = 1) -> list[np.ndarray]:
    flight = Flight(seed, width=48, height=32, fps=16)
    pictures = (flight.frame(index * step).rgb for index in range(num_frames))
    return [resize_frame(picture, SMALL_HEIGHT, SMALL_WIDTH, "stretch") for picture in pictures]


@pytest.fixture(scope="module")
def flights() -> list[list[np.ndarray]]:
    """Flights of the reserved seeds; every second one at four times the speed."""
    return [
        small_flight(EVALUATION_SEED_START + 700 + index, num_frames=30, step=1 + 3 * (index % 2))
        for index in range(NUM_FLIGHTS)
    ]


def test_a_flight_has_no_cut_however_fast(flights) -> None:
    assert [find_cuts(frames) for frames in flights] == [[]] * NUM_FLIGHTS


def test_joins_of_two_flights_are_found_at_their_frame(flights) -> None:
    rng = np.random.default_rng(3)
    found = false = 0
    for _ in range(NUM_JOINS):
        one, other = rng.choice(NUM_FLIGHTS, 2, replace=False)
        cut = int(rng.integers(1, 26))
        start = int(rng.integers(0, 12))
        cuts = find_cuts([*flights[one][:cut], *flights[other][start:]])
        found += cut in cuts
        false += len([place for place in cuts if place != cut])
    recall, precision = found / NUM_JOINS, found / max(1, found + false)
    print(f"{NUM_JOINS} joins: recall {recall:.3f}, precision {precision:.3f}")
    assert recall >= 0.97
    assert precision >= 0.99


def test_two_cuts_close_together_are_both_found(flights) -> None:
    frames = [*flights[0][:15], *flights[2][:4], *flights[4][:15]]
    assert find_cuts(frames) == [15, 19]


@pytest.mark.parametrize("length", [1, 2])
def test_a_flash_is_no_cut(flights, length: int) -> None:
    frames = [frame.copy() for frame in flights[0]]
    for index in range(17, 17 + length):
        frames[index][:] = 255
    assert find_cuts(frames) == []


def test_a_fade_through_black_and_a_dissolve_are_no_cuts(flights) -> None:
    one, other = flights[0], flights[2]
    dark = [(frame * max(0.0, 1 - index / 12)).astype(np.uint8) for index, frame in enumerate(one)]
    assert find_cuts([*dark[:14], *reversed(dark[:14])]) == []
    mixed = [
        (a * (1 - share) + b * share).astype(np.uint8)
        for a, b, share in zip(one, other, np.clip(np.linspace(-0.5, 1.5, 30), 0, 1), strict=True)
    ]
    assert find_cuts(mixed) == []


def test_stillness_and_noise_are_no_cuts() -> None:
    rng = np.random.default_rng(0)
    still = np.full((SMALL_HEIGHT, SMALL_WIDTH, 3), 90, np.uint8)
    assert find_cuts([still] * 40) == []
    noise = rng.integers(0, 256, (40, SMALL_HEIGHT, SMALL_WIDTH, 3)).astype(np.uint8)
    assert find_cuts(list(noise)) == []


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_slow_fade_of_one_colour_is_no_cut(step: int) -> None:
    still = np.ones((SMALL_HEIGHT, SMALL_WIDTH, 3), np.uint8)
    assert find_cuts([still * level for level in range(0, 256, step)]) == []
    red = still * np.array([1, 0, 0], np.uint8)
    assert find_cuts([red * level for level in range(0, 256, step)]) == []


def test_a_sudden_fast_turn_is_no_cut() -> None:
    picture = np.kron(
        np.random.default_rng(1).integers(40, 216, (8, 60, 3)), np.ones((4, 8, 1))
    ).astype(np.uint8)
    places = [*[0] * 12, *range(0, 20 * 16, 20)]
    frames = [picture[:, place : place + SMALL_WIDTH] for place in places]
    assert find_cuts(frames) == []


def test_repeated_frames_of_a_slow_source_are_no_cuts() -> None:
    frames = small_flight(EVALUATION_SEED_START + 731, num_frames=20, step=8)
    assert find_cuts([frame for frame in frames for _ in range(2)]) == []


@pytest.mark.parametrize("num_frames", range(5))
def test_very_short_videos(num_frames: int) -> None:
    still = np.full((SMALL_HEIGHT, SMALL_WIDTH, 3), 90, np.uint8)
    assert find_cuts([still] * num_frames) == []
    assert find_cuts([*[still] * num_frames, *[255 - still] * 3]) == (
        [num_frames] * (num_frames > 0)
    )


def test_the_detector_holds_a_few_frames_only() -> None:
    detector = CutDetector()
    for level in range(200):
        list(detector.add(np.full((SMALL_HEIGHT, SMALL_WIDTH, 3), level % 200, np.uint8)))
    assert len(detector._looks) < 20


def write(path: Path, frames: list[np.ndarray], fps: int) -> Path:
    height, width = frames[0].shape[:2]
    with VideoWriter(path, height=height, width=width, fps=fps) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def test_a_file_is_scanned_at_the_rate_of_the_run(flights, tmp_path: Path) -> None:
    path = write(tmp_path / "cut.mp4", [*flights[0][:30], *flights[4][:30]], fps=32)
    *counts, scan = scan_scenes(probe_video(path), fps=16)
    assert scan == SceneScan(count_frames(probe_video(path), fps=16), (15,))
    assert scan.num_frames == 30
    assert counts == []
    assert [*scan_scenes(probe_video(path), fps=16, start_frame=10, num_frames=12)] == [
        SceneScan(12, (5,))
    ]
    assert [*scan_scenes(probe_video(path), fps=16, num_frames=14)] == [SceneScan(14, ())]
