"""How the video that `extend` continues was made, and what of it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longvie_cli.disk.hashing import hash_file
from longvie_cli.errors import ControlError, MediaError, OutputConflictError, UsageError
from longvie_cli.media.join import is_joinable
from longvie_cli.media.metadata import read_settings
from longvie_cli.media.probe import SourceVideo
from longvie_cli.media.reader import count_frames
from longvie_cli.media.sound import read_sound
from longvie_cli.planning.job import EarlierVideo
from longvie_cli.run_folder.delivery_record import read_delivery
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.manifest import read_manifest, read_record
from longvie_cli.settings.about import checked_about
from longvie_cli.settings.presets import (
    DEFAULT_PRESET,
    Fit,
    FrameSize,
    Preset,
    TrackGrid,
    parse_size,
)
from longvie_cli.settings.requests import ExtendRequest
from longvie_cli.settings.sampling import LoraFile
from longvie_cli.settings.tracking import parse_track_grid
from longvie_cli.sources.depth_choice import DepthChoice

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from longvie_cli.controls.normalization import DepthRange
    from longvie_cli.media.probe import SourceVideo
    from longvie_cli.media.sound import SoundStream


@dataclass(frozen=True)
class Origin:
    """What is known of how the earlier video was made.

    Args:
        about: What the file, or its run, says about itself; empty for a foreign video.
        folder: Its run folder, where it was found.
        tail: File with its last frames, lossless, where it was found.
        source_path: The source of its controls, where it had one.
        weights: Folder of the weights it was made with, where one was named.
        lora_paths: The LoRA files it was made with, where its run folder was found.
        depth: Where the depth of that source came from.
        request: What its command was asked, as recorded there; empty where it was not found.
    """

    about: Mapping[str, Any]
    folder: RunFolder | None = None
    tail: Path | None = None
    source_path: Path | None = None
    weights: Path | None = None
    lora_paths: tuple[Path, ...] = ()
    depth: DepthChoice = field(default_factory=DepthChoice)
    request: Mapping[str, Any] = field(default_factory=dict)

    @property
    def preset_name(self) -> str:
        """The preset it was made with, the default for a foreign video."""
        return str(self.settings.get("preset", DEFAULT_PRESET))

    @property
    def size(self) -> FrameSize | None:
        """The size that was asked for, None where it was the preset's."""
        size = parse_size(self.settings.get("size"))
        return size if isinstance(size, FrameSize) else None

    @property
    def settings(self) -> Mapping[str, Any]:
        """The deciding settings of its run; empty for a foreign video."""
        found = self.about.get("settings", {})
        return found if isinstance(found, dict) else {}


def find_origin(video: Path) -> Origin:
    """Return what is known of how a video was made.

    Its run is looked for in `VIDEO.longvie` and in every other run folder beside the video; it is
    the right one if it delivered exactly these bytes. Without it the video's comment tag counts.

    Raises:
        MediaError: The file cannot be read, or says of itself what cannot be.
        OutputConflictError: `VIDEO.longvie` is damaged, or holds a link that leads out of it.
    """
    content_hash = hash_file(video)
    beside = RunFolder.beside(video)
    beside.check_no_links()
    record = read_delivery(beside)
    if record is not None and record["output_hash"] == content_hash:
        return _origin(beside, record)
    for path in sorted(video.absolute().parent.glob("*/delivery.json")):
        folder = RunFolder(path.parent)
        try:
            folder.check_no_links()
            record = read_delivery(folder)
        except OutputConflictError:
            continue  # Some other run is damaged; nothing says that it made this video.
        if record is not None and record["output_hash"] == content_hash:
            return _origin(folder, record)
    return origin_of_tag(video, read_settings(video))


def origin_of_tag(video: Path, about: dict[str, Any] | None) -> Origin:
    """Return what a video's comment tag says of how it was made, nothing if it is not ours.

    Raises:
        MediaError: It is ours, and cannot be used.
    """
    if about is None or about.get("tool") != "longvie":
        return Origin(about={})
    try:
        return Origin(about=checked_about(about))
    except ValueError as reason:
        raise MediaError(
            f"{video}: its comment tag says how longvie made it, but cannot be used ({reason}).",
            hint="To go on with it as with any other video, write it anew without its tags.",
        ) from reason


