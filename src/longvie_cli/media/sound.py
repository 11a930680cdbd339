"""One sound track out of parts: silence, and stretches of the sound of files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from longvie_cli.disk.durable import storage_error
from longvie_cli.media.ffmpeg import input_arguments, running_ffmpeg, writing_error
from longvie_cli.media.packets import read_sound

_RATE = 48_000


@dataclass(frozen=True)
class SoundPart:
    """A stretch of a sound track.

    Args:
        path: A video or sound file; None for silence.
        start: Seconds into it, from its first picture or else from its beginning.
        duration: Seconds; where the file ends earlier the rest is silent.
    """

    path: Path | None
    start: float
    duration: float


def write_sound(parts: Sequence[SoundPart], output: Path) -> None:
    """Write the parts one after another as stereo AAC; each lasts exactly as long as it says.

    Raises:
        MediaError: A file cannot be read or has no sound.
        ResumableError: The disk is full.
    """
    inputs: list[str] = []
    graph: list[str] = []
    for index, part in enumerate(parts):
        lasts = f"{part.duration:.6f}"
        if part.path is None:
            sound = f"anullsrc=r={_RATE}:cl=stereo"
        else:
            start = part.start + read_sound(part.path).picture_start
            place = len([name for name in inputs if name == "-i"])
            # What is not needed is skipped, not decoded.
            inputs += ["-ss", f"{start:.6f}", *input_arguments(part.path)]
            # A stream that begins later than its file begins with silence.
            sound = f"[{place}:a:0]aresample={_RATE}:async=1:first_pts=0"
            sound += f",aformat=channel_layouts=stereo,apad=whole_dur={lasts}"
        graph.append(f"{sound},atrim=duration={lasts},asetpts=N/SR/TB[part{index}]")
    names = "".join(f"[part{index}]" for index in range(len(parts)))
    graph.append(f"{names}concat=n={len(parts)}:v=0:a=1[all]")
    arguments = [*inputs, "-filter_complex", ";".join(graph), "-map", "[all]"]
    arguments += ["-c:a", "aac", "-b:a", "192k", "-flags:a", "+bitexact", "-fflags", "+bitexact"]
    try:
        with running_ffmpeg([*arguments, "-f", "mp4", "-y", f"file:{output}"]) as process:
            if process.wait() != 0:
                raise writing_error(output, process)
    except OSError as reason:
        raise storage_error(output, reason) from reason
