"""Puts a reference, its controls and videos made from them under each other, as one PNG.

    python examples/contact_sheet.py REFERENCE CONTROLS OUTPUT... --to SHEET.png

Columns are moments, evenly spread over the shortest video; rows are the reference, its depth,
its tracks and the outputs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from longvie_cli.controls.files import load_control_clips
from longvie_cli.media.probe import probe_video
from longvie_cli.media.reader import count_frames, read_frames
from longvie_cli.settings.presets import load_preset

COLUMNS = 6
GAP = 4


def picked_frames(video: Path, moments: list[int]) -> list[NDArray[np.uint8]]:
    """Return the frames at some moments, at the preset's size and rate."""
    preset = load_preset("tiny")
    source = probe_video(video)
    frames = read_frames(
        source, fps=preset.fps, height=preset.height, width=preset.width, fit="crop"
    )
    return [frame for index, frame in enumerate(frames) if index in moments]


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reference", type=Path)
    parser.add_argument("controls", type=Path)
    parser.add_argument("outputs", type=Path, nargs="+")
    parser.add_argument("--to", type=Path, required=True)
    arguments = parser.parse_args()
    preset = load_preset("tiny")
    total = min(count_frames(probe_video(path), fps=preset.fps) for path in arguments.outputs)
    moments = np.linspace(0, total - 1, COLUMNS).astype(int).tolist()
    controls = load_control_clips(arguments.controls, preset.geometry)
    shown = [
        controls.read_range(moment, 1, preset.height, preset.width, "crop") for moment in moments
    ]
    rows = [
        picked_frames(arguments.reference, moments),
        [clip.dense[0] for clip in shown],
        [clip.sparse[0] for clip in shown],
        *(picked_frames(path, moments) for path in arguments.outputs),
    ]
    height, width = preset.height + GAP, preset.width + GAP
    sheet = np.full((len(rows) * height - GAP, COLUMNS * width - GAP, 3), 255, np.uint8)
    for row, frames in enumerate(rows):
        for column, frame in enumerate(frames):
            y, x = row * height, column * width
            sheet[y : y + preset.height, x : x + preset.width] = frame
    arguments.to.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(arguments.to, optimize=True)


if __name__ == "__main__":
    main()
