"""Cuts, dissolves and fades are found where they are; flights, flashes, light and noise are none.

What is drawn here is mixed as editors mix: the values of two pictures, evenly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
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
    SceneChange,
    SceneDetector,
    SceneScan,
    scan_scenes,
)
from longvie_cli.media.writer import VideoWriter
from longvie_cli.worlds import EVALUATION_SEED_START, Flight
from mixed_scenes import dissolve, mix, pictured

NUM_FLIGHTS = 5
NUM_JOINS = 200


def find_cuts(frames: Iterable[np.ndarray]) -> list[int]:
    detector = CutDetector()
    cuts = [cut for frame in frames for cut in detector.add(frame)]
    return [*cuts, *detector.finish()]


def find_changes(frames: Iterable[np.ndarray]) -> list[tuple[str, int, int]]:
    """Return kind, first frame that is not the old scene alone, first of the new scene alone."""
    detector = SceneDetector()
    for frame in frames:
        detector.add(frame)
    return [(change.kind, change.start, change.frame) for change in detector.finish()]


def small_flight(seed: int, *, num_frames: int, step: int = 1) -> list[np.ndarray]:
    flight = Flight(seed, width=48, height=32, fps=16)
    pictures = (flight.frame(index * step).rgb for index in range(num_frames))
    return [resize_frame(picture, SMALL_HEIGHT, SMALL_WIDTH, "stretch") for picture in pictures]


Flights = Callable[[int], list[np.ndarray]]


@pytest.fixture(scope="module")
def flights() -> Flights:
    """Flights of the reserved seeds, made when asked for; every second at four times the speed."""
    return cache(
        lambda index: small_flight(
            EVALUATION_SEED_START + 700 + index, num_frames=30, step=1 + 3 * (index % 2)
        )
    )


@pytest.mark.slow
def test_a_flight_has_no_cut_however_fast(flights) -> None:
    assert [find_cuts(flights(index)) for index in range(NUM_FLIGHTS)] == [[]] * NUM_FLIGHTS


def joins(
    flights, count: int, *, among: int = NUM_FLIGHTS
) -> Iterator[tuple[list[np.ndarray], int]]:
    rng = np.random.default_rng(3)
    for _ in range(count):
        one, other = rng.choice(among, 2, replace=False)
        cut = int(rng.integers(1, 26))
        start = int(rng.integers(0, 12))
        yield [*flights(one)[:cut], *flights(other)[start:]], cut


@pytest.mark.slow
def test_joins_of_two_flights_are_found_at_their_frame(flights) -> None:
    assert all(find_cuts(frames) == [cut] for frames, cut in joins(flights, NUM_JOINS))


@pytest.mark.parametrize(
    ("count", "among"),
    [pytest.param(NUM_JOINS, NUM_FLIGHTS, marks=pytest.mark.slow), (NUM_JOINS // 10, 3)],
)
def test_a_join_is_one_cut_and_nothing_gradual(flights, count: int, among: int) -> None:
    for frames, cut in joins(flights, count, among=among):
        assert find_changes(frames) == [("cut", cut, cut)]


@pytest.mark.slow
def test_two_cuts_close_together_are_both_found(flights) -> None:
    frames = [*flights(0)[:15], *flights(2)[:4], *flights(1)[:15]]
    assert find_cuts(frames) == [15, 19]


@pytest.mark.parametrize("length", [1, 2])
def test_a_flash_is_no_cut(flights, length: int) -> None:
    frames = [frame.copy() for frame in flights(0)]
    for index in range(17, 17 + length):
        frames[index][:] = 255
    assert find_cuts(frames) == []


def test_a_fade_and_a_dissolve_are_no_cuts(flights) -> None:
    one, other = flights(0), flights(2)
    dark = [(frame * max(0.0, 1 - index / 12)).astype(np.uint8) for index, frame in enumerate(one)]
    assert find_cuts([*dark[:14], *reversed(dark[:14])]) == []
    assert find_cuts(dissolve(one, other, before=7, mixed=15)) == []


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


@pytest.mark.slow
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


def is_about(change: tuple[str, int, int], kind: str, start: int, end: int) -> bool:
    """Whether a range is named to a quarter of its length, or two frames."""
    near = max(2, (end - start) / 4)
    return change[0] == kind and abs(change[1] - start) <= near and abs(change[2] - end) <= near


@pytest.mark.parametrize("mixed", [5, 8, 12, 16, 24, 32, 48, 60])
def test_a_dissolve_is_found_with_its_range(mixed: int) -> None:
    frames = dissolve(pictured(1, 100), pictured(2, 100), before=30, mixed=mixed)
    (change,) = find_changes(frames)
    assert is_about(change, "dissolve", 30, 30 + mixed), change


def test_a_dissolve_of_two_flights_is_found(flights) -> None:
    frames = dissolve(flights(0), flights(2), before=18, mixed=8)
    (change,) = find_changes(frames)
    assert is_about(change, "dissolve", 18, 26), change


def test_two_dissolves_and_a_cut_are_told_apart() -> None:
    one, two, three, four = (pictured(seed, 60) for seed in (1, 2, 3, 4))
    frames = [*dissolve(one, two, before=20, mixed=16)[:60], *three[:30]]
    frames = dissolve(frames, four, before=80, mixed=10)
    first, cut, last = find_changes(frames)
    assert is_about(first, "dissolve", 20, 36), first
    assert cut == ("cut", 60, 60)
    assert is_about(last, "dissolve", 80, 90), last


@pytest.mark.parametrize("colour", [0, 255])
@pytest.mark.parametrize(("out", "held", "back"), [(8, 1, 8), (16, 10, 6), (4, 40, 24), (12, 2, 0)])
def test_a_fade_through_one_colour_is_found_with_its_range(
    colour: int, out: int, held: int, back: int
) -> None:
    one, other = pictured(1, 90), pictured(2, 90)
    frames = [
        *one[:25],
        *(
            mix(frame, colour, (index + 1) / (out + 1))
            for index, frame in enumerate(one[25:][:out])
        ),
        *[np.full_like(one[0], colour)] * held,
        *(mix(frame, colour, 1 - (k + 1) / (back + 1)) for k, frame in enumerate(other[:back])),
        *other[back : back + 30],
    ]
    (change,) = find_changes(frames)
    assert is_about(change, "fade", 25, 25 + out + held + back), change


def test_a_fade_at_the_beginning_or_the_end_leads_to_no_other_scene() -> None:
    frames = pictured(1, 80)
    shares = np.clip(
        np.concatenate([np.arange(-3, 20) / 20, np.ones(30), np.arange(20, -7, -1) / 20]), 0, 1
    )
    assert (
        find_changes(
            [mix(frame, 0, 1 - share) for frame, share in zip(frames, shares, strict=True)]
        )
        == []
    )


def test_a_light_that_goes_out_and_on_again_is_no_other_scene() -> None:
    frames = pictured(1, 70, speed=0.1)
    shares = 1 - np.clip(np.abs(np.arange(70) - 35) / 12 - 0.2, 0, 1)
    assert (
        find_changes([mix(frame, 0, share) for frame, share in zip(frames, shares, strict=True)])
        == []
    )


@pytest.mark.parametrize("length", [6, 16, 40])
@pytest.mark.parametrize("how", ["darker", "brighter", "redder", "foggy", "fog passes"])
def test_a_change_of_light_is_no_other_scene(flights, length: int, how: str) -> None:
    for frames in (pictured(5, 90), [flights(0)[0]] * 90):
        share = np.clip((np.arange(90) - 25) / length, 0, 1)[:, None, None, None]
        values = np.stack(frames).astype(float)
        lit = {
            "darker": values * (1 - 0.6 * share),
            "brighter": values * (1 + 0.7 * share),
            "redder": values * (1 - share * np.array([0, 0.2, 0.4])),
            "foggy": values * (1 - 0.7 * share) + 190 * 0.7 * share,
            "fog passes": values + (190 - values) * 0.8 * np.sin(np.pi * share),
        }[how]
        assert find_changes(np.clip(np.rint(lit), 0, 255).astype(np.uint8)) == []


@pytest.mark.slow
def test_what_moves_is_no_other_scene(flights) -> None:
    assert [find_changes(flights(index)) for index in range(NUM_FLIGHTS)] == [[]] * NUM_FLIGHTS
    for speed in (0.5, 1.3, 1.6):
        assert find_changes(pictured(7, 85, speed=speed)) == []
    still = pictured(8, 1)[0]
    passing = [still.copy() for _ in range(90)]
    for index in range(50):
        passing[20 + index][:, max(0, 2 * index - 48) : 2 * index] = pictured(9, 1)[0][0, 0]
    assert find_changes(passing) == []


def test_the_detectors_hold_a_bounded_number_of_frames() -> None:
    detector = SceneDetector()
    held = []
    for index in range(600):
        detector.add(np.full((SMALL_HEIGHT, SMALL_WIDTH, 3), index % 200, np.uint8))
        held.append(len(detector._dissolves._coarse) + len(detector._fades._frames))
    assert max(held) < 250


def write(path: Path, frames: list[np.ndarray], fps: int) -> Path:
    height, width = frames[0].shape[:2]
    with VideoWriter(path, height=height, width=width, fps=fps) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def test_a_file_is_scanned_at_the_rate_of_the_run(flights, tmp_path: Path) -> None:
    path = write(tmp_path / "cut.mp4", [*flights(0)[:30], *flights(1)[:30]], fps=32)
    *counts, scan = scan_scenes(probe_video(path), fps=16)
    assert scan == SceneScan(count_frames(probe_video(path), fps=16), (SceneChange(15, 15),))
    assert scan.num_frames == 30
    assert counts == []
    assert [*scan_scenes(probe_video(path), fps=16, start_frame=10, num_frames=12)] == [
        SceneScan(12, (SceneChange(5, 5),))
    ]
    assert [*scan_scenes(probe_video(path), fps=16, num_frames=14)] == [SceneScan(14, ())]
