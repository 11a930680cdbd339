"""Depth that does not flicker: per-frame estimates made steady along the motion of the picture.

An estimator that looks at one frame at a time gives every frame a scale and a shift of its own and
every pixel some noise of its own. Two filters over time, both symmetric and of fixed length, take
them out, after optical flow (OpenCV's DIS, forward and back) has said which pixels of neighbouring
frames show the same thing:

1. Scale and shift. A robust fit gives the map from the depth of each frame to that of the next;
   chained over `GAUGE_RADIUS` frames to both sides, they put frame t into the units of each of its
   neighbours. The mean of these maps is its correction.
2. Pixels. Each pixel becomes the value at t of a line fitted to itself and its `PIXEL_RADIUS`
   successors and predecessors along the flow, as far as they are seen and agree.

Nothing is chained over more than a few frames, so nothing can drift: what changes more slowly
than the window, a camera coming nearer above all, is in every neighbour alike and stays. And a
frame depends on its neighbourhood alone, so a stopped pass can go on anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from longvie_cli.controls.depth_store import DEPTH_BATCH_FRAMES, DepthStore

if TYPE_CHECKING:
    from cv2.typing import MatLike

GAUGE_RADIUS = 12
PIXEL_RADIUS = 3

# Flow and fits are made at this many rows or columns, whichever are fewer.
_SHORT_SIDE = 240
# With less of the picture to be seen in both of two frames, there is a cut between them.
_MIN_SHARED = 0.1
# So do two pictures that are less alike than this (correlation), once one is moved onto the other.
_MIN_LIKENESS = 0.5
_FIT_STEPS = 8
# A fit has to miss by less than this share of what the depth itself varies by.
_MAX_MISS = 0.5
_FIT_MAX_SCALE = 2.0
# Neighbours count less the further they are from the pixel's own depth; at this share of the
# spread of the frame's depth, 1 / e.
_AGREEMENT = 0.12
# How much a slope over time has to be worth, in frames squared, to be believed.
_SLOPE_RIDGE = 0.5

FrameReader = Callable[[int], Iterator[NDArray[np.uint8]]]
"""Yields the frames [H, W, 3] of the video from a frame on."""


@dataclass(frozen=True)
class Gauge:
    """An affine map of depth: `scale * depth + shift`."""

    scale: float = 1.0
    shift: float = 0.0

    def then(self, other: Gauge) -> Gauge:
        """Return the map that does this one first."""
        return Gauge(other.scale * self.scale, other.scale * self.shift + other.shift)

    def inverse(self) -> Gauge:
        """Return the map that undoes this one."""
        return Gauge(1 / self.scale, -self.shift / self.scale)

    def __call__(self, depth: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return depth of any shape, mapped."""
        return depth * np.float32(self.scale) + np.float32(self.shift)


@dataclass(frozen=True)
class _Link:
    """How two successive frames belong together.

    Args:
        ahead: [h, w, 2] where each pixel of the first is in the second, as an offset.
        back: [h, w, 2] where each pixel of the second is in the first.
        seen_ahead: [h, w] 1 where `ahead` is trusted, else 0.
        seen_back: [h, w] 1 where `back` is trusted, else 0.
        gauge: From the depth of the first to that of the second; None across a cut.
    """

    ahead: NDArray[np.float32]
    back: NDArray[np.float32]
    seen_ahead: NDArray[np.float32]
    seen_back: NDArray[np.float32]
    gauge: Gauge | None


class FlowSmoother:
    """Steadies stored depth along the flow of its video; see the module.

    Memory is a few dozen frames, whatever the length. Results do not depend on the number of
    threads, nor on the frame a pass starts from.
    """

    name = "flow-1"

    def smooth(
        self, read_frames: FrameReader, raw: DepthStore, start_frame: int
    ) -> Iterator[NDArray[np.float32]]:
        """Yield the steady depth of the frames from `start_frame` on, in whole batches.

        Args:
            read_frames: Reads the video the depth belongs to, at the size of the depth.
            raw: The estimates of the whole video.
            start_frame: A multiple of `DEPTH_BATCH_FRAMES`.
        """
        window = _Window(read_frames, raw, start_frame)
        for start in range(start_frame, raw.num_frames, DEPTH_BATCH_FRAMES):
            end = min(start + DEPTH_BATCH_FRAMES, raw.num_frames)
            yield np.stack([window.smooth(index) for index in range(start, end)])


