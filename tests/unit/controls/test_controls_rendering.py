"""Track pictures: the rules of spec 6.2 to 6.4, case by case."""

from __future__ import annotations

import time

import numpy as np
import pytest

from longvie_cli.controls.rendering import (
    lift_tracks,
    render_track_clip,
    render_tracks,
    track_depth,
    track_grid,
)
from longvie_cli.errors import ControlError


def test_grid_of_the_released_size_is_the_released_grid() -> None:
    grid = track_grid(480, 832, columns=50, rows=50).reshape(50, 50, 2)
    columns, rows = np.arange(50), np.arange(50)
    np.testing.assert_allclose(grid[0, :, 0], (9 + 558 * columns / 49) * 832 / 576, rtol=1e-6)
    np.testing.assert_allclose(grid[:, 0, 1], (9 + 366 * rows / 49) * 480 / 384, rtol=1e-6)


def test_released_grid_at_rest_draws_boxes_of_ten_by_seven() -> None:
    grid = track_grid(480, 832, columns=50, rows=50)
    depth = np.zeros((1, 480, 832), np.uint8)
    depth[:, :, 416:] = 128
    frame = render_track_clip(depth, grid[None], np.ones((1, 2500), bool))[0]
    lit = frame.any(axis=-1)
    # Column 0 and row 0 are black in red and green, so the last row and column are looked at.
    assert (np.flatnonzero(lit[468])[-10:] == np.arange(814, 824)).all()
    assert (np.flatnonzero(lit[:, 818])[-7:] == np.arange(465, 472)).all()


def test_colours_are_fixed_by_the_first_frame() -> None:
    tracks = np.array(
        [
            [[10, 10, 1.0], [50, 10, 0.5], [10, 50, 0.25], [50, 50, 0.2]],
            [[50, 50, 0.1], [10, 50, 0.1], [50, 10, 0.1], [10, 10, 0.1]],
        ],
        np.float32,
    )
    first, second = render_tracks(tracks, height=64, width=64)
    for point in range(4):
        (x0, y0), (x1, y1) = tracks[:, point, :2].astype(int)
        assert first[y0, x0].tolist() == second[y1, x1].tolist()
    assert first[50, 50].tolist() == [255, 255, 255]
    assert first[10, 10].tolist() == [0, 0, 0]


def test_far_points_are_painted_over_near_ones() -> None:
    near_then_far = np.array([[[20, 20, 0.9], [21, 21, 0.1], [40, 40, 0.5]]], np.float32)
    far_then_near = near_then_far[:, [1, 0, 2]]
    pictures = [render_tracks(t, height=48, width=48)[0] for t in (near_then_far, far_then_near)]
    np.testing.assert_array_equal(*pictures)
    assert pictures[0][20, 20, 2] == 255


def test_later_frames_take_the_size_of_the_last_box_painted_in_the_first() -> None:
    # Point 2 is the farthest in frame 0 and so the last painted; its neighbour is 20 pixels away.
    tracks = np.array([[[50, 20, 0.9], [54, 20, 0.8], [74, 20, 0.1], [120, 20, 0.7]]], np.float32)
    first, second = render_tracks(np.repeat(tracks, 2, axis=0), height=40, width=160)
    widths = [int(frame[20, 90:].any(axis=-1).sum()) for frame in (first, second)]
    assert widths == [47, 21]
    assert int(second[:, 120].any(axis=-1).sum()) == 14


def test_a_point_with_a_zero_coordinate_is_left_out_of_that_frame_only() -> None:
    tracks = np.array([[[40, 20, 0.4], [20, 20, 0.5]], [[40, 0, 0.4], [20, 20, 0.5]]], np.float32)
    first, second = render_tracks(tracks, height=40, width=60)
    assert first[:, 35:].any() and not second[:, 35:].any()


def test_boxes_outside_the_picture_are_cut_and_huge_coordinates_are_harmless() -> None:
    tracks = np.array(
        [[[4, 4, 0.5], [30, 4, 0.4], [4, 30, 0.3], [30, 30, 0.2]]] * 2, dtype=np.float32
    )
    tracks[1, 3] = [1e12, -1e12, 0.2]
    tracks[1, 2] = [31.5, 30, 0.3]
    first, second = render_tracks(tracks, height=32, width=32)
    assert first[31, 31].any() and second[30, 31].any() and second[4, 31, 0] != 0


