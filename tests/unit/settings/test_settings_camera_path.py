"""Camera paths: words and keyframes become smooth poses, and read back as they were written."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longvie_cli.errors import SettingsError, UsageError
from longvie_cli.settings.camera_path import CameraPath, parse_camera_path, read_camera_path

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


@settings(deadline=None, max_examples=40)
@given(PATHS)
def test_a_path_reads_back_as_it_is_written(text: str) -> None:
    path = parse_camera_path(text)
    assert parse_camera_path(str(path)) == path


@settings(deadline=None, max_examples=40)
@given(PATHS)
def test_a_path_starts_from_rest_and_never_jumps(text: str) -> None:
    path = parse_camera_path(text)
    end = min(path.duration or 20.0, 40.0)
    step = 1 / 64
    poses = np.array([path.pose(index * step) for index in range(int(end / step) + 32)])
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
        assert path.pose(path.duration + 1) == pytest.approx(path.pose(path.duration + 9))


@settings(deadline=None, max_examples=40)
@given(PATHS, st.floats(0, 30))
def test_a_pose_depends_on_its_time_alone(text: str, seconds: float) -> None:
    fresh, used = parse_camera_path(text), parse_camera_path(text)
    used.pose(31.7)
    assert fresh.pose(seconds) == used.pose(seconds)


def test_moves_go_as_far_as_they_say() -> None:
    there = parse_camera_path(
        "forward 2 in 4s, hold 1, turn 90 in 3s, hold 1, forward 1 in 2s"
    ).pose(99)
    assert there == pytest.approx((1, 0, 2, 90, 0, 0), abs=1e-4)
    around = parse_camera_path("orbit right 180 in 6s").pose(6)
    assert around == pytest.approx((0, 0, 2, -180, 0, 0), abs=1e-3)
    together = parse_camera_path("forward 1 + up 0.5 + look left 30 + tilt down 10 in 5s").pose(5)
    assert together[1] == pytest.approx(0.5) and together[3:5] == pytest.approx((-30, -10))


def test_a_last_move_without_a_time_goes_on_but_a_tilt_stops() -> None:
    path = parse_camera_path("turn 30 in 2s, forward + tilt 10")
    assert path.duration is None
    assert path.pose(300).pitch == pytest.approx(10)
    later, still_later = path.pose(100), path.pose(200)
    assert np.hypot(still_later.right - later.right, still_later.forward - later.forward) == (
        pytest.approx(25, rel=1e-3)
    )
    assert parse_camera_path("forward 2 in 3s").duration == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("forwrd 2", "'forwrd' is no move; did you mean 'forward'?"),
        ("forward 2, swim", "'swim' is no move."),
        ("forward 2 3", "'3' in 'forward 2 3' is not understood"),
        ("forward in", "`in` and a time"),
        ("turn 30 in soon", "'soon' is no time"),
        ("turn 30 in 0s", "more than no time"),
        ("", "a move is missing"),
        ("forward +", "a move is missing"),
        ("tilt 60, tilt 30", "tilts add up to 90"),
        ("hold 0", "more than no time"),
        ("forward 1000000000", "too large"),
        ("keyframes [", "malformed"),
    ],
)
def test_what_is_no_path_is_named_with_the_grammar(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_camera_path(text)
    assert said in caught.value.message
    assert caught.value.hint.startswith("Moves: forward")


def test_the_example_is_a_path_through_its_keyframes() -> None:
    path = read_camera_path(EXAMPLE)
    assert path.duration == 10
    assert path.pose(8) == pytest.approx((0.4, 0.2, 1.4, 25, -5, 0))
    assert parse_camera_path(str(path)) == path
    poses = np.array([path.pose(index / 64) for index in range(700)])
    velocity = np.diff(poses, axis=0)
    assert np.abs(np.diff(velocity, axis=0)).max() < 0.05


def test_keyframes_without_a_first_begin_at_the_first_frame(tmp_path: Path) -> None:
    (tmp_path / "p.yml").write_text("- {at: 2s, yaw: 10}\n")
    path = read_camera_path(str(tmp_path / "p.yml"))
    assert isinstance(path, CameraPath)
    assert [frame.seconds for frame in path.keyframes] == [0, 2]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("at: 2s", "expected a list of keyframes"),
        ("- 3", "keyframe 1 is no mapping"),
        ("- {at: 2s, yav: 3}", "unknown key 'yav'; did you mean 'yaw'?"),
        ("- {yaw: 3}", "has no time"),
        ("- {at: soon}", "'soon' is no time"),
        ("- {at: 2s, position: [1, 2]}", "position must be"),
        ("- {at: 2s, yaw: left}", "'left' is no number"),
        ("- {at: 2s, yaw: .inf}", "too large"),
        ("- {at: 2s, pitch: 90}", "steeper than 80"),
        ("- {at: 0s, yaw: 3}\n- {at: 1s}", "must be the first frame itself"),
        ("- {at: 0s}", "needs a keyframe after 0 s"),
        ("- {at: 2s}\n- {at: 1s}", "does not come after"),
        ("- {at: 2s", "cannot read this camera path"),
        ("- !!python/object/apply:os.getcwd []", "cannot read this camera path"),
    ],
)
def test_what_is_no_keyframe_file_is_said(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "path.yaml").write_text(content)
    with pytest.raises(SettingsError) as caught:
        read_camera_path(tmp_path / "path.yaml")
    assert "path.yaml" in caught.value.message and said in caught.value.message


def test_captions_hear_what_the_camera_does() -> None:
    path = parse_camera_path("forward 1 in 2s, turn left 20 in 3s, orbit")
    phrases = path.phrases(1, 20)
    assert [phrase for phrase, _ in phrases] == ["flying forward", "turning left", "orbiting right"]
    assert sum(seconds for _, seconds in phrases) == pytest.approx(19)
    assert all(a[0] != b[0] for a, b in itertools.pairwise(phrases))
