"""What a video file stores, packet by packet, read without decoding."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median_low
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
_MAX_HEADER_LINES = 1000
_DISCARD_FLAG = 4
_STREAM = re.compile(r"Stream #0:(?P<number>\d+).*?: (?P<kind>[A-Z]\w+): (?P<rest>.*)")
_MAPPED = re.compile(r"Stream #0:(?P<number>\d+) -> #0:(?P<place>\d+) ")
_DEFAULT = "(default)"
_INPUT = re.compile(r"^Input #0, (?P<container>\S+), from")
_STILL_CONTAINERS = re.compile(r"(_pipe|_anim|^image2|^ico|^gif|^apng)$")
_PICTURE_BRAND = re.compile(r"major_brand +: (avif|avis|heic|heix|heim|heis|hevc|mif1|msf1|miaf)")
# Of picture and sound together, 120 a second for 24 hours.
_MAX_PACKETS = MAX_SECONDS * 120


@dataclass(frozen=True)
class VideoPackets:
    """The stored packets of a video stream.

    Args:
        stream: Its number among all streams of the file.
        is_default: Whether the file says that it is the one to show.
        codec: ffmpeg's name of the codec, `h264` for instance.
        height: Stored rows, before rotation and pixel aspect.
        width: Stored columns, before rotation and pixel aspect.
        time_base: Seconds of one tick of the timestamps.
        timestamps: Presentation ticks of every frame, ascending.
        delay: Frames by which storing runs ahead of showing: 0 without B-frames.
        first_shown: Place, in the order they are shown, of the frame that is stored first.
        hidden_frames: Frames that are stored and not shown, as an edit list wants it.
        end: Tick at which the last frame ends.
        usual_duration: Ticks that frames claim to last, the median.
        extradata: Size and checksum of the codec's parameter sets; equal for streams that one
            decoder set-up can play.
        audio_codec: Codec of the first sound stream beside it, None without sound.
    """

    stream: int
    is_default: bool
    codec: str
    height: int
    width: int
    time_base: Fraction
    timestamps: tuple[int, ...]
    delay: int
    first_shown: int
    hidden_frames: int
    end: int
    usual_duration: int
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


@dataclass(frozen=True)
class Look:
    """What one pass over a file shows, without decoding more than its first picture.

    Args:
        streams: Its video streams with a packet, cover pictures not counted; one or more.
        remarks: What ffmpeg says of the file and, where it was asked for, of the first picture of
            the first stream.
    """

    streams: tuple[VideoPackets, ...]
    remarks: tuple[str, ...]


def read_packets(path: Path) -> VideoPackets:
    """Return the packets of the stream of a file that is read as its video, see `main_stream`.

    Raises:
        MediaError: The file is missing, empty, cut off (says which frames can be read), a still
            picture, or holds no video.
    """
    look = look_at(path)
    refuse_still(path, look)
    return main_stream(look.streams)


def refuse_still(path: Path, look: Look) -> None:
    """Do nothing if a file is a video: a still picture is none in any command.

    Raises:
        MediaError: It is one picture in a format of pictures, whose duration means nothing.
    """
    packets = main_stream(look.streams)
    if len(packets.timestamps) > 1:
        return
    container = next(filter(None, map(_INPUT.match, look.remarks)), None)
    names = container["container"].split(",") if container else []
    # HEIC and AVIF are MP4 files of another brand.
    branded = "mov" in names and any(map(_PICTURE_BRAND.match, look.remarks))
    if branded or ("mov" not in names and any(map(_STILL_CONTAINERS.search, names))):
        raise MediaError(
            f"{path}: this is a still picture ({packets.codec}), not a video.",
            hint="Pass a video. A picture begins one with `generate --image`; --camera PATH moves "
            "in it.",
        )


def packets_of(video: bytes) -> VideoPackets:
    """Return the packets of a small video in memory, in a format that needs no seeking."""
    with unnamed_file(video) as file:
        pipe = file.fileno()
        look = _look(Path("a video in memory"), ["-i", f"pipe:{pipe}"], (), len(video), [pipe])
        return main_stream(look.streams)


def main_stream(streams: Sequence[VideoPackets]) -> VideoPackets:
    """Return the stream that is the video: flagged as default, then the longest, then the largest.

    One with a single frame only where no other has more: it is a thumbnail.
    """
    moving = [stream for stream in streams if len(stream.timestamps) > 1] or streams

    def rank(stream: VideoPackets) -> tuple[bool, int, int, int]:
        tenths = round(stream.duration * 10)
        return stream.is_default, tenths, stream.height * stream.width, -stream.stream

    return max(moving, key=rank)


def why_main(streams: Sequence[VideoPackets]) -> str:
    """Return in words why `main_stream` takes the one it does; empty where there is only one."""
    main = main_stream(streams)
    others = [stream for stream in streams if stream != main]
    rivals = [stream for stream in others if len(stream.timestamps) > 1]
    if not others:
        return ""
    if not rivals:
        return "the only one with more than one picture"
    if main.is_default and not any(stream.is_default for stream in rivals):
        return "its default"
    if all(main.duration - stream.duration >= Fraction(1, 10) for stream in rivals):
        return "the longest"
    area = main.height * main.width
    return "the largest" if all(area > s.height * s.width for s in rivals) else "the first"


def look_at(path: Path, *, picture: Sequence[str] = ()) -> Look:
    """Return what a file holds; reads it once.

    Args:
        path: The file.
        picture: ffmpeg's arguments for looking at the first picture of its first video stream; left
            out where that cannot be decoded and there are other streams.

    Raises:
        MediaError: As `read_packets`.
    """
    check_readable(path)
    return _look(path, input_arguments(path), picture, path.stat().st_size)


def _look(
    path: Path,
    source: list[str],
    picture: Sequence[str],
    num_bytes: int,
    inherited: Sequence[int] = (),
) -> Look:
    packets = ("-map", "0:V?", "-map", "0:a:0?", "-sn", "-dn", "-c", "copy", "-f", "framecrc")
    with running_ffmpeg(
        [*source, *packets, "pipe:1", *picture], informative=True, inherited=inherited
    ) as process:
        header, listed = _parse(_bounded_lines(path, process.stdout, num_bytes))
        status = process.wait()
        remarks = process.remarks()
        about = _StreamLines.of(remarks)
        if not about.videos and about.num_streams:
            raise _no_picture(path, about)
        if status > 0 and picture and len(about.videos) > 1:
            return _look(path, source, (), num_bytes, inherited)
        try:
            check_read_to_the_end(path, process, decoded=False)
        except CutOffError as error:
            raise _cut_off(path, error) from error
    streams = tuple(
        _stream(header, place, packets, about)
        for place, packets in sorted(listed.items())
        if header.get(f"media_type {place}") == "video"
    )
    if not streams:
        raise MediaError(f"{path}: there is no picture in this video.")
    return Look(streams, tuple(remarks))


def _stream(
    header: dict[str, str], place: int, packets: list[tuple[int, int]], about: _StreamLines
) -> VideoPackets:
    width, height = header[f"dimensions {place}"].split("x")
    number = about.mapped.get(place, place)
    shown = [shown_at for shown_at, _ in packets]
    ordered = sorted(shown)
    places = {shown_at: place for place, shown_at in enumerate(ordered)}
    audio = (
        header[f"codec_id {other}"]
        for other in range(len(header))
        if header.get(f"media_type {other}") == "audio"
    )
    return VideoPackets(
        stream=number,
        is_default=number in about.defaults,
        codec=header[f"codec_id {place}"],
        height=int(height),
        width=int(width),
        time_base=Fraction(header[f"tb {place}"]),
        timestamps=tuple(ordered),
        delay=max(stored - places[shown_at] for stored, shown_at in enumerate(shown)),
        first_shown=places[shown[0]],
        hidden_frames=int(header.get(f"hidden {place}", 0)),
        end=max(shown_at + lasts for shown_at, lasts in packets),
        usual_duration=median_low(lasts for _, lasts in packets),
        extradata=header.get(f"extradata {place}", ""),
        audio_codec=next(audio, None),
    )


@dataclass(frozen=True)
class _StreamLines:
    """What ffmpeg says of the streams of a file when it opens it.

    Args:
        num_streams: Streams of any kind.
        videos: Numbers of the video streams, cover pictures not counted.
        has_cover: Whether there is a cover picture.
        has_audio: Whether there is sound.
        defaults: Numbers of the streams that are flagged as default.
        mapped: Number of the stream that each stream of the listing is a copy of.
    """

    num_streams: int
    videos: tuple[int, ...]
    has_cover: bool
    has_audio: bool
    defaults: frozenset[int]
    mapped: dict[int, int]

    @classmethod
    def of(cls, remarks: Sequence[str]) -> _StreamLines:
        """Return what is said in ffmpeg's remarks; of its outputs nothing is read."""
        border = next((i for i, line in enumerate(remarks) if line == "Stream mapping:"), None)
        found = list(filter(None, map(_STREAM.match, remarks[:border])))
        videos = [line for line in found if line["kind"] == "Video"]
        covers = [line for line in videos if "(attached pic)" in line["rest"]]
        mapping = map(_MAPPED.match, remarks[border or 0 :])
        return cls(
            num_streams=len(found),
            videos=tuple(int(line["number"]) for line in videos if line not in covers),
            has_cover=bool(covers),
            has_audio=any(line["kind"] == "Audio" for line in found),
            defaults=frozenset(int(line["number"]) for line in found if _DEFAULT in line["rest"]),
            mapped={int(line["place"]): int(line["number"]) for line in mapping if line},
        )


