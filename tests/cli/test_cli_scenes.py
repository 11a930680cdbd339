"""Scene cuts in the source, and controls to look at, on the embedded preset."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from delivered import QUICK, contents, frames_of
from longvie_cli.controls.files import load_control_clips
from longvie_cli.media.image import read_image
from longvie_cli.media.packets import read_packets
from longvie_cli.media.probe import probe_video
from longvie_cli.media.reader import read_frames
from longvie_cli.media.writer import VideoWriter
from longvie_cli.worlds import Flight
from mixed_scenes import dissolve, mix, pictured
from small_preset import SMALL

CUT = 7
NUM_FRAMES = 16


@pytest.fixture(scope="module")
def cut_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven frames of one flight, then nine of another, 96x56 at 16 fps."""
    path = tmp_path_factory.mktemp("cut") / "cut.mp4"
    one = Flight(1_000_000_700, width=96, height=56, fps=16)
    other = Flight(1_000_000_702, width=96, height=56, fps=16)
    with VideoWriter(path, height=56, width=96, fps=16) as writer:
        for index in range(CUT):
            writer.write(one.frame(index).rgb)
        for index in range(NUM_FRAMES - CUT):
            writer.write(other.frame(index).rgb)
    return path


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_cut_is_refused_with_its_time_before_anything_is_made(
    longvie, tmp_path: Path, cut_video: Path, dry: tuple[str, ...]
) -> None:
    outcome = longvie("generate", "--video", cut_video, "-p", "hills", *dry, "-o", "out.mp4")
    assert (outcome.code, outcome.out) == (5, "")
    assert "a scene cut at 0:00.44" in outcome.err
    assert "--at-cut restart" in outcome.err
    assert contents(tmp_path) == {}
    refused = longvie("extract-controls", cut_video, "-o", "controls")
    assert refused.code == 5
    assert not (tmp_path / "controls").exists()


def test_the_length_in_the_hint_stops_before_the_cut(longvie, cut_video: Path) -> None:
    arguments = ("--video", cut_video, "-p", "hills", "--seconds", "0.43", "--dry-run")
    outcome = longvie("generate", *arguments, "-o", "out.mp4")
    assert outcome.code == 0, outcome.err


def test_restart_plans_a_clip_for_each_scene_and_ignore_goes_on(longvie, cut_video: Path) -> None:
    def planned(how: str) -> dict:
        arguments = ("--video", cut_video, "-p", "hills", "--at-cut", how, "--dry-run", "--json")
        outcome = longvie("generate", *arguments, "-o", "out.mp4")
        assert outcome.code == 0, outcome.err
        assert any("a scene cut at" in line for line in outcome.fields["plan"]["inputs"])
        return outcome.fields["plan"]

    restart = planned("restart")
    assert [clip["frames"] for clip in restart["clips"]] == [CUT, NUM_FRAMES - CUT]
    assert restart["settings"]["cuts"] == [CUT]
    ignore = planned("ignore")
    assert [clip["frames"] for clip in ignore["clips"]] == [9, 7]
    assert ignore["settings"]["cuts"] == [] and ignore["settings"]["at_cut"] is None


def test_back_and_forth_over_a_cut_is_refused(longvie, cut_video: Path) -> None:
    arguments = ("--video", cut_video, "-p", "x", "--repeat", "pingpong", "--at-cut", "restart")
    outcome = longvie("generate", *arguments, "--seconds", "3", "--dry-run", "-o", "out.mp4")
    assert outcome.code == 2
    assert "back and forth" in outcome.err


@pytest.mark.slow
def test_controls_cut_up_by_scenes_are_seen_and_honoured(
    longvie, tmp_path: Path, cut_video: Path
) -> None:
    arguments = ("--at-cut", "restart", "--preview", "-o", "controls")
    outcome = longvie("extract-controls", cut_video, *arguments)
    assert outcome.code == 0, outcome.err
    assert "preview.mp4" in outcome.err
    folder = tmp_path / "controls"
    record = json.loads((folder / "normalization.json").read_text())
    assert record["clips"] == [[0, CUT], [CUT, NUM_FRAMES]]

    controls = load_control_clips(folder, SMALL.geometry)
    assert controls.cuts == (CUT,)
    assert controls.num_frames == NUM_FRAMES
    size = (SMALL.height, SMALL.width)
    depth = controls.read_range(0, NUM_FRAMES, *size, "crop").dense.astype(int)
    steps = np.abs(np.diff(depth, axis=0)).mean(axis=(1, 2, 3))
    assert int(steps.argmax()) == CUT - 1
    scene = controls.scene_image(CUT)
    assert scene is not None
    stored = read_image(scene, height=size[0], width=size[1], fit="crop")
    (wanted,) = read_frames(
        probe_video(cut_video),
        fps=16,
        height=size[0],
        width=size[1],
        fit="crop",
        start_frame=CUT,
        num_frames=1,
    )
    assert np.array_equal(stored, wanted)

    preview = read_packets(folder / "preview.mp4")
    assert (preview.codec, preview.width, preview.height) == ("h264", 3 * size[1], size[0])
    assert len(preview.timestamps) == NUM_FRAMES
    sheet = read_image(
        folder / "contact_sheet.png", height=8 * size[0], width=3 * size[1], fit="native"
    )
    assert (
        np.abs(
            sheet[: size[0], : size[1]].astype(int)
            - read_image(folder / "first.png", height=size[0], width=size[1], fit="native")
        ).mean()
        < 2
    )

    # Asked again, everything is there already, the preview too.
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert longvie("extract-controls", cut_video, *arguments).code == 0
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before

    made = longvie("generate", "--controls", "controls", "-p", "hills", *QUICK, "-o", "out.mp4")
    assert made.code == 0, made.err
    assert "the clip after each begins anew" in made.err
    clips = [tmp_path / "out.longvie" / "clips" / f"000{index}.mp4" for index in range(2)]
    assert [len(frames_of(clip)) for clip in clips] == [CUT, NUM_FRAMES - CUT]


