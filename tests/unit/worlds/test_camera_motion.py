"""Camera paths in time: smooth, and as far as they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longvie_cli.settings.camera_path import parse_camera_path, read_camera_path
from longvie_cli.worlds.camera_motion import CameraMotion

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "camera.yaml"

DISTANCES = st.sampled_from(["forward", "back", "left", "right", "up", "down"])
AMOUNTS = st.floats(0.1, 5.0).map(lambda amount: round(amount, 3))
MOVES = st.one_of(
    st.builds("{} {}".format, DISTANCES, AMOUNTS),
    st.builds(
        "{} {}".format, st.sampled_from(["turn", "turn left", "orbit"]), st.integers(-90, 90)
    ),
    st.builds("tilt {}".format, st.integers(-15, 15)),
    st.builds("hold {}".format, AMOUNTS),
)
GROUPS = st.builds(
    lambda moves, end: " + ".join(moves) + end,
    st.lists(MOVES, min_size=1, max_size=2),
    st.one_of(st.just(""), st.floats(0.5, 9).map(lambda seconds: f" in {round(seconds, 2)}s")),
)
PATHS = st.lists(GROUPS, min_size=1, max_size=4).map(", ".join)


def motion_of(text: str) -> CameraMotion:
    return CameraMotion(parse_camera_path(text))


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(PATHS)
def test_a_path_starts_from_rest_and_never_jumps(text: str) -> None:
    path = parse_camera_path(text)
    end = min(path.duration or 20.0, 40.0)
    step = 1 / 64
    motion = CameraMotion(path)
    poses = np.array([motion.pose(index * step) for index in range(int(end / step) + 32)])
    assert not poses[0].any()
    velocity = np.diff(poses, axis=0) / step
    # A smoothstep over half the shortest move or more changes by 3 / (2 width) a second; bodies
    # that turn change direction on top of that.
    width = min(1.0, min(group.seconds for group in path.groups) / 2)
    speed = np.linalg.norm(velocity[:, :3], axis=1).max()
    turning = np.radians(np.abs(velocity[:, 3]).max())
    change = np.abs(np.diff(velocity, axis=0)).max(axis=0)
    assert change[:3].max() <= step * speed * (4 / width + turning) + 1e-6
    assert (change[3:] <= step * np.abs(velocity[:, 3:]).max(axis=0) * 4 / width + 1e-6).all()
    if path.duration is not None:
        assert motion.pose(path.duration + 1) == pytest.approx(motion.pose(path.duration + 9))


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(PATHS, st.floats(0, 30))
def test_a_pose_depends_on_its_time_alone(text: str, seconds: float) -> None:
    fresh, used = motion_of(text), motion_of(text)
    used.pose(31.7)
    assert fresh.pose(seconds) == used.pose(seconds)


def test_moves_go_as_far_as_they_say() -> None:
    there = motion_of("forward 2 in 4s, hold 1, turn 90 in 3s, hold 1, forward 1 in 2s").pose(99)
    assert there == pytest.approx((1, 0, 2, 90, 0, 0), abs=1e-4)
    around = motion_of("orbit right 180 in 6s").pose(6)
    assert around == pytest.approx((0, 0, 2, -180, 0, 0), abs=1e-3)
    together = motion_of("forward 1 + up 0.5 + look left 30 + tilt down 10 in 5s").pose(5)
    assert together[1] == pytest.approx(0.5) and together[3:5] == pytest.approx((-30, -10))


def test_a_last_move_without_a_time_goes_on_but_a_tilt_stops() -> None:
    path = parse_camera_path("turn 30 in 2s, forward + tilt 10")
    assert path.duration is None
    motion = CameraMotion(path)
    assert motion.pose(300).pitch == pytest.approx(10)
    later, still_later = motion.pose(100), motion.pose(200)
    assert np.hypot(still_later.right - later.right, still_later.forward - later.forward) == (
        pytest.approx(25, rel=1e-3)
    )
    assert parse_camera_path("forward 2 in 3s").duration == 3


def test_the_example_goes_smoothly_through_its_keyframes() -> None:
    motion = CameraMotion(read_camera_path(EXAMPLE))
    assert motion.pose(8) == pytest.approx((0.4, 0.2, 1.4, 25, -5, 0))
    poses = np.array([motion.pose(index / 64) for index in range(700)])
    velocity = np.diff(poses, axis=0)
    assert np.abs(np.diff(velocity, axis=0)).max() < 0.05
