"""The video that `extend` continues: how it was made, and what of that still holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longvie_cli.disk.hashing import hash_file
from longvie_cli.errors import ControlError, MediaError, UsageError
from longvie_cli.media.contents import left_out, read_contents
from longvie_cli.media.fitting import is_joinable
from longvie_cli.media.last_pictures import hash_last_pictures
from longvie_cli.media.metadata import read_settings
from longvie_cli.media.probe import SourceVideo, probe_video
from longvie_cli.media.reader import count_frames
from longvie_cli.media.sound import SoundStream, read_sound
from longvie_cli.planning.job import EarlierVideo
from longvie_cli.run_folder.find import run_that_delivered
from longvie_cli.run_folder.manifest import read_record
from longvie_cli.run_folder.run import Run
from longvie_cli.settings.about import About, DecidingSettings, checked_about
from longvie_cli.settings.presets import (
    DEFAULT_PRESET,
    Fit,
    FrameSize,
    Preset,
    TrackGrid,
    parse_size,
)
from longvie_cli.settings.request_json import RunRequests, request_of_json
from longvie_cli.settings.requests import ExtendRequest
from longvie_cli.settings.sampling import LoraFile
from longvie_cli.settings.tracking import parse_track_grid
from longvie_cli.sources.conversions import describe_conversion
from longvie_cli.sources.depth_choice import DepthChoice

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from longvie_cli.controls.normalization import DepthRange

_FOREIGN = About(tool="longvie")


@dataclass(frozen=True)
class Earlier:
    """A video that is continued, and what is known of how it was made.

    Args:
        video: The file.
        about: What it, or its run, says of itself; nothing for a foreign video.
        run: Its run, where it was found: it delivered exactly these bytes.
        changed: How the file differs from what its tag says, in words; empty if it does not.
    """

    video: SourceVideo
    about: About = field(default=_FOREIGN)
    run: Run | None = None
    changed: str = ""

    @property
    def path(self) -> Path:
        """The file."""
        return self.video.path

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.path.name

    @property
    def is_ours(self) -> bool:
        """Whether anything is known of how it was made."""
        return self.about is not _FOREIGN

    @cached_property
    def content_hash(self) -> str:
        """`hash_file` of it."""
        return hash_file(self.path)

    @property
    def settings(self) -> DecidingSettings:
        """The deciding settings of its run; nothing is said in those of a foreign video."""
        return self.about.settings

    @property
    def preset_name(self) -> str:
        """The preset it was made with, the default for a foreign video."""
        return self.settings.preset or DEFAULT_PRESET

    @property
    def size(self) -> FrameSize | None:
        """The size that was asked for, None where it was the preset's."""
        size = parse_size(self.settings.size)
        return size if isinstance(size, FrameSize) else None

    @property
    def track_grid(self) -> TrackGrid | None:
        """The grid of points that was tracked, None where none was."""
        grid = parse_track_grid(self.settings.track_grid)
        return grid if isinstance(grid, TrackGrid) else None

    @cached_property
    def asked(self) -> RunRequests | None:
        """What its command was asked, None where its run was not found."""
        if self.run is None:
            return None
        manifest = self.run.manifest
        return request_of_json(manifest.command, manifest.request, self.run.folder.run_json)

    @property
    def source_path(self) -> Path | None:
        """Video or controls it was made from, None where that is not known."""
        source = None if self.run is None else self.run.manifest.inputs.source
        return None if source is None else Path(source)

    @property
    def weights(self) -> Path | None:
        """Folder of the weights it was made with, where one was named."""
        weights = None if self.run is None else self.run.manifest.inputs.weights
        return None if weights is None else Path(weights)

    @property
    def depth(self) -> DepthChoice:
        """Where the depth of its source came from."""
        if self.run is None:
            return DepthChoice()
        return DepthChoice.of_stored(self.run.manifest.inputs.depth)

    @cached_property
    def tail(self) -> Path | None:
        """File with its last frames, lossless; None where there is none, or a redo is under way.

        Raises:
            MediaError: It is damaged.
        """
        if self.run is None or self.run.delivery is None or not self.run.is_delivered:
            return None
        folder, last_clip = self.run.folder, self.run.delivery.last_clip
        tail = folder.tail(last_clip)
        if not tail.is_file():
            return None
        if read_record(folder.clip_record(last_clip)).tail_hash != hash_file(tail):
            raise MediaError(
                f"{tail}: the saved last frames are damaged: not what was written.",
                hint=f"Move {folder.root} away to go on from the last frames as decoded.",
            )
        return tail

    def loras(self) -> tuple[LoraFile, ...]:
        """Return the LoRA files it was made with.

        Raises:
            UsageError: One of them is not found where it was, or has changed.
        """
        paths = () if self.run is None else self.run.manifest.inputs.lora_paths
        found = []
        for index, lora in enumerate(self.settings.lora or ()):
            path = Path(paths[index]) if index < len(paths) else None
            if path is None or not path.is_file() or hash_file(path) != lora.hash:
                raise UsageError(
                    f"--lora: the earlier video was made with {lora.name}, which is not found.",
                    hint=f"Pass --lora FILE:{lora.scale:g}, or --lora none to go on without.",
                )
            found.append(LoraFile(path=path, scale=lora.scale))
        return tuple(found)

    def depth_range(self) -> DepthRange | None:
        """Return the range its depth was normalised over, None where that is not known."""
        from longvie_cli.controls.control_folder import read_depth_range
        from longvie_cli.controls.files import NORMALIZATION_NAME

        controls = None if self.run is None else self.run.folder.controls_dir
        if controls is None or not (controls / NORMALIZATION_NAME).is_file():
            return None
        return read_depth_range(controls)

    def last_greys(self, preset: Preset) -> NDArray[np.uint8] | None:
        """Return the depth picture [height, width] of its last frame, None if there is none."""
        from longvie_cli.controls.files import load_control_clips

        frame = self.about.last_source_frame - (self.settings.first_source_frame or 0)
        if self.run is None or self.settings.pingpong or frame < 0:
            return None
        try:
            controls = load_control_clips(self.run.folder.controls_dir, preset.geometry)
            if frame >= controls.num_frames:
                return None
            height, width = preset.control_size
            shown = controls.read_range(frame, 1, height, width, "stretch")
        except (ControlError, MediaError):
            # Made without controls, from a folder elsewhere, or tidied away since.
            return None
        greys: NDArray[np.uint8] = shown.dense[0, :, :, 1]
        return greys


