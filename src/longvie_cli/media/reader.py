"""Frames out of any video or image, one at a time, at the rate and size asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longvie_cli.errors import MediaError
from longvie_cli.media.ffmpeg import (
    DamagedVideoError,
    FfmpegProcess,
    check_read_to_the_end,
    input_arguments,
    running_ffmpeg,
)
from longvie_cli.media.frames import SQUARE, Fit, Frame, Frames, resize_frame, resize_grey
from longvie_cli.media.probe import SourceVideo
from longvie_cli.timeline import timecode

# Output frame k shows the source frame on screen at second k/fps. Containers that round times to
# milliseconds put a frame up to half a millisecond late, so that instant is taken this much later.
_LATENESS = 1 / 16  # of an output frame: 3.9 ms at 16 fps

# Pictures with more pixels than 4096x2304 are averaged in ffmpeg before they reach us: one of 8K
# would be 100 MB. Colours of HDR are converted in 32-bit floats, which 4K makes slow.
_MAX_PIXELS_HANDED_OVER = 4096 * 2304
_MAX_PIXELS_CONVERTED = 1920 * 1080

# Frames for which one may be shown before it is brought to size ahead of being repeated.
_MAX_REPEATS = 32

# Untagged colours: players take those of high-definition video for bt709, smaller ones for bt601.
_HIGH_DEFINITION = (720, 1280)

# HDR to SDR: 203 cd/m2 is the white of ordinary pictures in HDR (ITU-R BT.2408), so it is 1. What
# is darker than 0.3 of it stays as it is; everything up to 1000 cd/m2 is pressed into the rest.
_WHITE_NITS = 203
_PEAK_NITS = 1000
_TONE_CURVE = f"tonemap=mobius:param=0.3:desat=0:peak={_PEAK_NITS / _WHITE_NITS:.3f}"


def read_frames(
    source: SourceVideo,
    *,
    fps: int | None,
    height: int,
    width: int,
    fit: Fit,
    start_frame: int = 0,
    num_frames: int | None = None,
) -> Iterator[Frame]:
    """Yield the frames of a video upright, with square pixels, as 8-bit RGB.

    Holds one frame at a time. Frames before `start_frame` are decoded and dropped, because seeking
    is not frame-exact in every container: read a long video in one go.

    Args:
        source: As `probe_video` returns it, and so for the others.
        fps: Rate of the result; frame k shows the picture on screen at second k/fps after the
            first, as long as there is one. None keeps the frames as stored, whatever their times.
        height: Rows of the result.
        width: Columns of the result.
        fit: See `resize_frame`; with `native` the video must have this size.
        start_frame: First frame to yield, counted at `fps`.
        num_frames: How many frames to yield; None for all.

    Raises:
        MediaError: The file cannot be read, is cut off, has another size than `native` asks for,
            or has fewer frames than asked for.
    """
    if fit == "native" and (source.height, source.width) != (height, width):
        raise MediaError(
            f"{source.path}: the video is {source.width}x{source.height}, but {width}x{height} is "
            "needed."
        )
    return _resized_frames(source, fps, height, width, fit, start_frame, num_frames)


def read_pairs(
    first: SourceVideo,
    second: SourceVideo,
    *,
    height: int,
    width: int,
    fit: Fit,
    start_frame: int = 0,
    num_frames: int,
) -> Iterator[tuple[Frame, Frame]]:
    """Yield the frames of two videos, as stored, two by two; both from one ffmpeg where it can be.

    Args:
        first: One video.
        second: The other.
        height: Rows of the result.
        width: Columns of the result.
        fit: As for `read_frames`.
        start_frame: First frame to yield, of both.
        num_frames: How many of each.

    Raises:
        MediaError: As `read_frames`.
    """
    size = _handed_over_size(first, height, width, fit)
    if size != _handed_over_size(second, height, width, fit):
        how: dict[str, Any] = {"fps": None, "height": height, "width": width, "fit": fit}
        how |= {"start_frame": start_frame, "num_frames": num_frames}
        yield from zip(read_frames(first, **how), read_frames(second, **how), strict=True)
        return
    inputs: list[str] = []
    graph: list[str] = []
    for place, source in enumerate((first, second)):
        inputs += _input_arguments(source)
        filters = [
            *_deinterlacing(source),
            "settb=1/1000,setpts=N",  # two by two, whatever their times
            *_range_filters(start_frame, num_frames),
            *_pixel_filters(source, *size),
        ]
        graph.append(f"[{place}:{source.stream}]{','.join(filters)}[part{place}]")
    graph.append("[part0][part1]vstack=shortest=1[both]")
    output = ("-map", "[both]", "-fps_mode", "passthrough", "-f", "rawvideo", "pipe:1")
    num_bytes = 2 * math.prod(size) * 3
    num_read = 0
    with running_ffmpeg([*inputs, "-filter_complex", ";".join(graph), *output]) as process:
        while num_read < num_frames and len(data := process.stdout.read(num_bytes)) == num_bytes:
            num_read += 1
            pair = np.frombuffer(data, np.uint8).reshape(2, *size, 3)
            shown = [
                _shown(frame, source, height, width, fit)
                for frame, source in zip(pair, (first, second), strict=True)
            ]
            yield shown[0], shown[1]
    if num_read < num_frames:
        for source in (first, second):
            # Says which of the two it is, and what is wrong with it.
            end = start_frame + num_frames
            if count_frames(source, fps=None) < end:
                raise _too_short(source, None, start_frame + num_read, end)
        raise MediaError(f"{first.path}: cannot be read beside {second.path}.")


def read_small_frames(
    source: SourceVideo,
    *,
    fps: int,
    height: int,
    width: int,
    start_frame: int = 0,
    num_frames: int | None = None,
) -> Iterator[Frame]:
    """Yield the frames of a video averaged down to a few pixels, of any aspect, colours as stored.

    The cheapest way to see every frame, and to be sure of it: damage among the frames asked for is
    an error, what lies beyond them is not looked at.

    Args:
        source: The video.
        fps: As for `read_frames`, and so are the others.
        height: Rows of the result.
        width: Columns of the result.
        start_frame: First frame to yield.
        num_frames: How many at most; all where None.

    Raises:
        DamagedVideoError: A frame asked for is damaged; says which can be read.
        MediaError: The file cannot be read.
    """
    pixels = [f"scale={width}:{height}:flags=area", "format=rgb24"]
    filters = _filters(source, fps, start_frame, num_frames, pixels)
    num_bytes = height * width * 3
    arguments = [*_decoding_arguments(source, filters), "-f", "rawvideo", "pipe:1"]
    with running_ffmpeg(arguments) as process:
        while len(data := process.stdout.read(num_bytes)) == num_bytes:
            yield np.frombuffer(data, np.uint8).reshape(height, width, 3)
        needed = None if num_frames is None else start_frame + num_frames
        _check_decoded(source, process, fps, needed=needed)


def read_grey_frames(
    source: SourceVideo,
    *,
    fps: int | None,
    height: int,
    width: int,
    fit: Fit,
    start_frame: int = 0,
    invert: bool = False,
) -> Iterator[NDArray[np.float32]]:
    """Yield the frames of a video as grey pictures [height, width] in [0, 1], black 0, white 1.

    Sixteen bits of a pixel are kept where the file has them. Otherwise as `read_frames`.

    Args:
        source: The video; of a coloured one the brightness is read.
        fps: Rate of the result, as in `read_frames`.
        height: Rows of the result.
        width: Columns of the result.
        fit: See `resize_frame`; bars of `pad` are 0.
        start_frame: First frame to yield, counted at `fps`.
        invert: Make black 1 and white 0, before bars are added.

    Raises:
        MediaError: The file cannot be read or is cut off.
    """
    return _grey_frames(source, fps, height, width, fit, start_frame, invert)


def count_frames(source: SourceVideo, *, fps: int | None) -> int:
    """Return how many frames `read_frames` yields at this rate; decodes the video to be exact.

    Raises:
        MediaError: The file cannot be read or is cut off.
    """
    arguments = [
        *_decoding_arguments(source, _filters(source, fps, 0, None, [])),
        *("-f", "null", "-progress", "pipe:1", "pipe:1"),
    ]
    with running_ffmpeg(arguments) as process:
        report = process.stdout.read().decode()
        _check_decoded(source, process, fps)
    counts = [line.partition("=")[2] for line in report.splitlines() if line.startswith("frame=")]
    return int(counts[-1])


def read_last_frames(
    source: SourceVideo, count: int, *, fps: int | None, height: int, width: int, fit: Fit
) -> Frames:
    """Return the last `count` frames of a video, or all of them if it has fewer.

    Raises:
        MediaError: As `read_frames`.
    """
    total = count_frames(source, fps=fps)
    first = max(0, total - count)
    frames = read_frames(source, fps=fps, height=height, width=width, fit=fit, start_frame=first)
    return np.stack(list(frames))


def _filters(
    source: SourceVideo,
    fps: int | None,
    start_frame: int,
    num_frames: int | None,
    pixels: list[str],
) -> list[str]:
    """Return the filters that choose frames and give each of them these `pixels`."""
    chosen = [*_timing_filters(source, fps), *_range_filters(start_frame, num_frames)]
    if fps is not None and source.longest_seconds * fps > _MAX_REPEATS:
        # ffmpeg makes all repeats of a frame at once: here they are one picture, not as many.
        return [*_deinterlacing(source), *pixels, *chosen]
    return [*_deinterlacing(source), *chosen, *pixels]


def _deinterlacing(source: SourceVideo) -> list[str]:
    # One picture out of the two instants of each; pictures that are not interlaced pass.
    return ["bwdif=mode=send_frame:deint=interlaced"] if source.picture.interlaced else []


def _timing_filters(source: SourceVideo, fps: int | None) -> list[str]:
    if fps is None:
        return []
    # A video shorter than the lateness would be over before it began.
    late = _LATENESS / fps if source.duration_seconds * fps >= 1 else 0.0
    microseconds = round(late * 1_000_000)
    end: list[str] = []
    if source.not_believed_seconds is not None:
        # ffmpeg would show the last frame for as long as it claims to last.
        end = [f"trim=end_frame={max(1, math.ceil((source.duration_seconds - late) * fps))}"]
    return [
        f"settb=1/1000000,setpts=PTS-STARTPTS-{microseconds}",
        f"fps={fps}:round=up",
        *end,
    ]


def _range_filters(start_frame: int, num_frames: int | None) -> list[str]:
    end = "" if num_frames is None else f":end_frame={start_frame + num_frames}"
    return [f"trim=start_frame={start_frame}{end}"]


def _handed_over_size(source: SourceVideo, height: int, width: int, fit: Fit) -> tuple[int, int]:
    """Return the height and width ffmpeg hands out: as decoded, or a whole part of it if huge."""
    rows, columns = source.decoded_height, source.decoded_width
    picture = source.picture
    converted = picture.hdr is not None or picture.is_wide_gamut
    limit = _MAX_PIXELS_CONVERTED if converted else _MAX_PIXELS_HANDED_OVER
    if fit == "native" or rows * columns <= limit:
        return rows, columns
    needed = math.ceil(math.sqrt(rows * columns / limit))
    possible = min(rows // height, columns // width)
    divisor = max(1, min(needed, possible))
    return round(rows / divisor), round(columns / divisor)


def _pixel_filters(source: SourceVideo, height: int, width: int) -> list[str]:
    """Return the filters that make 8-bit sRGB-like pictures of this size, transparency over black.

    A stream may change its size half-way; every frame gets the same size.
    """
    picture = source.picture
    smaller = height < source.decoded_height or width < source.decoded_width
    kernel = "area" if smaller else "bicubic"
    scaled = f"scale={width}:{height}:flags={kernel}+accurate_rnd+full_chroma_int+bitexact"
    tags = _missing_tags(source)
    if picture.hdr is not None or picture.is_wide_gamut:
        linear = [
            f"zscale=matrix=gbr:transfer=linear:range=pc:npl={_WHITE_NITS}",
            "format=gbrpf32le",
            "zscale=primaries=bt709",
        ]
        tone = [_TONE_CURVE] if picture.hdr is not None else []
        ordinary = ["zscale=transfer=bt709:range=pc", "format=gbrp"]
        # Twelve bits on the way, and no chroma at half size that would have to be invented again.
        return [*tags, f"{scaled},format=yuv444p12", *linear, *tone, *ordinary, "format=rgb24"]
    if picture.transparent:
        return [*tags, scaled, "format=gbrap", "premultiply=inplace=1", "format=rgb24"]
    return [*tags, scaled, "format=rgb24"]


def _grey_filters(height: int, width: int) -> list[str]:
    """Return the filters that make 16-bit grey pictures of this size."""
    return [
        f"scale={width}:{height}:flags=bicubic+accurate_rnd+full_chroma_int+bitexact",
        "format=gray16le",
    ]


def _missing_tags(source: SourceVideo) -> list[str]:
    """Return the filter that says how untagged colours are to be read."""
    picture = source.picture
    tags: dict[str, str] = {}
    wide = picture.hdr is not None or picture.is_wide_gamut
    if wide:
        if picture.color_range == "unknown":
            tags["range"] = "tv"
        if picture.matrix == "unknown":
            tags["colorspace"] = "bt2020nc"
        if picture.primaries == "unknown":
            tags["color_primaries"] = "bt2020"
        if picture.transfer in ("unknown", "bt2020-10", "bt2020-12"):
            tags["color_trc"] = "bt709"  # the three are one curve
    elif picture.matrix == "unknown" and picture.pixel_format.startswith(("yuv", "nv", "p0")):
        sides = sorted((source.decoded_height, source.decoded_width))
        if sides[0] >= _HIGH_DEFINITION[0] or sides[1] >= _HIGH_DEFINITION[1]:
            tags["colorspace"] = "bt709"
    if not tags:
        return []
    return ["setparams=" + ":".join(f"{name}={value}" for name, value in tags.items())]


def _decoding_arguments(source: SourceVideo, filters: list[str]) -> list[str]:
    stream = f"0:{source.stream}"
    frames = ("-map", stream, "-fps_mode", "passthrough", "-vf", ",".join(filters))
    return [*_input_arguments(source), *frames]


def _input_arguments(source: SourceVideo) -> list[str]:
    decoder = ["-c:v", source.picture.decoder] if source.picture.decoder else []
    # Without -reinit_filter 0 a stream that changes its size half-way would begin to count anew.
    return ["-reinit_filter", "0", *decoder, *input_arguments(source.path)]


def _resized_frames(
    source: SourceVideo,
    fps: int | None,
    height: int,
    width: int,
    fit: Fit,
    start_frame: int,
    num_frames: int | None,
) -> Iterator[Frame]:
    size = _handed_over_size(source, height, width, fit)
    for frame in _decoded_frames(source, fps, start_frame, num_frames, size):
        yield _shown(frame, source, height, width, fit)


def _shown(frame: Frame, source: SourceVideo, height: int, width: int, fit: Fit) -> Frame:
    """Return a decoded frame at the size asked for."""
    # A native read of non-square pixels still has to make them square.
    resize_fit: Fit = "stretch" if fit == "native" else fit
    pixel_aspect = SQUARE if fit == "native" else source.pixel_aspect
    return resize_frame(frame, height, width, resize_fit, pixel_aspect=pixel_aspect)


def _grey_frames(
    source: SourceVideo,
    fps: int | None,
    height: int,
    width: int,
    fit: Fit,
    start_frame: int,
    invert: bool,
) -> Iterator[NDArray[np.float32]]:
    size = _handed_over_size(source, height, width, fit)
    for frame in _decoded_frames(source, fps, start_frame, None, size, grey=True):
        grey = frame.astype(np.float32) / np.float32(65535)
        if invert:
            grey = np.float32(1) - grey
        yield resize_grey(grey, height, width, fit, pixel_aspect=source.pixel_aspect)


def _decoded_frames(
    source: SourceVideo,
    fps: int | None,
    start_frame: int,
    num_frames: int | None,
    size: tuple[int, int],
    *,
    grey: bool = False,
) -> Iterator[NDArray[Any]]:
    """Yield frames of `size` (height, width): [h, w, 3] uint8, or [h, w] uint16 for `grey`."""
    shape: tuple[int, ...] = size if grey else (*size, 3)
    dtype: np.dtype[Any] = np.dtype("<u2") if grey else np.dtype(np.uint8)
    num_bytes = math.prod(shape) * dtype.itemsize
    pixels = _grey_filters(*size) if grey else _pixel_filters(source, *size)
    filters = _filters(source, fps, start_frame, num_frames, pixels)
    arguments = [*_decoding_arguments(source, filters), "-f", "rawvideo", "pipe:1"]
    num_read = 0
    with running_ffmpeg(arguments) as process:
        while num_frames is None or num_read < num_frames:
            data = process.stdout.read(num_bytes)
            if len(data) < num_bytes:
                _check_decoded(source, process, fps)
                break
            num_read += 1
            yield np.frombuffer(data, dtype).reshape(shape)
    if num_frames is not None and num_read < num_frames:
        raise _too_short(source, fps, start_frame + num_read, start_frame + num_frames)


def _too_short(source: SourceVideo, fps: int | None, found: int, needed: int) -> MediaError:
    rate = f" at {fps} fps" if fps is not None else ""
    return MediaError(
        f"{source.path}: the video ends after {found} frames{rate}, but {needed} are needed."
    )


def _check_decoded(
    source: SourceVideo, process: FfmpegProcess, fps: int | None, *, needed: int | None = None
) -> None:
    """As `check_read_to_the_end`, and say how many frames come before the damage.

    Damage after the first `needed` frames does not count.
    """
    try:
        check_read_to_the_end(source.path, process)
    except DamagedVideoError as error:
        readable = count_sound_frames(source, fps=fps, limit=needed)
        if needed is not None and readable >= needed:
            return
        raise damage_error(source, readable, fps, error.message) from error


def count_sound_frames(source: SourceVideo, *, fps: int | None, limit: int | None = None) -> int:
    """Return how many frames at this rate, at most `limit`, come before the first damage."""
    pixels = ["scale=16:16:flags=fast_bilinear", "format=gray"]
    filters = _filters(source, fps, 0, limit, pixels)
    decoding = _decoding_arguments(source, filters)
    # The first error ends it; of the frames ffmpeg still held back, none is counted.
    strict = ["-xerror", "-err_detect", "explode", *decoding, "-f", "rawvideo", "pipe:1"]
    num_bytes = 0
    with running_ffmpeg(strict) as process:
        while data := process.stdout.read(1 << 16):
            num_bytes += len(data)
    return num_bytes // 256


def damage_error(
    source: SourceVideo, readable: int, fps: int | None, reason: str
) -> DamagedVideoError:
    """Return the error that says which frames of a damaged video can be read."""
    why = reason.removeprefix(f"{source.path}: ")
    rate = fps or source.fps
    end = timecode(readable / rate)
    if readable < 1:
        return DamagedVideoError(
            f"{source.path}: not one frame can be read without damage; {why}",
            hint="Encode the video again with a player or editor that repairs it.",
        )
    return DamagedVideoError(
        f"{source.path}: frames 0 to {readable - 1} (up to {end}) can be read, then it is damaged; "
        f"{why}",
        hint=f"Use what comes before with --seconds {math.floor(readable / rate * 10) / 10:g}, or "
        "encode the video again with a player or editor that repairs it.",
    )
