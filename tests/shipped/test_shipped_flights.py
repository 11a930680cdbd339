"""Flights on the preset that is shipped: killed and gone on with, and through a picture."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import numpy as np
from PIL import Image

from delivered import QUICK, contents, frames_of
from longvie_cli import GenerateRequest, generate
from longvie_cli.media.reader import read_frames

REFERENCE = Path(__file__).resolve().parents[2] / "examples" / "reference.mp4"


def test_a_killed_run_goes_on_with_the_same_frames(
    start_longvie: Callable[..., Popen[str]], longvie, tmp_path: Path
) -> None:
    flight = {"prompt": "Green hills at noon", "seconds": 2.2, "seed": 11}
    steps = {"num_inference_steps": 2, "guidance_scale": 1}
    (tmp_path / "whole").mkdir()
    whole = generate(GenerateRequest(output=tmp_path / "whole" / "out.mp4", **flight, **steps))
    assert (whole.status, whole.frames) == ("done", 35)

    command = ("generate", "-p", flight["prompt"], "--seconds", "2.2", "--seed", "11")
    command = (*command, "--steps", "2", "--guidance", "1", "-o", "out.mp4")
    process = start_longvie(*command)
    first = tmp_path / "out.longvie" / "clips" / "0000.json"
    deadline = time.monotonic() + 240
    while not first.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "out.mp4").exists()
    kept = {path: path.stat().st_mtime_ns for path in (first, first.with_suffix(".mp4"))}
    outcome = longvie("resume", "out.longvie")
    assert (outcome.code, outcome.out) == (0, "out.mp4\n"), outcome.err
    assert (tmp_path / "out.mp4").read_bytes() == whole.output.read_bytes()
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_picture_is_flown_through(longvie, tmp_path: Path) -> None:
    frames = read_frames(REFERENCE, fps=16, height=200, width=300, fit="crop", num_frames=1)
    Image.fromarray(next(iter(frames))).save(tmp_path / "photo.png")
    common = ("generate", "--image", "photo.png", "--camera", "forward 1, turn 20 in 2s")
    command = (*common, "-p", "Green islands at noon", "--seconds", "2.5", *QUICK, "-o", "out.mp4")
    outcome = longvie(*command)
    assert (outcome.code, outcome.out) == (0, "out.mp4\n"), outcome.err
    assert "photo.png: 300x200 is resized to 192x112; 12 % of its height is cropped" in outcome.err
    assert len(frames_of(tmp_path / "out.mp4")) == 40
    depth = frames_of(tmp_path / "out.longvie" / "controls" / "depth_0001.mp4")
    assert depth.std() > 20 and np.abs(depth[-1].astype(int) - depth[0]).mean() > 1
    before = contents(tmp_path)
    assert longvie(*command).code == 0
    assert contents(tmp_path) == before
