"""cond.json and the control clips read from it, the released example included."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from longvie_cli.controls.files import (
    ControlFiles,
    load_control_clips,
    read_conditions,
    write_conditions,
)
from longvie_cli.errors import ControlError, MediaError
from longvie_cli.media.writer import VideoWriter
from longvie_cli.settings.presets import load_preset
from longvie_cli.timeline import ClipGeometry
from recorded import released_example

HEIGHT, WIDTH = 16, 32


def write_levels(path: Path, levels: Sequence[int], *, height: int = HEIGHT) -> None:
    """A video of flat greys."""
    with VideoWriter(path, height=height, width=WIDTH, fps=16, crf=5) as writer:
        for level in levels:
            writer.write(np.full((height, WIDTH, 3), level, np.uint8))


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Make control clips over a timeline whose frame i is grey 5 i (tracks: 5 i + 40)."""

    def make(*frame_counts: int) -> Path:
        folder = tmp_path / "controls"
        folder.mkdir()
        clips, begin = [], 0
        for index, count in enumerate(frame_counts):
            levels = [5 * frame for frame in range(begin, begin + count)]
            clip = ControlFiles(f"clip {index}", folder / f"d{index}.mp4", folder / f"t{index}.mp4")
            write_levels(clip.depth, levels)
            write_levels(clip.track, [level + 40 for level in levels])
            clips.append(clip)
            begin += count - 1
        write_conditions(folder / "cond.json", clips)
        return folder

    return make


def frames_shown(pictures: np.ndarray) -> list[int]:
    return [round(float(level) / 5) for level in pictures.mean(axis=(1, 2, 3))]


def test_conditions_come_back_as_written(tmp_path: Path) -> None:
    clips = [
        ControlFiles("snow, é\n", tmp_path / "a.mp4", tmp_path / "b.mp4"),
        ControlFiles("", tmp_path / "c.mp4", tmp_path / "d.mp4"),
    ]
    for clip in clips:
        clip.depth.touch()
        clip.track.touch()
    write_conditions(tmp_path / "cond.json", clips)
    assert read_conditions(tmp_path / "cond.json") == clips
    stored = json.loads((tmp_path / "cond.json").read_text("utf-8"))
    assert stored[0] == {"text": "snow, é\n", "depth": "a.mp4", "track": "b.mp4"}


@pytest.mark.parametrize("name", ["./example/horse/d.mp4", "somewhere/else/d.mp4", "d.mp4"])
def test_names_of_the_released_style_are_found(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "example" / "horse"
    folder.mkdir(parents=True)
    (folder / "d.mp4").touch()
    entry = {"text": "t", "depth": name, "track": str(folder / "d.mp4")}
    (folder / "cond.json").write_text(json.dumps([entry]))
    (clip,) = read_conditions(folder / "cond.json")
    assert clip.depth.samefile(folder / "d.mp4") and clip.track.samefile(folder / "d.mp4")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON, line 1"),
        ("[]", "at least one clip"),
        ('{"text": ""}', "at least one clip"),
        ("[3]", "clip 0: it must be an object"),
        ('[{"depth": "d.mp4"}]', 'clip 0: it has no "track"'),
        ('[{"depth": 3, "track": "d.mp4"}]', 'clip 0: it has no "depth"'),
        ('[{"depth": "d.mp4", "track": "d.mp4", "text": 3}]', '"text" must be a string'),
        ('[{"depth": "d.mp4", "track": "gone.mp4"}]', 'clip 0: "track" names gone.mp4'),
    ],
)
def test_malformed_conditions_say_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "d.mp4").touch()
    (tmp_path / "cond.json").write_text(text)
    with pytest.raises(ControlError, match=message):
        read_conditions(tmp_path / "cond.json")


def test_a_missing_json_and_a_folder_without_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="there is no such file"):
        load_control_clips(tmp_path / "nothing.json", ClipGeometry(5))
    with pytest.raises(ControlError, match=r"has no cond\.json"):
        load_control_clips(tmp_path, ClipGeometry(5))


def test_files_of_the_geometry_are_its_clips(make_folder: Callable[..., Path], listener) -> None:
    controls = load_control_clips(make_folder(9, 9, 9), ClipGeometry(9), progress=listener)
    assert (controls.num_frames, controls.num_clips, controls.is_recut) == (25, 3, False)
    assert listener.messages == []
    for index in range(3):
        clip = controls.read(index, HEIGHT, WIDTH, "crop")
        assert frames_shown(clip.dense) == list(range(8 * index, 8 * index + 9))
        assert frames_shown(clip.sparse - 40) == frames_shown(clip.dense)
        assert controls.text(index) == f"clip {index}"


@pytest.mark.parametrize("counts", [(21, 21), (9, 5, 7, 5), (33,)])
def test_files_of_another_length_are_one_timeline(
    make_folder: Callable[..., Path], listener, counts: tuple[int, ...]
) -> None:
    geometry = ClipGeometry(13)
    controls = load_control_clips(make_folder(*counts) / "cond.json", geometry, progress=listener)
    total = sum(counts) - len(counts) + 1
    assert controls.num_frames == total and controls.is_recut
    assert len(listener.messages) == 1 and "cut anew" in listener.messages[0]
    for index in range(controls.num_clips):
        clip = controls.read(index, HEIGHT, WIDTH, "crop")
        wanted = [min(frame, total - 1) for frame in range(12 * index, 12 * index + 13)]
        assert frames_shown(clip.dense) == wanted


