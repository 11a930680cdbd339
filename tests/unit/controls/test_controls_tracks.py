"""The contract of point trackers, held by each of them on moving pictures with known tracks."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from longvie_cli.controls.cotracker import CoTrackerTracker
from longvie_cli.controls.rendering import lift_tracks, track_grid
from longvie_cli.controls.tracks import LucasKanadeTracker, PointTracker
from longvie_cli.worlds import EVALUATION_SEED_START, Flight
from standin_cotracker import write_standin

HEIGHT, WIDTH = 112, 192
TRACKERS = ("lk", "cotracker3", "cotracker3-online")


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_standin(tmp_path_factory.mktemp("hub") / "co-tracker")


@pytest.fixture
def make_tracker(standin: Path) -> Callable[[str], PointTracker]:
    def make(kind: str) -> PointTracker:
        if kind == "lk":
            return LucasKanadeTracker()
        online = kind == "cotracker3-online"
        weights = standin / f"scaled_{'online' if online else 'offline'}.pth"
        return CoTrackerTracker(weights, online=online, checkout=standin)

    return make


@pytest.fixture(params=TRACKERS)
def tracker(request: pytest.FixtureRequest, make_tracker: Callable[..., PointTracker]):
    return make_tracker(request.param)


@pytest.fixture
def lucas_kanade() -> LucasKanadeTracker:
    return LucasKanadeTracker()


def texture(height: int, width: int, seed: int = 1) -> np.ndarray:
    """Blotches a few pixels wide, in colour."""
    noise = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)


def warped(maps: list[np.ndarray]) -> np.ndarray:
    """Return pictures of a texture, each under an affine map [2, 3] of the first one's pixels."""
    margin = 150
    wide = texture(HEIGHT + 2 * margin, WIDTH + 2 * margin)
    shifted = []
    for affine in maps:
        matrix = affine.astype(np.float64).copy()
        matrix[:, 2] -= margin * affine[:, :2].sum(axis=1)
        shifted.append(cv2.warpAffine(wide, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC))
    return np.stack(shifted)


def moved(points: np.ndarray, maps: list[np.ndarray]) -> np.ndarray:
    return np.stack([points @ affine[:, :2].T + affine[:, 2] for affine in maps])


def about_the_middle(scale: float, degrees: float) -> np.ndarray:
    return cv2.getRotationMatrix2D(((WIDTH - 1) / 2, (HEIGHT - 1) / 2), degrees, scale)


def panned(step_x: float, step_y: float, num_frames: int) -> list[np.ndarray]:
    return [np.array([[1, 0, step_x * t], [0, 1, step_y * t]]) for t in range(num_frames)]


def inside(points: np.ndarray, margin: float = 0.0) -> np.ndarray:
    x, y = points[..., 0], points[..., 1]
    return (x >= margin) & (x <= WIDTH - 1 - margin) & (y >= margin) & (y <= HEIGHT - 1 - margin)


@pytest.mark.parametrize("num_frames", [1, 2, 7, 16, 17, 33])
def test_tracks_have_the_shape_of_the_question_and_begin_at_it(
    tracker: PointTracker, num_frames: int
) -> None:
    points = track_grid(HEIGHT, WIDTH, columns=9, rows=5)
    asked = points.copy()
    frames = warped(panned(0, 0, num_frames))
    tracks = tracker.track(frames, points)
    assert tracks.points.shape == (num_frames, 45, 2) and tracks.points.dtype == np.float32
    assert tracks.visible.shape == (num_frames, 45) and tracks.visible.dtype == np.bool_
    np.testing.assert_array_equal(tracks.points[0], asked)
    np.testing.assert_array_equal(points, asked)
    assert tracks.visible[0].all()


def test_a_still_video_has_still_tracks(tracker: PointTracker) -> None:
    points = track_grid(HEIGHT, WIDTH, columns=9, rows=5)
    tracks = tracker.track(warped(panned(0, 0, 12)), points)
    assert np.abs(tracks.points - points).max() < 0.01
    assert tracks.visible.all()


@pytest.mark.slow
def test_the_same_frames_give_the_same_tracks(
    make_tracker: Callable[[str], PointTracker], request: pytest.FixtureRequest
) -> None:
    frames = warped(panned(1.25, -0.5, 20))
    points = track_grid(HEIGHT, WIDTH, columns=8, rows=6)
    for kind in TRACKERS:
        used, fresh = make_tracker(kind), make_tracker(kind)
        assert used.name == fresh.name
        # Another clip before must leave no trace.
        used.track(frames[::-1], points[:5])
        first, second = used.track(frames, points), fresh.track(frames, points)
        np.testing.assert_array_equal(first.points, second.points)
        np.testing.assert_array_equal(first.visible, second.visible)


