"""Frames out of any video or image, one at a time, at the rate and size asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from longvie_cli.errors import MediaError
from longvie_cli.media.ffmpeg import (
    check_read_to_the_end,
    check_readable,
    input_arguments,
    run_reading,
    running_ffmpeg,
)
from longvie_cli.media.frames import SQUARE, Fit, Frame, Frames, resize_frame
from longvie_cli.media.probe import SourceVideo, probe_video

# Output frame k shows the source frame on screen at second k/fps. Containers that round times to
# milliseconds put a frame up to half a millisecond late, so that instant is taken this much later.
_LATENESS = 1 / 16  # of an output frame: 3.9 ms at 16 fps

_EXIF_ORIENTATION = 274
_EXIF_ON_ITS_SIDE = (5, 6, 7, 8)


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


def image_size(path: Path) -> tuple[int, int]:
    """Return the height and width of a still image held upright (EXIF).

    Raises:
        MediaError: The file is missing or no image.
    """
    from PIL import Image

    check_readable(path)
    try:
        with Image.open(path) as stored:
            width, height = stored.size
            turned = stored.getexif().get(_EXIF_ORIENTATION, 1) in _EXIF_ON_ITS_SIDE
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as reason:
        raise MediaError(f"{path}: cannot be read as an image ({reason}).") from reason
    return (width, height) if turned else (height, width)


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


def _pixel_filters(source: SourceVideo) -> list[str]:
    # A stream may change its size half-way; every frame gets the size of the first.
    size = f"{source.decoded_width}:{source.decoded_height}"
    return [f"scale={size}:flags=bicubic+accurate_rnd+full_chroma_int+bitexact", "format=rgb24"]


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
    shape = (source.decoded_height, source.decoded_width, 3)
    num_bytes = shape[0] * shape[1] * 3
    filters = [
        *_timing_filters(source, fps),
        *_range_filters(start_frame, num_frames),
        *_pixel_filters(source),
    ]
    arguments = [*_decoding_arguments(source.path, filters), "-f", "rawvideo", "pipe:1"]
    # A native read of non-square pixels still has to make them square.
    resize_fit: Fit = "stretch" if fit == "native" else fit
    pixel_aspect = SQUARE if fit == "native" else source.pixel_aspect
    num_read = 0
    with running_ffmpeg(arguments) as process:
        while num_frames is None or num_read < num_frames:
            data = process.stdout.read(num_bytes)
            if len(data) < num_bytes:
                check_read_to_the_end(source.path, process)
                break
            frame = np.frombuffer(data, np.uint8).reshape(shape)
            num_read += 1
            yield resize_frame(frame, height, width, resize_fit, pixel_aspect=pixel_aspect)
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