class _Window:
    """What is known around the frame at hand; it only moves ahead."""

    def __init__(self, read_frames: FrameReader, raw: DepthStore, start_frame: int) -> None:
        self._raw = raw
        self._num_frames = raw.num_frames
        self._first = max(0, start_frame - GAUGE_RADIUS - PIXEL_RADIUS)
        self._frames = read_frames(self._first)
        self._next_frame = self._first
        self._grey: MatLike | None = None
        self._low: dict[int, NDArray[np.float32]] = {}
        self._links: dict[int, _Link] = {}
        self._gauges: dict[int, Gauge | None] = {}
        self._corrections: dict[int, Gauge] = {}

    def smooth(self, index: int) -> NDArray[np.float32]:
        """Return the steady depth [H, W] of a frame."""
        self._read_to(min(index + GAUGE_RADIUS + PIXEL_RADIUS, self._num_frames - 1))
        own = self._correction(index)(self._raw.read(index, 1)[0].astype(np.float32))
        own_low = self._corrected_low(index)
        change = self._fuse(index, own_low) - own_low
        self._forget(index)
        return own + _resize_to(change, *own.shape)

    def _read_to(self, last: int) -> None:
        while self._next_frame <= last:
            index = self._next_frame
            low = _shrink(self._raw.read(index, 1)[0].astype(np.float32))
            grey = _grey(next(self._frames), *low.shape)
            if self._grey is not None:
                link = _link(self._grey, grey, self._low[index - 1], low)
                self._links[index - 1] = link
                self._gauges[index - 1] = link.gauge
            self._grey, self._low[index] = grey, low
            self._next_frame += 1

    def _correction(self, index: int) -> Gauge:
        if index not in self._corrections:
            self._corrections[index] = self._mean_gauge(index)
        return self._corrections[index]

    def _mean_gauge(self, index: int) -> Gauge:
        """Return the mean of the maps into the units of the neighbours, as many on both sides."""
        scale, shift, total = 1.0, 0.0, 1.0
        before, after = Gauge(), Gauge()
        for distance in range(1, GAUGE_RADIUS + 1):
            to_before = self._gauges.get(index - distance)
            to_after = self._gauges.get(index + distance - 1)
            # Lopsided, the mean would lag behind a camera that comes nearer.
            if to_before is None or to_after is None:
                break
            before, after = before.then(to_before.inverse()), after.then(to_after)
            weight = math.cos(math.pi / 2 * distance / (GAUGE_RADIUS + 1)) ** 2
            scale += weight * (before.scale + after.scale)
            shift += weight * (before.shift + after.shift)
            total += 2 * weight
        return Gauge(scale / total, shift / total)

    def _corrected_low(self, index: int) -> NDArray[np.float32]:
        return self._correction(index)(self._low[index])

    def _fuse(self, index: int, own: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the value at this frame of a line through each pixel and its neighbours."""
        reach = np.float32(_AGREEMENT * float(own.std()) + 1e-12)
        # Sums over the neighbours of weight, weight t, weight t^2, weight y and weight t y, where
        # y is the difference to the pixel's own value; the pixel itself adds 1 to the first.
        sums = [np.ones_like(own), *(np.zeros_like(own) for _ in range(4))]
        for step in (-1, 1):
            offset = np.zeros((*own.shape, 2), dtype=np.float32)
            seen = np.ones_like(own)
            for distance in range(1, PIXEL_RADIUS + 1):
                link = self._links.get(index + step * distance - (step > 0))
                if link is None or link.gauge is None:
                    break
                flow, trusted = (
                    (link.ahead, link.seen_ahead) if step > 0 else (link.back, link.seen_back)
                )
                seen = seen * _warp(trusted, offset)
                offset = offset + _warp(flow, offset)
                value = _warp(self._corrected_low(index + step * distance), offset) - own
                weight = seen * np.exp(-np.square(value / reach))
                weight *= np.float32(1 - distance / (PIXEL_RADIUS + 1) * 0.5)
                time = np.float32(step * distance)
                for place, term in enumerate((1.0, time, time * time, value, time * value)):
                    sums[place] += weight * term
        count, first, second, level, slope = sums
        second = second + np.float32(_SLOPE_RIDGE)
        fitted: NDArray[np.float32] = (second * level - first * slope) / (
            second * count - np.square(first)
        )
        return own + fitted

    def _forget(self, index: int) -> None:
        for place in [k for k in self._links if k < index - PIXEL_RADIUS]:
            del self._links[place]
        for place in [k for k in self._low if k < index - PIXEL_RADIUS]:
            del self._low[place]
        for known in (self._gauges, self._corrections):
            for place in [k for k in known if k < index - PIXEL_RADIUS - GAUGE_RADIUS - 1]:
                del known[place]


def fit_gauge(
    source: NDArray[np.float32], target: NDArray[np.float32], *, max_scale: float = _FIT_MAX_SCALE
) -> Gauge | None:
    """Return the scale and shift that take `source` to `target`, two lists of equal length.

    Reweighted (Cauchy) and symmetric: the scale is the ratio of the spreads (reduced major axis),
    so that noise in either does not pull it to zero, and exchanging the two gives the inverse.
    None where no scale up to `max_scale`, and down to its inverse, brings the two together.
    """
    x, y = source.astype(np.float64), target.astype(np.float64)
    middle_x, middle_y = float(np.median(x)), float(np.median(y))
    spread_x = float(np.median(np.abs(x - middle_x)))
    spread_y = typical_y = float(np.median(np.abs(y - middle_y)))
    level = 1e-6 * max(abs(middle_x), abs(middle_y), 1e-30)
    for _ in range(_FIT_STEPS):
        if min(spread_x, spread_y) <= level:
            # One depth everywhere: only its level can be compared.
            return Gauge(1.0, middle_y - middle_x)
        scale = spread_y / spread_x
        # Divided by the root of the scale, the misses are the same from either side.
        miss = np.abs(scale * (x - middle_x) + middle_y - y) / math.sqrt(scale)
        typical = float(np.median(miss))
        weight = 1 / (1 + np.square(miss / max(2 * typical, 1e-12)))
        weight /= weight.sum()
        middle_x, middle_y = float((weight * x).sum()), float((weight * y).sum())
        spread_x = math.sqrt((weight * np.square(x - middle_x)).sum())
        spread_y = math.sqrt((weight * np.square(y - middle_y)).sum())
    if min(spread_x, spread_y) <= level:
        return Gauge(1.0, middle_y - middle_x)
    scale = spread_y / spread_x
    missed = float(np.median(np.abs(scale * (x - middle_x) + middle_y - y)))
    if not 1 / max_scale <= scale <= max_scale or missed > _MAX_MISS * typical_y:
        return None
    return Gauge(scale, middle_y - scale * middle_x)


def flow_between(
    first: MatLike, second: MatLike
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return flow between two grey pictures [h, w] uint8, both ways, and where each is trusted.

    Returns:
        ahead, back: [h, w, 2] as (x, y) pixels.
        seen_ahead, seen_back: [h, w] 1 where going there and back comes home, else 0.
    """
    import cv2

    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    dis.setFinestScale(0 if min(first.shape) < 200 else 1)
    with _one_thread():
        ahead = np.asarray(dis.calc(first, second, None), dtype=np.float32)
        back = np.asarray(dis.calc(second, first, None), dtype=np.float32)
    return ahead, back, _comes_home(ahead, back), _comes_home(back, ahead)


def _link(
    first_grey: MatLike,
    second_grey: MatLike,
    first_depth: NDArray[np.float32],
    second_depth: NDArray[np.float32],
) -> _Link:
    ahead, back, seen_ahead, seen_back = flow_between(first_grey, second_grey)
    shared = seen_ahead > 0.5
    gauge = None
    alike = _likeness(first_grey, _warp(np.asarray(second_grey, dtype=np.float32), ahead))
    if shared.mean() >= _MIN_SHARED and alike >= _MIN_LIKENESS:
        gauge = fit_gauge(first_depth[shared], _warp(second_depth, ahead)[shared])
    return _Link(ahead, back, seen_ahead, seen_back, gauge)


def _comes_home(there: NDArray[np.float32], back: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = there.shape[:2]
    returned = _warp(back, there)
    miss = np.square(there + returned).sum(axis=-1)
    length = np.square(there).sum(axis=-1) + np.square(returned).sum(axis=-1)
    x = np.arange(width, dtype=np.float32) + there[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + there[..., 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return np.asarray(inside & (miss <= 0.01 * length + 0.5), dtype=np.float32)


def _likeness(first: MatLike, second: NDArray[np.float32]) -> float:
    """Return the correlation of two pictures; 1 where one has no contrast to compare."""
    x, y = np.asarray(first, dtype=np.float32), second
    x, y = x - x.mean(), y - y.mean()
    size = float(np.linalg.norm(x)) * float(np.linalg.norm(y))
    return float((x * y).sum()) / size if size > x.size else 1.0


def _warp(picture: NDArray[np.float32], offset: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return [h, w] or [h, w, 2] read at each pixel plus its offset [h, w, 2], bilinear."""
    import cv2

    height, width = offset.shape[:2]
    x = np.arange(width, dtype=np.float32) + offset[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + offset[..., 1]
    warped = cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, dtype=np.float32)


def _shrink(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = depth.shape
    scale = min(1.0, _SHORT_SIDE / min(height, width))
    return _resize_to(depth, max(1, round(height * scale)), max(1, round(width * scale)))


def _resize_to(picture: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    import cv2

    if picture.shape == (height, width):
        return picture
    smaller = height < picture.shape[0]
    method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (width, height), interpolation=method), dtype=np.float32)


def _grey(frame: NDArray[np.uint8], height: int, width: int) -> MatLike:
    import cv2

    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    if grey.shape == (height, width):
        return grey
    return cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run OpenCV on one thread: DIS cuts the picture into as many stripes as there are threads."""
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
