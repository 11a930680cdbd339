"""Controls out of a procedural landscape: exact depth and tracks, in the same kind of folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longvie_cli.controls.control_folder import ControlLayout, make_control_folder
from longvie_cli.controls.depth_store import DEPTH_BATCH_FRAMES, DepthStore
from longvie_cli.controls.tracks import PointTracks
from longvie_cli.progress import Progress
from longvie_cli.worlds import Flight


def make_flight_controls(
    flight: Flight,
    folder: Path,
    *,
    layout: ControlLayout,
    num_frames: int,
    progress: Progress,
    start_frame: int = 0,
    text: str = "",
    overwrite: bool = False,
    mend: bool = False,
) -> Path:
    """Return the `cond.json` of a folder with the controls of a flight, captions included.

    Resumable; see `make_control_folder`. `first.png` shows the flight's own look.

    Args:
        flight: At the size and fps of `layout`.
        folder: Made where missing.
        layout: Clips, size, track grid, and the depth range where it is given.
        num_frames: Frames to make controls for, at least 2.
        progress: Told of everything.
        start_frame: Frame of the flight that is frame 0 of the controls.
        text: Prompt of every clip in `cond.json`, in place of the captions.
        overwrite: Replace controls in the folder that were made with other settings.
        mend: Make damaged files again, as `make_control_folder`.
    """
    size = (flight.lens.height, flight.lens.width)
    if size != (layout.height, layout.width) or flight.fps != layout.geometry.fps:
        raise ValueError(
            f"the flight is {size[1]}x{size[0]} at {flight.fps} fps, the layout "
            f"{layout.width}x{layout.height} at {layout.geometry.fps}"
        )
    if num_frames < 2:
        raise ValueError(f"controls need at least 2 frames, not {num_frames}")
    source = _FlightSource(flight, start_frame, num_frames, text)
    return make_control_folder(
        source, folder, layout, overwrite=overwrite, progress=progress, mend=mend
    )


class _FlightSource:
    """A `ControlSource` that asks a flight for what it knows exactly."""

    steadies = False

    def __init__(self, flight: Flight, start_frame: int, num_frames: int, text: str) -> None:
        self.expected_frames = num_frames
        self._text = text
        self._flight = flight
        self._start_frame = start_frame

    def settings(self) -> dict[str, Any]:
        """Return what decides depth and tracks."""
        path = self._flight.given_path
        return ({} if path is None else {"camera": str(path)}) | {
            "flight": self._flight.seed,
            "geometry": dataclasses.asdict(self._flight.geometry),
            "start_frame": self._start_frame,
            "frames": self.expected_frames,
        }

    def pictures(self, frames: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Yield some of the frames, [H, W, 3] RGB."""
        yield from (self._flight.frame(self._start_frame + frame).rgb for frame in frames)

    def disparity(self, stored: DepthStore) -> Iterator[NDArray[np.float32]]:
        """Yield 1 / depth, sky 0, a batch at a time."""
        for start in range(stored.num_frames, self.expected_frames, DEPTH_BATCH_FRAMES):
            end = min(start + DEPTH_BATCH_FRAMES, self.expected_frames)
            yield np.stack(
                [1 / self._flight.depth(self._start_frame + index) for index in range(start, end)]
            )

    def steady(self, raw: DepthStore, start_frame: int) -> Iterator[NDArray[np.float32]]:
        """Yield nothing: exact depth does not flicker."""
        return iter(())

    def track(self, start_frame: int, num_frames: int, points: NDArray[np.float32]) -> PointTracks:
        """Return exact tracks."""
        places, visible = self._flight.tracks(self._start_frame + start_frame, num_frames, points)
        return PointTracks(places, visible)

    def text(self, start_frame: int, num_frames: int) -> str:
        """Return what is to be seen in a clip, unless it is told."""
        return self._text or self._flight.caption_at(self._start_frame + start_frame, num_frames)
