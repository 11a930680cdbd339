"""What `longvie extend` keeps of the earlier run, and what it can be told anew."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from delivered import QUICK, contents, frames_of
from longvie_cli.errors import UsageError
from longvie_cli.media.probe import probe_video
from longvie_cli.media.writer import VideoWriter
from longvie_cli.planning.extend import decide
from longvie_cli.progress import SilentProgress
from longvie_cli.settings.requests import ExtendRequest
from longvie_cli.worlds import Flight
from small_preset import SMALL
from sounds import pitches, run_ffmpeg, write_tone

CUT = 12
NUM_FRAMES = 20


@pytest.fixture(scope="module")
def two_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames of one flight, then eight of another, 96x56 at 16 fps."""
    path = tmp_path_factory.mktemp("scenes") / "scenes.mp4"
    flights = [Flight(seed, width=96, height=56, fps=16) for seed in (1_000_000_700, 1_000_000_702)]
    with VideoWriter(path, height=56, width=96, fps=16) as writer:
        for index in range(NUM_FRAMES):
            writer.write(flights[index >= CUT].frame(index % CUT).rgb)
    return path


@pytest.fixture(scope="module")
def begun_once(tmp_path_factory: pytest.TempPathFactory, two_scenes: Path) -> Path:
    """Half a second before the cut, begun with a picture made from the prompt."""
    from longvie_cli import GenerateRequest, generate

    folder = tmp_path_factory.mktemp("begun")
    generate(
        GenerateRequest(
            output=folder / "begun.mp4",
            video=two_scenes,
            prompt="dunes",
            first_frame="prompt",
            seconds=0.5,
            steps=1,
            guidance=1,
        )
    )
    return folder


@pytest.fixture
def begun(begun_once: Path, tmp_path: Path) -> Path:
    shutil.copytree(begun_once, tmp_path, dirs_exist_ok=True)
    return tmp_path / "begun.mp4"


def planned(longvie, *arguments: object) -> dict:
    outcome = longvie("extend", "begun.mp4", *arguments, "--dry-run", "--json", "-o", "on.mp4")
    assert outcome.code == 0, outcome.err
    return outcome.fields["plan"]


