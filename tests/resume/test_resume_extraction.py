"""An extraction that is killed at any instant goes on, and leaves the same bytes."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from longvie_cli.media.writer import VideoWriter
from longvie_cli.worlds import Flight

COMMAND = ("extract-controls", "cut.mp4", "--at-cut", "restart", "--preview", "-o")
Start = Callable[..., "subprocess.Popen[str]"]


def states(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def times(folder: Path) -> dict[str, int]:
    """Return when the files of finished clips were written; a clip's tracks come last."""
    tracks = folder.glob("track_*.mp4")
    finished = [path for track in tracks for path in (track, _depth_of(track))]
    return {path.name: path.stat().st_mtime_ns for path in finished}


def _depth_of(track: Path) -> Path:
    return track.with_name(track.name.replace("track", "depth"))


def write_cut_video(path: Path) -> None:
    """60 frames: a cut after 20, in the middle of a clip of 33."""
    with VideoWriter(path, height=56, width=96, fps=16) as writer:
        for seed, length in ((1_000_000_700, 20), (1_000_000_702, 40)):
            flight = Flight(seed, width=96, height=56, fps=16)
            for index in range(length):
                writer.write(flight.frame(index).rgb)


def test_an_extraction_killed_again_and_again_leaves_the_same_bytes(
    start_longvie: Start, tmp_path: Path
) -> None:
    write_cut_video(tmp_path / "cut.mp4")
    began = time.monotonic()
    process = start_longvie(*COMMAND, "whole")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    whole_seconds = time.monotonic() - began

    rng = random.Random(5)
    kills = 0
    for attempt in range(12):
        before = times(tmp_path / "pieces")
        process = start_longvie(*COMMAND, "pieces")
        try:
            # Later and later, so that the last of them gets through however slow the machine is.
            process.communicate(timeout=whole_seconds * rng.uniform(0.3, 0.8) * (1 + attempt / 6))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
        after = times(tmp_path / "pieces")
        assert {name: after[name] for name in before} == before
        if process.returncode == 0:
            break
    assert process.returncode == 0
    assert kills >= 1
    assert states(tmp_path / "pieces") == states(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("landmark", ["clips/0000.json", "tails/0001.safetensors"])
def test_a_run_killed_at_a_cut_goes_on_with_the_same_frames(
    start_longvie: Start, tmp_path: Path, landmark: str
) -> None:
    write_cut_video(tmp_path / "cut.mp4")
    generate = ("generate", "--video", "cut.mp4", "-p", "hills", "--at-cut", "restart")
    quick = ("--steps", "1", "--guidance", "1", "--no-embed-metadata")
    process = start_longvie(*generate, *quick, "-o", "whole.mp4")
    _, err = process.communicate(timeout=500)
    assert process.returncode == 0, err

    process = start_longvie(*generate, *quick, "-o", "pieces.mp4")
    while not (tmp_path / "pieces.longvie" / landmark).exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    process = start_longvie(*generate, *quick, "-o", "pieces.mp4")
    _, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    assert (tmp_path / "pieces.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert len(list((tmp_path / "pieces.longvie" / "clips").glob("*.mp4"))) == 3
