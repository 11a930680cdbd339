"""One normalization of depth for a whole video: the dense control of LongVie.

The released rule (spec 6.1; LongVie, arXiv 2508.03694, global control signal normalization): clip
to the 5th and 95th percentile over every pixel of every frame, then (p95 - x) / (p95 - p5) of the
relative disparity x. Near is 0, black; far is 1, white; a byte is the value times 255, truncated.

`normalize_video_depth` does this to an array. `PercentileSketch` finds the same two percentiles
for a video that does not fit in memory: it counts float16 values, of which there are only 65536,
so the counts are the whole distribution and the result is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longvie_cli.errors import ControlError

LOW_PERCENT = 5.0
HIGH_PERCENT = 95.0

_NUM_FLOAT16 = 1 << 16
_NUM_FINITE_FLOAT16 = 0x7C00


@dataclass(frozen=True)
class DepthRange:
    """The two percentiles that map the disparity of a whole video to [0, 1].

    Args:
        low: 5th percentile of the disparity: everything below is as far as can be, white.
        high: 95th percentile: everything above is as near as can be, black.

    Raises:
        ControlError: `low` is not below `high`, i.e. there is no depth to follow.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high)):
            raise ControlError(f"The depth percentiles {self.low} and {self.high} are not finite.")
        if not self.low < self.high:
            raise ControlError(
                f"The whole video has one depth: percentiles 5 and 95 are both {self.high:g}.",
                hint="Pass a video that shows near and far things.",
            )

    def normalize(self, disparity: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return disparity of any shape mapped to [0, 1] in float64: 0 near, 1 far."""
        clipped = np.clip(disparity.astype(np.float64), self.low, self.high)
        normalized: NDArray[np.float64] = (self.high - clipped) / (self.high - self.low)
        return normalized

    def depth_bytes(self, disparity: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Return disparity of any shape as depth bytes: 0 near (black), 255 far (white)."""
        return depth_bytes(self.normalize(disparity))


def depth_bytes(normalized: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return normalized depth in [0, 1] as bytes: floor(255 d), never rounded (spec 6.1)."""
    return (normalized * 255).astype(np.uint8)


def depth_percentiles(disparity: NDArray[np.floating]) -> DepthRange:
    """Return the 5th and 95th percentile over every value, interpolated as numpy does.

    Raises:
        ControlError: the two are equal.
    """
    # An array of float64 percentages makes numpy interpolate in float64, as recorded.
    low, high = np.percentile(disparity, np.array([LOW_PERCENT, HIGH_PERCENT]))
    return DepthRange(float(low), float(high))


def normalize_video_depth(
    disparity: NDArray[np.floating], *, stride: int = 80
) -> tuple[NDArray[np.float64], DepthRange]:
    """Return the normalized depth of a whole video and its percentiles by the released rule.

    The tail that fills no clip is dropped first: 1 + stride * ((T - 1) // stride) frames are kept
    and counted in the percentiles. `extract_controls` keeps the tail instead.

    Args:
        disparity: [T, H, W], larger is nearer.
        stride: Frames from one clip to the next.
    """
    kept = disparity[: 1 + stride * ((len(disparity) - 1) // stride)]
    depth_range = depth_percentiles(kept)
    return depth_range.normalize(kept), depth_range


class PercentileSketch:
    """Counts float16 disparities; `depth_range` gives their exact 5th and 95th percentile.

    Equal to `depth_percentiles` over the same float16 values taken as float32, in 512 KB.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_NUM_FLOAT16, dtype=np.int64)

    @property
    def num_values(self) -> int:
        """Values counted so far."""
        return int(self._counts.sum())

    def add(self, disparity: NDArray[np.float16]) -> None:
        """Count every value of an array of any shape.

        Raises:
            ControlError: a value is not finite.
        """
        if disparity.dtype != np.float16:
            raise ValueError(f"disparity must be float16, not {disparity.dtype}")
        bits = np.ascontiguousarray(disparity).reshape(-1).view(np.uint16)
        magnitudes = bits & np.uint16(0x7FFF)
        if magnitudes.size and int(magnitudes.max()) >= _NUM_FINITE_FLOAT16:
            bad = int((magnitudes >= _NUM_FINITE_FLOAT16).sum())
            raise ControlError(f"{bad} of {bits.size} depth values are not finite.")
        self._counts += np.bincount(bits, minlength=_NUM_FLOAT16)

    def depth_range(self) -> DepthRange:
        """Return the percentiles of everything counted.

        Raises:
            ControlError: nothing was counted, or the percentiles are equal.
        """
        if self.num_values == 0:
            raise ControlError("There is no depth to normalize: no frame was read.")
        return DepthRange(self._percentile(LOW_PERCENT), self._percentile(HIGH_PERCENT))

    def _percentile(self, percent: float) -> float:
        # Float16 bit patterns in ascending order of value: negative ones backwards, then positive.
        patterns = np.concatenate(
            [
                np.arange(0x8000 + _NUM_FINITE_FLOAT16 - 1, 0x8000 - 1, -1),
                np.arange(_NUM_FINITE_FLOAT16),
            ]
        ).astype(np.uint16)
        values = patterns.view(np.float16).astype(np.float32)
        ends = np.cumsum(self._counts[patterns])
        rank = percent / 100 * (int(ends[-1]) - 1)
        below = int(np.floor(rank))
        above = min(below + 1, int(ends[-1]) - 1)
        low = values[np.searchsorted(ends, below, side="right")]
        high = values[np.searchsorted(ends, above, side="right")]
        fraction = np.float64(rank - below)
        # numpy's own interpolation, from whichever end is closer.
        if fraction >= 0.5:
            return float(high - (high - low) * (1 - fraction))
        return float(low + (high - low) * fraction)
