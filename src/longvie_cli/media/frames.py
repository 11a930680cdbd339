"""Frames as arrays: resizing, and 8-bit values to model pixels and back."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Fit = Literal["crop", "pad", "stretch", "native"]
Frame = NDArray[np.uint8]
"""One picture: [height, width, 3], 8-bit RGB."""

Frames = NDArray[np.uint8]
"""Pictures in order: [frames, height, width, 3], 8-bit RGB."""

FITS: tuple[Fit, ...] = get_args(Fit)

SQUARE = Fraction(1)


def resize_frame(
    frame: Frame,
    height: int,
    width: int,
    fit: Fit,
    *,
    pixel_aspect: Fraction = SQUARE,
) -> Frame:
    """Return the frame at height x width, in one bicubic step (Pillow's, antialiased).

    Released inference stretches with the same filter (LongVie:inference.py).

    Args:
        frame: The picture as stored.
        height: Rows wanted.
        width: Columns wanted.
        fit: `crop` fills the picture and cuts what hangs over, the same on both sides; `pad` shows
            everything between black bars; `stretch` ignores the aspect; `native` changes nothing
            and so needs a frame that has the size already.
        pixel_aspect: Width over height of the frame's pixels.

    Raises:
        ValueError: `native` with a frame of another size.
    """
    return _resize(frame, height, width, fit, pixel_aspect)


def resize_grey(
    picture: NDArray[np.float32],
    height: int,
    width: int,
    fit: Fit,
    *,
    pixel_aspect: Fraction = SQUARE,
) -> NDArray[np.float32]:
    """Return a grey picture [h, w] in [0, 1] at height x width, as `resize_frame` does."""
    resized: NDArray[np.float32] = _resize(picture, height, width, fit, pixel_aspect)
    return resized.clip(0, 1)


def _resize(
    frame: NDArray[Any], height: int, width: int, fit: Fit, pixel_aspect: Fraction
) -> NDArray[Any]:
    from PIL import Image

    rows, columns = frame.shape[:2]
    if (rows, columns) == (height, width) and (pixel_aspect == SQUARE or fit == "stretch"):
        return frame
    if fit == "native":
        raise ValueError(f"the frame is {columns}x{rows}, not {width}x{height}")
    picture = Image.fromarray(frame)
    shown_width = float(columns * pixel_aspect)
    if fit == "stretch":
        return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
    if fit == "crop":
        scale = max(height / rows, width / shown_width)
        kept_rows = height / scale
        kept_columns = width / scale / float(pixel_aspect)
        top, left = (rows - kept_rows) / 2, (columns - kept_columns) / 2
        # Rounding may put an edge a hair outside the picture, which Pillow refuses.
        right, bottom = min(columns, left + kept_columns), min(rows, top + kept_rows)
        box = (max(0.0, left), max(0.0, top), right, bottom)
        return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC, box))
    scale = min(height / rows, width / shown_width)
    inner_height = min(height, max(1, round(rows * scale)))
    inner_width = min(width, max(1, round(shown_width * scale)))
    inner = picture.resize((inner_width, inner_height), Image.Resampling.BICUBIC)
    canvas = np.zeros((height, width, *frame.shape[2:]), frame.dtype)
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    canvas[top : top + inner_height, left : left + inner_width] = np.asarray(inner)
    return canvas


def last_frames(earlier: Frames | None, added: Frames, count: int) -> Frames:
    """Return a copy of the last `count` frames of a video: what its next clip is told of it.

    Args:
        earlier: The last frames before `added`, None at the start.
        added: The newest frames.
        count: How many to keep; fewer where there are fewer.
    """
    frames = added if earlier is None else np.concatenate([earlier, added])
    return frames[-count:].copy()


def pixels_from_frames(
    frames: Frames,
) -> Tensor:
    """Return frames as float32 pixels [3, frames, height, width] in [-1, 1]: byte / 127.5 - 1."""
    import torch

    return torch.from_numpy(np.array(frames)).permute(3, 0, 1, 2).float() / 127.5 - 1


def frames_from_pixels(
    pixels: Tensor,
) -> Frames:
    """Return pixels [3, frames, height, width] in [-1, 1] as bytes: (v + 1) * 127.5, truncated.

    Clamped to 0..255 and not rounded, as released inference does it, so that the last frames
    handed from clip to clip match it (LongVie:diffsynth/pipelines/wan_video_new_longvie.py).
    """
    import torch

    bytes_ = ((pixels.float() + 1) * 127.5).clamp(0, 255).to(torch.uint8)
    return bytes_.permute(1, 2, 3, 0).contiguous().cpu().numpy()


def png_bytes(frame: Frame) -> bytes:
    """Return a picture as a PNG file."""
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(frame).save(data, format="PNG")
    return data.getvalue()
