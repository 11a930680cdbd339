"""Sharpness, noise and blockiness of single pictures, at their full size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from longvie_cli.media.frames import Frame
from longvie_cli.media.probe import SourceVideo
from longvie_cli.media.reader import read_every

if TYPE_CHECKING:
    from cv2.typing import MatLike

MOST_PICTURES = 256
"""Pictures that are looked at: every n-th, n the smallest whole number that gives no more."""

# Larger pictures are averaged down first, and then have no grid of blocks any more.
_MOST_PIXELS = 1920 * 1088
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
# J. Immerkaer, Fast Noise Variance Estimation, 1996: blind to slopes and straight edges. Its
# response to noise of deviation 1 has deviation 6.
_NOISE_MASK = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
_NOISE_GAIN = 6.0
# The median absolute value of a normal distribution of deviation 1.
_MEDIAN_OF_NORMAL = 0.6745
_BLOCK = 8


@dataclass(frozen=True)
class PictureQuality:
    """What single pictures of a video say.

    Args:
        frames: Which were looked at, ascending.
        sharpness: Standard deviation of the Laplacian of the luma, smoothed by a Gaussian of 1
            pixel, in levels of 255.
        noise: Standard deviation of pixel noise in levels of 255: the median response to
            Immerkaer's mask, so that texture on less than half of the picture does not count.
        blockiness: Mean step of the luma across the borders of 8 x 8 blocks over that between
            them; 1 without blocks. NaN of pictures that were made smaller.
    """

    frames: NDArray[np.int64]
    sharpness: NDArray[np.float32]
    noise: NDArray[np.float32]
    blockiness: NDArray[np.float32]


def measure_quality(
    source: SourceVideo,
    num_frames: int,
    *,
    tell: Callable[[int], None] = lambda _: None,
) -> PictureQuality:
    """Return sharpness, noise and blockiness of at most 256 pictures of a video.

    Args:
        source: The video.
        num_frames: Frames it has.
        tell: Called with 1 after each picture.

    Raises:
        MediaError: The file cannot be read.
    """
    step = sampling_step(num_frames, MOST_PICTURES)
    height, width = source.height, source.width
    shrink = min(1.0, (_MOST_PIXELS / (height * width)) ** 0.5)
    height, width = max(1, round(height * shrink)), max(1, round(width * shrink))
    as_stored = (height, width) == (source.decoded_height, source.decoded_width)
    values = []
    for frame in read_every(source, step=step, height=height, width=width):
        luma = frame @ _LUMA
        blocks = block_steps(luma) if as_stored else float("nan")
        values.append((sharpness(luma), pixel_noise(luma), blocks))
        tell(1)
    found = np.array(values, np.float32).reshape(-1, 3)
    return PictureQuality(np.arange(len(found)) * step, found[:, 0], found[:, 1], found[:, 2])


def sampling_step(num_frames: int, most: int) -> int:
    """Return the smallest n for which every n-th of some frames, from the first, are no more."""
    return max(1, -(-num_frames // most))


def sharpness(luma: MatLike) -> float:
    """Return the deviation of the smoothed picture's Laplacian, [height, width] in levels."""
    import cv2

    smooth = cv2.GaussianBlur(luma, (0, 0), 1.0)
    return float(cv2.Laplacian(smooth, cv2.CV_32F).std())


def pixel_noise(luma: MatLike) -> float:
    """Return the deviation of the pixel noise of a picture [height, width], in levels."""
    import cv2

    response = cv2.filter2D(luma, cv2.CV_32F, _NOISE_MASK)
    return float(np.median(np.abs(response)) / (_MEDIAN_OF_NORMAL * _NOISE_GAIN))


def block_steps(luma: Frame | MatLike) -> float:
    """Return the mean step across block borders over that elsewhere, of a picture in levels.

    1.0 of a picture smaller than two blocks, or without any step.
    """
    borders, others = [], []
    for picture in (luma, luma.T):
        steps = np.abs(np.diff(picture.astype(np.float32), axis=1)).mean(axis=0)
        at_border = np.arange(1, len(steps) + 1) % _BLOCK == 0
        borders.append(steps[at_border])
        others.append(steps[~at_border])
    border, other = np.concatenate(borders), np.concatenate(others)
    if len(border) == 0 or len(other) == 0:
        return 1.0
    # A tenth of a level keeps flat pictures at 1.
    return float((border.mean() + 0.1) / (other.mean() + 0.1))
