"""Camera paths: endless, smooth, safe above the ground, and equal however many frames are asked.

A path is a chain of manoeuvres, each drawn from the seed and its own number. It is integrated once
at a fixed rate in fixed blocks, so the pose of a frame depends on nothing but the seed and time.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from longvie_cli.worlds.fields import PERIOD
from longvie_cli.worlds.seeding import scalar_stream

FloatArray = NDArray[np.float64]

# Poses are integrated at this rate whatever the video's own, so that 24 fps sees the same flight.
PATH_RATE = 16
_BLOCK = 512
# Four seconds: a wall that fills the frame shows a model neither relief nor sky.
_LOOK_AHEAD = 64
_SMOOTHING = 26
_BLEND_SECONDS = 2.0
_START_CLEARANCE = 1.6


class Manoeuvre(NamedTuple):
    """One stretch of flight; rates in degrees and seconds, angles in degrees."""

    phrase: str
    start_seconds: float
    yaw_rate: float
    speed_factor: float
    clearance_factor: float
    gaze: float


class _Kind(NamedTuple):
    """What a manoeuvre is drawn from. Yaw rates above 0 turn right, gaze above 0 looks right."""

    phrase: str
    weight: float
    yaw_rate: tuple[float, float]
    speed_factor: tuple[float, float]
    clearance_factor: float | None = None
    gaze: float = 0.0


_CLIMB = _Kind("climbing", 2.0, (-4.0, 4.0), (0.7, 1.1), clearance_factor=2.6)
_DESCENT = _Kind("descending", 2.0, (-4.0, 4.0), (0.9, 1.4), clearance_factor=0.75)
_REPERTOIRE = (
    _Kind("flying forward", 5.0, (-2.0, 2.0), (0.8, 1.3)),
    _Kind("flying forward fast", 2.0, (-2.0, 2.0), (1.7, 2.4)),
    _Kind("turning left", 3.0, (-18.0, -8.0), (0.7, 1.2)),
    _Kind("turning right", 3.0, (8.0, 18.0), (0.7, 1.2)),
    _CLIMB,
    _DESCENT,
    # Looking into its own circle is what makes a turn an orbit.
    _Kind("orbiting left", 1.5, (-20.0, -12.0), (0.8, 1.2), gaze=-38.0),
    _Kind("orbiting right", 1.5, (12.0, 20.0), (0.8, 1.2), gaze=38.0),
)


@dataclasses.dataclass(frozen=True)
class Pose:
    """Where the camera is and how it is turned.

    Attributes:
        position: (x, y, z) in world units, y up; unbounded, the world repeats.
        rotation: [3, 3], columns are the camera's right, down and forward in world axes.
    """

    position: FloatArray
    rotation: FloatArray


@dataclasses.dataclass(frozen=True)
class Lens:
    """A pinhole camera; pixel centres have whole coordinates, as in CoTracker and OpenCV."""

    width: int
    height: int
    focal: float

    @property
    def center_x(self) -> float:
        return (self.width - 1) / 2

    @property
    def center_y(self) -> float:
        return (self.height - 1) / 2


def random_lens(seed: int, *, width: int, height: int) -> Lens:
    """Draws a horizontal field of view of 50 to 75 degrees."""
    field_of_view = scalar_stream(seed, "lens").uniform(50.0, 75.0)
    return Lens(width, height, width / 2 / math.tan(math.radians(field_of_view) / 2))


class RandomPath:
    """The endless path of one seed over one terrain.

    Args:
        seed: Of the flight.
        corridor: [PERIOD, PERIOD] highest surface around each texel, in units.
        tilt: Downward tilt in radians that puts the horizon where the lens wants it.
    """

    def __init__(self, seed: int, corridor: NDArray[np.float32], tilt: float) -> None:
        draw = scalar_stream(seed, "path")
        self._seed = seed
        self._corridor = corridor
        self._tilt = tilt
        self.clearance = draw.uniform(9.0, 24.0)
        # Faster when higher: image motion stays within a factor of a few.
        self.speed = draw.uniform(0.55, 1.5) * self.clearance * (0.8 + 6.0 / self.clearance)
        self._manoeuvres: list[Manoeuvre] = []
        self._end_seconds = 0.0
        self._heading = draw.uniform(0.0, 2.0 * math.pi)
        self._ground_position = np.array([draw.uniform(0, PERIOD), draw.uniform(0, PERIOD)])
        # Columns: x, z, heading, gaze, yaw rate, clearance.
        self._plan = np.zeros((0, 6))
        # Columns: x, y, z, yaw, pitch, roll.
        self._samples = np.zeros((0, 6))

    def pose(self, seconds: float) -> Pose:
        """Returns the pose at a time from the start."""
        assert seconds >= 0.0, seconds
        place = seconds * PATH_RATE
        first = int(place)
        fraction = place - first
        self._extend(first + 3)
        if fraction == 0.0:
            sample = self._samples[first]
        else:
            around = self._samples[np.clip(np.arange(first - 1, first + 3), 0, None)]
            sample = _catmull_rom(around, fraction)
        return Pose(sample[:3].copy(), rotation(*sample[3:]))

    @property
    def start(self) -> tuple[FloatArray, float, float, float]:
        """Position [3], yaw, pitch and roll at the start, in units and radians."""
        self._extend(1)
        yaw, pitch, roll = (float(angle) for angle in self._samples[0, 3:])
        return self._samples[0, :3].copy(), yaw, pitch, roll

    def phrases(self, start_seconds: float, end_seconds: float) -> list[tuple[str, float]]:
        """Returns the manoeuvres flown in a stretch of time, with the seconds each fills."""
        self._plan_manoeuvres(end_seconds)
        ends = [item.start_seconds for item in self._manoeuvres[1:]] + [self._end_seconds]
        found = []
        for item, end in zip(self._manoeuvres, ends, strict=True):
            seconds = min(end, end_seconds) - max(item.start_seconds, start_seconds)
            if seconds > 0.0:
                found.append((item.phrase, seconds))
        return found

    def _plan_manoeuvres(self, until_seconds: float) -> None:
        weights = [item.weight for item in _REPERTOIRE]
        while self._end_seconds <= until_seconds:
            draw = scalar_stream(self._seed, "manoeuvre", len(self._manoeuvres))
            kind = draw.choices(_REPERTOIRE, weights)[0]
            last = self._manoeuvres[-1].clearance_factor if self._manoeuvres else _START_CLEARANCE
            # A caption that says climbing must see it, so a flight that is high descends instead.
            if kind is _CLIMB and last > 1.9:
                kind = _DESCENT
            elif kind is _DESCENT and last < 1.4:
                kind = _CLIMB
            target = kind.clearance_factor
            if target is None:
                target = last + 0.35 * (1.0 - last)
            self._manoeuvres.append(
                Manoeuvre(
                    kind.phrase,
                    self._end_seconds,
                    draw.uniform(*kind.yaw_rate),
                    draw.uniform(*kind.speed_factor),
                    target * draw.uniform(0.92, 1.15),
                    kind.gaze * draw.uniform(0.6, 1.0),
                )
            )
            self._end_seconds += draw.uniform(4.0, 9.0)

    def _extend(self, num_samples: int) -> None:
        margin = _LOOK_AHEAD + 2 * _SMOOTHING + 2
        while len(self._samples) < num_samples:
            while len(self._plan) < len(self._samples) + _BLOCK + margin:
                self._plan = np.concatenate((self._plan, self._plan_block()))
            self._samples = np.concatenate((self._samples, self._sample_block()))

    def _plan_block(self) -> FloatArray:
        """Integrates heading and position over the next block."""
        seconds = (len(self._plan) + np.arange(_BLOCK)) / PATH_RATE
        self._plan_manoeuvres(float(seconds[-1]) + 1.0)
        starts = np.array([item.start_seconds for item in self._manoeuvres])
        values = np.array([item[2:] for item in self._manoeuvres])
        current = np.searchsorted(starts, seconds, side="right") - 1
        before = np.clip(current - 1, 0, None)
        ramp = np.clip((seconds - starts[current]) / _BLEND_SECONDS, 0.0, 1.0)
        ramp = (ramp * ramp * (3.0 - 2.0 * ramp))[:, None]
        rate, speed, _, gaze = (values[before] * (1 - ramp) + values[current] * ramp).T
        # Height changes over the whole manoeuvre, turns and speed only at its start.
        ends = np.append(starts[1:], self._end_seconds)
        rise = (seconds - starts[current]) / (ends[current] - starts[current])
        rise = rise * rise * (3.0 - 2.0 * rise)
        clearances = np.concatenate(([_START_CLEARANCE], values[:, 2]))
        clearance = clearances[current] * (1.0 - rise) + clearances[current + 1] * rise
        headings = self._heading + np.cumsum(np.radians(rate)) / PATH_RATE
        stride = self.speed * speed / PATH_RATE
        x = self._ground_position[0] + np.cumsum(stride * np.sin(headings))
        # y is up and the axes right-handed, so heading 0 looks along -z.
        z = self._ground_position[1] - np.cumsum(stride * np.cos(headings))
        self._heading = float(headings[-1])
        self._ground_position = np.array([x[-1], z[-1]])
        return np.stack((x, z, headings, np.radians(gaze), np.radians(rate), clearance), axis=1)

    def _sample_block(self) -> FloatArray:
        """Adds height, pitch and roll to the next block of the plan."""
        start = len(self._samples)
        lead = _SMOOTHING + 1
        places = np.arange(start - 2 * lead, start + _BLOCK + _LOOK_AHEAD + 2 * lead).clip(min=0)
        plan = self._plan[places]
        columns = np.floor(plan[:, 0]).astype(np.int64) % PERIOD
        rows = np.floor(plan[:, 1]).astype(np.int64) % PERIOD
        ground = self._corridor[rows, columns].astype(np.float64)
        # A maximum over at least the smoothing kernel's reach, then the kernel: the result is an
        # average of values each no lower than the ground below, so it never dips under it.
        windows = np.lib.stride_tricks.sliding_window_view(ground, lead + _LOOK_AHEAD + 1)
        ceiling = windows.max(axis=1)
        kernel = np.hanning(2 * _SMOOTHING + 3)[1:-1]
        kernel /= kernel.sum()
        smooth = np.lib.stride_tricks.sliding_window_view(ceiling, kernel.size) @ kernel
        count = _BLOCK + 2
        height = smooth[:count]
        # smooth[k] sits at plan index start - 1 + k, see the leads above.
        height = height + self._smooth_clearance(start, count)
        climb = (height[2:] - height[:-2]) * 0.5 * PATH_RATE
        block = self._plan[start : start + _BLOCK]
        rise = np.arctan2(climb, self.speed)
        pitch = -self._tilt + 0.16 * rise
        roll = np.clip(0.35 * block[:, 4], -0.11, 0.11)
        yaw = block[:, 2] + block[:, 3]
        return np.stack((block[:, 0], height[1:-1], block[:, 1], yaw, pitch, roll), axis=1)

    def _smooth_clearance(self, start: int, count: int) -> FloatArray:
        places = np.clip(np.arange(start - 1, start - 1 + count), 0, None)
        clearance: FloatArray = self.clearance * self._plan[places, 5]
        return clearance


def _catmull_rom(points: FloatArray, fraction: float) -> FloatArray:
    before, first, second, after = points
    tangent, next_tangent = (second - before) / 2, (after - first) / 2
    square, cube = fraction**2, fraction**3
    point: FloatArray = (
        (2 * cube - 3 * square + 1) * first
        + (cube - 2 * square + fraction) * tangent
        + (3 * square - 2 * cube) * second
        + (cube - square) * next_tangent
    )
    return point


def rotation(yaw: float, pitch: float, roll: float) -> FloatArray:
    """Returns [3, 3] with the camera's right, down and forward as columns; angles in radians."""
    sin_yaw, cos_yaw = math.sin(yaw), math.cos(yaw)
    sin_pitch, cos_pitch = math.sin(pitch), math.cos(pitch)
    forward = np.array([sin_yaw * cos_pitch, sin_pitch, -cos_yaw * cos_pitch])
    right = np.array([cos_yaw, 0.0, sin_yaw])
    down = np.cross(forward, right)
    sin_roll, cos_roll = math.sin(roll), math.cos(roll)
    return np.stack(
        (cos_roll * right + sin_roll * down, cos_roll * down - sin_roll * right, forward), axis=1
    )
