"""Where the controls of a run come from: video, folder, camera path, flight, or nowhere.

A source is one timeline of frames at the preset's fps. A run plays it from `first_frame` on, once
or back and forth. Looking at a source (its length, its first frame) writes nothing; `prepare` puts
its controls into the run folder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from longvie_cli.progress import Progress
from longvie_cli.settings.presets import Fit, Preset, TrackGrid
from longvie_cli.sources.depth_choice import DepthChoice, ModelState
from longvie_cli.timeline import ClipSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from longvie_cli.controls.control_folder import ControlLayout, ControlSource
    from longvie_cli.controls.files import ClipControls, ControlClips
    from longvie_cli.controls.normalization import DepthRange
    from longvie_cli.media.scenes import SceneChange

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

        start, count = self.first_frame + spec.first_frame, self.preset.num_frames
        size = (self.preset.height, self.preset.width)
        if spec.ends_scene:
            # The model sees a whole clip at once: nothing of the next scene may be in it.
            shown = spec.skip_frames + spec.added_frames
            found = self.controls.read_range(start, shown, *size, self.fit)
            return found.picked(np.minimum(np.arange(count), shown - 1))
        if not self.pingpong:
            return self.controls.read_range(start, count, *size, self.fit)
        order = [pingpong_frame(start + index, self.controls.num_frames) for index in range(count)]
        lowest = min(order)
        found = self.controls.read_range(
            lowest, max(order) - lowest + 1, *size, self.fit, begins=order[0] == lowest
        )
        return found.picked(np.array(order) - lowest)

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


class Source(ABC):
    """A control source: looked at when a job is decided, its controls made when it is carried out.

    Looking writes nothing. What is written here is what a source without files, models, an end,
    cuts or controls does.
    """

    kind: ClassVar[Kind]
    first_frame: int
    """Frame of its timeline on which the run begins."""
    pingpong: bool
    """Whether it is played back and forth."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What messages call it."""

    @property
    def location(self) -> Path | None:
        """The video or the folder of controls, where it is one."""
        return None

    @property
    def depth_choice(self) -> DepthChoice | None:
        """Where its depth comes from, where it is estimated."""
        return None

    @property
    def used_fit(self) -> Fit | None:
        """How it is brought to size; None where nothing is."""
        return None

    def files(self) -> list[tuple[str, Path]]:
        """Return what it reads, each after words that name it."""
        return []

    def frames_left(self, wanted: int | None) -> int | None:
        """Return the frames from `first_frame` on, None if there is no end.

        Where more than `wanted` are there for certain, any number above `wanted` will do.
        """
        return None

    def facts(self) -> dict[str, Any]:
        """Return what decides its controls, as JSON without absolute paths."""
        return {}

    def models(self) -> list[ModelState]:
        """Return the models its controls are made with, and whether they are here; none: no line.

        Raises:
            MediaError: Ready depth is no readable file.
        """
        return []

    def check_models(self) -> None:
        """Do nothing if `models` are all here; loads and writes nothing.

        Raises:
            MissingResourceError: One is not here, or its licence is not accepted.
            MediaError: Ready depth is no readable file.
        """
        for model in self.models():
            if model.missing is not None:
                raise model.missing

    def check_length(self, num_frames: int) -> None:
        """Do nothing if what was brought beside it lasts for the frames the run shows of it.

        Raises:
            MediaError: Ready depth is shorter; says by how much.
        """
        return

    def conversions(self) -> list[str]:
        """Return one line for each thing that happens to it on its way to the model."""
        return []

    def picture(self, frame: int) -> NDArray[np.uint8] | None:
        """Return its own picture, [height, width, 3], of a frame counted from `first_frame`.

        None where it has no picture of this frame.
        """
        return None

    def scene_changes(self, num_frames: int, progress: Progress) -> tuple[SceneChange, ...]:
        """Return where scenes go over into the next, counted from `first_frame`, ascending.

        Of the next `num_frames`, or where it is played back and forth of all, counted from 0.
        """
        return ()

    def caption(self, spec: ClipSpec) -> str:
        """Return the prompt it brings for a clip, empty if none."""
        return ""

    def prepare(self, folder: Path, num_frames: int, progress: Progress) -> PlayedControls | None:
        """Make its controls for `num_frames` frames in a folder, resumably.

        Returns None for a source without controls.
        """
        return None


class MadeSource(Source):
    """A source whose controls are made, and not brought."""

    preset: Preset

    @property
    def _made_from(self) -> int:
        """Frame of its timeline with which the controls begin that are made for a run.

        Played back and forth any part of it may be shown, the part before `first_frame` too.
        """
        return 0 if self.pingpong else self.first_frame

    @abstractmethod
    def controls(self, num_frames: int, text: str, progress: Progress) -> ControlSource:
        """Return what gives depth and tracks of `num_frames` frames from `first_frame` on.

        Args:
            num_frames: Counted from `first_frame`.
            text: Prompt of every clip, in place of those the source brings; empty leaves these.
            progress: Told what looking for it takes.
        """

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
            num_frames: As for `controls`, and so `text`.
            progress: Told of everything.
            text: See there.
            overwrite: Replace controls in the folder that were made otherwise.
            mend: Make damaged files again, as `make_control_folder`.
        """
        from longvie_cli.controls.control_folder import make_control_folder

        source = self.controls(num_frames, text, progress)
        make_control_folder(source, folder, progress=progress, overwrite=overwrite, mend=mend)

    @abstractmethod
    def control_pictures(self, num_frames: int) -> Iterator[NDArray[np.uint8]]:
        """Yield its own pictures at the size of the controls, [height, width, 3], to look at."""

    def prepare(self, folder: Path, num_frames: int, progress: Progress) -> PlayedControls:
        """Make its controls for `num_frames` frames in a folder, resumably."""
        from longvie_cli.controls.files import load_control_clips

        self.write_controls(folder, num_frames, progress, mend=True)
        controls = load_control_clips(folder, self.preset.geometry, progress=progress)
        start = self.first_frame - self._made_from
        return PlayedControls(controls, start, self.pingpong, self.preset, "stretch")


@dataclass(frozen=True)
class NoSource(Source):
    """No controls: the model goes on by itself."""

    kind: ClassVar[Kind] = "none"
    first_frame: int = 0
    pingpong: bool = False

    @property
    def name(self) -> str:
        return "no controls"


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


def played_facts(source: Source) -> dict[str, Any]:
    return {
        "first_source_frame": source.first_frame,
        "pingpong": source.pingpong,
    }
