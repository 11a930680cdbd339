"""How visible the borders between clips are, against what is usual within clips."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longvie_cli.evaluation.scan import VideoScan

VISIBLE_SCORE = 2.5
"""A border with a higher score can be seen."""

# What is added to both sides of a ratio, in levels of 255 and in delta E: where nothing moves, the
# noise of encoding makes no seam.
_FLOORS = (0.25, 0.25, 0.1)
# Seconds, and at least so many pairs of frames, on each side that say what is usual here.
_USUAL_SECONDS, _USUAL_PAIRS = 2.5, 12
# A frame shown twice differs by less than this share of what is usual, where something moves.
_REPEATED_SHARE, _MOVES_LEVELS = 0.2, 0.3
# A step within a clip counts as a jump where its score is higher than this, and where it is this
# many levels and more: below it is no jump but a change of motion.
JUMP_SCORE, _JUMP_LEVELS = 5.0, 4.0
_MOST_JUMPS = 50


@dataclass(frozen=True)
class Step:
    """What happens between a frame and the one before it.

    Args:
        frame: The later frame, the first one of a clip.
        score: How many times as large as the median within the clips around, by that of the three
            measures that stands out most, divided by what that gives within clips: 1.0 is
            invisible.
        difference: Its ratio to the usual one: mean absolute difference of the frames.
        warped: The same after the optical flow is taken out; None where it was not measured.
        colour: Step of the local mean colours, CIELAB.
        repeated: The frame shows the one before once more, though things move.
    """

    frame: int
    score: float
    difference: float
    warped: float | None
    colour: float
    repeated: bool = False


def measure_seams(scan: VideoScan, borders: Sequence[int], fps: float) -> tuple[Step, ...]:
    """Return the visibility of each border.

    Args:
        scan: Of the video.
        borders: First frames of all clips but the first, ascending, within the video.
        fps: Frames a second.
    """
    measures = _measures(scan)
    inside = np.ones(scan.num_frames, np.bool_)
    inside[list(borders)] = False
    inside[0] = False
    steps = []
    for border in borders:
        around = _around(border, scan.num_frames, fps)
        usual = around[inside[around]]
        if len(usual) == 0:
            usual = np.flatnonzero(inside)
        if len(usual) == 0:
            continue
        middle = _medians(measures[usual])
        typical = float(np.median(_largest(measures[usual], middle)))
        steps.append(_step(measures[border], middle, typical, border))
    return tuple(steps)


def find_jumps(scan: VideoScan, borders: Collection[int], fps: float) -> tuple[Step, ...]:
    """Return the steps that stand far out where no clip begins, the worst 50 at most, in order.

    They are cuts, lost frames, or seams of a video whose clips are not known.

    Args:
        scan: Of the video.
        borders: First frames of its clips.
        fps: Frames a second.
    """
    measures = _measures(scan)
    changes = measures[:, 0] - _FLOORS[0]
    padded = np.pad(np.nan_to_num(changes), 1)
    # A jump is more than the steps beside it; that spares most frames of a lively video.
    peaks = (padded[1:-1] >= padded[:-2]) & (padded[1:-1] >= padded[2:])
    candidates = np.flatnonzero(peaks & (changes >= _JUMP_LEVELS))
    known = set(borders)
    found = []
    for frame in candidates.tolist():
        around = _around(frame, scan.num_frames, fps)
        usual = around[(around != frame) & (around > 0) & ~np.isin(around, list(known))]
        if frame in known or len(usual) < 4:
            continue
        middle = _medians(measures[usual])
        typical = float(np.median(_largest(measures[usual], middle)))
        step = _step(measures[frame], middle, typical, frame)
        if step.score > JUMP_SCORE:
            found.append(step)
    worst = sorted(found, key=lambda step: -step.score)[:_MOST_JUMPS]
    return tuple(sorted(worst, key=lambda step: step.frame))


def _measures(scan: VideoScan) -> NDArray[np.float64]:
    """Return the three measures of the step into each frame, with their floors, [frames, 3]."""
    stacked = np.stack([scan.difference, scan.warped, scan.colour_step], axis=1)
    measures: NDArray[np.float64] = stacked.astype(np.float64) + _FLOORS
    return measures


def _around(frame: int, num_frames: int, fps: float) -> NDArray[np.int64]:
    reach = max(_USUAL_PAIRS, round(_USUAL_SECONDS * fps))
    return np.arange(max(1, frame - reach), min(num_frames, frame + reach + 1))


def _medians(measures: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the median of each column; NaN where there is none."""
    return np.array(
        [
            np.median(column[np.isfinite(column)]) if np.isfinite(column).any() else np.nan
            for column in measures.T
        ]
    )


def _largest(measures: NDArray[np.float64], middle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the largest of the three ratios of each row, those that were not measured left out."""
    ratios = measures / middle
    largest: NDArray[np.float64] = np.where(np.isfinite(ratios), ratios, 0.0).max(axis=1)
    return largest


def _step(
    measures: NDArray[np.float64], middle: NDArray[np.float64], typical: float, frame: int
) -> Step:
    ratios = measures / middle
    moves = middle[0] - _FLOORS[0] >= _MOVES_LEVELS
    change = measures[0] - _FLOORS[0]
    return Step(
        frame=frame,
        score=float(_largest(measures[None], middle)[0] / max(typical, 1e-9)),
        difference=float(ratios[0]),
        warped=float(ratios[1]) if np.isfinite(ratios[1]) else None,
        colour=float(ratios[2]),
        repeated=bool(moves and change < _REPEATED_SHARE * (middle[0] - _FLOORS[0])),
    )
