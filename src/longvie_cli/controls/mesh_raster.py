"""The disparity of a triangle mesh seen by a pinhole camera: a z-buffer, nothing else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Pixels tried at once; what is held is about forty bytes each.
_CHUNK_PIXELS = 1 << 20
# Edges are drawn by both their triangles, so that no pixel falls between.
_EDGE_TOLERANCE = 1e-5


def draw_disparity(
    picture: NDArray[np.float32],
    vertices: NDArray[np.float32],
    triangles: NDArray[np.int32],
    *,
    focal: float,
    near: float,
) -> None:
    """Raise `picture` [H, W] to 1 / z wherever a triangle is nearer than what it holds.

    Only triangles seen from their front are drawn, their corners counter-clockwise as seen: what is
    behind a surface that was only ever seen from the front is not known, and turns out of sight
    without a jump. 1 / z is linear across a flat triangle's image, so every pixel gets the exact
    depth of the plane at its centre. Pixel centres have whole coordinates; the axis goes through
    the middle.

    Args:
        picture: Disparity drawn so far, 0 where nothing is; changed in place.
        vertices: [N, 3] in camera axes: right, down, forward.
        triangles: [M, 3] numbers of vertices.
        focal: In pixels.
        near: Triangles with a vertex nearer than this, or behind, are left out.
    """
    height, width = picture.shape
    z = vertices[:, 2]
    ahead = z > near
    disparity = np.zeros_like(z)
    np.divide(1, z, out=disparity, where=ahead)
    x = vertices[:, 0] * disparity * focal + (width - 1) / 2
    y = vertices[:, 1] * disparity * focal + (height - 1) / 2
    # Bit set where a vertex is out on a side: triangles wholly out on one side go first.
    out = (x < 0) * 1 | (x > width - 1) * 2 | (y < 0) * 4 | (y > height - 1) * 8 | ~ahead * 16
    out = out.astype(np.uint8)
    corners = out[triangles]
    hidden = (corners[:, 0] & corners[:, 1] & corners[:, 2]) | (corners.max(axis=1) & 16)
    kept = triangles[hidden == 0]
    if not len(kept):
        return
    xs, ys, qs = x[kept], y[kept], disparity[kept]
    left = np.ceil(xs.min(axis=1)).clip(0, None).astype(np.int32)
    right = np.floor(xs.max(axis=1)).clip(None, width - 1).astype(np.int32)
    top = np.ceil(ys.min(axis=1)).clip(0, None).astype(np.int32)
    bottom = np.floor(ys.max(axis=1)).clip(None, height - 1).astype(np.int32)
    columns, rows = right - left + 1, bottom - top + 1
    first, second, third = (np.stack((xs[:, k], ys[:, k])) for k in range(3))
    edge, other = second - first, third - first
    area = edge[0] * other[1] - edge[1] * other[0]
    seen = np.flatnonzero((columns > 0) & (rows > 0) & (area < -1e-9))
    rise, other_rise = qs[:, 1] - qs[:, 0], qs[:, 2] - qs[:, 0]
    # Barycentric weights are linear in the pixel: w = w0 + wx x + wy y, from the first corner.
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1 / area
        second_x, second_y = other[1] * inverse, -other[0] * inverse
        third_x, third_y = -edge[1] * inverse, edge[0] * inverse
        slope_x = rise * second_x + other_rise * third_x
        slope_y = rise * second_y + other_rise * third_y
    flat = picture.reshape(-1)
    # Triangles whose boxes are about as large are tried together, on the box of the largest.
    class_columns = _power_of_two(columns[seen])
    class_rows = _power_of_two(rows[seen])
    for code in np.unique(class_columns * 4096 + class_rows):
        wide, tall = divmod(int(code), 4096)
        members = seen[(class_columns == wide) & (class_rows == tall)]
        offset_y, offset_x = (axis.reshape(-1) for axis in np.mgrid[:tall, :wide].astype(np.int32))
        step = max(1, _CHUNK_PIXELS // (wide * tall))
        for start in range(0, len(members), step):
            some = members[start : start + step]
            column = left[some, None] + offset_x
            row = top[some, None] + offset_y
            along = column - first[0, some, None]
            down = row - first[1, some, None]
            second_weight = second_x[some, None] * along + second_y[some, None] * down
            third_weight = third_x[some, None] * along + third_y[some, None] * down
            inside = second_weight >= -_EDGE_TOLERANCE
            inside &= third_weight >= -_EDGE_TOLERANCE
            inside &= second_weight + third_weight <= 1 + _EDGE_TOLERANCE
            inside &= (column <= right[some, None]) & (row <= bottom[some, None])
            value = qs[some, :1] + slope_x[some, None] * along + slope_y[some, None] * down
            # Outside the corners' own range only by rounding.
            np.maximum.at(flat, (row * width + column)[inside], value[inside])


def _power_of_two(sizes: NDArray[np.int32]) -> NDArray[np.int64]:
    powers: NDArray[np.int64] = 1 << np.ceil(np.log2(sizes)).astype(np.int64)
    return powers


def grid_triangles(rows: int, columns: int) -> NDArray[np.int32]:
    """Return the two triangles of every cell of a grid of vertices, [2 cells, 3], row by row."""
    numbers = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    upper_left, upper_right = numbers[:-1, :-1].ravel(), numbers[:-1, 1:].ravel()
    lower_left, lower_right = numbers[1:, :-1].ravel(), numbers[1:, 1:].ravel()
    return np.concatenate(
        (
            np.stack((upper_left, lower_left, upper_right), axis=1),
            np.stack((upper_right, lower_left, lower_right), axis=1),
        )
    )