def find_earlier(path: Path) -> Earlier:
    """Return what is known of how a video was made.

    Its run is looked for in `VIDEO.longvie` and in every other run folder beside the video; it is
    the right one if it delivered exactly these bytes. Without it the video's comment tag counts, as
    far as the file is what the tag speaks of: players and editors copy tags to what they make.

    Raises:
        MediaError: The file cannot be read, or says of itself what cannot be.
        OutputConflictError: `VIDEO.longvie` is damaged, or holds a link that leads out of it.
    """
    video = probe_video(path)
    folder = run_that_delivered(path)
    if folder is not None:
        run = Run.read(folder)
        assert run.delivery is not None, "it delivered these bytes"
        return Earlier(video, run.delivery.about, run)
    return _by_tag(video)


def _by_tag(video: SourceVideo) -> Earlier:
    about = about_of_tag(video.path, read_settings(video.path))
    if about is None:
        return Earlier(video)
    changed = _difference(video, about)
    if changed:
        # Where it ends in its source is no longer known; how it looks still holds.
        about = about.model_copy(update={"source_kind": None, "captioned": False})
    return Earlier(video, about, changed=changed)


def about_of_tag(path: Path, stored: dict[str, Any] | None) -> About | None:
    """Return what a video's comment tag says of how it was made, None if it is not ours.

    Args:
        path: The video, for messages.
        stored: The settings in its tag, None if there are none.

    Raises:
        MediaError: It is ours, and cannot be used.
    """
    if stored is None or stored.get("tool") != "longvie":
        return None
    try:
        return checked_about(stored)
    except ValueError as reason:
        raise MediaError(
            f"{path}: its comment tag says how longvie made it, but cannot be used ({reason}).",
            hint="To go on with it as with any other video, write it anew without its tags.",
        ) from reason


def _difference(video: SourceVideo, about: About) -> str:
    """Return in words how a file differs from what its tag says of it, empty if it does not."""
    if about.frames is not None and video.num_frames != about.frames:
        return f"it has {video.num_frames} frames, its tag speaks of {about.frames}"
    if about.fps is not None and abs(video.fps - about.fps) > 0.01:
        return f"it has {video.fps:.4g} frames a second, its tag speaks of {about.fps}"
    last = about.last_pictures
    if last is not None and hash_last_pictures(video, last.count) != last.hash:
        return "it ends with other pictures than its tag speaks of"
    return ""


def say_changed(earlier: Earlier, notes: list[str]) -> None:
    """Note what of a video's tag does not hold any more."""
    if earlier.changed:
        notes.append(
            f"{earlier.name}: another program changed it after longvie made it: {earlier.changed}. "
            "It is continued from what it shows: settings and prompt are those of its tag, its "
            "controls are not known any more."
        )


def earlier_video(
    earlier: Earlier, request: ExtendRequest, preset: Preset, fit: Fit, notes: list[str]
) -> EarlierVideo:
    """Return how the earlier video enters the new one, and note what happens to it on the way."""
    video = earlier.video
    joinable = is_joinable(video, height=preset.height, width=preset.width, fps=preset.fps)
    if not joinable:
        notes.append(
            f"{earlier.name}: {video.width}x{video.height} {video.codec} at {video.fps:.4g} fps "
            f"is encoded again as {preset.size.label} at {preset.fps} fps, so that new clips can "
            "follow it."
        )
        notes += describe_conversion(
            video, height=preset.height, width=preset.width, fps=preset.fps, fit=fit
        )
    if not earlier.is_ours:
        notes += left_out(earlier.path, read_contents(earlier.path))
    return EarlierVideo(
        video=video,
        num_frames=count_frames(video, fps=None if joinable else preset.fps),
        joinable=joinable,
        has_sound=video.has_audio,
        sound=_kept_sound(request, video, notes),
        fit=fit,
    )


def _kept_sound(request: ExtendRequest, video: SourceVideo, notes: list[str]) -> SoundStream | None:
    """Return the sound of the earlier video, None where it has none that can go along."""
    if not video.has_audio or request.audio == "none":
        return None
    try:
        sound = read_sound(video.path)
    except MediaError as error:
        notes.append(f"The sound of {video.path.name} does not go along: {error.message}")
        return None
    notes += sound.remarks()
    return sound
