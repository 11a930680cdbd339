"""A preset of even shorter clips, and what the trials begin with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from longvie_cli.media.writer import VideoWriter
from longvie_cli.worlds import Flight
from small_preset import CHANGES

# One step without guidance is the default here: the commands of the trials need no flags for it.
TRIALS = CHANGES | {
    "num_frames": 5,
    "height": 32,
    "width": 48,
    "history_frames": 4,
    "num_inference_steps": 1,
    "guidance_scale": 1.0,
}


def make_inputs(folder: Path) -> None:
    """Make `video.mp4`, two scenes to extract controls from, and `foreign.mp4`, of another size."""
    folder.mkdir(parents=True)
    scenes = [
        (Flight(seed, width=48, height=32, fps=16), length)
        for seed, length in ((1_000_000_700, 4), (1_000_000_702, 5))
    ]
    pictures = [flight.frame(index).rgb for flight, length in scenes for index in range(length)]
    with VideoWriter(folder / "video.mp4", height=32, width=48, fps=16) as writer:
        for picture in pictures:
            writer.write(picture)
    with VideoWriter(folder / "foreign.mp4", height=40, width=56, fps=16) as writer:
        for picture in pictures[-4:]:
            writer.write(np.pad(picture, ((4, 4), (4, 4), (0, 0))))
