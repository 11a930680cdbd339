"""The contract of point trackers, held by the embedded one on moving pictures with known tracks."""

from __future__ import annotations

import numpy as np
import pytest

from longvie_cli.controls.rendering import track_grid
from longvie_cli.controls.tracks import LucasKanadeTracker, PointTracker
from longvie_cli.worlds import EVALUATION_SEED_START, Flight

HEIGHT, WIDTH = 112, 192


@pytest.fixture
def tracker() -> PointTracker:
    return LucasKanadeTracker()


def texture(height: int, width: int) -> np.ndarray:
    """Blotches a few pixels wide, in colour."""
    import cv2

    noise = np.random.default_rng(1).random((height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)


def test_first_frame_holds_the_points_themselves(tracker: PointTracker) -> None:
    points = track_grid(HEIGHT, WIDTH, columns=9, rows=5)
    frames = np.repeat(texture(HEIGHT, WIDTH)[None], 3, axis=0)
    tracks = tracker.track(frames, points)
    np.testing.assert_array_equal(tracks.points[0], points)
    assert tracks.visible[0].all()
    np.testing.assert_allclose(tracks.points[2], points, atol=0.05)


def test_a_moving_picture_is_followed_beyond_its_edge(tracker: PointTracker) -> None:
    wide = texture(HEIGHT, WIDTH + 120)
    frames = np.stack([wide[:, 3 * t : 3 * t + WIDTH] for t in range(20)])
    points = track_grid(HEIGHT, WIDTH, columns=16, rows=10)
    tracks = tracker.track(frames, points)
    truth = points[None] - np.array([3.0, 0.0]) * np.arange(20)[:, None, None]
    inside = truth[..., 0] >= 10
    errors = np.linalg.norm(tracks.points - truth, axis=-1)
    assert np.median(errors[inside]) < 0.1
    assert errors[inside].mean() < 0.5
    assert tracks.visible[inside].mean() > 0.95
    gone = truth[..., 0] < -2
    assert not tracks.visible[gone].any()
    # Guessed from the points still tracked: all move alike here.
    assert np.median(errors[gone]) < 1.0


def test_points_of_a_flat_picture_stay_where_they_are(tracker: PointTracker) -> None:
    points = track_grid(48, 64, columns=4, rows=4)
    tracks = tracker.track(np.full((4, 48, 64, 3), 90, np.uint8), points)
    np.testing.assert_allclose(tracks.points[-1], points, atol=1e-3)
    assert not tracks.visible[1:].any()


def test_one_frame_is_a_clip_too(tracker: PointTracker) -> None:
    points = track_grid(48, 64, columns=3, rows=3)
    tracks = tracker.track(np.zeros((1, 48, 64, 3), np.uint8), points)
    assert tracks.points.shape == (1, 9, 2) and tracks.visible.all()


def test_a_flight_is_followed_far_better_than_by_standing_still(tracker: PointTracker) -> None:
    flight = Flight(EVALUATION_SEED_START + 1, width=WIDTH, height=HEIGHT, fps=16)
    points = track_grid(HEIGHT, WIDTH, columns=24, rows=14)
    frames = np.stack([flight.frame(200 + t).rgb for t in range(17)])
    truth, seen = flight.tracks(200, 17, points)
    tracks = tracker.track(frames, points)
    error = np.linalg.norm(tracks.points - truth, axis=-1)[1:][seen[1:]]
    standing = np.linalg.norm(truth - points, axis=-1)[1:][seen[1:]]
    assert np.median(error) < 1.0
    assert error.mean() < 0.2 * standing.mean()
    assert np.isfinite(tracks.points).all()


def test_the_same_frames_give_the_same_tracks(tracker: PointTracker) -> None:
    wide = texture(64, 120)
    frames = np.stack([wide[:, t : t + 96] for t in range(6)])
    points = track_grid(64, 96, columns=8, rows=6)
    first, second = tracker.track(frames, points), tracker.track(frames, points)
    np.testing.assert_array_equal(first.points, second.points)
    np.testing.assert_array_equal(first.visible, second.visible)
