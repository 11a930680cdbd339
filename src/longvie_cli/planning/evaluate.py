"""What `evaluate` looks at: the video, its run, its clips and its controls. Writes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from longvie_cli.controls.files import (
    NORMALIZATION_NAME,
    ControlClips,
    load_control_clips,
    read_normalization,
)
from longvie_cli.errors import InputError, LongVieError, MediaError, OutputConflictError
from longvie_cli.evaluation.clips import VideoClip, clips_of_plan, whole_video
from longvie_cli.evaluation.controllability import PlacedControls
from longvie_cli.media.metadata import read_settings
from longvie_cli.media.probe import SourceVideo, probe_video
from longvie_cli.planning.earlier import about_of_tag
from longvie_cli.progress import Progress
from longvie_cli.run_folder.find import find_run, output_of, run_that_delivered
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.run import Run
from longvie_cli.settings.presets import PRESET_NAMES, Preset, load_preset
from longvie_cli.settings.tracking import parse_track_grid
from longvie_cli.sources.depth_choice import DepthChoice
from longvie_cli.timeline import plan_clips

# Rates that differ by less are one.
_SAME_RATE = 0.002
_NOT_KNOWN = (
    "it is not known where clips begin: there is no run folder of this video, and no longvie tag "
    "in it. Pass --run RUN. Steps that stand out anywhere are in `jumps`."
)
# The grid of the release, whose controls say nothing of theirs.
_RELEASED_SIZE, _RELEASED_GRID = (480, 832), (50, 50)


@dataclass(frozen=True)
class Subject:
    """A video that is evaluated, and what is known of how it was made.

    Args:
        path: As it was named.
        video: The file that is read.
        clips: Its clips, in order; one where they are not known.
        clips_unknown: Why they are not known; empty where they are.
        run: Its run, where one was found.
        preset: The preset it was made with, where that is known.
        earlier_frames: Frames before the first clip of its run.
        is_temporary: The file that is read is there for the measuring only.
    """

    path: Path
    video: SourceVideo
    clips: tuple[VideoClip, ...]
    clips_unknown: str = ""
    run: Run | None = None
    preset: Preset | None = None
    earlier_frames: int = 0
    is_temporary: bool = False

    @property
    def first_controlled_frame(self) -> int:
        """The frame of the video with which the controls of its run begin.

        What extends a video begins on the last frame that was there.
        """
        extends = self.run is not None and self.run.manifest.command == "extend"
        return self.earlier_frames - (1 if extends and self.earlier_frames > 0 else 0)


@dataclass(frozen=True)
class UnfinishedRun:
    """A run whose file is not there yet.

    Args:
        run: The run.
        clips: The clips it has finished, from the first one on.
        total: Clips it shall have.
    """

    run: Run
    clips: tuple[Path, ...]
    total: int


def unfinished_run(path: Path) -> UnfinishedRun | None:
    """Return the run that a user names by its folder, or by its file, before it is finished.

    None where there is a file to look at.

    Raises:
        InputError: There is a run, and no clip of it is finished.
        OutputConflictError: Its run.json is damaged, or the run holds a link that leads out of it.
    """
    if path.is_file():
        return None
    if not RunFolder(path).is_begun and not RunFolder.beside(path).is_begun:
        return None
    run = Run.read(find_run(path))
    output = output_of(run)
    if path.is_dir() and output.is_file() and run.is_delivered:
        return None
    stored = run.clips()
    done = [clip.spec.index for clip in takewhile(lambda clip: clip.record is not None, stored)]
    if not done:
        raise InputError(
            f"{path}: no clip of this run is finished, so there is nothing to look at.",
            hint=f"`longvie status {run.folder.root}` says where it stands.",
        )
    return UnfinishedRun(run, tuple(map(run.folder.clip_video, done)), len(stored))


def subject_of(path: Path, run_dir: Path | None, progress: Progress) -> Subject:
    """Return a video and what is known of it.

    Its run is the one named, `OUT.longvie` beside it, or another one beside it that made exactly
    these bytes; else its own tag says how many frames its clips had.

    Args:
        path: The video, or the folder of a finished run.
        run_dir: The run folder, where it is named.
        progress: Told what does not fit.

    Raises:
        MediaError: The file cannot be read.
        InputError: There is no run where one was named.
        OutputConflictError: The run that was named is damaged.
    """
    if path.is_dir() and RunFolder(path).is_begun:
        run_dir = run_dir or path
        file = output_of(Run.read(find_run(path)))
    else:
        file = path
    video = probe_video(file)
    run = Run.read(find_run(run_dir)) if run_dir is not None else _run_beside(file, progress)
    if run is None:
        return _by_tag(path, video, progress)
    return _of_run(path, video, run, progress)


def subject_of_clips(path: Path, joined: Path, unfinished: UnfinishedRun) -> Subject:
    """Return the finished clips of a run, joined in a file, and what is known of them."""
    run = unfinished.run
    video = probe_video(joined)
    clips = _clips(run, video.num_frames, 0)
    # What the run goes on from is not in the file.
    continues = -1 if run.manifest.command == "extend" else 0
    return Subject(
        path,
        video,
        clips,
        run=run,
        preset=_preset_of(run),
        earlier_frames=continues,
        is_temporary=True,
    )


def run_controls(subject: Subject) -> PlacedControls | str:
    """Return the controls that the run of a video was made with, or why there are none.

    Raises:
        ControlError: They are damaged.
        MediaError: A file of theirs cannot be read.
    """
    run, preset = subject.run, subject.preset
    if run is None:
        return "the run of this video is not known. Pass --controls DIR, or --run RUN."
    if preset is None:
        return f"the preset {run.manifest.preset} of the run is not known here."
    inputs, settings = run.manifest.inputs, run.manifest.settings
    if inputs.source_kind == "none":
        return "the run was made without controls."
    brought = inputs.source_kind == "controls" and inputs.source is not None
    folder = Path(str(inputs.source)) if brought else run.folder.controls_dir
    controls = load_control_clips(folder, preset.geometry)
    pingpong = bool(settings.get("pingpong"))
    # A run makes controls from its first frame on, unless any frame may be shown again.
    begins = int(settings.get("first_source_frame") or 0) if brought or pingpong else 0
    grid = parse_track_grid(settings.get("track_grid") or preset.track_grid.label)
    return PlacedControls(
        controls,
        first_frame=begins,
        first_video_frame=subject.first_controlled_frame,
        pingpong=pingpong,
        fit="stretch",
        grid=_recorded_grid(folder) or (grid.columns, grid.rows),
    )


def named_controls(
    folder: Path, video: SourceVideo, preset: Preset, progress: Progress
) -> PlacedControls:
    """Return controls in a folder laid beside a video: both begin at their first frames.

    The video is cropped to them as `extract-controls` does, unless it is of a size that is made of
    such controls.

    Raises:
        ControlError: Something is missing, or does not fit.
        MediaError: A file cannot be read.
    """
    controls = load_control_clips(folder, preset.geometry)
    fps = controls.videos[controls.clips[0].depth].fps
    ratio = fps / video.fps
    if abs(ratio - 1) < _SAME_RATE or abs(controls.num_frames - video.num_frames) <= 1:
        ratio = 1.0
    else:
        progress.note(
            f"{folder.name}: controls of {fps:.4g} frames a second, the video has "
            f"{video.fps:.4g}; they are compared by time."
        )
    covered = controls.num_frames / ratio
    if abs(covered - video.num_frames) > max(1.0, 1 / ratio):
        progress.note(
            f"{folder.name}: controls of {controls.num_frames / fps:.2f} s, the video has "
            f"{video.duration_seconds:.2f} s; what both have is compared."
        )
    return PlacedControls(
        controls,
        frames_per_frame=ratio,
        fit="stretch" if _is_made_of(controls, video) else "crop",
        grid=_recorded_grid(folder) or _released_grid(controls),
    )


def depth_choice(subject: Subject, preset: Preset) -> tuple[DepthChoice, bool]:
    """Return the estimator for the depth of a video, and whether it knows pictures of its kind.

    It is the one that made the controls, where that is here, or else Depth Anything V2 Small where
    that is here, or else the embedded one, which knows the landscapes of the embedded preset.
    """
    stored = None if subject.run is None else subject.run.manifest.inputs.depth
    candidates = [] if stored is None or stored.model is None else [stored.model]
    landscapes = subject.preset is not None and not subject.preset.models
    if not landscapes:
        candidates.append("small")
    for model in candidates:
        choice = DepthChoice(model=model)
        if choice.state(preset).missing is None:
            return choice, model != "embedded" or landscapes
    return DepthChoice(model="embedded"), landscapes


def _run_beside(file: Path, progress: Progress) -> Run | None:
    """Return the run of a file, None where there is none or it cannot be read, which is said."""
    try:
        beside = RunFolder.beside(file)
        if beside.is_begun:
            beside.check_no_links()
            return Run.read(beside)
        # Only then is the whole file worth hashing.
        if any(file.absolute().parent.glob("*/delivery.json")):
            found = run_that_delivered(file)
            return None if found is None else Run.read(found)
    except OutputConflictError as error:
        progress.warning(f"The run of {file.name} is not used: {error.message}")
    return None


def _of_run(path: Path, video: SourceVideo, run: Run, progress: Progress) -> Subject:
    preset = _preset_of(run)
    added = sum(spec.added_frames for spec in run.manifest.plan)
    delivered = None if run.delivery is None else run.delivery.about.frames
    name, folder = video.path.name, run.folder.root.name
    if preset is not None and abs(video.fps / preset.fps - 1) > _SAME_RATE:
        why = (
            f"the video has {video.fps:.4g} frames a second, the run {folder} made "
            f"{preset.fps}: its clips are elsewhere."
        )
        progress.note(f"{name}: {why}")
        return Subject(path, video, whole_video(video.num_frames), why)
    total = delivered or (video.num_frames if run.manifest.command == "extend" else added)
    earlier = max(0, total - added) if run.manifest.command == "extend" else 0
    if video.num_frames != total:
        more = "more" if video.num_frames > total else "fewer"
        progress.note(
            f"{name}: it has {abs(video.num_frames - total)} frames {more} than the run {folder} "
            f"made ({total}); clips are counted from the first frame."
        )
    clips = _clips(run, video.num_frames, earlier)
    return Subject(path, video, clips, "", run, preset, earlier)


def _clips(run: Run, num_frames: int, earlier_frames: int) -> tuple[VideoClip, ...]:
    manifest = run.manifest
    return clips_of_plan(
        manifest.plan,
        num_frames=num_frames,
        earlier_frames=earlier_frames,
        prompts=manifest.clip_prompts,
        seeds=manifest.clip_seeds,
    )


def _by_tag(path: Path, video: SourceVideo, progress: Progress) -> Subject:
    """Return a video without a run folder; the clips of ours follow from preset and length."""
    one = Subject(path, video, whole_video(video.num_frames), _NOT_KNOWN)
    try:
        about = about_of_tag(video.path, read_settings(video.path))
    except MediaError as error:
        progress.warning(error.message)
        return one
    if about is None or about.settings.preset is None:
        return one
    try:
        preset = load_preset(about.settings.preset)
    except LongVieError:
        return one
    plan = plan_clips(preset.geometry, video.num_frames)
    same = about.frames == video.num_frames and abs(video.fps / preset.fps - 1) < _SAME_RATE
    if not same or len(plan) != about.clips:
        return Subject(path, video, one.clips, _NOT_KNOWN, preset=preset)
    clips = clips_of_plan(plan, num_frames=video.num_frames, prompts=about.settings.prompts or ())
    return Subject(path, video, clips, preset=preset)


def _preset_of(run: Run) -> Preset | None:
    weights = run.manifest.inputs.weights
    try:
        return load_preset(run.manifest.preset, None if weights is None else Path(weights))
    except LongVieError:
        return None


def _is_made_of(controls: ControlClips, video: SourceVideo) -> bool:
    """Return whether a video has the size that a preset makes of controls of their size.

    A run stretches controls to its video (832x480 to 640x352); they were cropped from any other.
    """
    sizes = ((controls.height, controls.width), (video.height, video.width))
    presets = map(load_preset, PRESET_NAMES)
    return any((one.control_size, (one.height, one.width)) == sizes for one in presets)


def _recorded_grid(folder: Path) -> tuple[int, int] | None:
    path = (folder if folder.is_dir() else folder.parent) / NORMALIZATION_NAME
    if not path.is_file():
        return None
    settings = read_normalization(path).get("settings")
    grid = settings.get("track_grid") if isinstance(settings, dict) else None
    if isinstance(grid, list) and len(grid) == 2 and all(type(side) is int for side in grid):
        columns, rows = grid
        return (columns, rows) if 2 <= columns <= 256 and 2 <= rows <= 256 else None
    return None


def _released_grid(controls: ControlClips) -> tuple[int, int] | None:
    return _RELEASED_GRID if (controls.height, controls.width) == _RELEASED_SIZE else None
