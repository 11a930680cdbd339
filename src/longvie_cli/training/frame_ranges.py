"""Ranges of frames of one video, one after another, for one decoding."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from longvie_cli.media.frames import Frame


class FrameRanges:
    """Reads ranges of frames that go forward, decoding once; the last few are kept for overlaps.

    Args:
        begin: Decodes from a frame on.
        keep: How many frames back a range may begin without decoding anew.
    """

    def __init__(self, begin: Callable[[int], Iterator[Frame]], keep: int) -> None:
        self._begin = begin
        self._frames: Iterator[Frame] | None = None
        self._kept: deque[Frame] = deque(maxlen=keep)
        self._next = 0

    def read(self, first: int, end: int) -> Iterator[Frame]:
        """Yield the frames from `first` to the one before `end`."""
        if self._frames is None or first < self._next - len(self._kept):
            self.close()
            self._frames, self._next = self._begin(first), first
            self._kept.clear()
        frames = self._frames
        assert frames is not None, "just begun"
        yield from list(self._kept)[len(self._kept) - max(0, self._next - first) :]
        while self._next < end:
            try:
                frame = np.array(next(frames))
            except BaseException:
                self._frames = None
                raise
            wanted = self._next >= first
            self._next += 1
            self._kept.append(frame)
            if wanted:
                yield frame

    def close(self) -> None:
        """End the decoding."""
        if self._frames is not None:
            self._frames.close()  # type: ignore[attr-defined]  # a generator of the reader's
            self._frames = None
