"""Frames out of any video or image, one at a time, at the rate and size asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from longvie_cli.errors import MediaError
from longvie_cli.media.ffmpeg import (
    check_read_to_the_end,
    check_readable,
    input_arguments,
    run_reading,
    running_ffmpeg,
)
from longvie_cli.media.frames import SQUARE, Fit, Frame, Frames, resize_frame, resize_grey
from longvie_cli.media.probe import SourceVideo, probe_video

# Output frame k shows the source frame on screen at second k/fps. Containers that round times to
# milliseconds put a frame up to half a millisecond late, so that instant is taken this much later.
_LATENESS = 1 / 16  # of an output frame: 3.9 ms at 16 fps


def read_frames(
    path: Path,
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
        path: Any video ffmpeg decodes; an animated or still image counts as one.
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
    source = probe_video(path)
    if fit == "native" and (source.height, source.width) != (height, width):
        raise MediaError(
            f"{path}: the video is {source.width}x{source.height}, but {width}x{height} is needed."
        )
    return _resized_frames(source, fps, height, width, fit, start_frame, num_frames)


def read_grey_frames(
    path: Path,
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
        path: Any video ffmpeg decodes; of a coloured one the brightness is read.
        fps: Rate of the result, as in `read_frames`.
        height: Rows of the result.
        width: Columns of the result.
        fit: See `resize_frame`; bars of `pad` are 0.
        start_frame: First frame to yield, counted at `fps`.
        invert: Make black 1 and white 0, before bars are added.

    Raises:
        MediaError: The file cannot be read or is cut off.
    """
    source = probe_video(path)
    return _grey_frames(source, fps, height, width, fit, start_frame, invert)


def count_frames(path: Path, *, fps: int | None) -> int:
    """Return how many frames `read_frames` yields at this rate; decodes the video to be exact.

    Raises:
        MediaError: The file cannot be read or is cut off.
    """
    source = probe_video(path)
    arguments = [
        *_decoding_arguments(path, _timing_filters(source, fps) or ["null"]),
        *("-f", "null", "-progress", "pipe:1", "pipe:1"),
    ]
    report = run_reading(path, arguments).decode()
    counts = [line.partition("=")[2] for line in report.splitlines() if line.startswith("frame=")]
    return int(counts[-1])


def read_last_frames(
    path: Path, count: int, *, fps: int | None, height: int, width: int, fit: Fit
) -> Frames:
    """Return the last `count` frames of a video, or all of them if it has fewer.

    Raises:
        MediaError: As `read_frames`.
    """
    total = count_frames(path, fps=fps)
    first = max(0, total - count)
    frames = read_frames(path, fps=fps, height=height, width=width, fit=fit, start_frame=first)
    return np.stack(list(frames))


