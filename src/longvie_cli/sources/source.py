"""Where the controls of a run come from: video, folder, camera path, flight, or nowhere.

A source is one timeline of frames at the preset's fps. A run plays it from `first_frame` on, once
or back and forth. Looking at a source (its length, its first frame) writes nothing; `prepare` puts
its controls into the run folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from longvie_cli.progress import Progress
from longvie_cli.settings.presets import Fit, Preset, TrackGrid
from longvie_cli.sources.depth_choice import ModelState
from longvie_cli.timeline import ClipSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from longvie_cli.controls.control_folder import ControlLayout
    from longvie_cli.controls.files import ClipControls, ControlClips
    from longvie_cli.controls.normalization import DepthRange

Kind = Literal["video", "controls", "camera", "flight", "none"]


@dataclass(frozen=True)
class PlayedControls:
    """Controls in the order in which a run plays them.

    Args:
        controls: The controls on disk, one timeline.
        first_frame: Frame of the played timeline on which the run's frame 0 falls.
        pingpong: Play the timeline back and forth without end.
        preset: Size wanted.
        fit: How control pictures of another size are brought to it.
    """

    controls: ControlClips
    first_frame: int
    pingpong: bool
    preset: Preset
    fit: Fit

    def read(self, spec: ClipSpec) -> ClipControls:
        """Return the control frames of a clip of the run."""
        import numpy as np

        from longvie_cli.controls.files import ClipControls

        start, count = self.first_frame + spec.first_frame, self.preset.num_frames
        size = (self.preset.height, self.preset.width)
        if spec.ends_scene:
            # The model sees a whole clip at once: nothing of the next scene may be in it.
            shown = spec.skip_frames + spec.added_frames
            found = self.controls.read_range(start, shown, *size, self.fit)
            kept = np.minimum(np.arange(count), shown - 1)
            return ClipControls(found.dense[kept], found.sparse[kept])
        if not self.pingpong:
            return self.controls.read_range(start, count, *size, self.fit)
        order = [pingpong_frame(start + index, self.controls.num_frames) for index in range(count)]
        lowest = min(order)
        found = self.controls.read_range(
            lowest, max(order) - lowest + 1, *size, self.fit, begins=order[0] == lowest
        )
        picked = [frame - lowest for frame in order]
        return ClipControls(found.dense[picked], found.sparse[picked])

    def text(self, spec: ClipSpec) -> str:
        """Return the prompt that came with the controls of a clip, empty if none did."""
        frame = self.first_frame + spec.first_frame + spec.skip_frames
        if self.pingpong:
            frame = pingpong_frame(frame, self.controls.num_frames)
        return self.controls.text_at(frame)


def pingpong_frame(played: int, num_frames: int) -> int:
    """Return the frame of a source that is shown at a frame of its back-and-forth playing.

    The turning frames are shown once: 0 1 2 3 2 1 0 1 ...
    """
    if num_frames == 1:
        return 0
    period = 2 * (num_frames - 1)
    place = played % period
    return min(place, period - place)


class Source(Protocol):
    """A control source, looked at but not prepared."""

    @property
    def kind(self) -> Kind:
        """What it is."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def first_frame(self) -> int:
        """Frame of its timeline on which the run begins."""

    def frames_left(self, wanted: int | None) -> int | None:
        """Return the frames from `first_frame` on, None if there is no end.

        Where more than `wanted` are there for certain, any number above `wanted` will do.
        """

    def facts(self) -> dict[str, Any]:
        """Return what decides its controls, as JSON without absolute paths."""

    def check_models(self) -> None:
        """Do nothing if `models` are all here; loads and writes nothing.

        Raises:
            MissingResourceError: One is not here, or its licence is not accepted.
            MediaError: Ready depth is no readable file.
        """

    def check_length(self, num_frames: int) -> None:
        """Do nothing if what was brought beside it lasts for the frames the run shows of it.

        Raises:
            MediaError: Ready depth is shorter; says by how much.
        """

    def models(self) -> list[ModelState]:
        """Return the models its controls are made with, and whether they are here; none: no line.

        Raises:
            MediaError: Ready depth is no readable file.
        """

    def conversions(self) -> list[str]:
        """Return one line for each thing that happens to it on its way to the model."""

    @property
    def pingpong(self) -> bool:
        """Whether it is played back and forth."""

    def picture(self, frame: int) -> NDArray[np.uint8] | None:
        """Return its own picture, [height, width, 3], of a frame counted from `first_frame`.

        None where it has no picture of this frame.
        """

    def scene_cuts(self, num_frames: int, progress: Progress) -> tuple[int, ...]:
        """Return the frames, counted from `first_frame`, with which scenes begin, ascending.

        Of the next `num_frames`, or where it is played back and forth of all, counted from 0.
        """

    def caption(self, spec: ClipSpec) -> str:
        """Return the prompt it brings for a clip, empty if none."""

    def prepare(self, folder: Path, num_frames: int, progress: Progress) -> PlayedControls | None:
        """Say its conversions, make its controls for `num_frames` frames in a folder, resumably.

        Returns None for a source without controls.
        """