def test_white_depth_makes_blue_zero_everywhere_once_it_reaches_the_percentile() -> None:
    grid = track_grid(120, 200, columns=20, rows=10)
    depth = np.tile(np.linspace(0, 200, 200).astype(np.uint8), (1, 120, 1))
    visible = np.ones((1, 200), bool)
    assert render_track_clip(depth, grid[None], visible)[..., 2].max() == 255
    depth[:, :40] = 255
    assert render_track_clip(depth, grid[None], visible)[..., 2].max() == 0


def test_no_blue_where_all_points_are_equally_far() -> None:
    grid = track_grid(60, 100, columns=5, rows=4)
    assert (
        render_track_clip(
            np.full((2, 60, 100), 7, np.uint8), grid[None].repeat(2, 0), np.ones((2, 20), bool)
        )[..., 2].max()
        == 0
    )


def test_tracker_depth_is_one_at_the_darkest_and_zero_at_the_brightest_of_the_clip() -> None:
    depth = np.array([[[10, 20]], [[30, 110]]], np.uint8)
    np.testing.assert_allclose(track_depth(depth).ravel(), [1.0, 0.9, 0.8, 0.0], atol=1e-6)
    assert not track_depth(np.full((2, 3, 3), 9, np.uint8)).any()


def test_hidden_and_outside_points_keep_their_last_depth() -> None:
    depth = np.zeros((4, 8, 8), np.uint8)
    depth[0, 0, 0] = 255
    depth[1], depth[2], depth[3] = 51, 102, 153
    points = np.full((4, 2, 2), 3.0, np.float32)
    points[2, 1] = [-5, 3]
    visible = np.ones((4, 2), bool)
    visible[1, 0] = False
    z = lift_tracks(depth, points, visible)[..., 2]
    np.testing.assert_allclose(z[:, 0], [1.0, 1.0, 0.6, 0.4], atol=1e-6)
    np.testing.assert_allclose(z[:, 1], [1.0, 0.8, 0.8, 0.4], atol=1e-6)


def test_depth_is_sampled_between_pixels() -> None:
    depth = np.zeros((1, 4, 4), np.uint8)
    depth[0, :, 2:] = 200
    points = np.array([[[1.25, 1.5], [2.5, 0.0]]], np.float32)
    z = lift_tracks(depth, points, np.ones((1, 2), bool))[0, :, 2]
    np.testing.assert_allclose(z, [0.75, 0.0], atol=1e-6)


def test_tracks_without_a_box_size_are_refused() -> None:
    together = np.full((2, 3, 3), 5, np.float32)
    with pytest.raises(ControlError, match="All 3 point tracks start in one place"):
        render_tracks(together, height=16, width=16)
    nowhere = np.array([[[0, 4, 0.1], [4, 0, 0.2]]], np.float32)
    with pytest.raises(ControlError, match="No point is drawn in frame 0"):
        render_tracks(nowhere, height=16, width=16)


def test_tracks_that_are_not_finite_are_refused() -> None:
    tracks = np.array([[[1, 2, 0.1], [np.nan, 2, 0.2]]], np.float32)
    with pytest.raises(ControlError, match="1 of 2 point tracks"):
        render_tracks(tracks, height=16, width=16)


def test_points_and_depth_of_different_clips_are_refused() -> None:
    with pytest.raises(ValueError, match="do not belong together"):
        lift_tracks(np.zeros((3, 8, 8), np.uint8), np.ones((2, 5, 2)), np.ones((2, 5), bool))


def test_a_training_clip_is_drawn_in_a_few_milliseconds_a_frame() -> None:
    rng = np.random.default_rng(0)
    grid = track_grid(112, 192, columns=30, rows=17)
    points = grid[None] + rng.normal(0, 1, (33, *grid.shape)).cumsum(axis=0).astype(np.float32)
    depth = rng.integers(0, 256, (33, 112, 192)).astype(np.uint8)
    start = time.process_time()
    render_track_clip(depth, points, np.ones(points.shape[:2], bool))
    assert (time.process_time() - start) / 33 < 0.005
