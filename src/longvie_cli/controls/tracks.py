"""Point trackers: where points of a clip's first frame go. One interface, the embedded tracker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cv2.typing import MatLike

# Points that went from one frame to the next and back may miss their start by this many pixels;
# corners, which speak for the points around them, by half of it.
_MAX_ROUND_TRIP_ERROR = 1.0
_MAX_CORNER_ROUND_TRIP_ERROR = 0.5
# Flat places are left to their neighbours: below this (of OpenCV's own measure, after contrast has
# been evened out) a point has no corner to hold on to, only a gradient to slide along.
_MIN_CORNER = 1e-3
# Grey levels of noise that evening out must not blow up.
_NOISE_LEVELS = 3.0
# Contrast is evened out over this share of the short side. Fog and sky hang on the camera, not on
# the ground: what is smoother than this must not be tracked.
_EVEN_SHARE = 0.25
# A hidden point is seen again when it looks like it last did: correlation of its surroundings.
_MIN_LIKENESS = 0.85
_LIKENESS_RADIUS = 3
# In so many frames the surroundings of what is followed, moved along, hardly change: they
# correlate at least so much, or differ by no more than this in mean grey levels of evened-out
# contrast. Else something has come before it, whose edge would take it along.
_LOOK_FRAMES = 4
_MIN_LIKENESS_KEPT = 0.8
# Those that guide what is lost have hardly changed at all.
_MIN_LIKENESS_SOURCE = 0.9
_MAX_CHANGE = 8.0
# By so much must the surroundings be liker elsewhere (correlation) for a point to go there instead.
_CLEARLY_LIKER = 0.05
# Corners whose motion stands for what is around them, and how good they must be beside the best.
_MAX_CORNERS = 1000
_CORNER_QUALITY = 1e-3
# The motion around a point is an affine map fitted to this many corners.
_NEIGHBOURS = 16
_MIN_CORNERS = 12
# A point whose motion differs by more than this from that of the corners around it, in their own
# spread and in pixels, has slipped.
_GATE_SPREADS = 3.0
_GATE_PIXELS = 0.5
# Standard errors of the two motions that are weighed: that of one pixel of gradient 1 (in grey
# levels), and the least of the neighbourhood's.
_GREY_ERROR = 8.0
_LEAST_SPREAD = 0.05
# Smaller eigenvalue of the gradient's mean outer product, in squared levels, of a flat place.
_FLAT = 4.0
# Distances to corners are held for this many points at a time.
_POINTS_PER_BLOCK = 4096


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
    Besides the points it follows the best corners of each frame, and fits to those around a point,
    robustly, the affine motion of its neighbourhood. A point moves by its own measurement and that
    motion, each weighed by its accuracy along and across the gradient: a point on a slope slides
    along it with its neighbours. A point that fails the check, differs too much from its
    neighbourhood or has left the picture moves with the neighbourhood alone; outside the picture
    that extrapolates, never faster than the fastest corner near by.

    A point whose surroundings suddenly look otherwise, or that failed any of the above, is lost: it
    moves as those of its neighbours in frame 0 do that are still followed, and is not visible until
    its surroundings look again as they last did; then it is followed again. Flat places inside the
    picture, which only go along, stay visible while they keep their look.
    Memory: two grey frames and the distances of a few thousand points to the corners.
    """

    name = "lucas-kanade-2"

    def track(self, frames: NDArray[np.uint8], points: NDArray[np.float32]) -> PointTracks:
        """Return the tracks of `points`, [N, 2] as (x, y) in frame 0, through [T, H, W, 3] RGB."""
        num_frames, height, width = frames.shape[:3]
        places = np.empty((num_frames, len(points), 2), dtype=np.float32)
        visible = np.ones((num_frames, len(points)), dtype=np.bool_)
        places[0] = points
        if len(points) == 0:
            return PointTracks(places, visible)
        before = _even_contrast(frames[0])
        # Where each point was last looked at, since then moved with its neighbours alone.
        anchors, looks = places[0].copy(), _surroundings(before, places[0])
        for index in range(1, num_frames):
            after = _even_contrast(frames[index])
            start, seen = places[index - 1], visible[index - 1]
            step = _step(before, after, start)
            end, tracked, new_looks = step.end, step.tracked, _surroundings(after, step.end)
            likeness = _likeness(looks, new_looks)
            sources = tracked & seen & (likeness >= _MIN_LIKENESS_SOURCE)
            guided = sources.sum() >= _MIN_CORNERS
            if guided:
                # Neighbours of frame 0 are of the same surface; what is around a point now may be
                # the thing that passes before it, whose edge would take it along.
                anchors += _motion_of_neighbours(
                    anchors,
                    start[sources],
                    (end - start)[sources],
                    distances_from=(points, points[sources]),
                )
                carried_looks = _surroundings(after, anchors)
                carried_likeness = _likeness(looks, carried_looks)
                better = ~step.flat & (carried_likeness > likeness + _CLEARLY_LIKER)
                end, new_looks = end.copy(), new_looks.copy()
                end[better], new_looks[better] = anchors[better], carried_looks[better]
                likeness[better] = carried_likeness[better]
                tracked = tracked | (better & seen & (likeness >= _MIN_LIKENESS))
            unchanged = np.abs(new_looks - looks).mean(axis=1) <= _MAX_CHANGE
            tracked &= np.where(
                seen, unchanged | (likeness >= _MIN_LIKENESS_KEPT), likeness >= _MIN_LIKENESS
            )
            found = (tracked | (step.flat & seen & unchanged)) & inside_picture(end, height, width)
            if guided:
                end = np.where(found[:, None], end, anchors)
            else:
                anchors[...] = end
            places[index], visible[index] = end, found
            renewed = found & (~seen | (index % _LOOK_FRAMES == 0))
            anchors[renewed], looks[renewed] = end[renewed], new_looks[renewed]
            before = after
        return PointTracks(places, visible)


