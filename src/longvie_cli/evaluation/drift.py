"""How a quantity of the pictures changes from the beginning of a video to its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PART = 0.15
"""The share of the frames at each end that is compared."""

# Of more values the means of so many equal stretches are taken: the slope looks at all pairs.
_MOST_VALUES = 512
_FEWEST_FRAMES = 8


@dataclass(frozen=True)
class Drift:
    """How a quantity changes over a video.

    Args:
        start: Mean over the first 15 % of the frames.
        end: Mean over the last 15 %.
        change: `end` over `start`, less 1; None where `start` is too near to 0 for a ratio. Of
            colour the CIELAB distance between the two.
        slope_per_minute: Theil-Sen: the median slope over all pairs of frames. Of colour the length
            of the three channels' slopes.
    """

    start: float
    end: float
    change: float | None
    slope_per_minute: float


def first_and_last(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the first and the last 15 % of values, [frames, ...], at least one of each."""
    count = max(1, round(PART * len(values)))
    return values[:count], values[-count:]


def measure_drift(
    times: NDArray[np.floating], values: NDArray[np.floating], *, least: float
) -> Drift | None:
    """Return the drift of a quantity, None of fewer than 8 frames.

    Args:
        times: Seconds, [frames], ascending.
        values: [frames]; those that are not finite do not count.
        least: A `start` below this is taken for nothing, to which no change is relative.
    """
    usable = np.isfinite(values)
    times, values = times[usable], values[usable].astype(np.float64)
    if len(values) < _FEWEST_FRAMES or times[-1] <= times[0]:
        return None
    start, end = (float(part.mean()) for part in first_and_last(values))
    change = end / start - 1 if start >= least else None
    return Drift(start, end, change, 60 * theil_sen_slope(times, values))


def measure_colour_drift(
    times: NDArray[np.floating], lab: NDArray[np.floating]
) -> tuple[Drift, NDArray[np.float64]] | None:
    """Return the drift of the mean colour and each frame's distance from the colour it starts with.

    `start` and `end` are means of these distances (CIELAB delta E, 1976): how far frames of the
    first 15 % are from their own mean, and those of the last 15 %.

    Args:
        times: Seconds, [frames], ascending.
        lab: CIELAB, [frames, 3].
    """
    if len(lab) < _FEWEST_FRAMES or times[-1] <= times[0]:
        return None
    lab = lab.astype(np.float64)
    first, last = (part.mean(axis=0) for part in first_and_last(lab))
    distances: NDArray[np.float64] = np.linalg.norm(lab - first, axis=1)
    start, end = (float(part.mean()) for part in first_and_last(distances))
    slope = np.linalg.norm([theil_sen_slope(times, channel) for channel in lab.T])
    return Drift(start, end, float(np.linalg.norm(last - first)), 60 * float(slope)), distances


def theil_sen_slope(times: NDArray[np.floating], values: NDArray[np.floating]) -> float:
    """Return the median of the slopes between all pairs (Theil 1950, Sen 1968).

    Up to 29 % of the values may be anything. Of more than 512 values the means of 512 equal
    stretches are taken.
    """
    if len(values) > _MOST_VALUES:
        edges = np.linspace(0, len(values), _MOST_VALUES + 1).astype(int)
        counts = np.diff(edges)
        times = np.add.reduceat(times, edges[:-1]) / counts
        values = np.add.reduceat(values, edges[:-1]) / counts
    one, other = np.triu_indices(len(values), 1)
    apart = times[other] - times[one]
    steps = (values[other] - values[one])[apart > 0]
    return float(np.median(steps / apart[apart > 0]))
