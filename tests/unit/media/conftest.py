"""Real media files, made with the bundled ffmpeg."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from longvie_cli.media.ffmpeg import ffmpeg_executable
from longvie_cli.media.writer import VideoWriter

LEVEL_STEP = 3


def _run(*arguments: str | Path, feed: bytes | None = None) -> bytes:
    command = [ffmpeg_executable(), "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, input=feed, check=True, capture_output=True).stdout


@pytest.fixture
def ffmpeg() -> Callable[..., bytes]:
    """Run the bundled ffmpeg with the given arguments and return its stdout."""
    return _run


@pytest.fixture
def numbered_video(tmp_path: Path) -> Callable[..., Path]:
    """Make a video whose frame i is a flat grey of level 3 i + 6; returns its path."""

    def make(
        name: str,
        *options: str,
        num_frames: int,
        fps: str,
        height: int = 48,
        width: int = 64,
        codec: Sequence[str] = ("-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuv444p"),
    ) -> Path:
        levels = (np.arange(num_frames) * LEVEL_STEP + 6).astype(np.uint8)
        raw = np.broadcast_to(levels[:, None, None, None], (num_frames, height, width, 3))
        path = tmp_path / name
        source = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", fps)
        _run(*source, "-i", "pipe:0", *codec, *options, path, feed=raw.tobytes())
        return path

    return make


@pytest.fixture
def numbers_of() -> Callable[..., list[int]]:
    """Return which frames of a `numbered_video` the given frames are."""

    def read(frames: Sequence[np.ndarray]) -> list[int]:
        return [round((float(frame.mean()) - 6) / LEVEL_STEP) for frame in frames]

    return read


@pytest.fixture(scope="session")
def moving_frames() -> Callable[..., np.ndarray]:
    """Return frames of a textured picture that slides: something B-frames would like."""

    def make(num_frames: int, *, height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
        texture = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3))
        picture = np.kron(texture, np.ones((4, 4, 1))).astype(np.uint8)
        return np.stack([np.roll(picture, index, axis=1) for index in range(num_frames)])

    return make


@pytest.fixture
def write_clip(tmp_path: Path) -> Callable[..., Path]:
    """Write frames with `VideoWriter`; returns the path."""

    def write(name: str, frames: np.ndarray, **settings: object) -> Path:
        path = tmp_path / name
        height, width = frames.shape[1:3]
        options: dict[str, object] = {"fps": 16, "preset": "ultrafast", **settings}
        with VideoWriter(path, height=height, width=width, **options) as writer:  # type: ignore[arg-type]
            for frame in frames:
                writer.write(frame)
        return path

    return write