@pytest.mark.slow
def test_a_cut_in_the_rest_is_refused_then_begun_anew_from_the_prompt(
    longvie, tmp_path: Path, begun: Path
) -> None:
    refused = longvie("extend", "begun.mp4", "-o", "on.mp4")
    assert refused.code == 5
    # In the time of the source, not of what is added.
    assert "scenes.mp4: a scene cut at 0:00.75" in refused.err
    assert not (tmp_path / "on.longvie").exists()

    outcome = longvie("extend", "begun.mp4", "--at-cut", "restart", "-o", "on.mp4", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.fields["frames"] == NUM_FRAMES
    run = tmp_path / "on.longvie"
    clips = [len(frames_of(path)) for path in sorted((run / "clips").glob("*.mp4"))]
    assert clips == [CUT - 8, NUM_FRAMES - CUT]
    # The new scene starts as the earlier video did: from a picture made of the prompt.
    assert (run / "first_0001.png").is_file() and not (run / "first.png").exists()
    recorded = json.loads((run / "run.json").read_text())
    assert recorded["settings"]["scenes"] == "from the prompt"
    assert recorded["request"]["at_cut"] == "restart"
    assert recorded["request"]["first_frame"] == "prompt"
    # Decided again from what is recorded, it is the same run: nothing is made anew.
    made = (tmp_path / "on.mp4").read_bytes()
    for path in (tmp_path / "on.mp4", run / "delivery.json"):
        path.unlink()
    before = contents(run / "clips")
    resumed = longvie("resume", "on.longvie")
    assert resumed.code == 0, resumed.err
    assert (tmp_path / "on.mp4").read_bytes() == made and contents(run / "clips") == before


@pytest.mark.slow
def test_scenes_can_be_told_to_begin_as_the_source_does(longvie, begun: Path) -> None:
    restart = ("--at-cut", "restart")
    assert planned(longvie, *restart)["settings"]["scenes"] == "from the prompt"
    assert planned(longvie, *restart, "--first-frame", "video")["settings"]["scenes"] is None
    outcome = longvie(
        *("extend", "begun.mp4", *restart, "--first-frame-model", "nowhere", "--dry-run"),
        *("-o", "on.mp4"),
    )
    assert outcome.code == 3 and "--first-frame-model nowhere" in outcome.err


@pytest.mark.slow
def test_depth_is_as_before_or_as_told(
    longvie, tmp_path: Path, begun: Path, two_scenes: Path, reference_video: Path
) -> None:
    def settings(*arguments: object) -> dict:
        return planned(longvie, "--at-cut", "ignore", *arguments)["settings"]

    before = settings()
    assert (before["depth_model"], before["depth_smoothing"]) == ("embedded", "flow")
    assert settings("--depth-smoothing", "none")["depth_smoothing"] == "none"
    asked = planned(
        longvie, "--video", reference_video, "--depth-model", "small", "--tracker", "lk"
    )
    assert asked["settings"]["depth_model"] == "small"
    assert [model["state"] for model in asked["models"]] == ["missing", "here"]
    ready = settings("--depth", two_scenes, "--depth-polarity", "near-white")
    assert ready["depth"].startswith("scenes.mp4 ")
    assert (ready["depth_polarity"], ready["depth_smoothing"]) == ("near-white", "none")
    short = longvie(
        *("extend", "begun.mp4", "--video", two_scenes, "--at-cut", "ignore"),
        *("--depth", reference_video, "-o", "on.mp4"),
    )
    assert short.code == 5
    assert "the depth has 16 frames (1.00 s at 16 fps), but scenes.mp4 needs 20" in short.err
    assert not (tmp_path / "on.longvie").exists()


@pytest.mark.slow
def test_greys_are_measured_anew_where_depth_is_another(
    tmp_path: Path, begun: Path, two_scenes: Path
) -> None:
    def range_of(**more: object) -> object:
        request = ExtendRequest(previous=begun, output=tmp_path / "on.mp4", at_cut="ignore", **more)
        return decide(request, SilentProgress()).source.depth_range

    assert range_of() is not None
    assert range_of(depth_smoothing="none") == range_of()
    assert range_of(depth=two_scenes, depth_polarity="near-white") is None


@pytest.mark.slow
def test_flags_without_a_video_are_said(longvie, tmp_path: Path, reference_video: Path) -> None:
    common = ("extend", reference_video, "-p", "dunes", "--seconds", "0.5", "--dry-run")
    outcome = longvie(*common, "--tracker", "lk", "--json", "-o", "on.mp4")
    assert outcome.code == 0, outcome.err
    assert "--tracker: nothing to do, it goes on with no controls." in outcome.fields["warnings"]
    outcome = longvie(*common, "--depth", reference_video, "-o", "on.mp4")
    assert outcome.code == 2 and "no video that it is the depth of" in outcome.err
    outcome = longvie(*common, "--audio", "source", "-o", "on.mp4")
    assert outcome.code == 2 and "without a video to take the sound from" in outcome.err


@pytest.mark.slow
def test_the_sound_goes_on_where_the_earlier_video_ends(longvie, tmp_path: Path) -> None:
    write_tone(tmp_path / "song.wav", frequencies=(400, 800, 1200), seconds=0.5)
    flight = ("generate", "-p", "dunes", "--seconds", "0.5", *QUICK)
    assert longvie(*flight, "--audio", "song.wav", "-o", "sung.mp4").code == 0
    outcome = longvie("extend", "sung.mp4", "--seconds", "0.5", "-o", "on.mp4")
    assert outcome.code == 0, outcome.err
    assert pitches(tmp_path / "on.mp4")[:4] == [400, 400, 800, 800]

    def sound_of(**more: object) -> tuple[object, object]:
        request = ExtendRequest(
            previous=tmp_path / "on.mp4", output=tmp_path / "more.mp4", seconds=0.5, **more
        )
        job = decide(request, SilentProgress())
        return job.sound and (job.sound.path.name, job.sound.start), job.earlier.sound is not None

    # It went on by itself once, and would again; told otherwise, it is silent.
    assert sound_of() == (("song.wav", 1.0), True)
    assert sound_of(audio="none") == (None, False)
    (tmp_path / "song.wav").unlink()
    outcome = longvie("extend", "on.mp4", "--seconds", "0.5", "--dry-run", "-o", "more.mp4")
    assert outcome.code == 0 and "its sound does not go on" in outcome.err


@pytest.mark.slow
def test_the_sound_of_the_source_stays_beside_its_pictures(
    tmp_path: Path, begun: Path, two_scenes: Path
) -> None:
    write_tone(tmp_path / "tone.wav", frequencies=(400,), seconds=2)
    voiced = tmp_path / "voiced.mp4"
    run_ffmpeg("-i", two_scenes, "-i", tmp_path / "tone.wav", "-c:v", "copy", "-shortest", voiced)
    request = ExtendRequest(
        **{"previous": begun, "output": tmp_path / "on.mp4", "video": voiced},
        **{"at_cut": "ignore", "audio": "source"},
    )
    job = decide(request, SilentProgress())
    # Frame 0 of a new video is shown where the earlier one ends; frame 1 is the first new one.
    assert job.sound is not None
    assert (job.sound.path, job.sound.start) == (voiced, 1 / 16)
    assert job.settings["audio_start"] == 0.0625
    silent = request.model_copy(update={"video": two_scenes})
    with pytest.raises(UsageError, match=r"scenes\.mp4 has no sound"):
        decide(silent, SilentProgress())


@pytest.mark.slow
def test_another_size_is_made_recorded_and_kept(longvie, tmp_path: Path, two_scenes: Path) -> None:
    refused = longvie("generate", "--size", "130x64", "-p", "x", "-o", "out.mp4")
    assert refused.code == 2 and "128x64 and 144x64" in refused.err
    command = ("generate", "--video", two_scenes, "-p", "dunes", "--seconds", "0.5", *QUICK)
    outcome = longvie(*command, "--size", "128x64", "--json", "-o", "out.mp4")
    assert outcome.code == 0, outcome.err
    (warning,) = [line for line in outcome.fields["warnings"] if "trained at" in line]
    trained = f"preset tiny was trained at {SMALL.size.label}"
    assert warning.startswith(f"--size 128x64: {trained}")
    made = probe_video(tmp_path / "out.mp4")
    assert (made.width, made.height) == (128, 64)
    controls = probe_video(tmp_path / "out.longvie" / "controls" / "depth_0000.mp4")
    assert (controls.width, controls.height) == (128, 64)
    assert "96x56 is resized to 128x64; 14 % of its height is cropped" in outcome.err
    changed = longvie(*command, "-o", "out.mp4")
    assert changed.code == 4 and "size" in changed.err

    (tmp_path / "out.mp4").rename(tmp_path / "begun.mp4")
    (tmp_path / "out.longvie").rename(tmp_path / "begun.longvie")
    on = planned(longvie, "--seconds", "0.2")
    assert on["settings"]["size"] == "128x64"
    assert not any("lossless" in line or "encoded again" in line for line in on["inputs"])
    other = planned(longvie, "--seconds", "0.2", "--size", SMALL.size.label)
    assert other["settings"]["size"] is None
    again = f"is encoded again as {SMALL.size.label}"
    assert any(again in line for line in other["inputs"])
