"""Camera paths: words and keyframes become smooth poses, and read back as they were written."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from longvie_cli.errors import SettingsError, UsageError
from longvie_cli.settings.camera_path import CameraPath, parse_camera_path, read_camera_path

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "camera.yaml"


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


def test_the_example_is_a_path_of_keyframes() -> None:
    path = read_camera_path(EXAMPLE)
    assert path.duration == 10
    assert parse_camera_path(str(path)) == path


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