def read_image(path: Path, *, height: int, width: int, fit: Fit) -> Frame:
    """Return a still image upright (EXIF), transparent parts over black, at height x width.

    Raises:
        MediaError: The file is missing, no image, damaged, or not of the size `native` needs.
    """
    from PIL import Image, ImageOps

    check_readable(path)
    try:
        with Image.open(path) as stored:
            picture = ImageOps.exif_transpose(stored)
            frame = _rgb(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as reason:
        raise MediaError(f"{path}: cannot be read as an image ({reason}).") from reason
    rows, columns = frame.shape[:2]
    if fit == "native" and (rows, columns) != (height, width):
        raise MediaError(f"{path}: the image is {columns}x{rows}, but {width}x{height} is needed.")
    return resize_frame(frame, height, width, fit)


def _timing_filters(source: SourceVideo, fps: int | None) -> list[str]:
    if fps is None:
        return []
    # A video shorter than the lateness would be over before it began.
    late = _LATENESS / fps if source.duration_seconds * fps >= 1 else 0.0
    microseconds = round(late * 1_000_000)
    return [f"settb=1/1000000,setpts=PTS-STARTPTS-{microseconds}", f"fps={fps}:round=up"]


def _range_filters(start_frame: int, num_frames: int | None) -> list[str]:
    end = "" if num_frames is None else f":end_frame={start_frame + num_frames}"
    return [f"trim=start_frame={start_frame}{end}"]


def _pixel_filters(source: SourceVideo, pixel_format: str) -> list[str]:
    # A stream may change its size half-way; every frame gets the size of the first.
    size = f"{source.decoded_width}:{source.decoded_height}"
    return [
        f"scale={size}:flags=bicubic+accurate_rnd+full_chroma_int+bitexact",
        f"format={pixel_format}",
    ]


def _decoding_arguments(path: Path, filters: list[str]) -> list[str]:
    # Without -reinit_filter 0 a stream that changes its size half-way would begin to count anew.
    frames = ("-map", "0:V:0", "-fps_mode", "passthrough", "-vf", ",".join(filters))
    return ["-reinit_filter", "0", *input_arguments(path), *frames]


def _resized_frames(
    source: SourceVideo,
    fps: int | None,
    height: int,
    width: int,
    fit: Fit,
    start_frame: int,
    num_frames: int | None,
) -> Iterator[Frame]:
    # A native read of non-square pixels still has to make them square.
    resize_fit: Fit = "stretch" if fit == "native" else fit
    pixel_aspect = SQUARE if fit == "native" else source.pixel_aspect
    for frame in _decoded_frames(source, fps, start_frame, num_frames, "rgb24"):
        yield resize_frame(frame, height, width, resize_fit, pixel_aspect=pixel_aspect)


def _grey_frames(
    source: SourceVideo,
    fps: int | None,
    height: int,
    width: int,
    fit: Fit,
    start_frame: int,
    invert: bool,
) -> Iterator[NDArray[np.float32]]:
    for frame in _decoded_frames(source, fps, start_frame, None, "gray16le"):
        grey = frame.astype(np.float32) / np.float32(65535)
        if invert:
            grey = np.float32(1) - grey
        yield resize_grey(grey, height, width, fit, pixel_aspect=source.pixel_aspect)


def _decoded_frames(
    source: SourceVideo,
    fps: int | None,
    start_frame: int,
    num_frames: int | None,
    pixel_format: Literal["rgb24", "gray16le"],
) -> Iterator[NDArray[Any]]:
    """Yield frames as ffmpeg hands them out: [h, w, 3] uint8, or [h, w] uint16 for `gray16le`."""
    shape: tuple[int, ...] = (source.decoded_height, source.decoded_width)
    dtype: np.dtype[Any] = np.dtype("<u2")
    if pixel_format == "rgb24":
        shape, dtype = (*shape, 3), np.dtype(np.uint8)
    num_bytes = math.prod(shape) * dtype.itemsize
    filters = [
        *_timing_filters(source, fps),
        *_range_filters(start_frame, num_frames),
        *_pixel_filters(source, pixel_format),
    ]
    arguments = [*_decoding_arguments(source.path, filters), "-f", "rawvideo", "pipe:1"]
    num_read = 0
    with running_ffmpeg(arguments) as process:
        while num_frames is None or num_read < num_frames:
            data = process.stdout.read(num_bytes)
            if len(data) < num_bytes:
                check_read_to_the_end(source.path, process)
                break
            num_read += 1
            yield np.frombuffer(data, dtype).reshape(shape)
    if num_frames is not None and num_read < num_frames:
        rate = f" at {fps} fps" if fps is not None else ""
        raise MediaError(
            f"{source.path}: the video ends after {start_frame + num_read} frames{rate}, "
            f"but {start_frame + num_frames} are needed."
        )


def _rgb(picture: object) -> Frame:
    from PIL import Image

    assert isinstance(picture, Image.Image)
    if picture.mode.startswith("I;16"):
        grey = (np.asarray(picture).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if picture.has_transparency_data:
        coloured = picture.convert("RGBA")
        black = Image.new("RGBA", coloured.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, coloured)
    return np.asarray(picture.convert("RGB"))