def inside_picture(points: NDArray[np.floating], height: int, width: int) -> NDArray[np.bool_]:
    """Return which points [..., 2] as (x, y) lie between the outermost pixel centres."""
    x, y = points[..., 0], points[..., 1]
    inside: NDArray[np.bool_] = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return inside


@dataclass(frozen=True)
class _Step:
    """Where points go from one frame to the next.

    Args:
        end: [N, 2] float32.
        tracked: Whether they were followed, and not only carried along, [N].
        flat: Whether there was nothing to follow, but corners around to go along with, [N].
    """

    end: NDArray[np.float32]
    tracked: NDArray[np.bool_]
    flat: NDArray[np.bool_]


def _step(before: MatLike, after: MatLike, start: NDArray[np.float32]) -> _Step:
    window = _window(before)
    end, tracked = _follow(before, after, start, _MAX_ROUND_TRIP_ERROR)
    corners, moved = _moving_corners(before, after)
    if len(corners) < _MIN_CORNERS:
        # Too few to contradict anything: what was followed stands, the rest goes with its middle.
        sources = end[tracked] - start[tracked] if len(corners) == 0 else moved
        common = np.median(sources, axis=0) if len(sources) else np.zeros(2)
        end[~tracked] = start[~tracked] + common.astype(np.float32)
        return _Step(end, tracked, np.zeros_like(tracked))
    around, spread = _motion_around(start, corners, moved)
    structure = _structure(before, start, window)
    flat = np.linalg.eigvalsh(structure)[:, 0] < _FLAT
    tracked &= _agree(end - start, around, spread)
    # Two estimates of one motion, each with its inverse covariance.
    information = structure / _GREY_ERROR**2
    information[~tracked] = 0
    prior = 1 / (np.square(spread) + _LEAST_SPREAD**2)
    both = information + prior[:, None, None] * np.eye(2)
    pull = np.einsum("nij,nj->ni", information, end - start) + prior[:, None] * around
    end = start + np.linalg.solve(both, pull[..., None])[..., 0].astype(np.float32)
    return _Step(end, tracked, flat & ~tracked)


def _agree(
    motion: NDArray[np.float32], around: NDArray[np.float32], spread: NDArray[np.float32]
) -> NDArray[np.bool_]:
    off = np.linalg.norm(motion - around, axis=1)
    agree: NDArray[np.bool_] = off <= _GATE_SPREADS * spread + _GATE_PIXELS
    return agree


