"""What a source video is: its rate, length, shape and sound."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from longvie_cli.errors import MediaError
from longvie_cli.media.ffmpeg import input_arguments, run_reading
from longvie_cli.media.packets import read_packets


@dataclass(frozen=True)
class SourceVideo:
    """A video as a viewer sees it.

    Args:
        path: The file.
        fps: Average frames per second; of a single frame, one over its duration.
        num_frames: Frames stored, None where the file cannot tell.
        duration_seconds: From the first frame to the end of the last.
        height: Rows after rotation.
        width: Columns after rotation, with pixels made square.
        has_audio: Whether there is sound.
        codec: ffmpeg's name of the video codec.
        decoded_height: Rows that ffmpeg hands out, after rotation.
        decoded_width: Columns that ffmpeg hands out, after rotation, pixels as stored.
        pixel_aspect: Width over height of a decoded pixel.
    """

    path: Path
    fps: float
    num_frames: int | None
    duration_seconds: float
    height: int
    width: int
    has_audio: bool
    codec: str
    decoded_height: int
    decoded_width: int
    pixel_aspect: Fraction


def probe_video(path: Path) -> SourceVideo:
    """Return what a video file holds; reads it once, decodes one frame.

    Raises:
        MediaError: The file is missing, empty, cut off, or no video.
    """
    packets = read_packets(path)
    height, width, pixel_aspect = _decoded_shape(path)
    duration = packets.duration
    fps = packets.average_fps or (1 / duration if duration else Fraction(1))
    return SourceVideo(
        path=path,
        fps=float(fps),
        num_frames=len(packets.timestamps),
        duration_seconds=float(duration),
        height=height,
        width=max(1, round(width * pixel_aspect)),
        has_audio=packets.audio_codec is not None,
        codec=packets.codec,
        decoded_height=height,
        decoded_width=width,
        pixel_aspect=pixel_aspect,
    )


def _decoded_shape(path: Path) -> tuple[int, int, Fraction]:
    arguments = ("-map", "0:V:0", "-frames:v", "1", "-f", "framecrc", "pipe:1")
    report = run_reading(path, [*input_arguments(path), *arguments]).decode()
    fields = dict(line[1:].split(": ", 1) for line in report.splitlines() if line.startswith("#"))
    if not any(line.startswith("0,") for line in report.splitlines()):
        raise MediaError(f"{path}: not one frame of this video can be decoded.")
    width, height = (int(number) for number in fields["dimensions 0"].split("x"))
    across, down = (int(number) for number in fields["sar 0"].split("/"))
    # 0/1 stands for "not said"; every player shows such pixels square.
    return height, width, Fraction(across, down) if across and down else Fraction(1)
