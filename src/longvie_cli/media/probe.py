"""What a source video is: its rate, length, shape, colours and sound."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from longvie_cli.errors import MediaError
from longvie_cli.media.ffmpeg import check_readable, input_arguments, run_inspecting
from longvie_cli.media.packets import read_packets

_MAX_HOURS = 24
# Intervals of a constant rate differ by the rounding of container times, at most a millisecond.
_ROUNDING_SECONDS = Fraction(2, 1000)

_FRAME = re.compile(r"^n: +0 .* fmt:(?P<format>\S+) .* i:(?P<scan>[PTB])\b")
_COLOURS = re.compile(
    r"^color_range:(?P<range>\S+) color_space:(?P<matrix>\S+) "
    r"color_primaries:(?P<primaries>\S+) color_trc:(?P<transfer>\S+)"
)
_INPUT = re.compile(r"^Input #0, (?P<container>\S+), from")
_PIXEL_FORMATS_WITH_ALPHA = re.compile(
    r"^(yuva|gbrap|rgba|bgra|argb|abgr|ya|pal8|ayuv|vuya|rgb64a)"
)
_STILL_CONTAINERS = re.compile(r"(_pipe|^image2|^ico|^gif|^webp|^apng)$")

# ffmpeg's own decoders of these leave out the alpha channel.
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}

HDR_TRANSFERS = {"smpte2084": "PQ", "arib-std-b67": "HLG"}


@dataclass(frozen=True)
class Picture:
    """How the pictures of a video are stored, in ffmpeg's words; `unknown` where nothing is said.

    Args:
        container: Names of the container format, comma-separated.
        pixel_format: `yuv420p` for instance.
        color_range: `tv` (16 to 235) or `pc` (0 to 255).
        matrix: Between YUV and RGB: `bt709`, `bt2020nc` ...
        primaries: `bt709`, `bt2020` ...
        transfer: `bt709`, `smpte2084` ...
        interlaced: Whether a picture holds two instants.
        transparent: Whether it has an alpha channel.
        decoder: The decoder that reads the alpha channel, None where ffmpeg's usual one does.
        turned: Whether the file asks to show it turned or mirrored.
        num_streams: Video streams, cover pictures not counted.
    """

    container: str = ""
    pixel_format: str = "unknown"
    color_range: str = "unknown"
    matrix: str = "unknown"
    primaries: str = "unknown"
    transfer: str = "unknown"
    interlaced: bool = False
    transparent: bool = False
    decoder: str | None = None
    turned: bool = False
    num_streams: int = 1

    @property
    def hdr(self) -> str | None:
        """`PQ` or `HLG`, None for an ordinary picture."""
        return HDR_TRANSFERS.get(self.transfer)

    @property
    def is_wide_gamut(self) -> bool:
        """Whether its colours are those of BT.2020."""
        return self.primaries == "bt2020" or self.matrix.startswith("bt2020")

    @property
    def is_deep(self) -> bool:
        """Whether a value has more than 8 bits."""
        return (
            re.search(r"(9|10|12|14|16|32)(le|be)$|^(p01|p21|p41|x2)", self.pixel_format)
            is not None
        )


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
        picture: How its pictures are stored.
        variable_fps: Lowest and highest rate between two frames, None where all are alike.
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
    picture: Picture = Picture()
    variable_fps: tuple[float, float] | None = None

    @property
    def is_still(self) -> bool:
        """Whether it is one picture in an image format, whose duration means nothing."""
        containers = self.picture.container.split(",")
        return self.num_frames == 1 and any(map(_STILL_CONTAINERS.search, containers))


def probe_video(path: Path) -> SourceVideo:
    """Return what a video file holds; reads it once, decodes one frame.

    Asked again in the same process, it is not read again unless it was changed.

    Raises:
        MediaError: The file is missing, empty, cut off, no video, or claims to last days.
    """
    check_readable(path)
    found = path.stat()
    return _probe(path, found.st_ino, found.st_size, found.st_mtime_ns)


# Each file is asked for several times on its way: when it is checked, and whenever it is read.
@lru_cache(maxsize=1024)
def _probe(path: Path, inode: int, size: int, changed_ns: int) -> SourceVideo:
    packets = read_packets(path)
    duration = packets.duration
    if duration > _MAX_HOURS * 3600:
        raise MediaError(
            f"{path}: its timestamps span {float(duration) / 3600:.0f} hours with "
            f"{len(packets.timestamps)} frames; more than {_MAX_HOURS} hours is refused.",
            hint="Write it anew with a player or editor that repairs timestamps.",
        )
    height, width, pixel_aspect, picture = _first_picture(path, packets.codec)
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
        picture=picture,
        variable_fps=_variable_fps(packets.timestamps, packets.time_base),
    )


def _variable_fps(timestamps: tuple[int, ...], time_base: Fraction) -> tuple[float, float] | None:
    steps = [(later - earlier) for earlier, later in pairwise(timestamps) if later > earlier]
    if not steps:
        return None
    shortest, longest = min(steps) * time_base, max(steps) * time_base
    if longest - shortest <= max(_ROUNDING_SECONDS, time_base * 2):
        return None
    return float(1 / longest), float(1 / shortest)


def _first_picture(path: Path, codec: str) -> tuple[int, int, Fraction, Picture]:
    """Return decoded height and width, pixel aspect, and how the first picture is stored."""
    arguments = ("-map", "0:V:0", "-frames:v", "1", "-vf", "showinfo=checksum=0")
    report, remarks = run_inspecting(
        path, [*input_arguments(path), *arguments, "-f", "framecrc", "pipe:1"]
    )
    lines = report.decode(errors="replace").splitlines()
    fields = dict(line[1:].split(": ", 1) for line in lines if line.startswith("#"))
    if not any(line.startswith("0,") for line in lines):
        raise MediaError(f"{path}: not one frame of this video can be decoded.")
    width, height = (int(number) for number in fields["dimensions 0"].split("x"))
    across, down = (int(number) for number in fields["sar 0"].split("/"))
    # 0/1 stands for "not said"; every player shows such pixels square.
    aspect = Fraction(across, down) if across and down else Fraction(1)
    return height, width, aspect, _described(remarks, codec)


def _described(remarks: list[str], codec: str) -> Picture:
    # What ffmpeg says of the input ends where the mapping begins; the first frame comes after.
    border = next((i for i, line in enumerate(remarks) if line == "Stream mapping:"), 0)
    about_file, about_frames = remarks[:border], remarks[border:]
    streams = [line for line in about_file if re.match(r"Stream #0:\d+.*: Video: ", line)]
    frame = next(filter(None, map(_FRAME.match, about_frames)), None)
    colours = next(filter(None, map(_COLOURS.match, about_frames)), None)
    container = next(filter(None, map(_INPUT.match, about_file)), None)
    pixel_format = frame["format"] if frame else "unknown"
    transparent = _PIXEL_FORMATS_WITH_ALPHA.match(pixel_format) is not None
    decoder = None
    if not transparent and any(re.match(r"alpha_mode +: 1", line) for line in about_file):
        decoder = _ALPHA_DECODERS.get(codec)
    return Picture(
        container=container["container"] if container else "",
        pixel_format=pixel_format,
        color_range=colours["range"] if colours else "unknown",
        matrix=colours["matrix"] if colours else "unknown",
        primaries=colours["primaries"] if colours else "unknown",
        transfer=colours["transfer"] if colours else "unknown",
        interlaced=frame is not None and frame["scan"] in "TB",
        transparent=transparent or decoder is not None,
        decoder=decoder,
        turned=any(line.startswith("Display Matrix: rotation") for line in about_file),
        num_streams=sum("(attached pic)" not in line for line in streams),
    )
