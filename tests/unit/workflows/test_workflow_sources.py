"""Control sources: how long they are, and in which order they are played."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from longvie_cli.controls.control_folder import ControlLayout, make_control_folder
from longvie_cli.controls.files import load_control_clips
from longvie_cli.controls.procedural import FlightControls
from longvie_cli.errors import ControlError, UsageError
from longvie_cli.media.writer import VideoWriter
from longvie_cli.planning.length import frames_to_make
from longvie_cli.progress import SilentProgress
from longvie_cli.settings.camera_path import parse_camera_path
from longvie_cli.settings.presets import Fit, Preset, TrackGrid, load_preset
from longvie_cli.sources.camera import CameraSource
from longvie_cli.sources.flight import FlightSource
from longvie_cli.sources.folder import FolderSource
from longvie_cli.sources.source import NoSource, PlayedControls, pingpong_frame
from longvie_cli.timeline import ClipSpec, plan_clips
from longvie_cli.worlds import Flight

PRESET = Preset(
    name="tiny",
    num_frames=9,
    fps=16,
    height=32,
    width=48,
    num_inference_steps=1,
    guidance_scale=1,
    flow_shift=3,
    max_text_tokens=32,
    track_grid=TrackGrid(columns=4, rows=3),
)


@given(st.integers(2, 40), st.integers(0, 300))
def test_pingpong_never_jumps_and_shows_turning_frames_once(num_frames: int, played: int) -> None:
    here, after = pingpong_frame(played, num_frames), pingpong_frame(played + 1, num_frames)
    assert 0 <= here < num_frames
    assert abs(after - here) == 1
    if played < num_frames:
        assert here == played


def test_a_source_of_one_frame_stands_still() -> None:
    assert {pingpong_frame(played, 1) for played in range(5)} == {0}


@dataclass(frozen=True)
class SourceOfLength(NoSource):
    """A source of a known length."""

    length: int = 0
    name: str = field(default="ref.mp4", init=False)

    def frames_left(self, wanted: int | None) -> int | None:
        return self.length

    def facts(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize(
    ("wanted", "shared", "expected"), [(None, 0, 48), (None, 1, 47), (30, 1, 30)]
)
def test_the_length_is_the_wanted_or_the_sources(
    wanted: int | None, shared: int, expected: int
) -> None:
    source = SourceOfLength(length=48)
    made = frames_to_make(source, wanted, flag="--seconds 2", fps=16, shared_frames=shared)
    assert made == expected


@pytest.mark.parametrize("flag", ["--minutes 1", "--seconds 60", "--clips 99"])
def test_a_length_past_the_end_names_one_that_works(flag: str) -> None:
    source = SourceOfLength(length=48)
    with pytest.raises(UsageError) as caught:
        frames_to_make(source, 960, flag=flag, fps=16)
    assert caught.value.message.startswith(f"{flag}: ref.mp4 has 48 frames (3.00 s at 16 fps)")
    option, value = caught.value.hint.split(",")[0].removeprefix("Pass at most ").split()
    seconds = float(value) * (60 if option == "--minutes" else 1)
    assert frames_to_make(source, round(seconds * 16), flag=flag, fps=16) == 48


def test_nothing_left_is_said() -> None:
    with pytest.raises(ControlError, match="nothing is left"):
        frames_to_make(SourceOfLength(length=1), 5, flag="--clips 1", fps=16, shared_frames=1)


def test_endless_sources_last_ten_seconds_by_default() -> None:
    flight = FlightSource(3, PRESET)
    assert frames_to_make(flight, None, flag="", fps=16) == 160
    assert frames_to_make(NoSource(), 7, flag="--seconds 0.4", fps=16) == 7


@pytest.fixture(scope="module")
def flight_controls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("controls")
    layout = ControlLayout(PRESET.geometry, 32, 48, track_columns=4, track_rows=3)
    flight = Flight(5, width=48, height=32, fps=16)
    make_control_folder(FlightControls(flight, layout, 17), folder, progress=SilentProgress())
    return folder


@pytest.mark.slow
def test_controls_played_back_and_forth_come_back_the_way_they_went(flight_controls: Path) -> None:
    controls = load_control_clips(flight_controls, PRESET.geometry)
    played = PlayedControls(controls, 0, True, PRESET, "crop")
    specs = plan_clips(PRESET.geometry, 33)
    clips = [played.read(spec) for spec in specs]
    dense = np.concatenate([clips[0].dense, *(clip.dense[1:] for clip in clips[1:])])
    assert len(dense) == 33
    assert np.array_equal(dense[:17], dense[16:][::-1])
    assert not np.array_equal(dense[0], dense[16])
    # Forwards it is what is read without repeating.
    plain = PlayedControls(controls, 0, False, PRESET, "crop")
    assert np.array_equal(plain.read(specs[1]).sparse, clips[1].sparse)


@pytest.mark.slow
def test_a_clip_knows_which_of_its_frames_share_their_tracks(flight_controls: Path) -> None:
    controls = load_control_clips(flight_controls, PRESET.geometry)
    stride = PRESET.geometry.stride
    specs = plan_clips(PRESET.geometry, 2 * stride + 1)

    def tracked(spec: ClipSpec, start: int = 0, *, pingpong: bool = False) -> int:
        return PlayedControls(controls, start, pingpong, PRESET, "crop").read(spec).tracked_frames

    # One file a clip; cut anew, the first file ends before the clip does.
    assert [tracked(spec) for spec in specs] == [stride + 1, stride + 1]
    assert tracked(specs[0], 3) == stride + 1 - 3
    # Back from the last frame, the frame two files share is read of the first.
    backwards = plan_clips(PRESET.geometry, 4 * stride + 1)[2]
    assert tracked(backwards, pingpong=True) == stride
    # Nothing of the next scene is in a clip that ends one: its last frame is held.
    (ending, *_) = plan_clips(PRESET.geometry, 2 * stride + 1, cuts=(5,))
    assert tracked(ending, 6) == 3


def test_controls_can_be_entered_at_any_frame(flight_controls: Path) -> None:
    controls = load_control_clips(flight_controls, PRESET.geometry)
    (first, *_) = plan_clips(PRESET.geometry, 8, continues=True)
    whole = PlayedControls(controls, 0, False, PRESET, "crop").read(first).dense
    later = PlayedControls(controls, 3, False, PRESET, "crop").read(first).dense
    assert np.array_equal(whole[3:], later[:6])


@pytest.mark.slow
def test_a_flight_continued_is_the_same_flight(tmp_path: Path) -> None:
    source, rest = FlightSource(5, PRESET), FlightSource(5, PRESET, first_frame=8)
    first_frame = source.picture(0)
    assert first_frame is not None
    assert first_frame.shape == (32, 48, 3)
    whole = source.prepare(tmp_path / "whole", 17, SilentProgress())
    second_half = rest.prepare(tmp_path / "rest", 9, SilentProgress())
    specs = plan_clips(PRESET.geometry, 17)
    # Frame 8 begins a clip in both, so even the tracks start from the same points.
    expected, found = whole.read(specs[1]), second_half.read(specs[0])
    assert np.abs(expected.sparse.astype(int) - found.sparse.astype(int)).mean() < 12


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_first_image_and_controls_are_brought_to_size_alike(tmp_path: Path, fit: Fit) -> None:
    # At the released size: a pair of squares that no two of the fits put at the same place.
    picture = np.full((480, 832, 3), 90, np.uint8)
    picture[40:200, 20:300] = (220, 60, 40)
    picture[300:460, 500:820] = (40, 90, 220)
    Image.fromarray(picture).save(tmp_path / "first.png")
    with VideoWriter(tmp_path / "depth.mp4", height=480, width=832, fps=16, crf=4) as writer:
        for _ in range(5):
            writer.write(picture)
    (tmp_path / "cond.json").write_text(
        '[{"text": "", "depth": "depth.mp4", "track": "depth.mp4"}]'
    )
    preset = load_preset("longvie2").model_copy(update={"num_frames": 5})
    source = FolderSource(tmp_path, preset, fit, SilentProgress())
    image = source.picture(0)
    assert image is not None and image.shape == (352, 640, 3)
    (spec,) = plan_clips(preset.geometry, 5)
    shown = source.prepare(tmp_path, 5, SilentProgress()).read(spec).dense[0]
    # Codec noise and the chroma at edges; another transform would be far off.
    assert np.abs(image.astype(int) - shown.astype(int)).mean() < 1.5
    assert source.conversions() == [
        f"{tmp_path.name}: control pictures of 832x480 are brought to 640x352 ({fit})."
    ]


def test_controls_with_another_first_picture_are_others(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "depth.mp4", height=32, width=48, fps=16, crf=4) as writer:
        for _ in range(5):
            writer.write(np.zeros((32, 48, 3), np.uint8))
    (tmp_path / "cond.json").write_text(
        '[{"text": "", "depth": "depth.mp4", "track": "depth.mp4"}]'
    )
    facts = []
    for grey in (10, 200):
        Image.new("RGB", (48, 32), (grey,) * 3).save(tmp_path / "first.png")
        facts.append(FolderSource(tmp_path, PRESET, "crop", SilentProgress()).facts())
    assert facts[0] != facts[1]
    assert facts[0] | {"controls_pictures": None} == facts[1] | {"controls_pictures": None}


def test_every_drawn_source_is_another_with_another_grid_of_points() -> None:
    other = PRESET.model_copy(update={"track_grid": TrackGrid(columns=5, rows=3)})
    path = parse_camera_path("forward 1")
    assert FlightSource(1, PRESET).facts() != FlightSource(1, other).facts()
    cameras = [CameraSource(path, preset, "crop", "cpu", 1) for preset in (PRESET, other)]
    assert cameras[0].facts() != cameras[1].facts()
