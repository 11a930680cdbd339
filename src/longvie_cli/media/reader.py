"""Frames out of any video or image, one at a time, at the rate and size asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longvie_cli.errors import MediaError
from longvie_cli.media.ffmpeg import (
    DamagedVideoError,
    FfmpegProcess,
    chained_arguments,
    check_read_to_the_end,
    is_chainable,
    running_ffmpeg,
)
from longvie_cli.media.filters import (
    choosing_filters,
    decoding_arguments,
    deinterlacing,
    grey_filters,
    handed_over_size,
    pixel_filters,
    range_filters,
    video_arguments,
)
from longvie_cli.media.frames import SQUARE, Fit, Frame, Frames, resize_frame, resize_grey
from longvie_cli.media.probe import SourceVideo
from longvie_cli.timeline import timecode


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


def read_written(videos: Sequence[SourceVideo]) -> Iterator[Frame]:
    """Yield the frames of mp4 files, one file after the other, from one ffmpeg where it can be.

    Args:
        videos: Files of one size and rate that `VideoWriter` wrote.

    Raises:
        MediaError: As `read_frames`.
    """
    first = videos[0]
    height, width = first.height, first.width
    if not all(is_chainable(video.path) for video in videos):
        for video in videos:
            yield from read_frames(video, fps=None, height=height, width=width, fit="native")
        return
    pixels = pixel_filters(first, height, width)
    shown = ("-map", "0:v:0", "-fps_mode", "passthrough", "-vf", ",".join(pixels))
    parts = [(video.path, Fraction(video.duration_seconds)) for video in videos]
    num_bytes = height * width * 3
    num_read = 0
    with (
        chained_arguments(parts) as (inputs, listed),
        running_ffmpeg(
            [*inputs, *shown, "-f", "rawvideo", "pipe:1"], inherited=[listed]
        ) as process,
    ):
        while len(data := process.stdout.read(num_bytes)) == num_bytes:
            num_read += 1
            yield np.frombuffer(data, np.uint8).reshape(height, width, 3)
        check_read_to_the_end(first.path, process)
    if num_read != sum(video.num_frames for video in videos):
        for video in videos:
            if (found := count_frames(video, fps=None)) != video.num_frames:
                raise _too_short(video, None, found, video.num_frames)


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
    size = handed_over_size(first, height, width, fit)
    if size != handed_over_size(second, height, width, fit):
        how: dict[str, Any] = {"fps": None, "height": height, "width": width, "fit": fit}
        how |= {"start_frame": start_frame, "num_frames": num_frames}
        yield from zip(read_frames(first, **how), read_frames(second, **how), strict=True)
        return
    inputs: list[str] = []
    graph: list[str] = []
    for place, source in enumerate((first, second)):
        inputs += video_arguments(source)
        filters = [
            *deinterlacing(source),
            "settb=1/1000,setpts=N",  # two by two, whatever their times
            *range_filters(start_frame, num_frames),
            *pixel_filters(source, *size),
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
    filters = choosing_filters(source, fps, start_frame, num_frames, pixels)
    num_bytes = height * width * 3
    arguments = [*decoding_arguments(source, filters), "-f", "rawvideo", "pipe:1"]
    with running_ffmpeg(arguments) as process:
        while len(data := process.stdout.read(num_bytes)) == num_bytes:
            yield np.frombuffer(data, np.uint8).reshape(height, width, 3)
        needed = None if num_frames is None else start_frame + num_frames
        _check_decoded(source, process, fps, needed=needed)


def read_every(
    source: SourceVideo,
    *,
    step: int = 1,
    fps: int | None = None,
    height: int,
    width: int,
    num_frames: int | None = None,
) -> Iterator[Frame]:
    """Yield every `step`-th frame of a video, from the first on, stretched to a size by ffmpeg.

    Upright, in 8-bit RGB, transparency over black. What is not chosen is decoded and stays within
    ffmpeg; a smaller picture is averaged there. Holds one frame.

    Args:
        source: The video.
        step: 1 for every frame.
        fps: As for `read_frames`.
        height: Rows of the result.
        width: Columns of the result.
        num_frames: Stop after so many frames that were chosen; None for all.

    Raises:
        DamagedVideoError: A frame is damaged; says which can be read.
        MediaError: The file cannot be read.
    """
    pixels = pixel_filters(source, height, width)
    chosen = [f"select=not(mod(n\\,{step}))"] if step > 1 else []
    if fps is None:
        filters = choosing_filters(source, None, 0, None, [*chosen, *pixels])
    else:
        # The frames of another rate are counted once they are made.
        filters = [*choosing_filters(source, fps, 0, None, pixels), *chosen]
    num_bytes = height * width * 3
    num_read = 0
    arguments = [*decoding_arguments(source, filters), "-f", "rawvideo", "pipe:1"]
    with running_ffmpeg(arguments) as process:
        while num_frames is None or num_read < num_frames:
            data = process.stdout.read(num_bytes)
            if len(data) < num_bytes:
                _check_decoded(source, process, fps)
                return
            num_read += 1
            yield np.frombuffer(data, np.uint8).reshape(height, width, 3)


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
        *decoding_arguments(source, choosing_filters(source, fps, 0, None, [])),
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


def _resized_frames(
    source: SourceVideo,
    fps: int | None,
    height: int,
    width: int,
    fit: Fit,
    start_frame: int,
    num_frames: int | None,
) -> Iterator[Frame]:
    size = handed_over_size(source, height, width, fit)
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
    size = handed_over_size(source, height, width, fit)
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
    pixels = grey_filters(*size) if grey else pixel_filters(source, *size)
    filters = choosing_filters(source, fps, start_frame, num_frames, pixels)
    arguments = [*decoding_arguments(source, filters), "-f", "rawvideo", "pipe:1"]
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
    filters = choosing_filters(source, fps, 0, limit, pixels)
    decoding = decoding_arguments(source, filters)
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
