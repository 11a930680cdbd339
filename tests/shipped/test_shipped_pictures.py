"""Pictures on the preset that is shipped: flown through, and the beginning of a scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from delivered import QUICK, contents, frames_of
from longvie_cli.media.probe import probe_video
from longvie_cli.media.reader import read_frames
from longvie_cli.media.writer import VideoWriter
from longvie_cli.worlds import Flight

REFERENCE = Path(__file__).resolve().parents[2] / "examples" / "reference.mp4"


@pytest.mark.slow
def test_a_picture_is_flown_through(longvie, tmp_path: Path) -> None:
    frames = read_frames(
        probe_video(REFERENCE), fps=16, height=200, width=300, fit="crop", num_frames=1
    )
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


@pytest.mark.slow
def test_a_scene_begins_from_its_own_picture(longvie, tmp_path: Path) -> None:
    scenes = [Flight(seed, width=96, height=56, fps=16) for seed in (1_000_000_700, 1_000_000_702)]
    with VideoWriter(tmp_path / "cut.mp4", height=56, width=96, fps=16) as writer:
        for scene in scenes:
            for index in range(8):
                writer.write(scene.frame(index).rgb)
    command = ("generate", "--video", "cut.mp4", "--at-cut", "restart", "-p", "hills", *QUICK)
    outcome = longvie(*command, "-o", "out.mp4")
    assert outcome.code == 0, outcome.err
    frames = frames_of(tmp_path / "out.mp4").astype(int)
    size = {"height": 112, "width": 192}
    source = list(read_frames(probe_video(tmp_path / "cut.mp4"), fps=16, **size, fit="crop"))
    assert len(frames) == len(source) == 16
    # Not from the end of the scene before.
    assert np.abs(frames[8] - source[8]).mean() < np.abs(frames[8] - frames[7]).mean() / 2
    assert np.abs(frames[0] - source[0]).mean() < np.abs(frames[0] - source[8]).mean() / 2
