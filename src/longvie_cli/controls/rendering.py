"""Pictures of point tracks: the sparse control of LongVie.

A track is (x pixel, y pixel, z); z is the tracker depth, 1 near and 0 far. Every point is a filled
box whose colour is fixed by where it was in frame 0: red by x, green by y, blue by 1/z. Far points
are painted last, on top of near ones. All of this is the picture the released model was trained on
(LongVie:utils, rules in spec 6.3), oddities included.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from longvie_cli.errors import ControlError

# The released grid: the tracker works at 384 x 576 and keeps a margin of a 64th of its width.
_TRACKER_HEIGHT = 384
_TRACKER_WIDTH = 576

_LOW_PERCENT = 2.0
_HIGH_PERCENT = 98.0

# Distances of this many pairs are held at a time.
_PAIRS_PER_BLOCK = 1 << 21


def track_grid(height: int, width: int, columns: int, rows: int) -> NDArray[np.float32]:
    """Return the points tracked through a clip, [rows * columns, 2] as (x, y) pixels, row by row.

    Points are evenly spaced from margin to margin, the margin being floor(576 / 64) = 9 pixels of
    the 384 x 576 tracker, scaled to `height` x `width` (spec 6.2). 832 x 480 with 50 x 50 points
    is the released grid: x = 13 + 16.449 c, y = 11.25 + 9.337 r.

    Raises:
        ValueError: fewer than 2 columns or rows.
    """
    if columns < 2 or rows < 2:
        raise ValueError(f"a track grid needs at least 2 x 2 points, not {columns} x {rows}")
    margin = _TRACKER_WIDTH // 64
    x = np.linspace(margin, _TRACKER_WIDTH - margin, columns) * (width / _TRACKER_WIDTH)
    y = np.linspace(margin, _TRACKER_HEIGHT - margin, rows) * (height / _TRACKER_HEIGHT)
    grid_x, grid_y = np.meshgrid(x, y)
    return np.stack([grid_x, grid_y], axis=-1).reshape(-1, 2).astype(np.float32)


def render_tracks(tracks: NDArray[np.floating], *, height: int, width: int) -> NDArray[np.uint8]:
    """Draw point tracks, [T, N, 3] as (x, y, z), as pictures [T, height, width, 3], RGB on black.

    The half-size s of a box is half the distance (in x, y and z, truncated) to its nearest
    neighbour in frame 0; in every later frame all boxes take the s of the point painted last in
    frame 0. Boxes reach from x - s to x + s and from y - s / 1.5 to y + s / 1.5, corners included
    and truncated towards zero. A point whose x or y is exactly 0 is left out of that frame.

    Raises:
        ControlError: a coordinate is not finite, or the size of the boxes is undefined because no
            two points differ in frame 0 or none is painted there.
    """
    if tracks.ndim != 3 or tracks.shape[2] != 3 or tracks.shape[0] < 1 or tracks.shape[1] < 1:
        raise ValueError(f"tracks must be [frames, points, 3], not {list(tracks.shape)}")
    if not np.isfinite(tracks).all():
        bad = int((~np.isfinite(tracks)).any(axis=(0, 2)).sum())
        raise ControlError(f"{bad} of {tracks.shape[1]} point tracks are not finite everywhere.")
    colors = _point_colors(tracks[0])
    half_sizes = _nearest_neighbour_distances(tracks[0]).astype(np.int64) / 2
    frames = np.zeros((tracks.shape[0], height, width, 3), dtype=np.uint8)
    for frame_index, points in enumerate(tracks):
        order = np.argsort(-points[:, 2], kind="stable")
        order = order[(points[order, 0] != 0) & (points[order, 1] != 0)]
        _paint_boxes(frames[frame_index], points[order], half_sizes[order], colors[order])
        if frame_index == 0:
            if order.size == 0:
                raise ControlError("No point is drawn in frame 0: the boxes have no size.")
            half_sizes = np.full(tracks.shape[1], half_sizes[order[-1]])
    return frames


def track_depth(depth_frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the tracker depth of one clip, 1 near and 0 far, from its 8-bit depth pictures.

    z = (max D - D) / (max D - min D) over the whole clip (spec 6.2). A clip of one single grey
    has no order to show: it is 0 everywhere.

    Args:
        depth_frames: [T, H, W], near is black.
    """
    darkest, brightest = int(depth_frames.min()), int(depth_frames.max())
    if darkest == brightest:
        return np.zeros(depth_frames.shape, dtype=np.float32)
    table = (brightest - np.arange(256, dtype=np.float32)) / np.float32(brightest - darkest)
    return table[depth_frames]