def test_a_moving_picture_is_followed_beyond_its_edge(tracker: PointTracker) -> None:
    maps = panned(-3, 0, 20)
    points = track_grid(HEIGHT, WIDTH, columns=16, rows=10)
    tracks, truth = tracker.track(warped(maps), points), moved(points, maps)
    errors = np.linalg.norm(tracks.points - truth, axis=-1)
    seen = inside(truth, margin=10)
    assert np.median(errors[seen]) < 0.1
    assert errors[seen].mean() < 0.5
    assert tracks.visible[seen].mean() > 0.95
    gone = ~inside(truth, margin=-2)
    assert not tracks.visible[gone].any()
    # They do not stick to the edge: all move alike here.
    assert np.median(errors[gone]) < 1.0


def test_nothing_outside_the_picture_is_called_visible(tracker: PointTracker) -> None:
    tracks = tracker.track(warped(panned(4, 3, 18)), track_grid(HEIGHT, WIDTH, 16, 10))
    assert not tracks.visible[~inside(tracks.points)].any()
    assert (~inside(tracks.points[-1])).sum() > 40


@pytest.mark.slow
def test_memory_is_bounded_by_the_clip(tracker: PointTracker) -> None:
    points = track_grid(HEIGHT, WIDTH, columns=8, rows=6)
    frames = warped(panned(0.5, 0, 48))
    tracker.track(frames[:4], points)
    tracemalloc.start()
    for _ in range(3):
        tracker.track(frames, points)
    left, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert left < 200_000
    assert peak < 2 * frames.nbytes + 8_000_000


@pytest.mark.parametrize(
    ("name", "maps", "mean", "worst"),
    [
        ("pan", panned(1.37, -0.61, 33), 0.15, 1.0),
        ("zoom", [about_the_middle(1.01**t, 0) for t in range(33)], 0.3, 1.5),
        pytest.param(
            "zoom out",
            [about_the_middle(1.01**-t, 0) for t in range(33)],
            0.3,
            1.5,
            marks=pytest.mark.slow,
        ),
        ("rotation", [about_the_middle(1, 0.8 * t) for t in range(33)], 0.3, 1.5),
    ],
)
def test_known_motion_is_measured_finer_than_a_pixel(
    lucas_kanade: LucasKanadeTracker,
    name: str,
    maps: list[np.ndarray],
    mean: float,
    worst: float,
) -> None:
    points = track_grid(HEIGHT, WIDTH, columns=24, rows=14)
    tracks, truth = lucas_kanade.track(warped(maps), points), moved(points, maps)
    always = inside(truth, margin=8).all(axis=0)
    errors = np.linalg.norm(tracks.points - truth, axis=-1)[1:, always]
    print(
        f"\n{name}: end-point error of {always.sum()} points: mean {errors.mean():.3f}, "
        f"median {np.median(errors):.3f}, worst {errors.max():.2f} pixels"
    )
    assert errors.mean() < mean and errors.max() < worst
    assert tracks.visible[:, always].mean() > 0.98


