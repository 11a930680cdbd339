"""Sound in tests: tones to write, pitches to hear."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from longvie_cli.media.ffmpeg import ffmpeg_executable

_RATE = 16_000
_QUARTER = _RATE // 4


def run_ffmpeg(*arguments: str | Path) -> None:
    """Run the bundled ffmpeg."""
    command = [ffmpeg_executable(), "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


def write_tone(path: Path, *, frequencies: Sequence[int], seconds: float) -> None:
    """Write tones one after another, each of these hertz and so long."""
    inputs = [("-f", "lavfi", "-i", f"sine=f={hertz}:d={seconds}") for hertz in frequencies]
    joined = f"concat=n={len(inputs)}:v=0:a=1"
    run_ffmpeg(*(part for pair in inputs for part in pair), "-filter_complex", joined, path)


def pitches(path: Path) -> list[int]:
    """Return the loudest frequency of every quarter of a second, 0 for silence."""
    command = [ffmpeg_executable(), "-v", "error", "-i", str(path), "-map", "0:a:0", "-ac", "1"]
    made = subprocess.run(
        [*command, "-ar", str(_RATE), "-f", "f32le", "-"], capture_output=True, check=True
    )
    samples = np.frombuffer(made.stdout, np.float32)
    quarters = samples[: int(len(samples) / _QUARTER + 0.1) * _QUARTER]
    quarters = quarters[: len(quarters) // _QUARTER * _QUARTER].reshape(-1, _QUARTER)
    spectra = np.abs(np.fft.rfft(quarters * np.hanning(_QUARTER), axis=1))
    return [int(loud.argmax()) * 4 if loud.max() > 10 else 0 for loud in spectra]
