"""How much moves, how that changes, and where the picture stands still."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longvie_cli.evaluation.drift import first_and_last
from longvie_cli.media.frames import Frame

# A picture stands still while its mean absolute difference from the first one of the stretch stays
# below so many levels of 255, and that of every cell of 8 x 8 small pixels: what encoding a still
# picture again and again changes is less, and what moves slowly adds up to more.
STILL_LEVELS, STILL_CELL_LEVELS = 0.5, 2.5
# Where a key frame shows the same picture anew it may step by so much.
_RENEWED_TIMES = 3.0
_CELL = 8
# Shorter rests are a matter of frame rates: films on twos, 24 frames shown as 30.
FREEZE_SECONDS, _FREEZE_FRAMES = 0.3, 5


@dataclass(frozen=True)
class Freeze:
    """A stretch in which the picture stands still.

    Args:
        first_frame: The first frame that shows the picture.
        frames: Frames that show it.
    """

    first_frame: int
    frames: int

    @property
    def end(self) -> int:
        """The frame after the last one."""
        return self.first_frame + self.frames


class FreezeFinder:
    """Finds freezes in a stream of small frames; keeps two of them.

    Args:
        fps: Frames a second.
    """

    def __init__(self, fps: float) -> None:
        self._least = max(_FREEZE_FRAMES, round(FREEZE_SECONDS * fps))
        self._anchor: Frame | None = None
        self._start = self._count = 0
        self._found: list[Freeze] = []
        # The picture of the freeze that ended with the frame before `_start`, if one did.
        self._last_picture: Frame | None = None

    def add(self, frame: Frame) -> None:
        """Take the next frame, [height, width, 3]."""
        if self._anchor is None:
            self._anchor = frame
        elif not _is_still(self._anchor, frame, 1.0):
            self._close()
            self._anchor, self._start = frame, self._count
        self._count += 1

    def finish(self) -> tuple[Freeze, ...]:
        """Return the freezes, ascending."""
        self._close()
        return tuple(self._found)

    def _close(self) -> None:
        frames = self._count - self._start
        if self._anchor is None or frames < self._least:
            self._last_picture = None
            return
        before = self._last_picture
        if before is not None and _is_still(before, self._anchor, _RENEWED_TIMES):
            earlier = self._found.pop()
            self._found.append(Freeze(earlier.first_frame, earlier.frames + frames))
        else:
            self._found.append(Freeze(self._start, frames))
        self._last_picture = self._anchor


def _is_still(one: Frame, other: Frame, times: float) -> bool:
    import cv2

    difference = cv2.absdiff(one, other)
    if difference.mean() >= STILL_LEVELS * times:
        return False
    rows, columns = (max(1, size // _CELL) for size in difference.shape[:2])
    cells = cv2.resize(difference.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    return bool(cells.mean(axis=2).max() < STILL_CELL_LEVELS * times)


@dataclass(frozen=True)
class Motion:
    """How much moves.

    Args:
        mean: Mean length of the optical flow, pixels of the video a frame.
        last_over_first: Its mean over the last 15 % of the frames over that of the first 15 %;
            None where nothing moves in the first.
        freezes: Where the picture stands still.
    """

    mean: float
    last_over_first: float | None
    freezes: tuple[Freeze, ...]


# Pixels a frame below which nothing is said to move.
_NOTHING_MOVES = 0.01


def measure_motion(flow: NDArray[np.float32], freezes: Sequence[Freeze]) -> Motion | None:
    """Return how much moves in a video, None where it was never measured.

    Args:
        flow: Mean length of the flow into each frame, NaN where it was not measured.
        freezes: As found by `FreezeFinder`.
    """
    if not np.isfinite(flow).any():
        return None
    first, last = (part[np.isfinite(part)] for part in first_and_last(flow))
    ratio = None
    if len(first) and len(last) and first.mean() > _NOTHING_MOVES:
        ratio = float(last.mean() / first.mean())
    return Motion(float(np.nanmean(flow)), ratio, tuple(freezes))
