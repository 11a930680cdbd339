"""Made scenes: their depth is exact, and there are all kinds of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file
from toy_recipe import TOY

from longvie_cli.training.tiny.depth import _NEAREST, _made_scene
from longvie_cli.training.tiny.ray_casting import Scene, Solid, render_scene
from longvie_cli.training.tiny.scenes import KINDS, made_scene, render_scenes

STRAIGHT = np.eye(3, dtype=np.float32)
# An odd number of rows and columns has a pixel in its middle.
SIZE = (33, 65)


def solid(z: float, half: tuple[float, float, float], **more: bool) -> Solid:
    values = {"is_round": False, "is_inside": False, **more}
    colours = np.full((2, 3), 0.5, np.float32)
    centre = np.array([0, 0, z], np.float32)
    return Solid(centre, np.array(half, np.float32), STRAIGHT, colours=colours, pattern="noise",
                 grain=1.0, **values)  # fmt: skip


def scene(*solids: Solid) -> Scene:
    white = np.ones(3, np.float32)
    up = np.array([0, 1, 0], np.float32)
    eye = np.zeros(3, np.float32)
    return Scene(eye, STRAIGHT, 0.5, up, white, white, np.ones((2, 3), np.float32),
                 solids=list(solids))  # fmt: skip


@pytest.mark.parametrize(
    ("what", "depth"),
    [
        (solid(10, (2, 2, 2)), 8),
        (solid(10, (2, 2, 3), is_round=True), 7),
        (solid(1, (5, 5, 9), is_inside=True), 10),
    ],
    ids=["box", "ellipsoid", "room"],
)
def test_the_depth_of_what_is_ahead_is_known(what: Solid, depth: float) -> None:
    _, disparity = render_scene(scene(what), *SIZE)
    assert 1 / disparity[16, 32] == pytest.approx(depth, rel=5e-3)


def test_a_wall_across_has_one_depth_along_the_axis_and_nothing_is_behind_the_sky() -> None:
    _, wall = render_scene(scene(solid(10, (100, 3, 1))), *SIZE)
    rows = wall[wall.max(1) > 0]
    assert np.allclose(rows[len(rows) // 2], 1 / 9, rtol=1e-4)
    assert (wall[0] == 0).all() and (wall[-1] == 0).all()


def test_what_is_nearer_hides_what_is_behind() -> None:
    far, near = solid(20, (9, 9, 1)), solid(5, (0.5, 0.5, 0.5), is_round=True)
    for both in ((far, near), (near, far)):
        rgb, disparity = render_scene(scene(*both), *SIZE)
        assert 1 / disparity[16, 32] == pytest.approx(4.5, rel=5e-3)
        assert 1 / disparity[16, 20] == pytest.approx(19, rel=5e-3)
    assert rgb.shape == (*SIZE, 3) and rgb.dtype == np.uint8


def test_the_camera_moves_the_picture_and_not_the_depth_along_its_axis() -> None:
    what = scene(solid(10, (100, 100, 1)))
    _, still = render_scene(what, *SIZE)
    _, aside = render_scene(replace(what, eye=np.array([3, -2, 1], np.float32)), *SIZE)
    assert np.allclose(1 / aside, 1 / still - 1, rtol=1e-4)


def test_a_seed_is_a_scene_and_there_are_all_kinds() -> None:
    kinds = set()
    for seed in range(40):
        kind, made = made_scene(seed)
        kinds.add(kind)
        assert len(made.solids) >= 3
    assert kinds == set(KINDS)
    one, same, other = (render_scene(made_scene(seed)[1], 28, 48) for seed in (3, 3, 4))
    assert np.array_equal(one[0], same[0]) and np.array_equal(one[1], same[1])
    assert not np.array_equal(one[0], other[0])


@pytest.mark.slow
def test_most_scenes_are_lit_and_deep() -> None:
    dark = flat = 0
    for seed in range(24):
        rgb, disparity = render_scene(made_scene(seed)[1], 28, 48)
        assert np.isfinite(disparity).all() and disparity.min() >= 0
        low, high = np.percentile(disparity, (5, 95))
        flat += high < 1.2 * low
        dark += rgb.mean() < 12
    assert dark <= 4 and flat <= 4


def test_examples_end_near_at_one_number_whatever_the_scale(tmp_path) -> None:
    render_scenes(TOY, tmp_path, worker=0, num_workers=1)
    paths = sorted((tmp_path / "scenes").iterdir())
    assert len(load_file(paths[0])["rgb"]) == TOY.num_scenes
    rng = np.random.default_rng(0)
    for _ in range(8):
        rgb, target = _made_scene(paths, rng)
        assert rgb.shape == (TOY.height, TOY.width, 3) and rgb.dtype == np.uint8
        assert 1.5 < np.percentile(target, 98) < 2.5
        assert target.min() >= 0 and target.max() <= _NEAREST