def _no_picture(path: Path, about: _StreamLines) -> MediaError:
    if not about.has_audio:
        return MediaError(f"{path}: there is no picture in this file.")
    beside = " and a cover picture" if about.has_cover else ""
    return MediaError(
        f"{path}: this is sound{beside}, not a video.",
        hint="Pass a video; sound goes along with --audio.",
    )


def _cut_off(path: Path, error: CutOffError) -> CutOffError:
    """Return the error that says how far a file can be read, found by decoding it."""
    strict = ("-xerror", "-err_detect", "explode", *input_arguments(path))
    small = ("-map", "0:V:0", "-fps_mode", "passthrough", "-vf", "scale=16:16")
    with running_ffmpeg([*strict, *small, "-f", "framecrc", "pipe:1"]) as process:
        header, listed = _parse(_bounded_lines(path, process.stdout, path.stat().st_size))
    frames = listed.get(0)
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


def _bounded_lines(path: Path, report: IO[bytes], num_bytes: int) -> Iterator[str]:
    most = min(_MAX_PACKETS, num_bytes + _MAX_HEADER_LINES)
    for number, line in enumerate(report):
        if number > most:
            raise MediaError(
                f"{path}: its index is damaged: it names more than {most} packets in "
                f"{num_bytes} bytes.",
                hint="Copy or download it again.",
            )
        yield line.decode(errors="replace")


def _parse(lines: Iterator[str]) -> tuple[dict[str, str], dict[int, list[tuple[int, int]]]]:
    # framecrc: "#key stream: value" lines, then "stream, dts, pts, duration, size, crc[, F=flags]".
    header: dict[str, str] = {}
    packets: dict[int, list[tuple[int, int]]] = {}
    for line in lines:
        if line.startswith("#"):
            key, _, value = line[1:].partition(":")
            header[key] = value.strip()
            continue
        fields = [field.strip() for field in line.split(",")]
        flags = next((int(field[2:], 16) for field in fields[6:] if field.startswith("F=")), 0)
        stream = int(fields[0])
        if header.get(f"media_type {stream}") != "video":
            continue
        if flags & _DISCARD_FLAG:
            hidden = f"hidden {stream}"
            header[hidden] = str(int(header.get(hidden, 0)) + 1)
            continue
        decoded_at, shown_at, lasts = (int(field) for field in fields[1:4])
        shown = decoded_at if shown_at == NO_TIMESTAMP else shown_at
        packets.setdefault(stream, []).append((shown, lasts))
    return header, packets