def occluded_video(num_frames: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Return a panning picture with a textured box that crosses it, and where the box is."""
    frames = warped(panned(0.5, 0.25, num_frames)).copy()
    box = texture(46, 40, seed=5)
    covered = np.zeros(frames.shape[:3], bool)
    for t in range(num_frames):
        left = 10 + 4 * t
        right = min(left + 40, WIDTH)
        frames[t, 33:79, left:right] = box[:, : max(0, right - left)]
        covered[t, 33:79, left:right] = True
    return frames, covered


@pytest.mark.slow
def test_points_hidden_by_something_that_moves_are_not_taken_along(
    lucas_kanade: LucasKanadeTracker,
) -> None:
    frames, covered = occluded_video()
    maps = panned(0.5, 0.25, len(frames))
    points = track_grid(HEIGHT, WIDTH, columns=24, rows=14)
    tracks, truth = lucas_kanade.track(frames, points), moved(points, maps)
    there = np.rint(truth).astype(int).clip(0, [WIDTH - 1, HEIGHT - 1])
    times = np.arange(len(frames))[:, None]
    hidden = covered[times, there[..., 1], there[..., 0]] & inside(truth)
    # Of those that the box covers for a while, away from its edge, and uncovers again.
    crossed = ~hidden[0] & hidden.any(axis=0) & ~hidden[-1] & inside(truth, 8).all(axis=0)
    deep = np.stack(
        [cv2.erode(mask.astype(np.uint8), np.ones((17, 17))).astype(bool) for mask in covered]
    )[times, there[..., 1], there[..., 0]]
    errors = np.linalg.norm(tracks.points - truth, axis=-1)[-1, crossed]
    called_seen = tracks.visible[deep & crossed]
    found_again = tracks.visible[-1, crossed]
    print(
        f"\nocclusion: {crossed.sum()} points; last frame median {np.median(errors):.2f}, "
        f"within 3 pixels {np.mean(errors < 3):.2f}; called seen while hidden "
        f"{called_seen.mean():.2f}; seen again {found_again.mean():.2f}"
    )
    assert crossed.sum() >= 30
    # Taken along they would end 70 pixels away. What is left is the guess while hidden.
    assert np.median(errors) < 2.5
    assert np.mean(errors < 3) > 0.5
    assert called_seen.mean() < 0.1
    assert found_again.mean() > 0.5


@pytest.mark.slow
def test_a_hidden_point_keeps_the_depth_it_was_last_seen_at(
    lucas_kanade: LucasKanadeTracker,
) -> None:
    frames, covered = occluded_video()
    # The box is near (black), what it hides is far.
    depth = np.where(covered, 0, 200).astype(np.uint8)
    depth[:, 0, 0] = 255
    points = np.array([[120.0, 56.0]], np.float32)
    points = np.concatenate([points, track_grid(HEIGHT, WIDTH, columns=24, rows=14)])
    tracks = lucas_kanade.track(frames, points)
    z = lift_tracks(depth, tracks.points, tracks.visible)[:, 0, 2]
    hidden = ~tracks.visible[:, 0]
    assert hidden.sum() >= 5
    np.testing.assert_allclose(z[hidden], z[0], atol=1e-6)


def test_points_of_a_flat_picture_stay_where_they_are(lucas_kanade: LucasKanadeTracker) -> None:
    points = track_grid(48, 64, columns=4, rows=4)
    tracks = lucas_kanade.track(np.full((4, 48, 64, 3), 90, np.uint8), points)
    np.testing.assert_allclose(tracks.points[-1], points, atol=1e-3)
    assert not tracks.visible[1:].any()


def flight_clip(
    seed: int, start: int, height: int, width: int, num_frames: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return frames, points, and the exact tracks of the points and whether they are seen."""
    flight = Flight(seed, width=width, height=height, fps=16)
    points = track_grid(height, width, columns=24, rows=14)
    pictures = [flight.frame(start + t) for t in range(num_frames)]
    depths = [picture.depth for picture in pictures]
    truth, seen = flight.tracks(start, num_frames, points, depths=depths)
    return np.stack([picture.rgb for picture in pictures]), points, truth, seen


@pytest.mark.slow
def test_a_flight_is_followed_far_better_than_by_standing_still(
    lucas_kanade: LucasKanadeTracker,
) -> None:
    frames, points, truth, seen = flight_clip(EVALUATION_SEED_START + 1, 200, HEIGHT, WIDTH, 17)
    tracks = lucas_kanade.track(frames, points)
    error = np.linalg.norm(tracks.points - truth, axis=-1)[1:][seen[1:]]
    standing = np.linalg.norm(truth - points, axis=-1)[1:][seen[1:]]
    assert np.median(error) < 0.5
    assert error.mean() < 0.1 * standing.mean()
    assert np.isfinite(tracks.points).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("height", "width", "mean", "median"), [(112, 192, 1.9, 1.0), (240, 416, 3.4, 1.7)]
)
def test_error_against_exact_tracks_of_reserved_flights(
    lucas_kanade: LucasKanadeTracker, height: int, width: int, mean: float, median: float
) -> None:
    parts = []
    for index in range(10):
        frames, points, truth, seen = flight_clip(
            EVALUATION_SEED_START + index, 100 + 37 * index, height, width, 33
        )
        tracks = lucas_kanade.track(frames, points)
        error = np.linalg.norm(tracks.points - truth, axis=-1)
        parts.append([part[1:].ravel() for part in (error, seen, tracks.visible)])
    error, seen, claimed = (np.concatenate(column) for column in zip(*parts, strict=True))
    print(
        f"\n{width}x{height}: end-point error of visible points: mean {error[seen].mean():.2f}, "
        f"median {np.median(error[seen]):.2f}, under 1 pixel {np.mean(error[seen] < 1):.2f}, "
        f"under 4 {np.mean(error[seen] < 4):.2f}; visible but called lost "
        f"{1 - claimed[seen].mean():.3f}; hidden or outside but called visible "
        f"{claimed[~seen].mean():.3f}"
    )
    assert error[seen].mean() < mean and np.median(error[seen]) < median


@pytest.mark.slow
def test_a_full_size_clip_is_followed(lucas_kanade: LucasKanadeTracker) -> None:
    """The 50x50 points of LongVie 2 through 81 frames of 832x480; prints the processor time."""
    height, width, num_frames = 480, 832, 81
    wide = texture(height + 100, width + 200)
    frames = np.stack([wide[t : t + height, 2 * t : 2 * t + width] for t in range(num_frames)])
    points = track_grid(height, width, columns=50, rows=50)
    began = time.process_time()
    tracks = lucas_kanade.track(frames, points)
    took = time.process_time() - began
    truth = points - np.arange(num_frames)[:, None, None] * np.array([2.0, 1.0])
    always = (truth >= 8).all(axis=(0, 2))
    errors = np.linalg.norm(tracks.points - truth, axis=-1)[1:, always]
    print(f"\n{len(points)} points, {num_frames} frames of {width}x{height}: {took:.1f} s")
    assert errors.mean() < 0.3
    assert tracks.visible[:, always].mean() > 0.98
