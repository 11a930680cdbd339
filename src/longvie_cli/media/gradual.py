"""Where one scene goes over into another: dissolves, and fades through a picture of one colour.

A dissolve mixes two scenes. Between a picture that is the old scene alone and one that is the new
one alone, the coarse pictures lie on a straight line, evenly spaced, and differ more over the line
than before and after it, where there is only what moves. What tells it from a camera that turns or
a light that changes is the fine detail: of two mixed pictures that have nothing to do with each
other it has only the root of the sum of squares, and so dips, while it goes on evenly where one
picture is moved, brightened or fogged. This holds while both scenes move.

A fade loses its contrast to one colour and comes back as another scene.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longvie_cli.media.frames import Frame

_Floats = NDArray[np.floating]

# Steps of the stretches that are looked at; the dissolve within one may be as short as half of it.
LENGTHS = (7, 9, 11, 13, 17, 21, 25, 33, 41, 49, 65)
# Frames before and after a stretch that say how much its scenes change by themselves.
_CONTEXT = 24
_LEAST_CONTEXT = 10
# Stretches that end in as many frames are judged at a time.
_BLOCK = 32
_HELD = LENGTHS[-1] + 2 * _CONTEXT + _BLOCK
# Pictures looked at between the ends of a stretch.
_SAMPLES = 7
# Cells in which detail and new shapes are seen; larger ones, in which what moves counts less.
_ROWS, _COLUMNS, _CELL = 8, 12, 4
_LARGE_ROWS, _LARGE_COLUMNS = 4, 4

# Found by search on flights of ordinary seeds and on other pictures; see docs/experiments.md.
# Root mean squares of values in [0, 1], and shares of how far the two ends are apart.
_LEAST_DIFFERENCE = 0.063
_MOST_RESIDUE = 0.56
_MOST_CHANGE_OUTSIDE, _MOST_CHANGE_SEEN = 0.66, 0.85
_MOST_DRIFT_OUTSIDE = 0.27
_MOST_BEND = 0.24
_MOST_JUMP = 3.2
# Of the depth to which detail of two unlike pictures dips, and of detail itself.
_LEAST_DIP, _MOST_DIP = 0.45, 1.6
_LEAST_DIP_OVER_RESIDUE = 0.4
_LEAST_DEPTH = 0.1
_LEAST_DETAIL = 0.4
_MOST_KINSHIP = 0.7
# Of the cells, of the difference, and of what the scenes change by themselves.
_LEAST_COVER = 0.4
_LEAST_NEW = 0.15
_LEAST_NEW_OF_CHANGE = 0.45
# Where all else is beyond doubt, nothing has to be new: dusk may go over into noon.
_PLAIN_DIFFERENCE, _PLAIN_COVER = 0.2, 0.6
_PLAIN_CHANGE_OUTSIDE = 0.25
_PLAIN_RESIDUE = 0.17
_PLAIN_DIP, _PLAIN_DEPTH = 0.6, 0.15
_PLAIN_KINSHIP = 0.5

# A picture of one colour: how far its parts are from their mean, in [0, 1].
_BLANK_CONTRAST = 0.006
_NEARLY_BLANK, _NEARLY_BLANK_SHARE = 0.015, 0.1
_LONGEST_RAMP = 64
# Shares of the contrast between which a frame counts as faded.
_FADED = (0.15, 0.85)


@dataclass(frozen=True)
class Window:
    """A stretch that looks like a dissolve.

    Args:
        old: Last frame of the old scene alone.
        new: First frame of the new scene alone.
        fault: How far it is from a perfect one, the less the better.
    """

    old: int
    new: int
    fault: float


class DissolveDetector:
    """Finds dissolves in a stream of small frames, [32, 48, 3]; holds some 150 of them."""

    def __init__(self) -> None:
        self._num_frames = 0
        self._judged = 0  # Windows that end before this frame are judged.
        self._coarse: deque[_Floats] = deque(maxlen=_HELD)
        self._detail: deque[_Floats] = deque(maxlen=_HELD)
        self._open: list[Window] = []

    def add(self, frame: Frame) -> list[Window]:
        """Take the next frame and return the dissolves that it settles."""
        cells = frame.reshape(_ROWS, _CELL, _COLUMNS, _CELL, 3).astype(np.float32) / np.float32(255)
        coarse = cells.mean(axis=(1, 3))
        self._coarse.append(coarse)
        self._detail.append((cells - coarse[:, None, :, None]).mean(axis=-1).transpose(0, 2, 1, 3))
        self._num_frames += 1
        if self._num_frames - self._judged < _BLOCK + _CONTEXT:
            return []
        return self._judge(self._judged + _BLOCK)

    def finish(self) -> list[Window]:
        """Return the dissolves among the last frames."""
        found = self._judge(self._num_frames)
        return [*found, *self._settle()]

    def _judge(self, end: int) -> list[Window]:
        """Judge the windows whose last frame comes before `end`."""
        first = self._num_frames - len(self._coarse)
        pictures = _Pictures(np.stack(self._coarse), np.stack(self._detail))
        found: list[Window] = []
        windows = [
            window
            for steps in LENGTHS
            for window in pictures.windows(steps, self._judged - first, end - first)
        ]
        self._judged = end
        for window in sorted(windows, key=lambda window: window.new):
            moved = Window(window.old + first, window.new + first, window.fault)
            if self._open and moved.old >= max(one.new for one in self._open):
                found += self._settle()
            self._open.append(moved)
        return found

    def _settle(self) -> list[Window]:
        """Return the best of the open windows that do not overlap, in order of time.

        Each is drawn out to all that is found around it: what moves hides its ends.
        """
        kept: list[Window] = []
        for best in sorted(self._open, key=lambda window: window.fault):
            if any(best.old < one.new and one.old < best.new for one in kept):
                continue
            around = [window for window in self._open if _is_same(best, window)]
            old, new = min(one.old for one in around), max(one.new for one in around)
            kept.append(Window(old, new, best.fault))
        self._open = []
        return sorted(kept, key=lambda window: window.old)


def _is_same(one: Window, other: Window) -> bool:
    shared = min(one.new, other.new) - max(one.old, other.old)
    return shared >= 0.6 * min(one.new - one.old, other.new - other.old)


class _Pictures:
    """Held pictures, and the stretches among them that are dissolves.

    Args:
        coarse: [frames, rows, columns, 3] in [0, 1].
        detail: Brightness within each cell less its mean, [frames, rows, columns, 4, 4].
    """

    def __init__(self, coarse: _Floats, detail: _Floats) -> None:
        count, cells = len(coarse), _ROWS * _COLUMNS
        self._coarse = coarse.reshape(count, cells, 3)
        self._detail = detail.reshape(count, cells, _CELL * _CELL)
        self._power = np.square(self._detail).mean(axis=2)
        large = (_ROWS // _LARGE_ROWS, _COLUMNS // _LARGE_COLUMNS)
        self._large = (
            coarse.reshape(count, _LARGE_ROWS, large[0], _LARGE_COLUMNS, large[1], 3)
            .mean(axis=(2, 4))
            .reshape(count, -1)
        )

    def windows(self, steps: int, first_end: int, end: int) -> list[Window]:
        """Return the dissolves of `steps` steps whose last frame lies in [first_end, end)."""
        last = min(end, len(self._coarse) - _LEAST_CONTEXT)
        new = np.arange(max(first_end, steps + _LEAST_CONTEXT), last)
        if not len(new):
            return []
        line = _Line(self._large, new - steps, new)
        fault = line.fault()
        straight = np.isfinite(fault)
        if not straight.any():
            return []
        line, fault = line.only(straight), fault[straight]
        start = _mean_pair(self._coarse, line.old - 1, line.old)
        stop = _mean_pair(self._coarse, line.new, line.new + 1)
        every = np.square(stop - start).mean(axis=2)
        counted = (every > 0.1 * every.mean(axis=1, keepdims=True)) | (every > 0.05**2)
        weights = (counted / np.maximum(counted.sum(axis=1, keepdims=True), 1)).astype(np.float32)
        apart = _over(weights, stop - start)
        change = np.maximum(*(_over(weights, moved) for moved in line.outside(self._coarse)))
        cover = counted.mean(axis=1)
        fits = (cover > _LEAST_COVER) & (change < _MOST_CHANGE_SEEN**2 * apart)
        dip, depth, likeness = self._dip(line, weights)
        residue = line.residue()
        fits &= dip > np.maximum(_LEAST_DIP, _LEAST_DIP_OVER_RESIDUE + residue)
        fits &= (depth > _LEAST_DEPTH) & (likeness < _MOST_KINSHIP)
        new_power = _over(weights, _beside_light(start, stop, weights))
        new = new_power > np.maximum(
            _LEAST_NEW**2 * apart, _LEAST_NEW_OF_CHANGE**2 * (np.sqrt(change) + 0.01) ** 2
        )
        plain = (apart > _PLAIN_DIFFERENCE**2) & (change < _PLAIN_CHANGE_OUTSIDE**2 * apart)
        plain &= (residue < _PLAIN_RESIDUE) & (dip > _PLAIN_DIP) & (depth > _PLAIN_DEPTH)
        plain &= (cover > _PLAIN_COVER) & (likeness < _PLAIN_KINSHIP)
        fits &= new | plain
        return [
            Window(*line.ends(int(place)), float(fault[place])) for place in np.flatnonzero(fits)
        ]

    def _dip(self, line: _Line, weights: _Floats) -> tuple[_Floats, _Floats, _Floats]:
        """Return how detail goes along a line, and whether it is the same at both ends.

        Returns:
            Its dip below an even course, as a share of that of two unlike pictures that are mixed,
            0 where there is hardly any detail left or more than such a mixture explains; the same
            as a share of the detail; and how alike the detail of both ends is, -1 to 1.
        """
        old, new, shares = line.old, line.new, line.shares

        def strength(power: _Floats) -> _Floats:
            return np.asarray(np.sqrt((power * weights).sum(axis=1) + 1e-6))

        before = strength(_mean_pair(self._power, old - 1, old))
        after = strength(_mean_pair(self._power, new, new + 1))
        between = np.stack([strength(self._power[old + k]) for k in line.offsets], axis=1)
        moved = (1 - shares) * before[:, None] + shares * after[:, None]
        mixed = np.hypot((1 - shares) * before[:, None], shares * after[:, None])
        depth = (moved - between).sum(axis=1) / moved.sum(axis=1)
        dip = depth / np.maximum((moved - mixed).sum(axis=1) / moved.sum(axis=1), 0.02)
        least = between.min(axis=1) / np.minimum(before, after)
        root = np.sqrt(weights)[..., None]
        one, other = self._detail[old] * root, self._detail[new] * root
        likeness = (one * other).sum(axis=(1, 2)) / (
            np.sqrt(np.square(one).sum(axis=(1, 2)) * np.square(other).sum(axis=(1, 2))) + 1e-6
        )
        dip[(dip > _MOST_DIP) | (least < _LEAST_DETAIL)] = 0
        return dip, depth, likeness


def _beside_light(start: _Floats, stop: _Floats, weights: _Floats) -> _Floats:
    """Return what is new in second pictures: no other strength or offset of a colour explains it.

    Args:
        start: First pictures, [stretches, cells, 3].
        stop: Second pictures.
        weights: Of the cells, [stretches, cells].
    """
    weights = weights[..., None]
    one = start - (start * weights).sum(axis=1, keepdims=True)
    other = stop - (stop * weights).sum(axis=1, keepdims=True)
    gain = (one * other * weights).sum(axis=1) / ((one * one * weights).sum(axis=1) + 1e-3)
    return np.asarray(other - np.clip(gain, 0, 5)[:, None] * one)


class _Line:
    """Stretches of as many steps, and how pictures go from one end to the other.

    Args:
        pictures: [frames, values].
        old: First frames, [stretches].
        new: Last frames, [stretches].
    """

    def __init__(self, pictures: _Floats, old: NDArray[np.intp], new: NDArray[np.intp]) -> None:
        self.old, self.new = old, new
        self._pictures = pictures
        self._steps = int(new[0] - old[0])
        count = min(self._steps - 1, _SAMPLES)
        places = np.round(np.arange(1, count + 1) * self._steps / (count + 1))
        self.offsets = np.unique(places.astype(np.intp))
        self.shares = (self.offsets / self._steps).astype(np.float32)
        self._start = _mean_pair(pictures, old - 1, old)
        self._step = _mean_pair(pictures, new, new + 1) - self._start
        self._length = np.maximum(_dot(self._step, self._step), 1e-9)

    def only(self, chosen: NDArray[np.bool_]) -> _Line:
        """Return some of the stretches."""
        return _Line(self._pictures, self.old[chosen], self.new[chosen])

    def fault(self) -> _Floats:
        """Return how far each is from a straight and even line between two that stand still.

        Infinite where it is too far.
        """
        moved = [self._pictures[self.old + k] - self._start for k in self.offsets]
        places = np.stack([_dot(one, self._step) / self._length for one in moved], axis=1)
        bend = np.abs(places - self.shares).max(axis=1)
        ends = np.zeros((len(self.old), 1)), np.ones((len(self.old), 1))
        jumps = np.diff(np.concatenate([ends[0], places, ends[1]], axis=1), axis=1)
        residue = self.residue()
        outside = self.outside(self._pictures)
        change = np.maximum(*(_dot(one, one) for one in outside)) / self._length
        drift = np.maximum(*(np.abs(_dot(one, self._step)) for one in outside)) / self._length
        fits = self._length > _LEAST_DIFFERENCE**2 * self._step.shape[1]
        fits &= (residue < _MOST_RESIDUE) & (change < _MOST_CHANGE_OUTSIDE**2)
        fits &= (drift < _MOST_DRIFT_OUTSIDE) & (bend < _MOST_BEND)
        fits &= jumps.max(axis=1) * (len(self.offsets) + 1) < _MOST_JUMP
        return np.where(fits, drift + bend + 0.2 * residue, np.inf)

    def residue(self) -> _Floats:
        """Return what of the pictures lies beside the line; about 1 where they go at random."""
        beside = np.zeros(len(self.old))
        for k, share in zip(self.offsets, self.shares, strict=True):
            rest = self._pictures[self.old + k] - self._start - share * self._step
            beside += _dot(rest, rest)
        left: _Floats = beside / ((self.shares * (1 - self.shares)).sum() * self._length)
        return left

    def outside(self, pictures: _Floats) -> tuple[_Floats, _Floats]:
        """Return how pictures change up to each stretch and after it, in as many steps at most."""
        reach = min(self._steps, _CONTEXT)
        earlier = np.maximum(self.old - reach, 0)
        later = np.minimum(self.new + reach, len(pictures) - 1)
        before, after = pictures[self.old] - pictures[earlier], pictures[later] - pictures[self.new]
        return np.asarray(before), np.asarray(after)

    def ends(self, place: int) -> tuple[int, int]:
        """Return the last frame of the old scene and the first of the new one of a stretch.

        The middle of the line is drawn out to both: a stretch may be longer than its dissolve.
        """
        old, new = int(self.old[place]), int(self.new[place])
        moved = self._pictures[old : new + 1] - self._start[place]
        along = moved @ self._step[place] / self._length[place]
        inner = np.flatnonzero((along > 0.15) & (along < 0.85))
        if len(inner) < 2:
            return old, new
        slope, offset = np.polyfit(inner, along[inner], 1)
        if slope <= 0:
            return old, new
        first, last = round(-offset / slope), round((1 - offset) / slope)
        return max(old, old + first), min(new, old + last)


def _dot(one: _Floats, other: _Floats) -> _Floats:
    return np.asarray(np.einsum("nk,nk->n", one, other))


def _mean_pair(values: _Floats, one: NDArray[np.intp], other: NDArray[np.intp]) -> _Floats:
    last = len(values) - 1
    return np.asarray((values[np.clip(one, 0, last)] + values[np.clip(other, 0, last)]) / 2)


def _over(weights: _Floats, picture: _Floats) -> _Floats:
    """Return the mean square of pictures [stretches, cells, 3] over the weighed cells."""
    return np.asarray((np.square(picture).mean(axis=2) * weights).sum(axis=1))


@dataclass(frozen=True)
class Fade:
    """A fade to one colour and back.

    Args:
        old: Last frame of the old scene alone.
        new: First frame of the new scene alone.
        before: Picture of `old`.
        after: Picture of `new`.
    """

    old: int
    new: int
    before: Frame
    after: Frame


class FadeDetector:
    """Finds stretches of one colour that are gradually come to or left, in a stream of frames."""

    def __init__(self) -> None:
        self._begun = False  # A picture that is not blank has been seen.
        self._num_frames = 0
        self._contrasts: deque[float] = deque(maxlen=_LONGEST_RAMP + 2)
        self._frames: deque[Frame] = deque(maxlen=_LONGEST_RAMP + 2)
        # Last frame before the fade that goes on, and its picture; None: none goes on.
        self._old: tuple[int, Frame] | None = None
        self._gradual = False
        self._rise: list[float] = []  # Contrasts since the last blank picture.
        self._blank = False

    def add(self, frame: Frame) -> list[Fade]:
        """Take the next frame and return the fade that it settles, if any."""
        contrast = _contrast(frame)
        found = self._take(contrast, frame)
        self._contrasts.append(contrast)
        self._frames.append(frame)
        self._num_frames += 1
        return found

    def _take(self, contrast: float, frame: Frame) -> list[Fade]:
        usual = max(self._contrasts, default=0.0)
        blank = contrast < _BLANK_CONTRAST or contrast < min(
            _NEARLY_BLANK, _NEARLY_BLANK_SHARE * usual
        )
        if blank:
            # Nothing is left behind by a video that begins so.
            if self._begun and not self._blank and self._old is None:
                self._begin()
            self._blank, self._rise = True, []
            return []
        self._begun = True
        was_blank, self._blank = self._blank, False
        if self._old is None:
            return []
        if was_blank or self._rises(contrast):
            self._rise.append(contrast)
            return []
        return self._end(frame)

    def _rises(self, contrast: float) -> bool:
        return len(self._rise) < _LONGEST_RAMP and _goes_on(self._rise, contrast)

    def _begin(self) -> None:
        """Go back from the first blank picture to where contrast began to fall."""
        values = list(self._contrasts)
        place = len(values) - 1
        while place > 0 and _goes_on(values[place:][::-1], values[place - 1]):
            place -= 1
        self._gradual = _is_ramp(values[place:])
        self._old = self._num_frames - len(values) + place, self._frames[place]

    def _end(self, frame: Frame) -> list[Fade]:
        assert self._old is not None
        number, picture = self._old
        fade = Fade(number, self._num_frames - 1, picture, self._frames[-1])
        gradual = self._gradual or _is_ramp(self._rise)
        self._old, self._rise = None, []
        return [fade] if gradual else []


def is_blank(frame: Frame) -> bool:
    """Return whether a picture [height, width, 3] shows one colour only, as far as can be seen."""
    return _contrast(frame) < _BLANK_CONTRAST


def _contrast(frame: Frame) -> float:
    """Return how far the parts of a picture are from their mean, root mean square in [0, 1]."""
    height, width = frame.shape[0] // _ROWS, frame.shape[1] // _COLUMNS
    kept = frame[: height * _ROWS, : width * _COLUMNS].astype(np.float64) / 255
    parts = kept.reshape(_ROWS, height, _COLUMNS, width, 3).mean(axis=(1, 3))
    return float(np.sqrt(np.square(parts - parts.mean(axis=(0, 1))).mean()))


def _goes_on(rise: list[float], contrast: float) -> bool:
    """Return whether contrast grows at about the rate at which it has grown so far."""
    usual = (rise[-1] - rise[0]) / max(1, len(rise) - 1)
    return contrast - rise[-1] > max(0.4 * usual, 0.005 * rise[-1])


def _is_ramp(contrasts: list[float]) -> bool:
    low, high = (share * max(contrasts) for share in _FADED)
    return sum(low < value < high for value in contrasts) >= 2
