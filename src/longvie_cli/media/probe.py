"""What a source video is: its rate, length, shape, colours and sound."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from longvie_cli.errors import MediaError
from longvie_cli.media.ffmpeg import input_arguments, run_inspecting
from longvie_cli.media.packets import VideoPackets, look_at, main_stream, refuse_still, why_main
from longvie_cli.media.timing import timing_of

_FRAME = re.compile(
    r"^n: +0 .* fmt:(?P<format>\S+) .*sar:(?P<sar>\d+/\d+) s:(?P<size>\d+x\d+) i:(?P<scan>[PTB])\b"
)
_FIRST_PICTURE = (
    *("-frames:v", "1", "-an", "-sn", "-dn", "-vf", "showinfo=checksum=0"),
    *("-fps_mode", "passthrough", "-f", "null", "-"),
)
_COLOURS = re.compile(
    r"^color_range:(?P<range>\S+) color_space:(?P<matrix>\S+) "
    r"color_primaries:(?P<primaries>\S+) color_trc:(?P<transfer>\S+)"
)
_INPUT = re.compile(r"^Input #0, (?P<container>\S+), from")
_PIXEL_FORMATS_WITH_ALPHA = re.compile(
    r"^(yuva|gbrap|rgba|bgra|argb|abgr|ya|pal8|ayuv|vuya|rgb64a)"
)

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
        stream: Number of the stream that is its video.
        fps: Average frames per second; of a single frame, one over its duration.
        num_frames: Frames stored.
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
        longest_seconds: How long the longest of its frames is shown.
        not_believed_seconds: How long its last frame claims to last, where that cannot be and the
            duration leaves it out; else None.
        packets: What is stored of it; None of a video that we have just written ourselves.
        why_chosen: In words, where the file holds several videos.
    """

    path: Path
    stream: int
    fps: float
    num_frames: int
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
    longest_seconds: float = 0.0
    not_believed_seconds: float | None = None
    packets: VideoPackets | None = None
    why_chosen: str = ""


def probe_video(path: Path) -> SourceVideo:
    """Return what a video file holds; reads it once, decodes one frame.

    Everything that reads the video takes this, so that a file is looked at once.

    Raises:
        MediaError: The file is missing, empty, cut off, no video, a still picture, or its
            timestamps cannot be true.
    """
    look = look_at(path, picture=("-map", "0:V:0?", *_FIRST_PICTURE))
    packets = main_stream(look.streams)
    refuse_still(path, look)
    timing = timing_of(path, packets)
    remarks = list(look.remarks)
    frame = _first_frame(remarks) if packets == look.streams[0] else None
    if frame is None:
        arguments = ("-map", f"0:{packets.stream}", *_FIRST_PICTURE)
        _, remarks = run_inspecting(path, [*input_arguments(path), *arguments])
        frame = _first_frame(remarks)
    if frame is None:
        raise MediaError(f"{path}: not one frame of this video can be decoded.")
    width, height = (int(number) for number in frame["size"].split("x"))
    across, down = (int(number) for number in frame["sar"].split("/"))
    # 0/1 stands for "not said"; every player shows such pixels square.
    pixel_aspect = Fraction(across, down) if across and down else Fraction(1)
    lasts = timing.duration
    fps = packets.average_fps or (1 / lasts if lasts else Fraction(1))
    return SourceVideo(
        path=path,
        stream=packets.stream,
        fps=float(fps),
        num_frames=len(packets.timestamps),
        duration_seconds=float(timing.duration),
        height=height,
        width=max(1, round(width * pixel_aspect)),
        has_audio=packets.audio_codec is not None,
        codec=packets.codec,
        decoded_height=height,
        decoded_width=width,
        pixel_aspect=pixel_aspect,
        picture=_described(remarks, frame, packets, len(look.streams)),
        variable_fps=timing.variable_fps,
        longest_seconds=float(timing.longest),
        not_believed_seconds=None if timing.not_believed is None else float(timing.not_believed),
        packets=packets,
        why_chosen=why_main(look.streams),
    )


def _first_frame(remarks: Sequence[str]) -> re.Match[str] | None:
    return next(filter(None, map(_FRAME.match, remarks)), None)


def _described(
    remarks: Sequence[str], frame: re.Match[str], packets: VideoPackets, num_streams: int
) -> Picture:
    # What ffmpeg says of the input ends where the mapping begins; the first frame comes after.
    border = next((i for i, line in enumerate(remarks) if line == "Stream mapping:"), 0)
    about_file, about_frames = remarks[:border], remarks[border:]
    colours = next(filter(None, map(_COLOURS.match, about_frames)), None)
    container = next(filter(None, map(_INPUT.match, about_file)), None)
    own = _about_stream(about_file, packets.stream)
    transparent = _PIXEL_FORMATS_WITH_ALPHA.match(frame["format"]) is not None
    decoder = None
    if not transparent and any(re.match(r"alpha_mode +: 1", line) for line in own):
        decoder = _ALPHA_DECODERS.get(packets.codec)
    return Picture(
        container=container["container"] if container else "",
        pixel_format=frame["format"],
        color_range=colours["range"] if colours else "unknown",
        matrix=colours["matrix"] if colours else "unknown",
        primaries=colours["primaries"] if colours else "unknown",
        transfer=colours["transfer"] if colours else "unknown",
        interlaced=frame["scan"] in "TB",
        transparent=transparent or decoder is not None,
        decoder=decoder,
        turned=any(line.startswith("Display Matrix: rotation") for line in own),
        num_streams=num_streams,
    )


def _about_stream(about_file: Sequence[str], number: int) -> Sequence[str]:
    """Return the lines about one stream of a file."""
    places = [i for i, line in enumerate(about_file) if line.startswith("Stream #0:")]
    own = re.compile(rf"Stream #0:{number}\b")
    first = next((i for i in places if own.match(about_file[i])), 0)
    return about_file[first : next((i for i in places if i > first), None)]
