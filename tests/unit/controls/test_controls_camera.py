"""A scene out of one picture: exact where it was seen, whole and smooth everywhere else."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longvie_cli.controls.control_folder import ControlLayout, make_control_folder, read_depth_range
from longvie_cli.controls.mesh_raster import draw_disparity, grid_triangles
from longvie_cli.controls.normalization import DepthRange
from longvie_cli.controls.picture_flight import (
    PictureControls,
    PictureFlight,
    range_to_continue,
)
from longvie_cli.controls.picture_scene import PictureScene, fit_ground
from longvie_cli.errors import ControlError
from longvie_cli.media.probe import probe_video
from longvie_cli.media.reader import read_frames
from longvie_cli.settings.camera_path import parse_camera_path
from longvie_cli.timeline import ClipGeometry

HEIGHT, WIDTH, FOV = 56, 96, 55.0
FOCAL = WIDTH / 2 / np.tan(np.radians(FOV) / 2)
CAMERA_HEIGHT = 0.3
BOX_DEPTH, BOX_LEFT, BOX_RIGHT, BOX_TOP = 1.5, -0.4, 0.1, 0.25


def analytic(forward: float = 0.0) -> np.ndarray:
    """Disparity of a plane and a box on it, from `forward` further on; sky above the horizon."""
    x = (np.arange(WIDTH) - (WIDTH - 1) / 2) / FOCAL
    y = ((np.arange(HEIGHT) - (HEIGHT - 1) / 2) / FOCAL)[:, None]
    plane = np.where(y > 0, y / CAMERA_HEIGHT, 0)
    # Beyond 50 times the nearest the picture says nothing of the plane.
    depth = BOX_DEPTH - forward
    on_box = (x * depth > BOX_LEFT) & (x * depth < BOX_RIGHT)
    on_box = on_box & (y * depth > -BOX_TOP) & (y * depth < CAMERA_HEIGHT)
    return np.where(on_box, np.maximum(plane, 1 / depth), plane).astype(np.float32)


class KnownDepth:
    """An estimator that knows the scene."""

    name = "known"

    def estimate(self, frames: np.ndarray) -> np.ndarray:
        return np.stack([analytic()] * len(frames))


@cache
def unit() -> float:
    """Depth that the scene calls 1."""
    disparity = analytic()
    nearest = np.percentile(disparity, 98)
    return float(1 / np.median(disparity[disparity > 0.02 * nearest]))


def flight(text: str, seed: int = 3) -> PictureFlight:
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    path = parse_camera_path(text)
    return PictureFlight(picture, KnownDepth(), path, fps=16, fov_degrees=FOV, seed=seed)


def layout(**changes: Any) -> ControlLayout:
    return ControlLayout(ClipGeometry(9, 16), HEIGHT, WIDTH, 5, 4, **changes)


def test_a_triangle_has_the_depth_of_its_plane_and_no_cracks() -> None:
    x, y = np.meshgrid(np.linspace(-2, 2, 7), np.linspace(-2, 2, 5))
    z = 3 + 0.3 * x - 0.2 * y
    vertices = np.stack((x, y, z), axis=-1).reshape(-1, 3).astype(np.float32)
    picture = np.zeros((40, 60), np.float32)
    draw_disparity(picture, vertices, grid_triangles(5, 7), focal=60.0, near=0.1)
    ray_x = (np.arange(60) - 29.5) / 60
    ray_y = ((np.arange(40) - 19.5) / 60)[:, None]
    expected = (1 - 0.3 * ray_x + 0.2 * ray_y) / 3
    np.testing.assert_allclose(picture, expected, rtol=1e-4)
    # From behind there is nothing, and neither is there nearer than `near`.
    behind = np.zeros((40, 60), np.float32)
    mirrored = vertices * np.array([-1, 1, 1], np.float32)
    draw_disparity(behind, mirrored, grid_triangles(5, 7), focal=60.0, near=0.1)
    draw_disparity(behind, vertices, grid_triangles(5, 7), focal=60.0, near=5.0)
    assert not behind.any()


@pytest.mark.parametrize(("pitch", "height"), [(0.0, 0.3), (0.15, 0.2), (-0.2, 0.6)])
def test_the_ground_under_a_picture_is_found(pitch: float, height: float) -> None:
    rows = ((np.arange(HEIGHT) - (HEIGHT - 1) / 2) / FOCAL)[:, None].repeat(WIDTH, axis=1)
    plane = ((rows - np.tan(pitch)) * np.cos(pitch) / height).clip(0, None).astype(np.float32)
    plane[:, 10:20] = np.maximum(plane[:, 10:20], 0.8)
    plane[rows < np.tan(pitch) + 0.01] = 0
    found = fit_ground(plane, FOCAL)
    assert found.pitch == pytest.approx(pitch, abs=0.02)
    # The horizon is kept a pixel below all sky, a tenth of the ground's rows in the steepest case.
    assert found.height == pytest.approx(height, rel=0.2)


def test_the_first_frame_is_the_picture() -> None:
    seen = flight("forward").disparity(0)
    expected = analytic() * unit()
    wrong = np.abs(seen - expected) > 0.02 + 0.02 * expected
    # Along the horizon the plane is farther than a picture can tell from sky.
    horizon = HEIGHT // 2
    wrong[horizon - 1 : horizon + 2] = False
    assert wrong.mean() < 0.03


def test_from_further_on_depth_is_that_of_plane_and_box() -> None:
    step = 0.3
    moving = flight(f"forward {step} in 1s")
    moved = step * unit()
    seen, expected = moving.disparity(16), analytic(moved) * unit()
    # What the box had hidden, and the rows that were below the picture, are made up.
    wrong = np.abs(seen - expected) > 0.03 + 0.05 * expected
    wrong[HEIGHT // 2 - 1 : HEIGHT // 2 + 2] = False
    assert wrong.mean() < 0.06
    near_box = np.abs(seen - unit() / (BOX_DEPTH - moved)) < 0.02
    assert near_box.sum() > 0.8 * (expected[: HEIGHT // 2] > 0).sum()


@pytest.mark.slow
def test_tracks_are_the_projections_of_what_stands_still() -> None:
    step = 0.3
    moving = flight(f"forward {step} in 1s")
    x, y = np.meshgrid(np.arange(6, WIDTH - 6, 7), np.arange(HEIGHT // 2 + 4, HEIGHT - 2, 5))
    points = np.stack((x, y), axis=-1).reshape(-1, 2).astype(np.float32)
    tracks = moving.tracks(0, 17, points)
    np.testing.assert_array_equal(tracks.points[0], points)
    assert tracks.visible[0].all() and np.isfinite(tracks.points).all()
    disparity = analytic()[points[:, 1].astype(int), points[:, 0].astype(int)]
    middle = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])
    first, last = (moving._path.pose(seconds) for seconds in (0, 1))
    # Forward is level with the ground that was fitted, a pixel off the picture's axis.
    moved = (last.position - first.position) @ first.rotation / moving._scene.texels * unit()
    assert moved[2] == pytest.approx(step * unit(), rel=1e-3)
    rays = np.concatenate(((points - middle) / FOCAL, np.ones((len(points), 1))), axis=1)
    there = rays / disparity[:, None] - moved
    expected = there[:, :2] / there[:, 2:] * FOCAL + middle
    miss = np.linalg.norm(tracks.points[-1] - expected, axis=1)
    assert np.median(miss) < 0.05 and np.quantile(miss, 0.9) < 0.5
    inside = (expected > 0).all(axis=1) & (expected < (WIDTH - 1, HEIGHT - 1)).all(axis=1)
    outside = (expected < -1).any(axis=1) | (expected > (WIDTH, HEIGHT)).any(axis=1)
    assert tracks.visible[-1][inside].mean() > 0.8 and not tracks.visible[-1][outside].any()


@pytest.mark.slow
def test_sky_turns_with_the_camera() -> None:
    points = np.array([[48.0, 5.0], [20.0, 8.0]], np.float32)
    tracks = flight("turn 10 in 1s").tracks(0, 17, points)
    shift = tracks.points[-1] - points
    assert (shift[:, 0] < -12).all() and tracks.visible[-1][0]


@pytest.mark.parametrize(
    "text",
    [
        *("forward", "up + tilt -40"),
        *(pytest.param(path, marks=pytest.mark.slow) for path in ("orbit", "turn", "back", "left")),
    ],
)
def test_depth_is_defined_and_smooth_for_minutes(text: str) -> None:
    moving = flight(text)
    for index in (0, 40, 200, 960, 1920):
        seen, next_seen = moving.disparity(index), moving.disparity(index + 1)
        assert seen.dtype == np.float32 and np.isfinite(seen).all() and (seen >= 0).all()
        # There is always ground in sight.
        assert seen[-4:].min() > 0
        assert np.median(np.abs(next_seen - seen)) < 0.1


@pytest.mark.slow
def test_a_frame_depends_on_its_number_and_the_seed() -> None:
    first, second, other = flight("orbit"), flight("orbit"), flight("orbit", seed=4)
    second.disparity(300)
    np.testing.assert_array_equal(first.disparity(40), second.disparity(40))
    assert not np.array_equal(first.disparity(300), other.disparity(300))
    assert first.settings["scene_seed"] != other.settings["scene_seed"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.slow
def test_controls_are_resumed_clip_by_clip_and_neighbours_share_a_frame(
    tmp_path: Path, listener: Any
) -> None:
    source = PictureControls(flight("forward"), layout(), 17)
    make_control_folder(source, tmp_path / "whole", progress=listener)
    whole = contents(tmp_path / "whole")
    names = {"depth_0000.mp4", "depth_0001.mp4", "track_0000.mp4", "track_0001.mp4"}
    assert names < set(whole)
    make_control_folder(source, tmp_path / "again", progress=listener)
    for name in ("cond.json", "track_0001.mp4", "depth_0001.mp4"):
        (tmp_path / "again" / name).unlink()
    make_control_folder(source, tmp_path / "again", progress=listener)
    assert contents(tmp_path / "again") == whole
    # Clip 1 on its own, with the range of all, has the depth of clip 1 of the whole.
    size = {"fps": None, "height": HEIGHT, "width": WIDTH, "fit": "native"}
    first = list(read_frames(probe_video(tmp_path / "whole" / "depth_0000.mp4"), **size))
    second = list(read_frames(probe_video(tmp_path / "whole" / "depth_0001.mp4"), **size))
    assert np.abs(first[-1].astype(int) - second[0].astype(int)).mean() < 2
    same_range = layout(depth_range=read_depth_range(tmp_path / "whole"))
    rest = PictureControls(flight("forward"), same_range, 9, start_frame=8)
    make_control_folder(rest, tmp_path / "rest", progress=listener)
    assert (tmp_path / "rest" / "depth_0000.mp4").read_bytes() == whole["depth_0001.mp4"]
    assert (tmp_path / "rest" / "track_0000.mp4").read_bytes() == whole["track_0001.mp4"]


def test_greys_go_on_from_another_scale() -> None:
    disparity = flight("forward").disparity(0)
    before = DepthRange(0.2, 4.0)
    greys = before.depth_bytes(2.5 * disparity + 0.3)
    found = range_to_continue(disparity, greys)
    assert found is not None
    again = found.depth_bytes(disparity).astype(int)
    assert np.abs(again - greys)[(greys > 5) & (greys < 250)].max() <= 2
    noise = np.random.default_rng(0).integers(0, 255, disparity.shape).astype(np.uint8)
    assert range_to_continue(disparity, noise) is None
    assert range_to_continue(disparity, np.full_like(noise, 9)) is None


def test_nothing_but_sky_is_no_scene() -> None:
    disparity = np.zeros((HEIGHT, WIDTH), np.float32)
    disparity[0, 0] = 1
    with pytest.raises(ControlError, match="only sky"):
        PictureScene(disparity, seed=0)
    with pytest.raises(ControlError, match="not finite"):
        PictureScene(disparity + np.nan, seed=0)


@pytest.mark.parametrize("shade", [0.5, 1.0])
def test_a_wall_is_a_scene(shade: float) -> None:
    scene = PictureScene(np.full((HEIGHT, WIDTH), shade, np.float32), seed=0)
    pose = scene.follow(parse_camera_path("forward")).pose(0)
    np.testing.assert_allclose(scene.disparity(pose, HEIGHT, WIDTH), 1, atol=0.02)
