"""The motion that the last frames of a clip show, as tracks that go on with it.

Without controls nothing says how a clip moves. The model was trained to be told, so what it is told
is the simplest that the history allows: the picture goes on moving, growing and turning as it did.
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from longvie_cli.models.carrying import ClipTracks

_MAX_CORNERS = 400
_CORNER_QUALITY = 0.01
_CORNER_DISTANCE = 4
# Corners that have to agree on a motion, and pixels by which they may miss it.
_FEWEST_AGREEING = 12
_AGREEING_SHARE = 0.25
_MAX_MISS = 1.0
# A picture that grows to more or shrinks to less than this within the history is a cut.
_MOST_GROWTH = 1.5
# Below this a picture neither grows nor turns.
_SAME_SIZE = 1e-6


def continued_tracks(
    history: NDArray[np.uint8], num_frames: int, columns: int, rows: int
) -> ClipTracks:
    """Return a grid of points that goes on moving through a clip as the history moved.

    They stand still where the history is a single frame, or shows no motion that its corners agree
    on.

    Args:
        history: uint8 [n, H, W, 3], oldest first; the last is the clip's frame 0.
        num_frames: Of the clip.
        columns: Points a row.
        rows: Points a column.
    """
    height, width = history.shape[1:3]
    growth, shift = _motion(history)
    x = (np.arange(columns) + 0.5) * width / columns - 0.5
    y = (np.arange(rows) + 0.5) * height / rows - 0.5
    start = (x[None, :] + 1j * y[:, None]).ravel()
    step = 1 / max(1, len(history) - 1)
    places = []
    for index in range(num_frames):
        grown = growth ** (index * step)
        # What is left of a motion z -> growth z + shift after a part of its time.
        part = index * step if abs(growth - 1) < _SAME_SIZE else (grown - 1) / (growth - 1)
        places.append(grown * start + part * shift)
    moved = np.stack(places)
    points = np.stack((moved.real, moved.imag), axis=-1).astype(np.float32)
    inside: NDArray[np.bool_] = np.all(
        (points >= -0.5) & (points <= np.array((width - 0.5, height - 0.5), np.float32)), axis=-1
    )
    return ClipTracks(points, inside)


def _motion(history: NDArray[np.uint8]) -> tuple[complex, complex]:
    """Return growth and shift of z -> growth z + shift from the first to the last frame."""
    still = 1 + 0j, 0j
    if len(history) < 2:
        return still
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in history]
    corners = cv2.goodFeaturesToTrack(grey[0], _MAX_CORNERS, _CORNER_QUALITY, _CORNER_DISTANCE)
    if corners is None:
        return still
    ends, seen = corners, np.ones(len(corners), np.bool_)
    # From frame to frame: over the whole history a corner goes too far to be found at once.
    for before, after in pairwise(grey):
        ends, found, _ = cv2.calcOpticalFlowPyrLK(before, after, ends, np.empty_like(ends))
        seen &= found[:, 0] == 1
    if seen.sum() < _FEWEST_AGREEING:
        return still
    fit, agreeing = cv2.estimateAffinePartial2D(
        corners[seen], ends[seen], method=cv2.RANSAC, ransacReprojThreshold=_MAX_MISS
    )
    fewest = max(_FEWEST_AGREEING, _AGREEING_SHARE * len(corners))
    if fit is None or agreeing.sum() < fewest:
        return still
    growth = complex(fit[0, 0], fit[1, 0])
    if not 1 / _MOST_GROWTH < abs(growth) < _MOST_GROWTH:
        return still
    return growth, complex(fit[0, 2], fit[1, 2])
