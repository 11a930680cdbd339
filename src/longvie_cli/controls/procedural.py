"""Controls out of a procedural landscape: exact depth and tracks, captions included."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longvie_cli.controls.control_folder import ControlLayout
from longvie_cli.controls.rendered import RenderedControls
from longvie_cli.controls.tracks import PointTracks
from longvie_cli.worlds import Flight


class FlightControls(RenderedControls):
    """Controls of a flight; its pictures show the flight's own look.

    Args:
        flight: At the size and fps of `layout`.
        layout: This and what follows as for `RenderedControls`.
    """

    def __init__(
        self,
        flight: Flight,
        layout: ControlLayout,
        num_frames: int,
        *,
        start_frame: int = 0,
        text: str = "",
    ) -> None:
        super().__init__(layout, num_frames, start_frame=start_frame, text=text)
        size = (flight.lens.height, flight.lens.width)
        if size != (layout.height, layout.width) or flight.fps != layout.geometry.fps:
            raise ValueError(
                f"the flight is {size[1]}x{size[0]} at {flight.fps} fps, the layout "
                f"{layout.width}x{layout.height} at {layout.geometry.fps}"
            )
        self._flight = flight

    def _made_from(self) -> dict[str, Any]:
        path = self._flight.given_path
        return ({} if path is None else {"camera": str(path)}) | {
            "flight": self._flight.seed,
            "geometry": dataclasses.asdict(self._flight.geometry),
        }

    def _picture_at(self, frame: int) -> NDArray[np.uint8]:
        return self._flight.frame(frame).rgb

    def _disparity_at(self, frame: int) -> NDArray[np.float32]:
        return np.float32(1) / self._flight.depth(frame)

    def _tracks_at(self, start: int, num_frames: int, points: NDArray[np.float32]) -> PointTracks:
        return PointTracks(*self._flight.tracks(start, num_frames, points))

    def _caption_at(self, start: int, num_frames: int) -> str:
        return self._flight.caption_at(start, num_frames)
