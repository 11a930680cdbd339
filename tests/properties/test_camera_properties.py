"""Camera paths: what is written down reads back as the same path."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from longvie_cli.errors import UsageError
from longvie_cli.settings.camera_path import (
    CameraPath,
    CameraPose,
    Keyframe,
    parse_camera_path,
)

amounts = st.floats(-99_999, 99_999).map(lambda number: f"{number:.12f}")
small = st.floats(-5, 5).map(lambda number: f"{number:.12f}")
moves = st.one_of(
    st.tuples(st.sampled_from(["forward", "back", "left", "right", "up", "down"]), amounts),
    st.tuples(st.sampled_from(["turn", "turn left", "orbit", "orbit right"]), amounts),
    st.tuples(st.sampled_from(["tilt", "tilt down"]), small),
    st.tuples(st.just("hold"), st.floats(0.001, 1000).map(lambda number: f"{number:.9f}")),
    st.tuples(st.sampled_from(["forward", "orbit", "hold", "look up"]), st.just("")),
).map(" ".join)
times = st.sampled_from(["", " in 4s", " in 1:30", " in 1m30s", " in 0.123456789", " in 90"])
groups = st.tuples(st.lists(moves, min_size=1, max_size=3).map(" + ".join), times).map("".join)
paths = st.lists(groups, min_size=1, max_size=4).map(", ".join)


@given(paths)
def test_a_path_of_moves_reads_back_as_itself(text):
    try:
        path = parse_camera_path(text)
    except UsageError as error:
        # Too many tilts, or too far for the time a path may take.
        assume("tilts add up" not in error.message and "longer than a day" not in error.message)
        raise
    again = parse_camera_path(str(path))
    assert again == path
    assert str(again) == str(path)


numbers = st.floats(-100_000, 100_000).map(lambda number: number + 0.0)
poses = st.builds(CameraPose, numbers, numbers, numbers, numbers, st.floats(-80, 80), numbers)


@given(st.lists(st.tuples(st.floats(1e-3, 1000), poses), min_size=1, max_size=5))
def test_a_path_of_keyframes_reads_back_as_itself(rows):
    seconds, frames = 0.0, [Keyframe(0.0, CameraPose())]
    for step, pose in rows:
        seconds += step
        frames.append(Keyframe(seconds, pose))
    path = CameraPath(keyframes=tuple(frames))
    assert parse_camera_path(str(path)) == path