def _origin(folder: RunFolder, record: Mapping[str, Any]) -> Origin:
    manifest = read_manifest(folder.run_json)
    request: Mapping[str, Any] = manifest.request
    source_path = request.get("source")
    tail = folder.tail(int(record["last_clip"]))
    # While a redo is under way the tail is no longer, or not yet, of this video.
    current = tail.is_file() and record.get("revision", 0) == len(manifest.redos)
    if current:
        _check_tail(folder, int(record["last_clip"]))
    return Origin(
        about=record["about"],
        folder=folder,
        tail=tail if current else None,
        source_path=Path(source_path) if source_path else None,
        weights=Path(request["weights"]) if request.get("weights") else None,
        lora_paths=tuple(Path(path) for path in request.get("lora_paths") or []),
        depth=DepthChoice.recalled(request.get("depth") or {}),
        request=request.get("request") or {},
    )


def _check_tail(folder: RunFolder, last_clip: int) -> None:
    tail = folder.tail(last_clip)
    if read_record(folder.clip_record(last_clip)).tail_hash != hash_file(tail):
        raise MediaError(
            f"{tail}: the saved last frames are damaged: not what was written.",
            hint=f"Move {folder.root} away to go on from the last frames as decoded.",
        )


def earlier_loras(origin: Origin) -> tuple[LoraFile, ...]:
    """Return the LoRA files the earlier video was made with.

    Raises:
        UsageError: One of them is not found where it was, or has changed.
    """
    wanted = origin.settings.get("lora", [])
    for index, lora in enumerate(wanted):
        path = origin.lora_paths[index] if index < len(origin.lora_paths) else None
        if path is None or not path.is_file() or hash_file(path) != lora["hash"]:
            raise UsageError(
                f"--lora: the earlier video was made with {lora['name']}, which is not found.",
                hint=f"Pass --lora FILE:{lora['scale']:g}, or --lora none to go on without.",
            )
    return tuple(
        LoraFile(path=path, scale=lora["scale"])
        for path, lora in zip(origin.lora_paths, wanted, strict=bool(wanted))
    )


def earlier_video(
    request: ExtendRequest, video: SourceVideo, preset: Preset, fit: Fit, notes: list[str]
) -> EarlierVideo:
    joinable = is_joinable(video, height=preset.height, width=preset.width, fps=preset.fps)
    if not joinable:
        notes.append(
            f"{video.path.name}: {video.width}x{video.height} {video.codec} at {video.fps:.4g} fps "
            f"is encoded again as {preset.width}x{preset.height} at {preset.fps} fps, so that new "
            "clips can follow it."
        )
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


def last_greys(origin: Origin, preset: Preset) -> NDArray[np.uint8] | None:
    """Return the depth picture [height, width] of the last frame; None if it is not to be had."""
    from longvie_cli.controls.files import load_control_clips

    about = origin.about
    frame = int(about.get("last_source_frame", 0)) - int(
        origin.settings.get("first_source_frame", 0)
    )
    if origin.folder is None or origin.settings.get("pingpong") or frame < 0:
        return None
    try:
        controls = load_control_clips(origin.folder.controls_dir, preset.geometry)
        if frame >= controls.num_frames:
            return None
        height, width = preset.control_size
        shown = controls.read_range(frame, 1, height, width, "stretch")
    except (ControlError, MediaError):
        # Made without controls, from a folder elsewhere, or tidied away since.
        return None
    greys: NDArray[np.uint8] = shown.dense[0, :, :, 1]
    return greys


def earlier_grid(origin: Origin) -> TrackGrid | None:
    grid = parse_track_grid(origin.settings.get("track_grid"))
    return grid if isinstance(grid, TrackGrid) else None


def earlier_depth_range(origin: Origin) -> DepthRange | None:
    from longvie_cli.controls.control_folder import read_depth_range
    from longvie_cli.controls.files import NORMALIZATION_NAME

    if origin.folder is None or not (origin.folder.controls_dir / NORMALIZATION_NAME).is_file():
        return None
    return read_depth_range(origin.folder.controls_dir)
