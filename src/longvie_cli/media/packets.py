"""What a video file stores, packet by packet, read without decoding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import IO

from longvie_cli.errors import MediaError
from longvie_cli.media.ffmpeg import (
    CutOffError,
    check_read_to_the_end,
    check_readable,
    input_arguments,
    running_ffmpeg,
    unnamed_file,
)
from longvie_cli.timeline import MAX_SECONDS, timecode

NO_TIMESTAMP = -(1 << 63)
_DISCARD_FLAG = 4
# Of picture and sound together, 120 a second for 24 hours.
_MAX_PACKETS = MAX_SECONDS * 120


@dataclass(frozen=True)
class VideoPackets:
    """The stored packets of the first video stream of a file.

    Args:
        codec: ffmpeg's name of the codec, `h264` for instance.
        height: Stored rows, before rotation and pixel aspect.
        width: Stored columns, before rotation and pixel aspect.
        time_base: Seconds of one tick of the timestamps.
        timestamps: Presentation ticks of every frame, ascending.
        delay: Frames by which storing runs ahead of showing: 0 without B-frames.
        first_shown: Place, in the order they are shown, of the frame that is stored first.
        hidden_frames: Frames that are stored and not shown, as an edit list wants it.
        end: Tick at which the last frame ends.
        extradata: Size and checksum of the codec's parameter sets; equal for streams that one
            decoder set-up can play.
        audio_codec: Codec of the first sound stream, None without sound.
    """

    codec: str
    height: int
    width: int
    time_base: Fraction
    timestamps: tuple[int, ...]
    delay: int
    first_shown: int
    hidden_frames: int
    end: int
    extradata: str
    audio_codec: str | None

    @property
    def duration(self) -> Fraction:
        """Seconds from the first frame to the end of the last."""
        return (self.end - self.timestamps[0]) * self.time_base

    @property
    def average_fps(self) -> Fraction | None:
        """Frames per second between the first and the last frame; None for a single instant."""
        span = (self.timestamps[-1] - self.timestamps[0]) * self.time_base
        return (len(self.timestamps) - 1) / span if span else None

    def is_constant(self, fps: Fraction | int) -> bool:
        """Return whether every frame lasts exactly 1/fps, to the tick, the last one too."""
        ticks = 1 / (fps * self.time_base)
        edges = (*self.timestamps, self.end)
        return all(later - earlier == ticks for earlier, later in pairwise(edges))


def read_packets(path: Path) -> VideoPackets:
    """Return the packets of a file's first video stream (cover pictures do not count).

    Raises:
        MediaError: The file is missing, empty, cut off (says which frames can be read) or holds no
            video.
    """
    check_readable(path)
    return _packets(path, input_arguments(path))


def packets_of(video: bytes) -> VideoPackets:
    """Return the packets of a small video in memory, in a format that needs no seeking."""
    with unnamed_file(video) as file:
        pipe = file.fileno()
        return _packets(Path("a video in memory"), ["-i", f"pipe:{pipe}"], [pipe])


def _packets(path: Path, source: list[str], inherited: Sequence[int] = ()) -> VideoPackets:
    arguments = [
        *source,
        *("-map", "0:V:0", "-map", "0:a:0?", "-c", "copy", "-f", "framecrc", "pipe:1"),
    ]
    with running_ffmpeg(arguments, inherited=inherited) as process:
        header, packets = _parse(_bounded_lines(path, process.stdout))
        try:
            check_read_to_the_end(path, process)
        except CutOffError as error:
            raise _cut_off(path, error) from error
    if not packets:
        raise MediaError(f"{path}: there is no picture in this video.")
    if header["codec_id 0"] == "ansi":  # ffmpeg draws plain text files as terminal screens
        raise MediaError(f"{path}: this is a text file, not a video.")
    width, height = header["dimensions 0"].split("x")
    shown = [shown_at for shown_at, _ in packets]
    ordered = sorted(shown)
    places = {shown_at: place for place, shown_at in enumerate(ordered)}
    return VideoPackets(
        codec=header["codec_id 0"],
        height=int(height),
        width=int(width),
        time_base=Fraction(header["tb 0"]),
        timestamps=tuple(ordered),
        delay=max(stored - places[shown_at] for stored, shown_at in enumerate(shown)),
        first_shown=places[shown[0]],
        hidden_frames=int(header.get("hidden 0", 0)),
        end=max(shown_at + lasts for shown_at, lasts in packets),
        extradata=header.get("extradata 0", ""),
        audio_codec=header.get("codec_id 1"),
    )


def _cut_off(path: Path, error: CutOffError) -> CutOffError:
    """Return the error that says how far a file can be read, found by decoding it."""
    strict = ("-xerror", "-err_detect", "explode", *input_arguments(path))
    small = ("-map", "0:V:0", "-fps_mode", "passthrough", "-vf", "scale=16:16")
    with running_ffmpeg([*strict, *small, "-f", "framecrc", "pipe:1"]) as process:
        header, frames = _parse(_bounded_lines(path, process.stdout))
    what = "not one frame can be read"
    if frames:
        last = max(shown_at + lasts for shown_at, lasts in frames)
        end = timecode(float(last * Fraction(header["tb 0"])))
        what = f"frames 0 to {len(frames) - 1} (up to {end}) can be read"
    why = error.message.removeprefix(f"{path}: ").removesuffix(".")
    return CutOffError(
        f"{path}: {what}, then {why}.",
        hint="Copy or download it again, or save those frames as a video with a player or editor.",
    )


def _bounded_lines(path: Path, report: IO[bytes]) -> Iterator[str]:
    for number, line in enumerate(report):
        if number > _MAX_PACKETS:
            raise MediaError(f"{path}: it claims more than {_MAX_PACKETS} packets.")
        yield line.decode(errors="replace")


def _parse(lines: Iterator[str]) -> tuple[dict[str, str], list[tuple[int, int]]]:
    # framecrc: "#key stream: value" lines, then "stream, dts, pts, duration, size, crc[, F=flags]".
    header: dict[str, str] = {}
    packets: list[tuple[int, int]] = []
    for line in lines:
        if line.startswith("#"):
            key, _, value = line[1:].partition(":")
            header[key] = value.strip()
            continue
        fields = [field.strip() for field in line.split(",")]
        flags = next((int(field[2:], 16) for field in fields[6:] if field.startswith("F=")), 0)
        if flags & _DISCARD_FLAG:
            hidden = f"hidden {fields[0]}"
            header[hidden] = str(int(header.get(hidden, 0)) + 1)
        if fields[0] != "0" or flags & _DISCARD_FLAG:
            continue
        decoded_at, shown_at, lasts = (int(field) for field in fields[1:4])
        packets.append((decoded_at if shown_at == NO_TIMESTAMP else shown_at, lasts))
    return header, packets
