"""Sound in tests: tones to write, pitches to hear."""

from __future__ import annotations

import subprocess
import wave
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


def write_beep(path: Path, *, at: float, seconds: float) -> None:
    """Write silence with a tone of 0.2 s that begins at a second; encoded as the name says."""
    time = np.arange(round(seconds * 48_000)) / 48_000
    tone = np.where((time >= at) & (time <= at + 0.2), 0.6 * np.sin(6283 * time), 0)
    written = path.with_suffix(".wav")
    with wave.open(str(written), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes(np.rint(32_767 * tone).astype("<i2").tobytes())
    if written != path:
        run_ffmpeg("-i", written, path)
        written.unlink()


def beeps(path: Path, *, place: int = 0) -> list[float]:
    """Return the seconds, from the first picture on, at which beeps begin, as the file times them.

    Picture and sound are read by one process, as a player does.
    """
    graph = f"[0:a:{place}]aresample=48000:async=1:min_hard_comp=0.02:first_pts=0[heard]"
    heard = ("-filter_complex", graph, "-map", "[heard]", "-ac", "1", "-f", "f32le", "pipe:1")
    beside = ("-map", "0:V:0?", "-map", "0:a", "-c", "copy", "-f", "null", "-")
    samples = np.frombuffer(_read(path, *heard, *beside), np.float32)
    loud = np.flatnonzero(np.abs(samples) > 0.1)
    begins = loud[np.diff(loud, prepend=-_RATE) > 2400]
    return [place / 48_000 - _first_picture(path) for place in begins.tolist()]


def _first_picture(path: Path) -> float:
    """Return the second of a file at which its first picture is shown; 0 without one."""
    one = ("-vf", "trim=end_frame=1,scale=16:16", "-fps_mode", "passthrough")
    timed = ("-c:a", "copy", *one, "-enc_time_base", "1/1000000", "-f", "framecrc", "pipe:1")
    report = _read(path, "-map", "0:V:0?", "-map", "0:a", *timed).decode()
    if "#media_type 0: video" not in report:
        return 0.0
    line = next(line for line in report.splitlines() if line.startswith("0,"))
    return int(line.split(",")[2]) / 1e6


def _read(path: Path, *arguments: str) -> bytes:
    command = [ffmpeg_executable(), "-v", "error", "-i", str(path), *arguments]
    return subprocess.run(command, check=True, capture_output=True).stdout
