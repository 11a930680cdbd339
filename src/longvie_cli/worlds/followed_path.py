"""A camera path given from outside, flown over a world and lifted over what stands in its way.

The lift is computed from the path around a time alone, so every pose can be had on its own.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from longvie_cli.settings.camera_path import CameraPath, CameraPose
from longvie_cli.worlds.camera import PATH_RATE, FloatArray, Pose, rotation
from longvie_cli.worlds.camera_motion import CameraMotion
from longvie_cli.worlds.fields import PERIOD

# The lift begins this much before it is needed and is smoothed over as much again.
_LOOK_AHEAD_SECONDS = 1.5
_LEVEL_SECONDS = 3.0
_BLOCK = 256


Floor = Callable[[FloatArray, FloatArray], FloatArray]
"""Heights [n] to stay above, at world positions x and z [n]."""


@dataclasses.dataclass(frozen=True)
class PeriodicFloor:
    """The floor of a periodic terrain; `corridor` is [PERIOD, PERIOD]."""

    corridor: NDArray[np.float32]

    def __call__(self, x: FloatArray, z: FloatArray) -> FloatArray:
        columns, rows = (np.floor(axis).astype(np.int64) % PERIOD for axis in (x, z))
        heights: FloatArray = self.corridor[rows, columns].astype(np.float64)
        return heights


class FollowedPath:
    """A given path in world units.

    Args:
        path: In its own units, from the first frame's point of view.
        position: [3] world position of the first frame; the pose at 0 s is never lifted.
        yaw: Heading of the first frame, in radians.
        pitch: Of the first frame, in radians; the path's own is added to it.
        roll: Of the first frame, in radians; levelled out within the first seconds.
        unit: World units in one unit of the path.
        floor: Gives the heights to stay above.
        margin: How far above, in world units.
    """

    def __init__(
        self,
        path: CameraPath,
        *,
        position: FloatArray,
        yaw: float,
        pitch: float,
        roll: float = 0.0,
        unit: float,
        floor: Floor,
        margin: float,
    ) -> None:
        self._path, self._motion = path, CameraMotion(path)
        self._position, self._yaw, self._pitch = position, yaw, pitch
        self._roll = roll
        self._unit, self._floor, self._margin = unit, floor, margin
        # Lift at every tick of PATH_RATE, by block.
        self._lifts: dict[int, FloatArray] = {}

    def pose(self, seconds: float) -> Pose:
        """Returns the pose at a time from the start."""
        given = self._motion.pose(seconds)
        position = self._place(given)
        position[1] += self._lift(seconds)
        return Pose(
            position,
            rotation(
                self._yaw + math.radians(given.yaw),
                self._pitch + math.radians(given.pitch),
                math.radians(given.roll) + self._roll * (1 - _ease(seconds / _LEVEL_SECONDS)),
            ),
        )

    def phrases(self, start_seconds: float, end_seconds: float) -> list[tuple[str, float]]:
        """Returns what the path says the camera does."""
        return self._path.phrases(start_seconds, end_seconds)

    def _place(self, given: CameraPose) -> FloatArray:
        sin, cos = math.sin(self._yaw), math.cos(self._yaw)
        across = given.right * cos + given.forward * sin
        along = given.right * sin - given.forward * cos
        return self._position + self._unit * np.array([across, given.up, along])

    def _lift(self, seconds: float) -> float:
        tick = int(seconds * PATH_RATE)
        fraction = seconds * PATH_RATE - tick
        before, first, second, after = (self._lift_at(tick + step) for step in (-1, 0, 1, 2))
        # A cubic B-spline: an average of lifts, smooth to the second derivative.
        weights = (
            (1 - fraction) ** 3,
            3 * fraction**3 - 6 * fraction**2 + 4,
            -3 * fraction**3 + 3 * fraction**2 + 3 * fraction + 1,
            fraction**3,
        )
        lifts = (before, first, second, after)
        lift = sum(w * value for w, value in zip(weights, lifts, strict=True)) / 6
        # The first frame is what it is, whatever comes towards it.
        return lift * _ease(seconds / _LOOK_AHEAD_SECONDS)

    def _lift_at(self, tick: int) -> float:
        block, place = divmod(max(0, tick), _BLOCK)
        if block not in self._lifts:
            self._lifts[block] = self._lift_block(block)
        return float(self._lifts[block][place])

    def _lift_block(self, block: int) -> FloatArray:
        reach = round(_LOOK_AHEAD_SECONDS * PATH_RATE)
        # One more tick each way for the spline.
        ticks = np.arange(block * _BLOCK - 2 * reach - 1, (block + 1) * _BLOCK + 2 * reach + 1)
        places = np.array(
            [self._place(self._motion.pose(max(0, int(tick)) / PATH_RATE)) for tick in ticks]
        )
        lowest = self._floor(places[:, 0], places[:, 2]) + self._margin
        needed = np.maximum(lowest - places[:, 1], 0.0)
        # A maximum over the kernel's reach, then the kernel: no average falls below what is needed.
        windows = np.lib.stride_tricks.sliding_window_view(needed, 2 * reach + 3)
        ceiling = windows.max(axis=1)
        kernel = np.hanning(2 * reach + 3)[1:-1]
        kernel /= kernel.sum()
        smooth = np.lib.stride_tricks.sliding_window_view(ceiling, kernel.size) @ kernel
        lift: FloatArray = smooth[:_BLOCK]
        return lift


def _ease(place: float) -> float:
    """Returns 0 at 0 and 1 from 1 on, smooth between."""
    place = min(1.0, place)
    return place * place * (3 - 2 * place)
