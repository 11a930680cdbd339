"""The embedded preset with models that are smaller still, so that a trial takes tenths of a second.

The package is linked into a folder of its own, with another `assets/tiny`; everything finds it as
it finds the one that is shipped.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

import longvie_cli
from longvie_cli.media.writer import VideoWriter
from longvie_cli.worlds import Flight
from small_models import small_pipeline

CLIP_FRAMES = 5


def build_package(root: Path) -> None:
    """Make a `longvie_cli` in `root` whose preset `tiny` makes clips of 5 frames, 48x32."""
    real = Path(longvie_cli.__file__).parent
    package = root / "longvie_cli"
    (package / "assets").mkdir(parents=True)
    for entry in real.iterdir():
        if entry.name not in ("assets", "__pycache__"):
            (package / entry.name).symlink_to(entry)
    (package / "assets" / "longvie2").symlink_to(real / "assets" / "longvie2")
    tiny = package / "assets" / "tiny"
    small_pipeline().save_pretrained(tiny)
    shutil.copytree(real / "assets" / "tiny" / "depth", tiny / "depth")
    preset = json.loads((real / "assets" / "tiny" / "preset.json").read_bytes())
    preset |= {
        "num_frames": CLIP_FRAMES,
        "height": 32,
        "width": 48,
        "history_frames": 4,
        "num_inference_steps": 1,
        "guidance_scale": 1.0,
        "max_text_tokens": 20,
        "track_grid": {"columns": 4, "rows": 3},
    }
    (tiny / "preset.json").write_text(json.dumps(preset))


def make_inputs(folder: Path) -> None:
    """Make `video.mp4`, two scenes to extract controls from, and `foreign.mp4`, of another size."""
    folder.mkdir(parents=True)
    pictures = [
        Flight(seed, width=48, height=32, fps=16).frame(index).rgb
        for seed, length in ((1_000_000_700, 4), (1_000_000_702, 5))
        for index in range(length)
    ]
    with VideoWriter(folder / "video.mp4", height=32, width=48, fps=16) as writer:
        for picture in pictures:
            writer.write(picture)
    with VideoWriter(folder / "foreign.mp4", height=40, width=56, fps=16) as writer:
        for picture in pictures[-4:]:
            writer.write(np.pad(picture, ((4, 4), (4, 4), (0, 0))))


if __name__ == "__main__":
    import sys

    build_package(Path(sys.argv[1]))
    make_inputs(Path(sys.argv[2]))
