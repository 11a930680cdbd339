"""A video is made, continued and mended on the preset that is shipped, at its size and length."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import numpy as np
import pytest

from delivered import QUICK, contents, frames_of
from longvie_cli import GenerateRequest, generate
from longvie_cli.media.metadata import read_settings
from longvie_cli.media.packets import read_packets
from longvie_cli.result import JobResult
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.tails import load_tail

REFERENCE = Path(__file__).resolve().parents[2] / "examples" / "reference.mp4"
PROMPT = "Snowy mountains at noon under a clear sky"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> JobResult:
    """Three seconds of the reference in another look."""
    folder = tmp_path_factory.mktemp("made")
    return generate(
        GenerateRequest(
            output=folder / "out.mp4",
            video=REFERENCE,
            prompt=PROMPT,
            seconds=3,
            num_inference_steps=1,
            guidance_scale=1,
        )
    )


@pytest.fixture
def made(result: JobResult, tmp_path: Path) -> RunFolder:
    """The run folder, copied into the test's own folder with its video."""
    shutil.copytree(result.output.parent, tmp_path, dirs_exist_ok=True)
    return RunFolder.beside(tmp_path / result.output.name)


@pytest.mark.slow
def test_a_video_becomes_two_clips(result: JobResult, made: RunFolder, tmp_path: Path) -> None:
    assert (result.status, result.frames) == ("done", 48)
    packets = read_packets(tmp_path / "out.mp4")
    assert (packets.width, packets.height, len(packets.timestamps)) == (192, 112, 48)
    assert packets.is_constant(16)
    clips = [frames_of(made.clip_video(index)) for index in range(2)]
    assert [len(clip) for clip in clips] == [33, 15]
    frames = frames_of(tmp_path / "out.mp4")
    assert np.array_equal(frames, np.concatenate(clips))
    tail = load_tail(made.tail(1))
    # H.264 takes a little of what the last frames are.
    assert tail.shape == (8, 112, 192, 3)
    assert np.abs(frames[-8:].astype(int) - tail).mean() < 3
    about = read_settings(tmp_path / "out.mp4")
    assert about is not None
    assert (about["settings"]["preset"], about["settings"]["prompt"]) == ("tiny", PROMPT)
    assert str(REFERENCE.parent) not in json.dumps(about)


@pytest.mark.slow
def test_it_goes_on_with_the_rest_of_its_source(longvie, made: RunFolder, tmp_path: Path) -> None:
    outcome = longvie("extend", "out.mp4", "--seconds", "0.5", "-o", "on.mp4", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.fields["frames"] == 56
    *of_source, of_prompt = outcome.fields["warnings"]
    assert all(said.startswith("reference.mp4: ") for said in of_source)
    assert ["24 fps" in of_source[0], "cropped" in of_source[1]] == [True, True]
    assert of_prompt == f"No --prompt given; used: '{PROMPT}'."
    assert "lossless" not in outcome.err and "without controls" not in outcome.err
    frames = frames_of(tmp_path / "on.mp4").astype(int)
    assert np.array_equal(frames[:48], frames_of(tmp_path / "out.mp4"))
    steps = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    # The seam moves as the frames around it do.
    assert steps[47] < 3 * np.median(steps[40:])


@pytest.mark.slow
def test_its_second_clip_is_made_again(longvie, made: RunFolder, tmp_path: Path) -> None:
    before = {index: made.clip_video(index).read_bytes() for index in range(2)}
    redone = ("redo", "out.mp4", "--clip", "1", "--prompt", "Black volcanic mountains at sunset")
    outcome = longvie(*redone)
    assert (outcome.code, outcome.out) == (0, "out.mp4\n"), outcome.err
    assert made.clip_video(0).read_bytes() == before[0]
    assert made.clip_video(1).read_bytes() != before[1]
    frames = frames_of(tmp_path / "out.mp4")
    clips = [frames_of(made.clip_video(index)) for index in range(2)]
    assert np.array_equal(frames, np.concatenate(clips))


@pytest.mark.slow
def test_controls_made_before_and_a_kill_give_the_same_video(
    longvie, start_longvie: Callable[..., Popen[str]], made: RunFolder, tmp_path: Path
) -> None:
    extract = ("extract-controls", REFERENCE, "-p", PROMPT, "--seconds", "3", "-o", "controls")
    outcome = longvie(*extract)
    assert (outcome.code, outcome.out) == (0, "controls\n"), outcome.err
    found, own = contents(tmp_path / "controls"), contents(made.controls_dir)
    pictures = {name for name in own if name.endswith((".mp4", ".png"))}
    assert len(pictures) >= 5
    assert {name: found[name] for name in pictures} == {name: own[name] for name in pictures}

    process = start_longvie("generate", "--controls", "controls", *QUICK, "-o", "again.mp4")
    first = tmp_path / "again.longvie" / "clips" / "0000.json"
    deadline = time.monotonic() + 240
    while not first.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "again.mp4").exists()
    kept = {path: path.stat().st_mtime_ns for path in (first, first.with_suffix(".mp4"))}
    outcome = longvie("resume", "again.longvie")
    assert (outcome.code, outcome.out) == (0, "again.mp4\n"), outcome.err
    assert np.array_equal(frames_of(tmp_path / "again.mp4"), frames_of(tmp_path / "out.mp4"))
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