def test_any_range_can_be_read_and_the_last_frame_is_held(
    make_folder: Callable[..., Path],
) -> None:
    controls = load_control_clips(make_folder(9, 9), ClipGeometry(9))
    shown = frames_shown(controls.read_range(5, 14, HEIGHT, WIDTH, "crop").dense)
    assert shown == [*range(5, 17), 16, 16]
    assert [controls.text_at(frame) for frame in (0, 8, 9, 16, 99)] == [
        *("clip 0", "clip 0", "clip 1", "clip 1", "clip 1")
    ]
    for clip_index in (-1, 2):
        with pytest.raises(IndexError):
            controls.read(clip_index, HEIGHT, WIDTH, "crop")


def test_a_clip_begins_with_its_own_file_where_tracks_start_anew(
    make_folder: Callable[..., Path],
) -> None:
    folder = make_folder(9, 9)
    # As in the released examples: the second file's tracks do not go on with the first's.
    write_levels(folder / "t1.mp4", [200 - 5 * frame for frame in range(9)])
    controls = load_control_clips(folder, ClipGeometry(9))
    anew = [40 - frame for frame in range(9)]
    assert frames_shown(controls.read(1, HEIGHT, WIDTH, "crop").sparse) == anew
    across = controls.read_range(7, 3, HEIGHT, WIDTH, "crop").sparse
    assert frames_shown(across) == [7 + 8, 8 + 8, 39]
    ends = controls.read_range(8, 2, HEIGHT, WIDTH, "crop", begins=False).sparse
    assert frames_shown(ends) == [8 + 8, 39]


def test_controls_are_resized_to_the_size_asked_for(make_folder: Callable[..., Path]) -> None:
    controls = load_control_clips(make_folder(5), ClipGeometry(5))
    assert controls.read(0, 24, 24, "crop").dense.shape == (5, 24, 24, 3)


def test_depth_and_track_of_different_lengths_are_refused(
    make_folder: Callable[..., Path],
) -> None:
    folder = make_folder(9, 9)
    write_levels(folder / "t1.mp4", range(8))
    with pytest.raises(ControlError, match=r"clip 1: d1\.mp4 has 9 frames and t1\.mp4 has 8"):
        load_control_clips(folder, ClipGeometry(9))


def test_different_sizes_are_refused(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(9)
    write_levels(folder / "t0.mp4", range(9), height=20)
    with pytest.raises(ControlError, match=r"32x20, but d0\.mp4 is 32x16"):
        load_control_clips(folder, ClipGeometry(9))


def test_a_file_that_is_no_video_is_refused(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(9)
    (folder / "t0.mp4").write_text("not a video")
    with pytest.raises(MediaError):
        load_control_clips(folder, ClipGeometry(9))


@pytest.fixture
def released() -> Path:
    """The released example."""
    return released_example()


@pytest.mark.slow
def test_the_released_example_has_the_clips_of_longvie2(released: Path) -> None:
    preset = load_preset("longvie2")
    controls = load_control_clips(released, preset.geometry)
    entries = json.loads((released / "cond.json").read_text("utf-8"))
    size = (preset.height, preset.width)
    clips = [controls.read(index, *size, preset.fit) for index in range(2)]
    for index, clip in enumerate(clips):
        assert clip.dense.shape == clip.sparse.shape == (81, 352, 640, 3)
        assert controls.text(index) == entries[index]["text"]
    # Depth goes on across clips; both frames are the same picture, encoded twice.
    shared = np.abs(clips[0].dense[80].astype(int) - clips[1].dense[0].astype(int))
    assert shared.mean() < 0.5 and shared.max() <= 8
    # Tracks start anew, from the same grid.
    grids = np.abs(clips[0].sparse[0].astype(int) - clips[1].sparse[0].astype(int))
    moved = np.abs(clips[0].sparse[80].astype(int) - clips[1].sparse[0].astype(int))
    assert grids.mean() < 3 < 30 < moved.mean()


@pytest.mark.slow
def test_the_released_example_is_read(released: Path) -> None:
    as_released = load_control_clips(released, ClipGeometry(81))
    count = len(json.loads((released / "cond.json").read_text("utf-8")))
    assert (as_released.num_clips, as_released.num_frames) == (count, 80 * count + 1)
    assert not as_released.is_recut and as_released.first_image is not None
    size = (as_released.height // 4, as_released.width // 4)
    clip = as_released.read(1, *size, "crop")
    assert clip.dense.shape == (81, *size, 3)
    # Depth is grey, tracks are not.
    assert np.ptp(clip.dense.astype(int), axis=-1).max() <= 3
    assert np.ptp(clip.sparse.astype(int), axis=-1).max() > 100
    short = load_control_clips(released, ClipGeometry(33))
    assert short.is_recut and short.num_frames == as_released.num_frames
    across = short.read(2, *size, "crop").dense
    np.testing.assert_array_equal(across[17:], clip.dense[1:17])
