"""Point trackers: where points of a clip's first frame go. One interface, the embedded tracker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cv2.typing import MatLike

# Points that went from one frame to the next and back may miss their start by this many pixels.
_MAX_ROUND_TRIP_ERROR = 1.0
# Flat places are left to their neighbours: below this (of OpenCV's own measure, after contrast has
# been evened out) a point has no corner to hold on to, only a gradient to slide along.
_MIN_CORNER = 1e-3
# Grey levels of noise that evening out must not blow up.
_NOISE_LEVELS = 3.0
# A hidden point is seen again when it looks like it last did: correlation of its surroundings.
_MIN_LIKENESS = 0.85
_LIKENESS_RADIUS = 3
# A point that is lost moves as an affine map fitted to this many tracked points around it would.
_NEIGHBOURS = 12


@dataclass(frozen=True)
class PointTracks:
    """Tracks of one clip.

    Args:
        points: [T, N, 2] float32 as (x, y) pixels; also given, as a guess, while a point is hidden,
            and outside the picture.
        visible: [T, N] bool.
    """

    points: NDArray[np.float32]
    visible: NDArray[np.bool_]


class PointTracker(Protocol):
    """Follows points through one clip."""

    @property
    def name(self) -> str:
        """What makes the tracks, written beside them; other numbers have another name."""

    def track(self, frames: NDArray[np.uint8], points: NDArray[np.float32]) -> PointTracks:
        """Return the tracks of `points`, [N, 2] as (x, y) in frame 0, through [T, H, W, 3] RGB."""


class LucasKanadeTracker:
    """Pyramidal Lucas-Kanade of OpenCV with a forward-backward check. No weights, any size.

    It looks at grey values whose contrast has been evened out, so that fog and night have corners.
    A point that fails the check, or has left the picture, is carried by the motion of the tracked
    points around it and is not visible until its surroundings look again as they last did.
    """

    name = "lucas-kanade-1"

    def track(self, frames: NDArray[np.uint8], points: NDArray[np.float32]) -> PointTracks:
        """Return the tracks of `points`, [N, 2] as (x, y) in frame 0, through [T, H, W, 3] RGB."""
        num_frames, height, width = frames.shape[:3]
        places = np.empty((num_frames, len(points), 2), dtype=np.float32)
        visible = np.ones((num_frames, len(points)), dtype=np.bool_)
        places[0] = points
        before = _even_contrast(frames[0])
        looks = _surroundings(before, places[0])
        for index in range(1, num_frames):
            after = _even_contrast(frames[index])
            start = places[index - 1]
            end, tracked = _follow(before, after, start)
            x, y = end[:, 0], end[:, 1]
            tracked &= (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
            new_looks = _surroundings(after, end)
            returning = tracked & ~visible[index - 1]
            tracked[returning] = _likeness(looks[returning], new_looks[returning]) >= _MIN_LIKENESS
            lost = ~tracked
            end[lost] = start[lost] + _motion_around(start[lost], start[tracked], end[tracked])
            looks[tracked] = new_looks[tracked]
            places[index], visible[index] = end, tracked
            before = after
        return PointTracks(places, visible)


def _follow(
    before: MatLike, after: MatLike, start: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    import cv2

    short_side = min(before.shape[:2])
    window = 15 if short_side < 240 else 21

    def track(first: MatLike, second: MatLike, points: MatLike) -> tuple[MatLike, MatLike]:
        places, found, _ = cv2.calcOpticalFlowPyrLK(
            first,
            second,
            points,
            None,
            winSize=(window, window),
            # The coarsest picture still holds two windows.
            maxLevel=max(1, int(np.log2(short_side / (2 * window)))),
            criteria=(cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.01),
            minEigThreshold=_MIN_CORNER,
        )
        return places, found[:, 0] == 1

    there, found = track(before, after, start[:, None])
    back, found_back = track(after, before, there)
    end = there[:, 0].astype(np.float32)
    miss = np.linalg.norm(back[:, 0] - start, axis=1)
    return end, found & found_back & (miss <= _MAX_ROUND_TRIP_ERROR)


def _even_contrast(frame: NDArray[np.uint8]) -> MatLike:
    """Return the grey values of [H, W, 3] RGB with mean and contrast the same everywhere, uint8."""
    import cv2

    grey = frame.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    window = (min(grey.shape) * 2 // 5, min(grey.shape) * 2 // 5)
    offset = grey - cv2.blur(grey, window)
    contrast = np.sqrt(cv2.blur(np.square(offset), window)) + _NOISE_LEVELS
    return np.clip(128 + 50 * offset / contrast, 0, 255).astype(np.uint8)


def _surroundings(picture: MatLike, points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the grey values around points, [N, (2 radius + 1) ** 2]."""
    import cv2

    offsets = np.arange(-_LIKENESS_RADIUS, _LIKENESS_RADIUS + 1, dtype=np.float32)
    offset_y, offset_x = (grid.reshape(-1) for grid in np.meshgrid(offsets, offsets, indexing="ij"))
    map_x = points[:, :1] + offset_x
    map_y = points[:, 1:] + offset_y
    values = cv2.remap(picture, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(values, dtype=np.float32)


def _likeness(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    first = first - first.mean(axis=1, keepdims=True)
    second = second - second.mean(axis=1, keepdims=True)
    scale = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    likeness: NDArray[np.float32] = (first * second).sum(axis=1) / np.maximum(scale, 1e-6)
    return likeness


def _motion_around(
    points: NDArray[np.float32], tracked_from: NDArray[np.float32], tracked_to: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the motion [M, 2] that tracked points suggest for `points`, [M, 2].

    An affine map fitted to the nearest tracked points, each weighted by its nearness; with too few
    of them, their median motion; with none, no motion.
    """
    if len(points) == 0 or len(tracked_from) == 0:
        return np.zeros_like(points)
    motion = tracked_to - tracked_from
    if len(tracked_from) < _NEIGHBOURS:
        return np.broadcast_to(np.median(motion, axis=0), points.shape).astype(np.float32)
    squares = np.square(points[:, None] - tracked_from[None]).sum(axis=2)
    near = np.argpartition(squares, _NEIGHBOURS - 1, axis=1)[:, :_NEIGHBOURS]
    distance = np.sqrt(np.take_along_axis(squares, near, axis=1))
    reach = distance.mean(axis=1, keepdims=True) + 1e-6
    weight = 1 / (0.25 + np.square(distance / reach))
    weight /= weight.sum(axis=1, keepdims=True)
    neighbours, moved = tracked_from[near], motion[near]
    centre = (weight[..., None] * neighbours).sum(axis=1)
    middle = (weight[..., None] * moved).sum(axis=1)
    offset = (neighbours - centre[:, None]) / reach[..., None]
    weighted = weight[..., None] * offset
    # The ridge keeps the map near a plain translation where the neighbours lie on a line.
    normal = np.einsum("mki,mkj->mij", weighted, offset) + 0.1 * np.eye(2)
    slope = np.linalg.solve(normal, np.einsum("mki,mkj->mij", weighted, moved - middle[:, None]))
    around: NDArray[np.float32] = middle + np.einsum("mi,mij->mj", (points - centre) / reach, slope)
    # Far outside the picture the fit is a guess: never faster than the fastest neighbour.
    fastest = np.abs(moved).max(axis=1)
    return np.asarray(around.clip(-fastest, fastest), dtype=np.float32)
