"""What an extended video goes on with: a new source, the rest of its own, or nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from longvie_cli.disk.hashing import hash_file
from longvie_cli.errors import ControlError, UsageError
from longvie_cli.planning.earlier import Earlier
from longvie_cli.planning.job import Start
from longvie_cli.progress import Progress
from longvie_cli.settings.camera_path import parse_camera_path
from longvie_cli.settings.presets import Fit, Preset, load_preset, with_size
from longvie_cli.settings.requests import ExtendRequest, flags_of
from longvie_cli.settings.sampling import Sampling
from longvie_cli.settings.tracking import TrackerChoice, parse_tracker
from longvie_cli.sources.camera import CameraSource
from longvie_cli.sources.depth_choice import DepthChoice
from longvie_cli.sources.flight import FlightSource
from longvie_cli.sources.folder import FolderSource
from longvie_cli.sources.source import NoSource, Source
from longvie_cli.sources.video import VideoSource


def source_to_go_on_with(
    asked: ExtendRequest,
    earlier: Earlier,
    preset: Preset,
    fit: Fit,
    sampling: Sampling,
    start: Start,
    progress: Progress,
    notes: list[str],
) -> Source:
    """Return what the video goes on with: a new source, the rest of its own, or nothing.

    Args:
        asked: The request.
        earlier: The video it continues.
        preset: Model and sizes.
        fit: How pictures of the earlier video's source are brought to size.
        sampling: Device and seed.
        start: The last frames, through which a new camera path goes.
        progress: Told of what a source is looked through for.
        notes: Gets what is dropped or guessed.

    Raises:
        UsageError: Something was asked of a source that there is not.
        ControlError: The earlier video's source is gone or has changed.
    """
    find = _Finding(asked, earlier, preset, fit, sampling, progress, notes)
    if asked.camera is not None:
        source: Source = find.new_camera(start)
    elif asked.video is not None:
        source = find.video(
            asked.video, asked.fit or preset.source_fit, depth=find.depth(own_source=False)
        )
    elif asked.controls is not None:
        source = FolderSource(
            asked.controls, preset, asked.fit or preset.fit, progress, find.asks_pingpong
        )
    else:
        source = find.rest()
    find.say_what_does_nothing(source)
    return source


class _Finding:
    """Finds the source of one `extend`; the arguments are those of `source_to_go_on_with`."""

    def __init__(
        self,
        asked: ExtendRequest,
        earlier: Earlier,
        preset: Preset,
        fit: Fit,
        sampling: Sampling,
        progress: Progress,
        notes: list[str],
    ) -> None:
        self._asked = asked
        self._earlier = earlier
        self._preset = preset
        self._fit = fit
        self._sampling = sampling
        self._progress = progress
        self._notes = notes
        self.asks_pingpong = asked.repeat == "pingpong"

    def video(
        self,
        path: Path,
        fit: Fit,
        *,
        depth: DepthChoice,
        pingpong: bool | None = None,
        first_frame: int = 0,
    ) -> VideoSource:
        """Return a video as source: a new one, or what is left of the earlier one's."""
        same_scale = first_frame > 0 and self._depth_stays(depth)
        return VideoSource(
            path,
            self._preset,
            fit,
            self._sampling.device,
            self.asks_pingpong if pingpong is None else pingpong,
            first_frame,
            self._earlier.depth_range() if same_scale else None,
            depth,
            self._asked.at_cut,
            self._progress,
            tracker=self._tracker(),
            accept_noncommercial=self._asked.accept_noncommercial,
        )

    def rest(self) -> Source:
        """Return what is left of the earlier video's source; nothing where nothing is."""
        name = self._earlier.name
        source = self._rest()
        if source is None:
            if self._asked.repeat is not None:
                raise UsageError("--repeat: there is no --video or --controls to repeat.")
            self._notes.append(f"{name}: goes on without controls.")
            return NoSource()
        if (left := source.frames_left(2)) is not None and left < 2:
            self._notes.append(
                f"{name}: nothing is left of {source.name}; goes on without controls."
            )
            return NoSource()
        return source

    def _rest(self) -> Source | None:
        earlier, preset = self._earlier, self._preset
        kind, settings = earlier.about.source_kind, earlier.settings
        place = earlier.about.last_source_frame
        pingpong = self.asks_pingpong or bool(settings.pingpong)
        if kind == "flight":
            assert settings.flight is not None, "checked where the settings were read"
            return FlightSource(settings.flight, preset, place, earlier.depth_range())
        if kind == "camera":
            return self._rest_of_camera(place, pingpong)
        if earlier.source_path is None or kind not in ("video", "controls"):
            return None
        path = earlier.source_path
        if not path.exists():
            raise ControlError(
                f"{path}: the source of {earlier.name} is no longer there.",
                hint="Pass it, or another one, with --video or --controls.",
            )
        if kind == "controls":
            folder = FolderSource(path, preset, self._fit, self._progress, pingpong, place)
            made_from = list(settings.controls_hashes or ())
            # Clips may have been added since.
            if folder.facts()["controls_hashes"][: len(made_from)] != made_from:
                raise ControlError(
                    f"{path}: these controls have changed since {earlier.name} was made from them.",
                    hint="Pass --controls to begin with them anew.",
                )
            return folder
        if hash_file(path) != settings.video_hash:
            raise ControlError(
                f"{path}: this file has changed since {earlier.name} was made from it.",
                hint="Pass --video to begin with it anew.",
            )
        depth = self.depth(own_source=True)
        if depth.video is not None and not depth.video.exists():
            raise ControlError(
                f"{depth.video}: the depth of {path.name} is no longer there.",
                hint="Put it back, or pass --video to begin with it anew.",
            )
        return self.video(path, self._fit, depth=depth, pingpong=pingpong, first_frame=place)

    def new_camera(self, start: Start) -> CameraSource:
        """Return a new path through the last frame, whose greys stay where it had some."""
        asked = self._asked
        assert asked.camera is not None and start.history is not None, "asked for a --camera"
        return CameraSource(
            asked.camera,
            self._preset,
            self._fit,
            self._sampling.device,
            self._sampling.seed,
            pixels=start.history[-1],
            fov=asked.fov or self._earlier.settings.fov or 55.0,
            pingpong=self.asks_pingpong,
            greys=self._earlier.last_greys(self._preset),
            depth=self.depth(own_source=False),
        )

    def _rest_of_camera(self, place: int, pingpong: bool) -> Source | None:
        """Return the path of the earlier run, further on; None if its picture is gone."""
        from longvie_cli.controls.files import FIRST_FRAME_NAME

        earlier, settings = self._earlier, self._earlier.settings
        assert settings.camera is not None and settings.landscape is not None, "checked when read"
        picture = None
        if settings.camera_picture is not None:
            if earlier.run is None:
                return None
            picture = earlier.run.folder.controls_dir / FIRST_FRAME_NAME
            if not picture.is_file():
                return None
        depth = self.depth(own_source=False)
        stays = picture is None or self._depth_stays(depth)
        source = CameraSource(
            parse_camera_path(settings.camera),
            self._preset,
            self._fit,
            self._sampling.device,
            settings.landscape,
            image=picture,
            fov=settings.fov or 55.0,
            pingpong=pingpong,
            first_frame=place,
            depth_range=earlier.depth_range() if stays else None,
            depth=depth,
        )
        # The hash is of the picture at the size of the controls, which may be another one now.
        before = replace(source, preset=with_size(load_preset(earlier.preset_name), earlier.size))
        if before.facts().get("camera_picture") != settings.camera_picture:
            raise ControlError(
                f"{picture}: this picture has changed since {earlier.name} was made from it.",
                hint="Pass --camera to begin with the last frame.",
            )
        return source

    def depth(self, *, own_source: bool) -> DepthChoice:
        """Return where depth comes from: as asked, or as before; ready depth is of one video."""
        asked = self._asked
        before = self._earlier.depth
        if not own_source:
            before = replace(before, video=None)
        smoothing = asked.depth_smoothing or before.smoothing
        if asked.depth is not None:
            polarity = asked.depth_polarity or "auto"
            return DepthChoice(before.model, smoothing, asked.depth, polarity)
        if asked.depth_model is not None:
            return DepthChoice(asked.depth_model, smoothing)
        polarity = asked.depth_polarity or before.polarity
        return DepthChoice(before.model, smoothing, before.video, polarity)

    def _depth_stays(self, depth: DepthChoice) -> bool:
        """Return whether depth has the scale of before, and note it if it has not."""
        asked, before = self._asked, self._earlier.depth
        if asked.depth is None and asked.depth_model is None:
            return True
        if (depth.model, depth.video) == (before.model, before.video):
            return True
        self._notes.append(
            f"{self._earlier.name}: depth comes from another place than before, so its greys are "
            "measured anew."
        )
        return False

    def _tracker(self) -> TrackerChoice:
        """Return the tracker asked for, or the earlier video's."""
        if self._asked.tracker is not None:
            return self._asked.tracker
        label = self._earlier.settings.tracker or "lk"
        tracker = parse_tracker(label)
        assert isinstance(tracker, TrackerChoice), "checked where the settings were read"
        if tracker.checkout is not None:
            # A run remembers the folder's name, not where it was.
            raise UsageError(
                f"{self._earlier.name}: its points were tracked by {label}.",
                hint="Pass --tracker path:DIR with that folder, or another tracker.",
            )
        return tracker

    def say_what_does_nothing(self, source: Source) -> None:
        """Note what was asked for and does nothing, as the source shows.

        Raises:
            UsageError: Ready depth has no video whose depth it could be.
        """
        asked = self._asked
        if source.kind == "video":
            return
        if asked.depth is not None:
            raise UsageError(f"--depth: there is no video that it is the depth of ({source.name}).")
        estimated = isinstance(source, CameraSource) and source.has_picture
        names = ["tracker", "depth_smoothing", *([] if estimated else ["depth_model"])]
        if unused := [name for name in names if getattr(asked, name) is not None]:
            self._notes.append(f"{flags_of(unused)}: nothing to do, it goes on with {source.name}.")
