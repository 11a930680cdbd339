"""Frames with known truth, for tests of what is measured of a video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longvie_cli.media.writer import VideoWriter

Frames = NDArray[np.uint8]


def texture(height: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    """Return a picture [height, width, 3] of soft blobs of many sizes, from 20 to 235."""
    import cv2

    draw = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), np.float32)
    for size in (3, 8, 20):
        noise = draw.standard_normal((height, width, 3)).astype(np.float32)
        blobs = cv2.GaussianBlur(noise, (0, 0), size)
        picture += blobs / blobs.std()
    return np.clip(127 + 35 * picture / picture.std(), 20, 235)


def sliding(
    num_frames: int, *, height: int = 64, width: int = 96, pixels: int = 2, seed: int = 0
) -> Frames:
    """Return frames [frames, height, width, 3] of a texture that slides so far a frame."""
    whole = texture(height, width + pixels * num_frames, seed)
    frames = [whole[:, pixels * index : pixels * index + width] for index in range(num_frames)]
    return np.stack(frames).round().astype(np.uint8)


def turning(num_frames: int, *, height: int = 64, width: int = 96) -> Frames:
    """Return frames that slide by a pixel and come in again on the other side: their mean stays."""
    (still,) = sliding(1, height=height, width=width)
    return np.stack([np.roll(still, index, axis=1) for index in range(num_frames)])


def changed(frames: Frames, amount: Any) -> Frames:
    """Return frames with something added to all levels, clipped."""
    return np.clip(frames.astype(np.float32) + amount, 0, 255).round().astype(np.uint8)


def write(path: Path, frames: Frames, *, fps: int = 16, crf: int = 10) -> Path:
    """Write frames as an mp4 and return its path."""
    height, width = frames.shape[1:3]
    with VideoWriter(path, height=height, width=width, fps=fps, crf=crf) as writer:
        for frame in frames:
            writer.write(frame)
    return path