class MadeSource(Source, Protocol):
    """A source whose controls are made, and not brought."""

    def write_controls(
        self,
        folder: Path,
        num_frames: int,
        progress: Progress,
        *,
        text: str = "",
        overwrite: bool = False,
        mend: bool = False,
    ) -> None:
        """Write the controls of `num_frames` frames into a folder, as `prepare` does, resumably.

        Args:
            folder: Made where missing.
            num_frames: Counted from `first_frame`.
            progress: Told of everything.
            text: Prompt of every clip in `cond.json`, in place of those the source brings.
            overwrite: Replace controls in the folder that were made otherwise.
            mend: Make damaged files again, as `make_control_folder`.
        """

    def control_pictures(self, num_frames: int) -> Iterator[NDArray[np.uint8]]:
        """Yield its own pictures at the size of the controls, [height, width, 3], to look at."""


@dataclass(frozen=True)
class NoSource:
    """No controls: the model goes on by itself."""

    first_frame: int = 0
    kind: Kind = field(default="none", init=False)
    name: str = field(default="no controls", init=False)
    pingpong: bool = field(default=False, init=False)

    def frames_left(self, wanted: int | None) -> int | None:
        return None

    def facts(self) -> dict[str, Any]:
        return {}

    def check_models(self) -> None:
        return

    def check_length(self, num_frames: int) -> None:
        return

    def models(self) -> list[ModelState]:
        return []

    def conversions(self) -> list[str]:
        return []

    def picture(self, frame: int) -> NDArray[np.uint8] | None:
        return None

    def scene_cuts(self, num_frames: int, progress: Progress) -> tuple[int, ...]:
        return ()

    def caption(self, spec: ClipSpec) -> str:
        return ""

    def prepare(self, folder: Path, num_frames: int, progress: Progress) -> None:
        return None


def to_model_size(picture: NDArray[np.uint8], preset: Preset) -> NDArray[np.uint8]:
    """Return a picture of the size of the controls as the model sees them, stretched."""
    from longvie_cli.media.frames import resize_frame

    return resize_frame(picture, preset.height, preset.width, "stretch")


def control_layout(
    preset: Preset, depth_range: DepthRange | None = None, cuts: tuple[int, ...] = ()
) -> ControlLayout:
    """Return what control pictures of a preset look like, laid out anew at each cut."""
    from longvie_cli.controls.control_folder import ControlLayout

    height, width = preset.control_size
    return ControlLayout(
        geometry=preset.geometry,
        height=height,
        width=width,
        track_columns=preset.track_grid.columns,
        track_rows=preset.track_grid.rows,
        depth_range=depth_range,
        cuts=cuts,
    )


def with_track_grid(preset: Preset, grid: TrackGrid | None) -> Preset:
    """Return a preset that tracks another grid of points, the preset itself where None."""
    return preset if grid is None else preset.model_copy(update={"track_grid": grid})


def raise_missing(models: Sequence[ModelState]) -> None:
    for model in models:
        if model.missing is not None:
            raise model.missing


def played_facts(source: Source) -> dict[str, Any]:
    return {
        "first_source_frame": source.first_frame,
        "pingpong": source.pingpong,
    }
