"""Point tracks read back from the pictures that show them (spec 6.3).

The colour of a point is fixed by where it was when its file began: red by x, green by y. Over the
grid that is tracked both take few values, far enough apart to survive the video's compression.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from longvie_cli.models.carrying import ClipTracks

# How far red and green may lie from a grid value, in steps of the grid: half a step is ambiguous.
_COLOUR_TOLERANCE = 0.25
# Sum of the channels below which a pixel is background.
_DARKEST = 36
# Part of a usual box that must be seen. 0.8 would be nearer to the middle of the box, but the
# compression blurs colours into the black around and takes half of the points (experiments.md).
_WHOLE_BOX = 0.5


def read_tracks(
    sparse: NDArray[np.uint8], *, columns: int, rows: int, tracked_frames: int | None = None
) -> ClipTracks:
    """Return the tracks of a clip from its sparse control.

    A point is where the middle of its box is; the box moves by whole pixels, so places are known
    to about half a pixel, and to two where the edge of the picture cuts the box. A point of
    whose box half or more is covered is not visible. Hidden points are painted too, and are
    reported visible.

    Args:
        sparse: [T, H, W, 3].
        columns: Points tracked across.
        rows: Points tracked down.
        tracked_frames: Frames from the first on whose tracks began at one grid; in later ones
            colours mean other points, and nothing is visible. All where None.
    """
    num_frames = len(sparse)
    count = columns * rows
    frame, y, x = np.nonzero(sparse.max(axis=-1) > _DARKEST)
    color = sparse[frame, y, x, :2].astype(np.float32) / 255
    column, row = color[:, 0] * (columns - 1), color[:, 1] * (rows - 1)
    at_column, at_row = np.rint(column), np.rint(row)
    is_point = (abs(column - at_column) < _COLOUR_TOLERANCE) & (
        abs(row - at_row) < _COLOUR_TOLERANCE
    )
    key = (frame * count + at_row * columns + at_column).astype(np.int64)[is_point]
    size = num_frames * count
    pixels = np.bincount(key, minlength=size)
    total = np.maximum(pixels, 1)
    middle = np.stack(
        [np.bincount(key, along[is_point], size) / total for along in (x, y)], axis=-1
    ).reshape(num_frames, count, 2)
    pixels = pixels.reshape(num_frames, count)
    # Boxes of the first frame of a file have sizes of their own, later ones share one.
    whole = np.percentile(pixels[1:][pixels[1:] > 0], 75) if (pixels[1:] > 0).any() else 1.0
    visible = pixels >= _WHOLE_BOX * whole
    visible[0] = pixels[0] > 0
    if tracked_frames is not None:
        visible[tracked_frames:] = False
    return ClipTracks(middle.astype(np.float32), visible)