def _moving_corners(
    before: MatLike, after: MatLike
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return corners of a frame [M, 2] and their motion to the next, without those that slipped."""
    import cv2

    distance = max(3.0, min(before.shape[:2]) / 40)
    found = cv2.goodFeaturesToTrack(before, _MAX_CORNERS, _CORNER_QUALITY, distance, blockSize=7)
    if found is None:
        return np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)
    corners = np.asarray(found[:, 0], dtype=np.float32)
    end, tracked = _follow(before, after, corners, _MAX_CORNER_ROUND_TRIP_ERROR)
    corners, moved = corners[tracked], (end - corners)[tracked]
    if len(corners) < _MIN_CORNERS:
        return corners, moved
    agree = _agree(moved, *_motion_around(corners, corners, moved))
    if agree.sum() < _MIN_CORNERS:
        return corners, moved
    return corners[agree], moved[agree]


def _window(picture: MatLike) -> int:
    return 15 if min(picture.shape[:2]) < 240 else 21


def _follow(
    before: MatLike, after: MatLike, start: NDArray[np.float32], max_round_trip_error: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    import cv2

    window = _window(before)
    # The coarsest picture still holds two windows.
    levels = max(1, int(np.log2(min(before.shape[:2]) / (2 * window))))

    def track(first: MatLike, second: MatLike, points: MatLike) -> tuple[MatLike, MatLike]:
        places, found, _ = cv2.calcOpticalFlowPyrLK(
            first,
            second,
            points,
            None,
            winSize=(window, window),
            maxLevel=levels,
            criteria=(cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.01),
            minEigThreshold=_MIN_CORNER,
        )
        return places, found[:, 0] == 1

    there, found = track(before, after, start[:, None])
    back, found_back = track(after, before, there)
    end = there[:, 0].astype(np.float32)
    miss = np.linalg.norm(back[:, 0] - start, axis=1)
    return end, found & found_back & (miss <= max_round_trip_error)


def _even_contrast(frame: NDArray[np.uint8]) -> MatLike:
    """Return the grey values of [H, W, 3] RGB with mean and contrast the same everywhere, uint8."""
    import cv2

    grey = frame.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    side = max(3, round(min(grey.shape) * _EVEN_SHARE))
    window = (side, side)
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


def _structure(picture: MatLike, points: NDArray[np.float32], window: int) -> NDArray[np.float64]:
    """Return the mean outer product of the gradient around points, [N, 2, 2] (levels a pixel)."""
    import cv2

    grey = picture.astype(np.float32)
    gradient_x = cv2.Scharr(grey, cv2.CV_32F, 1, 0) / 32
    gradient_y = cv2.Scharr(grey, cv2.CV_32F, 0, 1) / 32

    def mean(product: MatLike) -> MatLike:
        smooth = cv2.blur(product, (window, window))
        around = cv2.remap(
            smooth, points[:, :1], points[:, 1:], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return around[:, 0]

    xx, yy = mean(gradient_x * gradient_x), mean(gradient_y * gradient_y)
    xy = mean(gradient_x * gradient_y)
    return np.array([[xx, xy], [xy, yy]], dtype=np.float64).transpose(2, 0, 1)


def _motion_around(
    points: NDArray[np.float32], corners: NDArray[np.float32], moved: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the motion [N, 2] that corners suggest for points, and their spread around it [N].

    An affine map fitted to the nearest corners, each weighed by its nearness and, from the second
    round on, by how well it fits itself: a corner of something else that moves has no say.
    """
    motion = np.empty((len(points), 2), dtype=np.float32)
    spread = np.empty(len(points), dtype=np.float32)
    for first in range(0, len(points), _POINTS_PER_BLOCK):
        block = slice(first, first + _POINTS_PER_BLOCK)
        near = _nearest(points[block], corners)
        motion[block], spread[block] = _fit_around(points[block], corners[near], moved[near])
    return motion, spread


def _motion_of_neighbours(
    points: NDArray[np.float32],
    others: NDArray[np.float32],
    moved: NDArray[np.float32],
    *,
    distances_from: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Return the motion [N, 2] of points as `others` have it, neighbours by where all were once."""
    motion = np.empty((len(points), 2), dtype=np.float32)
    then, others_then = distances_from
    for first in range(0, len(points), _POINTS_PER_BLOCK):
        block = slice(first, first + _POINTS_PER_BLOCK)
        near = _nearest(then[block], others_then)
        motion[block], _ = _fit_around(points[block], others[near], moved[near])
    return motion


def _nearest(points: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the indices of the nearest of `others` for each point, [N, _NEIGHBOURS] or fewer."""
    count = min(_NEIGHBOURS, len(others))
    squares = np.square(points[:, :1] - others[None, :, 0])
    squares += np.square(points[:, 1:] - others[None, :, 1])
    return np.argpartition(squares, count - 1, axis=1)[:, :count]


def _fit_around(
    points: NDArray[np.float32], near: NDArray[np.float32], moved: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return motion [N, 2] and spread [N] for points, each with its own corners [N, K, 2]."""
    neighbours, motions = near.astype(np.float64), moved.astype(np.float64)
    distance = np.linalg.norm(neighbours - points[:, None], axis=2)
    reach = distance.mean(axis=1, keepdims=True) + 1e-6
    nearness = 1 / (0.25 + np.square(distance / reach))
    # From the median on, so that a large minority of another motion is out from the start.
    off = np.linalg.norm(motions - np.median(motions, axis=1, keepdims=True), axis=2)
    fit = 1 / (1 + np.square(off / (1.5 * np.median(off, axis=1, keepdims=True) + 0.03)))
    for _ in range(3):
        weight = nearness * fit
        weight /= weight.sum(axis=1, keepdims=True)
        centre = (weight[..., None] * neighbours).sum(axis=1)
        middle = (weight[..., None] * motions).sum(axis=1)
        offset = (neighbours - centre[:, None]) / reach[..., None]
        weighted = weight[..., None] * offset
        # The ridge keeps the map near a plain translation where the neighbours lie on a line.
        normal = np.einsum("nki,nkj->nij", weighted, offset) + 0.1 * np.eye(2)
        slope = np.linalg.solve(
            normal, np.einsum("nki,nkj->nij", weighted, motions - middle[:, None])
        )
        expected = middle[:, None] + np.einsum("nki,nij->nkj", offset, slope)
        misfit = np.linalg.norm(motions - expected, axis=2)
        spread = np.median(misfit, axis=1) + 0.02
        fit = 1 / (1 + np.square(misfit / (1.5 * spread[:, None])))
    around = middle + np.einsum("ni,nij->nj", (points - centre) / reach, slope)
    # Far outside the picture the fit is a guess: never faster than the fastest neighbour.
    fastest = np.abs(motions).max(axis=1)
    return around.clip(-fastest, fastest), spread
