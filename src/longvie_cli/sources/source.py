"""Where the controls of a run come from: video, folder, camera path, flight, or nowhere.

A source is one timeline of frames at the preset's fps. A run plays it from `first_frame` on, once
or back and forth. Looking at a source (its length, its first frame) writes nothing; `prepare` puts
its controls into the run folder.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from longvie_cli.errors import ControlError, UsageError
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.run_folder.commit import hash_file
from longvie_cli.settings.camera_path import CameraPath
from longvie_cli.settings.presets import Fit, Preset, TrackGrid
from longvie_cli.settings.requests import AtCut, ExtractControlsRequest, GenerateRequest
from longvie_cli.settings.tracking import TrackerChoice
from longvie_cli.timeline import ClipSpec
from longvie_cli.sources.depth_choice import DepthChoice, ModelState

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from longvie_cli.controls.picture_flight import PictureFlight
    from longvie_cli.controls.control_folder import ControlLayout
    from longvie_cli.controls.files import ClipControls, ControlClips
    from longvie_cli.controls.normalization import DepthRange
    from longvie_cli.media.probe import SourceVideo
    from longvie_cli.media.scenes import SceneScan
    from longvie_cli.worlds import Flight

Kind = Literal["video", "controls", "camera", "flight", "none"]

# What a flight, or a video that goes on without controls, lasts if no length is given.
DEFAULT_SECONDS = 10.0
# A container's duration may be this many frames off what its frames give once resampled.
_COUNT_EXACTLY_WITHIN_FRAMES = 3


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
class VideoSource:
    """A video whose depth and tracks are estimated.

    `fit` brings it to the size of the controls; from there to the size of the model everything is
    stretched, the first picture as well, so that controls and picture stay in place.
    """

    path: Path
    preset: Preset
    fit: Fit
    device: str
    pingpong: bool = False
    first_frame: int = 0
    depth_range: DepthRange | None = None
    depth: DepthChoice = field(default_factory=DepthChoice)
    at_cut: AtCut | None = None
    progress: Progress = field(default=SilentProgress(), compare=False)
    tracker: TrackerChoice = field(default_factory=TrackerChoice)
    accept_noncommercial: bool = False
    kind: Kind = field(default="video", init=False)

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def video(self) -> SourceVideo:
        """What the file holds."""
        from longvie_cli.media.probe import probe_video

        return probe_video(self.path)

    @cached_property
    def _exact_frames(self) -> int:
        return self._scan(None, self.progress).num_frames + self._scan_start

    @property
    def _scan_start(self) -> int:
        # Played back and forth, any part of it may be shown, the part before `first_frame` too.
        return 0 if self.pingpong else self.first_frame

    def frames_left(self, wanted: int | None) -> int | None:
        if self.pingpong:
            return None
        roughly = math.floor(self.video.duration_seconds * self.preset.fps) - self.first_frame
        if wanted is not None and wanted < roughly - _COUNT_EXACTLY_WITHIN_FRAMES:
            return roughly
        return max(0, self._exact_frames - self.first_frame)

    def facts(self) -> dict[str, Any]:
        from longvie_cli.sources.tracker_choice import tracker_fact

        return (
            {
                "video": self.name,
                "video_hash": hash_file(self.path),
                "tracker": tracker_fact(self.tracker),
                "track_grid": self.preset.track_grid.label,
            }
            | self.depth.facts(self.preset)
            | _played_facts(self)
        )

    def check_models(self) -> None:
        _raise_missing(self.models())

    def check_length(self, num_frames: int) -> None:
        # Played back and forth, any part of it may be shown.
        shown = self._exact_frames if self.pingpong else self.first_frame + num_frames
        self.depth.check_length(shown, fps=self.preset.fps, needed_by=self.name)

    def models(self) -> list[ModelState]:
        from longvie_cli.sources.tracker_choice import tracker_state

        tracker = tracker_state(self.tracker, accept_noncommercial=self.accept_noncommercial)
        return [self.depth.state(self.preset), tracker]

    def conversions(self) -> list[str]:
        from longvie_cli.controls.extraction import describe_conversion

        return describe_conversion(self.video, control_layout(self.preset), self.fit)

    def picture(self, frame: int) -> NDArray[np.uint8]:
        from longvie_cli.media.reader import read_frames

        frame += self.first_frame
        if self.pingpong:
            frame = pingpong_frame(frame, self._exact_frames)
        height, width = self.preset.control_size
        frames = read_frames(
            self.video,
            fps=self.preset.fps,
            height=height,
            width=width,
            fit=self.fit,
            start_frame=frame,
            num_frames=1,
        )
        return to_model_size(next(iter(frames)), self.preset)

    @cached_property
    def _scans(self) -> dict[int | None, SceneScan]:
        return {}

    def _scan(self, num_frames: int | None, progress: Progress) -> SceneScan:
        """Return what one decoding pass over the frames used finds; decodes them only once."""
        from longvie_cli.media.scenes import SceneScan, scan_scenes

        for scanned in (num_frames, None):
            if scanned in self._scans:
                return self._scans[scanned]
        fps, start = self.preset.fps, self._scan_start
        expected = max(0, round(self.video.duration_seconds * fps) - start)
        stage = "looking for cuts"
        progress.start(stage, expected if num_frames is None else num_frames)
        done = 0
        for found in scan_scenes(self.video, fps=fps, start_frame=start, num_frames=num_frames):
            if isinstance(found, SceneScan):
                self._scans[num_frames] = found
            else:
                progress.advance(stage, found - done)
                done = found
        progress.finish(stage)
        return self._scans[num_frames]

    def scene_cuts(self, num_frames: int, progress: Progress) -> tuple[int, ...]:
        if self.pingpong:
            return self._scan(None, progress).cuts
        return tuple(cut for cut in self._scan(num_frames, progress).cuts if cut < num_frames)

    def caption(self, spec: ClipSpec) -> str:
        return ""

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
        from longvie_cli.controls.extraction import extract_controls
        from longvie_cli.sources.tracker_choice import make_tracker

        extract_controls(
            self.video,
            folder,
            layout=control_layout(
                self.preset,
                self.depth_range,
                self.scene_cuts(num_frames, progress) if self.at_cut == "restart" else (),
            ),
            fit=self.fit,
            depth=self.depth.load(
                self.video,
                preset=self.preset,
                fit=self.fit,
                device=self.device,
                progress=progress,
            ),
            smoothing=self.depth.smoothing_used,
            tracker=make_tracker(
                self.tracker,
                device=self.device,
                accept_noncommercial=self.accept_noncommercial,
                progress=progress,
            ),
            progress=progress,
            start_frame=self._scan_start,
            num_frames=None if self.pingpong else num_frames,
            text=text,
            overwrite=overwrite,
            mend=mend,
        )

    def control_pictures(self, num_frames: int) -> Iterator[NDArray[np.uint8]]:
        from longvie_cli.media.reader import read_frames

        height, width = self.preset.control_size
        return read_frames(
            self.video,
            fps=self.preset.fps,
            height=height,
            width=width,
            fit=self.fit,
            start_frame=self.first_frame,
            num_frames=num_frames,
        )

    def prepare(self, folder: Path, num_frames: int, progress: Progress) -> PlayedControls:
        from longvie_cli.controls.files import load_control_clips

        self.write_controls(folder, num_frames, progress, mend=True)
        controls = load_control_clips(folder, self.preset.geometry, progress=progress)
        start = self.first_frame - self._scan_start
        return PlayedControls(controls, start, self.pingpong, self.preset, "stretch")


@dataclass(frozen=True)
class FolderSource:
    """Controls made before, in the released format."""

    path: Path
    preset: Preset
    fit: Fit
    progress: Progress
    pingpong: bool = False
    first_frame: int = 0
    kind: Kind = field(default="controls", init=False)

    @property
    def name(self) -> str:
        return self.path.absolute().name

    @cached_property
    def _controls(self) -> ControlClips:
        from longvie_cli.controls.files import load_control_clips

        return load_control_clips(self.path, self.preset.geometry, progress=self.progress)

    @cached_property
    def _played(self) -> PlayedControls:
        return PlayedControls(
            self._controls, self.first_frame, self.pingpong, self.preset, self.fit
        )

    def frames_left(self, wanted: int | None) -> int | None:
        return None if self.pingpong else max(0, self._controls.num_frames - self.first_frame)

    def facts(self) -> dict[str, Any]:
        files = [path for clip in self._controls.clips for path in (clip.depth, clip.track)]
        return {
            "controls": self.name,
            "controls_hashes": [hash_file(path) for path in files],
            "controls_pictures": [hash_file(path) for path in self._controls.scene_images],
        } | _played_facts(self)

    def check_models(self) -> None:
        return

    def check_length(self, num_frames: int) -> None:
        return

    def models(self) -> list[ModelState]:
        return []

    def conversions(self) -> list[str]:
        controls, preset = self._controls, self.preset
        if (controls.height, controls.width) == (preset.height, preset.width):
            return []
        return [
            f"{self.name}: control pictures of {controls.width}x{controls.height} are brought to "
            f"{preset.width}x{preset.height} ({self.fit})."
        ]

    def picture(self, frame: int) -> NDArray[np.uint8] | None:
        from longvie_cli.media.reader import read_image

        stored = self._controls.scene_image(self.first_frame + frame)
        if stored is None:
            return None
        size = {"height": self.preset.height, "width": self.preset.width}
        return read_image(stored, **size, fit=self.fit)

    def scene_cuts(self, num_frames: int, progress: Progress) -> tuple[int, ...]:
        if self.pingpong:
            return self._controls.cuts
        cuts = (cut - self.first_frame for cut in self._controls.cuts)
        return tuple(cut for cut in cuts if 0 < cut < num_frames)

    def caption(self, spec: ClipSpec) -> str:
        return self._played.text(spec)

    def prepare(self, folder: Path, num_frames: int, progress: Progress) -> PlayedControls:
        for line in self.conversions():
            progress.message(line)
        return self._played


@dataclass(frozen=True)
class FlightSource:
    """A flight over a landscape drawn from a seed; it has no end."""

    seed: int
    preset: Preset
    first_frame: int = 0
    depth_range: DepthRange | None = None
    kind: Kind = field(default="flight", init=False)
    pingpong: bool = field(default=False, init=False)

    @property
    def name(self) -> str:
        return f"flight {self.seed}"

    @cached_property
    def _flight(self) -> Flight:
        from longvie_cli.worlds import Flight

        height, width = self.preset.control_size
        return Flight(self.seed, width=width, height=height, fps=self.preset.fps)

    def frames_left(self, wanted: int | None) -> int | None:
        return None

    def facts(self) -> dict[str, Any]:
        grid = {"track_grid": self.preset.track_grid.label}
        return {"flight": self.seed} | grid | _played_facts(self)

    def check_models(self) -> None:
        return

    def check_length(self, num_frames: int) -> None:
        return

    def models(self) -> list[ModelState]:
        return []

    def conversions(self) -> list[str]:
        return []

    def picture(self, frame: int) -> NDArray[np.uint8] | None:
        from longvie_cli.media.frames import resize_frame

        picture = self._flight.frame(self.first_frame + frame).rgb
        return resize_frame(picture, self.preset.height, self.preset.width, "stretch")

    def scene_cuts(self, num_frames: int, progress: Progress) -> tuple[int, ...]:
        return ()

    def caption(self, spec: ClipSpec) -> str:
        start = self.first_frame + spec.first_frame
        return self._flight.caption_at(start, self.preset.num_frames)

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
        from longvie_cli.controls.procedural import make_flight_controls

        # A flight has no end, so the last clip too gets controls of its own for every frame.
        geometry = self.preset.geometry
        make_flight_controls(
            self._flight,
            folder,
            layout=control_layout(self.preset, self.depth_range),
            num_frames=geometry.frames_of_clips(geometry.num_clips(num_frames)),
            progress=progress,
            start_frame=self.first_frame,
            text=text,
            overwrite=overwrite,
            mend=mend,
        )

    def control_pictures(self, num_frames: int) -> Iterator[NDArray[np.uint8]]:
        for index in range(self.first_frame, self.first_frame + num_frames):
            yield self._flight.frame(index).rgb

    def prepare(self, folder: Path, num_frames: int, progress: Progress) -> PlayedControls:
        from longvie_cli.controls.files import load_control_clips

        self.write_controls(folder, num_frames, progress, mend=True)
        controls = load_control_clips(folder, self.preset.geometry, progress=progress)
        return PlayedControls(controls, 0, False, self.preset, "stretch")


@dataclass(frozen=True)
class CameraSource:
    """A camera path: through a picture, or over the landscape of a seed where there is none.

    Args:
        camera: The path; without an end, or as long as it says.
        preset: Model and sizes.
        fit: How a picture of another aspect is brought to the size.
        device: Of the depth estimator.
        seed: Of the landscape: all there is, or what goes on beyond the picture.
        image: File of the picture.
        pixels: The picture itself, [height, width, 3] of any size, where there is no file.
        fov: Horizontal field of view of the picture, in degrees.
        greys: Depth picture of the frame it goes on from, [height, width] as controls have it:
            greys go on from there as well as they can.
        depth: Which estimator gives the picture's depth.
        progress: Told of its licence.
    """

    camera: CameraPath
    preset: Preset
    fit: Fit
    device: str
    seed: int
    image: Path | None = None
    pixels: NDArray[np.uint8] | None = None
    fov: float = 55.0
    pingpong: bool = False
    first_frame: int = 0
    depth_range: DepthRange | None = None
    greys: NDArray[np.uint8] | None = None
    depth: DepthChoice = field(default_factory=DepthChoice)
    progress: Progress = field(default=SilentProgress(), compare=False)
    kind: Kind = field(default="camera", init=False)

    @property
    def name(self) -> str:
        where = f"landscape {self.seed}"
        if self.has_picture:
            where = self.image.name if self.image is not None else "the last frame"
        return f"camera through {where}"

    @property
    def has_picture(self) -> bool:
        """Whether it goes through a picture, which is then its first frame."""
        return self.image is not None or self.pixels is not None

    @cached_property
    def _scene_picture(self) -> NDArray[np.uint8]:
        """The picture at the size of the controls, [height, width, 3]."""
        from longvie_cli.media.frames import resize_frame
        from longvie_cli.media.reader import read_image

        height, width = self.preset.control_size
        if self.image is not None:
            return read_image(self.image, height=height, width=width, fit=self.fit)
        assert self.pixels is not None, "only asked where there is a picture"
        return resize_frame(self.pixels, height, width, "stretch")

    @cached_property
    def _through_picture(self) -> PictureFlight:
        from longvie_cli.controls.picture_flight import PictureFlight

        return PictureFlight(
            self._scene_picture,
            self.depth.estimator(self.preset, device=self.device, progress=self.progress),
            self.camera,
            fps=self.preset.fps,
            fov_degrees=self.fov,
            seed=self.seed,
        )

    @cached_property
    def _over_landscape(self) -> Flight:
        from longvie_cli.worlds import Flight

        height, width = self.preset.control_size
        fps = self.preset.fps
        return Flight(self.seed, width=width, height=height, fps=fps, path=self.camera)

    @property
    def _num_frames(self) -> int | None:
        duration = self.camera.duration
        return None if duration is None else max(2, round(duration * self.preset.fps))

    def frames_left(self, wanted: int | None) -> int | None:
        if self.pingpong or self._num_frames is None:
            return None
        return max(0, self._num_frames - self.first_frame)

    def facts(self) -> dict[str, Any]:
        scene: dict[str, Any] = {"landscape": self.seed}
        if self.has_picture:
            digest = hashlib.sha256(self._scene_picture.tobytes()).hexdigest()
            scene |= {"camera_picture": digest[:32], "fov": self.fov}
            scene |= {"depth_model": self.depth.facts(self.preset)["depth_model"]}
        scene |= {"track_grid": self.preset.track_grid.label}
        return {"camera": str(self.camera)} | scene | _played_facts(self)

    def check_models(self) -> None:
        _raise_missing(self.models())

    def check_length(self, num_frames: int) -> None:
        return

    def models(self) -> list[ModelState]:
        return [self.depth.state(self.preset)] if self.has_picture else []

    def conversions(self) -> list[str]:
        if self.image is None:
            return []
        from longvie_cli.controls.extraction import describe_fit
        from longvie_cli.media.reader import image_size

        layout = control_layout(self.preset)
        return describe_fit(self.image.name, *image_size(self.image), layout, self.fit)

    def picture(self, frame: int) -> NDArray[np.uint8] | None:
        if not self.has_picture:
            picture = self._over_landscape.frame(self.first_frame + frame).rgb
        elif self.first_frame + frame == 0:
            picture = self._scene_picture
        else:
            return None
        return to_model_size(picture, self.preset)

    def scene_cuts(self, num_frames: int, progress: Progress) -> tuple[int, ...]:
        return ()

    def caption(self, spec: ClipSpec) -> str:
        if self.has_picture:
            return ""
        start = self.first_frame + spec.first_frame
        return self._over_landscape.caption_at(start, self.preset.num_frames)

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
        from longvie_cli.controls.picture_flight import make_camera_controls, range_to_continue
        from longvie_cli.controls.procedural import make_flight_controls

        for line in self.conversions():
            progress.message(line)
        geometry, start = self.preset.geometry, self._played_from
        if self.pingpong and self._num_frames is not None:
            # Any part may come next, and the turning frame is the path's last.
            reach = self._num_frames
        else:
            # Past its end a path stands still; the last clip has frames of its own all the same.
            reach = geometry.frames_of_clips(geometry.num_clips(num_frames))
        depth_range = self.depth_range
        how: dict[str, Any] = {"num_frames": reach, "progress": progress, "start_frame": start}
        how |= {"text": text, "overwrite": overwrite, "mend": mend}
        if self.has_picture:
            if depth_range is None and self.greys is not None:
                depth_range = range_to_continue(self._through_picture.disparity(start), self.greys)
            layout = control_layout(self.preset, depth_range)
            make_camera_controls(self._through_picture, folder, layout=layout, **how)
        else:
            layout = control_layout(self.preset, depth_range)
            make_flight_controls(self._over_landscape, folder, layout=layout, **how)

    @property
    def _played_from(self) -> int:
        return 0 if self.pingpong else self.first_frame

    def control_pictures(self, num_frames: int) -> Iterator[NDArray[np.uint8]]:
        for index in range(self.first_frame, self.first_frame + num_frames):
            if self.has_picture:
                yield self._through_picture.seen(index)
            else:
                yield self._over_landscape.frame(index).rgb

    def prepare(self, folder: Path, num_frames: int, progress: Progress) -> PlayedControls:
        from longvie_cli.controls.files import load_control_clips

        self.write_controls(folder, num_frames, progress, mend=True)
        controls = load_control_clips(folder, self.preset.geometry, progress=progress)
        start = self.first_frame - self._played_from
        return PlayedControls(controls, start, self.pingpong, self.preset, "stretch")


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


def made_source(
    request: GenerateRequest | ExtractControlsRequest,
    preset: Preset,
    device: str,
    progress: Progress,
    *,
    pingpong: bool = False,
) -> MadeSource:
    """Return the video or the camera path of a request, or else a flight over a landscape."""
    if request.video is not None:
        return VideoSource(
            request.video,
            preset,
            request.fit,
            device,
            pingpong,
            at_cut=request.at_cut,
            progress=progress,
            depth=DepthChoice.of(request),
            tracker=request.tracker or TrackerChoice(),
            accept_noncommercial=request.accept_noncommercial,
        )
    seed = request.seed or 0
    if request.camera is None:
        return FlightSource(seed, preset)
    return CameraSource(
        request.camera,
        preset,
        request.fit,
        device,
        seed,
        image=request.image,
        fov=request.fov,
        pingpong=pingpong,
        depth=DepthChoice.of(request),
        progress=progress,
    )


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


def frames_to_make(
    source: Source,
    wanted: int | None,
    *,
    flag: str,
    fps: int,
    shared_frames: int = 0,
    repeatable: bool = True,
) -> int:
    """Return how many frames the run adds.

    Args:
        source: Where the controls come from.
        wanted: Frames asked for; None for all that the source has.
        flag: The length as the user wrote it.
        fps: Of the preset.
        shared_frames: Frames at the start of the source that the video has already (0 or 1).
        repeatable: Whether the command could play it back and forth, for the hint.

    Raises:
        UsageError: The source is shorter; the message names the longest possible.
        ControlError: Nothing of the source is left.
    """
    available = source.frames_left(None if wanted is None else wanted + shared_frames)
    if available is None:
        return wanted if wanted is not None else round(DEFAULT_SECONDS * fps)
    available -= shared_frames
    if available < 1:
        raise ControlError(
            f"{source.name}: nothing is left of it from frame {source.first_frame} on.",
            hint="Pass --repeat pingpong, or another --video or --controls.",
        )
    if wanted is None:
        return available
    if wanted > available:
        option = flag.split()[0]
        repeat = "or --repeat pingpong, " if repeatable else ""
        raise UsageError(
            f"{flag}: {source.name} has {available} frames ({available / fps:.2f} s at {fps} fps), "
            f"but {wanted} are needed.",
            hint=f"{_longest(option, available, fps)}, {repeat}or a longer source.",
        )
    return wanted


def _longest(option: str, available: int, fps: int) -> str:
    seconds = available / fps
    if option == "--minutes":
        return f"Pass at most --minutes {math.floor(seconds / 60 * 1000) / 1000:g}"
    return f"Pass at most --seconds {math.floor(seconds * 1000) / 1000:g}"


def _raise_missing(models: Sequence[ModelState]) -> None:
    for model in models:
        if model.missing is not None:
            raise model.missing


def _played_facts(source: Source) -> dict[str, Any]:
    return {
        "first_source_frame": source.first_frame,
        "pingpong": source.pingpong,
    }