def written(path: Path, frames: list[np.ndarray]) -> Path:
    with VideoWriter(path, height=64, width=96, fps=16) as writer:
        for frame in frames:
            writer.write(np.kron(frame, np.ones((2, 2, 1), np.uint8)))
    return path


@pytest.fixture(scope="module")
def gradual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A dissolve from frame 32 to 48 and a fade through black from 32 to 56, at 16 fps."""
    folder = tmp_path_factory.mktemp("gradual")
    one, other = pictured(1, 80, speed=0.2), pictured(2, 80, speed=0.2)
    dark = [
        *one[:32],
        *(mix(frame, 0, (index + 1) / 11) for index, frame in enumerate(one[32:42])),
        *[np.zeros_like(one[0])] * 4,
        *(mix(frame, 0, 1 - (index + 1) / 11) for index, frame in enumerate(other[:10])),
        *other[10:40],
    ]
    return {
        "dissolve": written(folder / "dissolve.mp4", dissolve(one, other, before=32, mixed=16)),
        "fade": written(folder / "fade.mp4", dark),
    }


def times_of(text: str, kind: str) -> tuple[float, float]:
    found = re.search(rf"a {kind} from 0:(\S+) to 0:([0-9.]+)", text)
    assert found is not None, text
    return float(found[1]), float(found[2])


@pytest.mark.parametrize(
    ("kind", "start", "end"),
    [("dissolve", 2.0, 3.0), pytest.param("fade", 2.0, 3.5, marks=pytest.mark.slow)],
)
def test_what_is_gradual_is_refused_with_its_range_in_every_command(
    longvie, tmp_path: Path, gradual: dict[str, Path], kind: str, start: float, end: float
) -> None:
    video = gradual[kind]
    begin = ("--video", video, "-p", "hills", "--seconds", "0.5", *QUICK, "-o", "begun.mp4")
    assert longvie("generate", *begin).code == 0
    there = contents(tmp_path)
    for command in (
        ("generate", "--video", video, "-p", "hills", "-o", "out.mp4"),
        ("extract-controls", video, "-o", "controls"),
        ("extend", "begun.mp4", "-o", "longer.mp4"),
    ):
        outcome = longvie(*command, "--dry-run", "--json")
        assert outcome.code == 5, outcome.err
        assert times_of(outcome.err, kind) == pytest.approx((start, end), abs=0.2)
        assert "--at-cut restart" in outcome.err
        ignored = longvie(*command, "--at-cut", "ignore", "--dry-run")
        assert ignored.code == 0, ignored.err
        times_of(ignored.err + ignored.out, kind)
    assert contents(tmp_path) == there


def test_after_a_dissolve_a_clip_begins_with_the_new_scene_alone(
    longvie, gradual: dict[str, Path]
) -> None:
    arguments = ("--video", gradual["dissolve"], "-p", "hills", "--at-cut", "restart")
    outcome = longvie("generate", *arguments, "--dry-run", "--json", "-o", "out.mp4")
    assert outcome.code == 0, outcome.err
    plan = outcome.fields["plan"]
    (cut,) = plan["settings"]["cuts"]
    assert abs(cut - 48) <= 3
    assert sum(clip["frames"] for clip in plan["clips"]) == 112


def test_a_video_that_begins_black_is_warned_of(longvie, tmp_path: Path) -> None:
    frames = [mix(frame, 0, max(0, 1 - k / 10)) for k, frame in enumerate(pictured(1, 30))]
    video = written(tmp_path / "from_black.mp4", frames)
    arguments = ("generate", "--video", video, "-p", "hills", "--dry-run", "--json")
    outcome = longvie(*arguments, "-o", "out.mp4")
    assert outcome.code == 0, outcome.err
    (warning,) = [line for line in outcome.fields["warnings"] if "one colour" in line]
    assert "--first-frame prompt" in warning
    outcome = longvie(*arguments, "--first-frame", "prompt", "-o", "out.mp4")
    assert not any("one colour" in line for line in outcome.fields["warnings"])
