"""Controls of what can be rendered: depth and tracks of any frame, exact and without a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longvie_cli.controls.control_folder import ControlLayout
from longvie_cli.controls.depth_store import DEPTH_BATCH_FRAMES, DepthStore
from longvie_cli.controls.tracks import PointTracks


class RenderedControls(ABC):
    """A `ControlSource` of which every frame can be had on its own.

    Args:
        layout: Clips, size, track grid, and the depth range where it is given.
        num_frames: Frames to make controls for, at least 2.
        start_frame: Frame of what is rendered that is frame 0 of the controls.
        text: Prompt of every clip in `cond.json`; what it says of itself where empty.
    """

    steadies = False

    def __init__(
        self, layout: ControlLayout, num_frames: int, *, start_frame: int = 0, text: str = ""
    ) -> None:
        if num_frames < 2:
            raise ValueError(f"controls need at least 2 frames, not {num_frames}")
        self.layout = layout
        self.expected_frames = num_frames
        self._start_frame = start_frame
        self._text = text

    def settings(self) -> dict[str, Any]:
        """Return what decides depth and tracks."""
        own = {"start_frame": self._start_frame, "frames": self.expected_frames}
        return self._made_from() | own

    def pictures(self, frames: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Yield some of the frames, [H, W, 3] RGB."""
        yield from (self._picture_at(self._start_frame + frame) for frame in frames)

    def disparity(self, stored: DepthStore) -> Iterator[NDArray[np.float32]]:
        """Yield the disparity, sky 0, a batch at a time."""
        for start in range(stored.num_frames, self.expected_frames, DEPTH_BATCH_FRAMES):
            end = min(start + DEPTH_BATCH_FRAMES, self.expected_frames)
            yield np.stack(
                [self._disparity_at(self._start_frame + frame) for frame in range(start, end)]
            )

    def steady(self, raw: DepthStore, start_frame: int) -> Iterator[NDArray[np.float32]]:
        """Yield nothing: what is rendered does not flicker."""
        return iter(())

    def track(self, start_frame: int, num_frames: int, points: NDArray[np.float32]) -> PointTracks:
        """Return exact tracks."""
        return self._tracks_at(self._start_frame + start_frame, num_frames, points)

    def text(self, start_frame: int, num_frames: int) -> str:
        """Return what is to be seen in a clip, unless it is told."""
        return self._text or self._caption_at(self._start_frame + start_frame, num_frames)

    @abstractmethod
    def _made_from(self) -> dict[str, Any]:
        """Return what decides depth and tracks besides the frames."""

    @abstractmethod
    def _picture_at(self, frame: int) -> NDArray[np.uint8]:
        """Return the picture [H, W, 3] of a frame."""

    @abstractmethod
    def _disparity_at(self, frame: int) -> NDArray[np.float32]:
        """Return the disparity [H, W] of a frame, larger is nearer."""

    @abstractmethod
    def _tracks_at(self, start: int, num_frames: int, points: NDArray[np.float32]) -> PointTracks:
        """Return where points [N, 2] of frame `start` are from there on."""

    def _caption_at(self, start: int, num_frames: int) -> str:
        """Return what is to be seen, empty if that is not known."""
        return ""
