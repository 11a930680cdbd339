"""What tests look at once a command has run: frames of a video, bytes of a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from longvie_cli.media.probe import probe_video
from longvie_cli.media.reader import read_frames

# As little denoising as there is: these tests are about everything around it.
QUICK = ("--steps", "1", "--guidance", "1")


def frames_of(path: Path) -> np.ndarray:
    """Return every frame of a video, [T, H, W, 3]."""
    video = probe_video(path)
    size = {"height": video.height, "width": video.width}
    return np.stack(list(read_frames(probe_video(path), fps=None, **size, fit="native")))


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file in a folder and beneath it, by its path there."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
