"""A flight over a procedural landscape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from longvie_cli.progress import Progress
from longvie_cli.settings.presets import Preset
from longvie_cli.sources.source import Kind, MadeSource, control_layout, played_facts
from longvie_cli.timeline import ClipSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from longvie_cli.controls.control_folder import ControlSource
    from longvie_cli.controls.normalization import DepthRange
    from longvie_cli.worlds import Flight


@dataclass(frozen=True)
class FlightSource(MadeSource):
    """A flight over a landscape drawn from a seed; it has no end."""

    seed: int
    preset: Preset
    first_frame: int = 0
    depth_range: DepthRange | None = None
    pingpong: bool = field(default=False, init=False)
    kind: ClassVar[Kind] = "flight"

    @property
    def name(self) -> str:
        return f"flight {self.seed}"

    @cached_property
    def _flight(self) -> Flight:
        from longvie_cli.worlds import Flight

        height, width = self.preset.control_size
        return Flight(self.seed, width=width, height=height, fps=self.preset.fps)

    def facts(self) -> dict[str, Any]:
        grid = {"track_grid": self.preset.track_grid.label}
        return {"flight": self.seed} | grid | played_facts(self)

    def picture(self, frame: int) -> NDArray[np.uint8] | None:
        from longvie_cli.media.frames import resize_frame

        picture = self._flight.frame(self.first_frame + frame).rgb
        return resize_frame(picture, self.preset.height, self.preset.width, "stretch")

    def caption(self, spec: ClipSpec) -> str:
        start = self.first_frame + spec.first_frame
        return self._flight.caption_at(start, self.preset.num_frames)

    def controls(self, num_frames: int, text: str, progress: Progress) -> ControlSource:
        from longvie_cli.controls.procedural import FlightControls

        # A flight has no end, so the last clip too gets controls of its own for every frame.
        geometry = self.preset.geometry
        return FlightControls(
            self._flight,
            control_layout(self.preset, self.depth_range),
            geometry.frames_of_clips(geometry.num_clips(num_frames)),
            start_frame=self.first_frame,
            text=text,
        )

    def control_pictures(self, num_frames: int) -> Iterator[NDArray[np.uint8]]:
        for index in range(self.first_frame, self.first_frame + num_frames):
            yield self._flight.frame(index).rgb