def lift_tracks(
    depth_frames: NDArray[np.uint8], points: NDArray[np.floating], visible: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return tracks [T, N, 3]: the 2-D points of a clip with z read from its depth pictures.

    z is sampled (bilinear) where the point is; while a point is hidden or outside the picture it
    keeps its last z, because what the depth shows there is the thing in front of it (spec 6.4).

    Args:
        depth_frames: [T, H, W], near is black, the clip's own 8-bit depth.
        points: [T, N, 2] as (x, y) pixels.
        visible: [T, N].
    """
    num_frames, height, width = depth_frames.shape
    if points.shape[0] != num_frames or visible.shape != points.shape[:2]:
        raise ValueError(
            f"{num_frames} depth frames, points {list(points.shape)} and visibility "
            f"{list(visible.shape)} do not belong together"
        )
    depth = track_depth(depth_frames)
    tracks = np.empty((*points.shape[:2], 3), dtype=np.float32)
    tracks[..., :2] = points
    z = _sample_bilinear(depth[0], points[0])
    tracks[0, :, 2] = z
    for frame_index in range(1, num_frames):
        x, y = points[frame_index, :, 0], points[frame_index, :, 1]
        inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        sampled = _sample_bilinear(depth[frame_index], points[frame_index])
        z = np.where(visible[frame_index] & inside, sampled, z)
        tracks[frame_index, :, 2] = z
    return tracks


def render_track_clip(
    depth_frames: NDArray[np.uint8], points: NDArray[np.floating], visible: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Draw the tracks of one clip, [T, H, W, 3]: `lift_tracks`, then `render_tracks`.

    Args:
        depth_frames: [T, H, W] of the clip, 8 bit, near is black.
        points: [T, N, 2] as (x, y) pixels of the same picture.
        visible: [T, N]; it only decides where z is read, hidden points are painted too.
    """
    height, width = depth_frames.shape[1:]
    return render_tracks(lift_tracks(depth_frames, points, visible), height=height, width=width)


def _point_colors(points: NDArray[np.floating]) -> NDArray[np.uint8]:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        inverse_z = 1 / points[:, 2]
        # An array of float64 percentages makes numpy interpolate in float64 (as recorded).
        low, high = np.percentile(inverse_z, np.array([_LOW_PERCENT, _HIGH_PERCENT]))
        blue = (inverse_z.astype(np.float64) - low) / (high - low)
        red_green = (points[:, :2] - points[:, :2].min(axis=0)) / np.ptp(points[:, :2], axis=0)
        channels = np.column_stack([red_green, blue]).astype(np.float64) * 255
    # cvRound on x86: half to even; what a 32-bit integer cannot hold becomes its minimum, hence 0.
    rounded = np.rint(channels)
    rounded[~(np.abs(rounded) < 2.0**31)] = 0
    return rounded.clip(0, 255).astype(np.uint8)


def _nearest_neighbour_distances(points: NDArray[np.floating]) -> NDArray[np.floating]:
    nearest = np.empty(len(points), dtype=points.dtype)
    rows = max(1, _PAIRS_PER_BLOCK // len(points))
    for start in range(0, len(points), rows):
        block = points[start : start + rows]
        squares = np.square(block[:, None, 0] - points[None, :, 0])
        squares += np.square(block[:, None, 1] - points[None, :, 1])
        squares += np.square(block[:, None, 2] - points[None, :, 2])
        squares[squares == 0] = np.inf
        nearest[start : start + rows] = np.sqrt(squares.min(axis=1))
    if not np.isfinite(nearest).all():
        raise ControlError(
            f"All {len(points)} point tracks start in one place: the boxes have no size."
        )
    return nearest


def _paint_boxes(
    canvas: NDArray[np.uint8],
    points: NDArray[np.floating],
    half_sizes: NDArray[np.float64],
    colors: NDArray[np.uint8],
) -> None:
    height, width = canvas.shape[:2]
    half_width = half_sizes.astype(points.dtype)
    half_height = (half_sizes / 1.5).astype(points.dtype)
    left = np.trunc(points[:, 0] - half_width).clip(-1, width).astype(np.int64)
    right = np.trunc(points[:, 0] + half_width).clip(-1, width).astype(np.int64)
    top = np.trunc(points[:, 1] - half_height).clip(-1, height).astype(np.int64)
    bottom = np.trunc(points[:, 1] + half_height).clip(-1, height).astype(np.int64)
    seen = (right >= 0) & (left < width) & (bottom >= 0) & (top < height)
    # One integer a pixel: filling a box is one scalar assignment, much faster than three bytes.
    packed = (
        colors[:, 0].astype(np.int32)
        | colors[:, 1].astype(np.int32) << 8
        | colors[:, 2].astype(np.int32) << 16
    )
    picture = np.zeros((height, width), dtype="<i4")
    boxes = zip(
        left[seen].clip(0).tolist(),
        (right[seen] + 1).tolist(),
        top[seen].clip(0).tolist(),
        (bottom[seen] + 1).tolist(),
        packed[seen].tolist(),
        strict=True,
    )
    for box_left, box_right, box_top, box_bottom, color in boxes:
        picture[box_top:box_bottom, box_left:box_right] = color
    canvas[...] = picture.view(np.uint8).reshape(height, width, 4)[..., :3]


def _sample_bilinear(
    picture: NDArray[np.float32], points: NDArray[np.floating]
) -> NDArray[np.float32]:
    height, width = picture.shape
    x = points[:, 0].clip(0, width - 1)
    y = points[:, 1].clip(0, height - 1)
    left = np.minimum(np.floor(x).astype(np.int64), max(0, width - 2))
    top = np.minimum(np.floor(y).astype(np.int64), max(0, height - 2))
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    along_x, along_y = (x - left).astype(np.float32), (y - top).astype(np.float32)
    upper = picture[top, left] * (1 - along_x) + picture[top, right] * along_x
    lower = picture[bottom, left] * (1 - along_x) + picture[bottom, right] * along_x
    sampled: NDArray[np.float32] = upper * (1 - along_y) + lower * along_y
    return sampled
