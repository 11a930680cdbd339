"""How alike pictures are that lie seconds or minutes apart: what slow drift cannot hide from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from longvie_cli.media.scenes import soft_histogram

if TYPE_CHECKING:
    from cv2.typing import MatLike

DESCRIPTOR = "colour-gradient-1"
"""Name of `describe_picture`; other numbers have another name."""

GAPS_SECONDS = (0.25, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
# Pairs compared for one gap.
_MOST_PAIRS = 2000
_FEWEST_PAIRS = 3

_LIGHT_BINS, _HUE_BINS, _ANGLE_BINS = 12, 8, 8
# Chroma lies near grey: +-48 of a* and b* get the bins, what is beyond counts in the outer ones.
_CHROMA = 48.0
# Parts of the picture, down and across, in which directions are counted.
_PARTS = (3, 4)
# Lightness a pixel below which a gradient is noise, in units of L*.
_FLAT = 1.0


@dataclass(frozen=True)
class Gap:
    """How alike pictures are that lie so far apart.

    Args:
        seconds: How far.
        similarity: Mean cosine of their descriptions, 0 to 1.
        pairs: How many were compared.
    """

    seconds: float
    similarity: float
    pairs: int


def describe_picture(lab: MatLike) -> NDArray[np.float16]:
    """Return a description of a picture, of unit length; the cosine of two says how alike they are.

    Two halves of equal weight, each the square root of shares (so that a cosine is the
    Bhattacharyya coefficient of two distributions): colours, as counts of L* and of (a*, b*) with
    soft bins; and structure, as strengths of the gradient of L* by direction in 3 x 4 parts of the
    picture, with a share for flatness. It knows no objects: another place of the same colours and
    directions is the same to it.

    Args:
        lab: CIELAB, float32 [height, width, 3].
    """
    light = soft_histogram([lab[..., 0] / 100 * _LIGHT_BINS], _LIGHT_BINS)
    plane = [(lab[..., channel] / _CHROMA + 1) / 2 * _HUE_BINS for channel in (1, 2)]
    hues = soft_histogram(plane, _HUE_BINS)
    colours = np.sqrt(np.concatenate([light, hues]) / 4)
    structure = np.sqrt(_directions(lab[..., 0]) / 2)
    return np.concatenate([colours, structure]).astype(np.float16)


def measure_consistency(
    times: NDArray[np.float64], descriptions: NDArray[np.floating]
) -> tuple[Gap, ...]:
    """Return for growing gaps how alike pictures are, those that fit into the video.

    Of more than 2000 pairs evenly spread ones are compared.

    Args:
        times: Seconds of the described frames, ascending.
        descriptions: [frames, values], unit length.
    """
    found = []
    usual = float(np.median(np.diff(times))) if len(times) > 1 else np.inf
    for gap in GAPS_SECONDS:
        if gap < 0.99 * usual:
            continue
        later = np.searchsorted(times, times + gap - 0.5 * usual)
        later = np.minimum(later, len(times) - 1)
        fits = abs(times[later] - times - gap) <= 0.5 * usual + 1e-9
        earlier = np.flatnonzero(fits)
        if len(earlier) < _FEWEST_PAIRS:
            continue
        count = min(_MOST_PAIRS, len(earlier))
        earlier = earlier[np.linspace(0, len(earlier) - 1, count).round().astype(int)]
        one = descriptions[earlier].astype(np.float64)
        other = descriptions[later[earlier]].astype(np.float64)
        cosines = (one * other).sum(axis=1) / np.maximum(
            np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1), 1e-9
        )
        found.append(Gap(gap, float(min(1.0, cosines.mean())), count))
    return tuple(found)


def _directions(light: MatLike) -> NDArray[np.float64]:
    import cv2

    across = cv2.Scharr(light, cv2.CV_32F, 1, 0) / 32
    down = cv2.Scharr(light, cv2.CV_32F, 0, 1) / 32
    strength = np.hypot(across, down)
    # Directions of edges, not of steps: light on dark is dark on light.
    angle = np.mod(np.arctan2(down, across), np.pi) * (_ANGLE_BINS / np.pi)
    low = np.floor(angle).astype(np.intp) % _ANGLE_BINS
    share = (angle - np.floor(angle)).astype(np.float32)
    rows, columns = light.shape[:2]
    part = (np.arange(rows) * _PARTS[0] // rows)[:, None] * _PARTS[1] + (
        np.arange(columns) * _PARTS[1] // columns
    )
    size = _PARTS[0] * _PARTS[1] * _ANGLE_BINS
    counted = np.zeros(size + 1)
    for direction, weight in ((low, 1 - share), ((low + 1) % _ANGLE_BINS, share)):
        key = (part * _ANGLE_BINS + direction).ravel()
        counted[:size] += np.bincount(key, (strength * weight).ravel(), minlength=size)
    counted[size] = _FLAT * light.size
    shares: NDArray[np.float64] = counted / counted.sum()
    return shares
