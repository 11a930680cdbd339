"""A camera path in time: where the camera is at every instant.

Moves start from rest and melt into each other within a second, keyframes are joined by a smooth
curve: position and velocity never jump.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

from longvie_cli.settings.camera_path import BodyAxes, CameraPath, CameraPose, Keyframe, MoveGroup

# Seconds that one move takes to melt into the next, at most; a quarter of the shorter one at most.
_BLEND_SECONDS = 1.0
_STEPS_PER_SECOND = 32


class CameraMotion:
    """The motion of a camera path, from the first frame's point of view."""

    def __init__(self, path: CameraPath) -> None:
        self._keyframes = path.keyframes
        self._moves = None if path.keyframes else _FlownMoves(path.groups)

    def pose(self, seconds: float) -> CameraPose:
        """Returns the pose at a time from the start; past the end, the last one."""
        if seconds < 0:
            raise ValueError(f"a path has no pose {-seconds} s before its start")
        if self._moves is None:
            return _between(self._keyframes, seconds)
        return self._moves.pose(seconds)


class _Ramp(NamedTuple):
    """A weight that rises smoothly from 0 to 1 around a time."""

    middle: float
    half_width: float

    def value(self, seconds: float) -> float:
        place = self._place(seconds)
        return place * place * (3 - 2 * place)

    def integral(self, seconds: float) -> float:
        """Returns the integral of `value` from the beginning."""
        place = self._place(seconds)
        if place >= 1:
            return seconds - self.middle
        return 2 * self.half_width * (place**3 - place**4 / 2)

    def _place(self, seconds: float) -> float:
        return min(1.0, max(0.0, (seconds - self.middle) / (2 * self.half_width) + 0.5))


class _FlownMoves:
    """Body rates that melt into each other, and their integral.

    Angles are exact integrals; so are the distances along each body axis. Positions turn with the
    yaw, so they are summed up in steps of a 32nd of a second (Simpson), in order from the start:
    a pose depends on its time alone.
    """

    def __init__(self, groups: tuple[MoveGroup, ...]) -> None:
        stretches: list[tuple[BodyAxes, float]] = []
        for group in groups:
            stretches.append((_sum_of(group), group.seconds))
        last = groups[-1]
        if last.open_ended:
            total, seconds = stretches[-1]
            if total[4] == 0:
                stretches[-1] = (_scaled(total, 1e6 / seconds), 1e6)
            else:
                going_on = (*total[:4], 0.0)
                stretches.append((_scaled(going_on, 1e6 / seconds), 1e6))
        times = [seconds for _, seconds in stretches]
        longest = _BLEND_SECONDS / 2
        start_ramp = _Ramp(min(longest, times[0] / 4), min(longest, times[0] / 4))
        ramps, begin = [start_ramp], 0.0
        for before, after in itertools.pairwise(times):
            begin += before
            ramps.append(_Ramp(begin, min(longest, before / 4, after / 4)))
        half_width = min(longest, times[-1] / 4)
        ramps.append(_Ramp(begin + times[-1] - half_width, half_width))
        self._ramps = ramps
        self._rates: list[BodyAxes] = []
        for index, (total, seconds) in enumerate(stretches):
            # Starting and stopping take place inside a stretch and would cost it some of its way.
            lost = (ramps[0].half_width if index == 0 else 0.0) + (
                half_width if index == len(stretches) - 1 else 0.0
            )
            self._rates.append(_scaled(total, 1 / (seconds - lost)))
        self._places = [(0.0, 0.0, 0.0)]

    def pose(self, seconds: float) -> CameraPose:
        step = int(seconds * _STEPS_PER_SECOND)
        while len(self._places) <= step:
            self._add_step()
        start = step / _STEPS_PER_SECOND
        right, up, forward = self._advance(self._places[step], start, seconds)
        sums = self._weighted(seconds, _Ramp.integral)
        return CameraPose(right, up, forward, sums[3], sums[4], 0.0)

    def _add_step(self) -> None:
        start = (len(self._places) - 1) / _STEPS_PER_SECOND
        self._places.append(self._advance(self._places[-1], start, start + 1 / _STEPS_PER_SECOND))

    def _advance(
        self, place: tuple[float, float, float], start: float, end: float
    ) -> tuple[float, float, float]:
        first, middle, last = (
            self._velocity(seconds) for seconds in (start, (start + end) / 2, end)
        )
        share = (end - start) / 6
        right, up, forward = (
            value + share * (a + 4 * b + c)
            for value, a, b, c in zip(place, first, middle, last, strict=True)
        )
        return right, up, forward

    def _velocity(self, seconds: float) -> tuple[float, float, float]:
        right, up, forward, _, _ = self._weighted(seconds, _Ramp.value)
        yaw = math.radians(self._weighted(seconds, _Ramp.integral)[3])
        return (
            right * math.cos(yaw) + forward * math.sin(yaw),
            up,
            forward * math.cos(yaw) - right * math.sin(yaw),
        )

    def _weighted(self, seconds: float, of: Callable[[_Ramp, float], float]) -> list[float]:
        rising = [of(ramp, seconds) for ramp in self._ramps]
        weights = [before - after for before, after in itertools.pairwise(rising)]
        return [
            sum(weight * rates[axis] for weight, rates in zip(weights, self._rates, strict=True))
            for axis in range(5)
        ]


def _sum_of(group: MoveGroup) -> BodyAxes:
    right, up, forward, yaw, pitch = (
        sum(move.change[axis] for move in group.moves) for axis in range(5)
    )
    return right, up, forward, yaw, pitch


def _scaled(rates: BodyAxes, factor: float) -> BodyAxes:
    right, up, forward, yaw, pitch = (rate * factor for rate in rates)
    return right, up, forward, yaw, pitch


def _between(frames: tuple[Keyframe, ...], seconds: float) -> CameraPose:
    """Returns a cubic through the keyframes (Hermite, central slopes, at rest at both ends)."""
    if seconds >= frames[-1].seconds:
        return frames[-1].pose
    index = next(i for i, frame in enumerate(frames[1:]) if seconds < frame.seconds)
    first, second = frames[index], frames[index + 1]
    span = second.seconds - first.seconds
    place = (seconds - first.seconds) / span
    square, cube = place**2, place**3
    weights = (
        2 * cube - 3 * square + 1,
        (cube - 2 * square + place) * span,
        3 * square - 2 * cube,
        (cube - square) * span,
    )
    slopes = _slopes(frames, index), _slopes(frames, index + 1)
    values = zip(first.pose, slopes[0], second.pose, slopes[1], strict=True)
    return CameraPose(
        *(sum(w * value for w, value in zip(weights, four, strict=True)) for four in values)
    )


def _slopes(frames: tuple[Keyframe, ...], index: int) -> tuple[float, ...]:
    if index in (0, len(frames) - 1):
        return (0.0,) * 6
    before, after = frames[index - 1], frames[index + 1]
    span = after.seconds - before.seconds
    return tuple((b - a) / span for a, b in zip(before.pose, after.pose, strict=True))
