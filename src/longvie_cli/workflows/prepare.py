"""`prepare`: long videos become a folder of training samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longvie_cli.controls.extraction import Extractors
from longvie_cli.errors import InputError
from longvie_cli.hub.installed import go_offline
from longvie_cli.planning.disk import free_bytes, samples_bytes, say_disk, unwritable
from longvie_cli.planning.paths import check_data_folder
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.result import PrepareResult
from longvie_cli.settings.presets import Preset, load_preset, with_size
from longvie_cli.settings.requests import PrepareRequest
from longvie_cli.settings.tracking import TrackerChoice
from longvie_cli.sources.depth_choice import DepthChoice, ModelState, say_models
from longvie_cli.sources.source import with_track_grid
from longvie_cli.sources.tracker_choice import make_tracker, tracker_fact, tracker_state
from longvie_cli.timeline import timecode
from longvie_cli.training.captioner import Captioner
from longvie_cli.training.captions import CaptionFile, Sidecars
from longvie_cli.training.clip_choice import MOST_CLIPS_TOGETHER, WHY, stretches
from longvie_cli.training.prepare import Preparation
from longvie_cli.training.sample_recipe import SampleRecipe
from longvie_cli.training.video_plan import VideoPlan, dropped_by_reason, nothing_kept


@dataclass(frozen=True)
class _Job:
    """A preparation decided before any video is looked at.

    Args:
        preset: Sizes and clip length.
        depth: What estimates depth.
        tracker: What follows points.
        captioner: What captions clips without a caption, if anything does.
        device: A real device.
        preparation: The work.
    """

    preset: Preset
    depth: DepthChoice
    tracker: TrackerChoice
    captioner: Captioner | None
    device: str
    preparation: Preparation

    def models(self, request: PrepareRequest) -> list[ModelState]:
        """Return the models and whether they are here."""
        accept = request.accept_noncommercial
        found = [
            self.depth.state(self.preset),
            tracker_state(self.tracker, accept_noncommercial=accept),
        ]
        if request.captioner is not None:
            found.append(ModelState("captioner", request.captioner.absolute().name))
        return found


def prepare(request: PrepareRequest, progress: Progress | None = None) -> PrepareResult:
    """Make the samples of videos, going on where an earlier call stopped.

    Raises:
        InputError: Not one sample is left, or what is stored is damaged.
        OutputConflictError: The folder holds other samples, or another process works on it.
        MissingResourceError: A model is not here, or its licence not accepted.
        ResumableError: The disk is full or failed.
    """
    progress = progress or SilentProgress()
    job = _decide(request, progress)
    preparation = job.preparation
    index = preparation.finished(overwrite=request.overwrite)
    if index is not None:
        try:
            preparation.check(index)
        except InputError as damage:
            if not request.overwrite:
                raise
            progress.warning(f"{damage.message} All is made again (--overwrite).")
        else:
            preparation.clear()
            progress.message(f"{request.output}: prepared from the same before, and sound.")
            return _result(request, job.preset, index.samples, index.dropped)
    for model in job.models(request):
        # Before long videos are read through.
        if model.missing is not None:
            raise model.missing
    if (locked := unwritable(request.output)) is not None:
        raise locked
    with preparation.opened(overwrite=request.overwrite):
        plans = preparation.keep_plans()
        _say_plans(plans, job.preset, progress)
        if not any(plan.clips for plan in plans):
            preparation.clear()
            raise nothing_kept(dropped_by_reason(plans))
        say_disk(_needed(plans, job.preset), request.output, progress, only_if_short=True)
        for line in job.depth.remarks("These videos", job.preset):
            progress.note(line)
        extractors = _load(request, job, progress)
        made = preparation.carry_out(plans, extractors, captioner=job.captioner)
    progress.message(
        f"{request.output}: {made.samples} samples; dropped: {_counted(made.dropped)}."
    )
    return _result(request, job.preset, made.samples, made.dropped)


def plan(request: PrepareRequest, progress: Progress | None = None) -> PrepareResult:
    """Say what `prepare` would do; reads the videos, writes nothing."""
    progress = progress or SilentProgress()
    job = _decide(request, progress)
    plans = job.preparation.plans()
    preset = job.preset
    _say_plans(plans, preset, progress)
    for video in plans:
        for row in stretches(video.clips, preset.geometry):
            first, last = row.clips[0].first_frame, row.clips[-1].first_frame
            begins, ends = first / preset.fps, (last + preset.num_frames) / preset.fps
            clips = f"{len(row.clips)} clips" if len(row.clips) > 1 else "1 clip"
            progress.message(
                f"  {video.name}, scene {row.clips[0].scene + 1}: {timecode(begins)} to "
                f"{timecode(ends)}, {clips}"
            )
    models = say_models(job.models(request), progress)
    needed = _needed(plans, preset)
    say_disk(needed, request.output, progress, only_if_short=False)
    if (locked := unwritable(request.output)) is not None:
        progress.warning(f"The run will not start: {locked.message}")
    dropped, samples = dropped_by_reason(plans), sum(len(video.clips) for video in plans)
    if not samples:
        progress.warning(f"The run will not start: {nothing_kept(dropped).message}")
    found = _result(request, preset, samples, dropped)
    return PrepareResult(
        "planned",
        found.output,
        frames=found.frames,
        seconds=found.seconds,
        samples=samples,
        dropped=dropped,
        plan={
            "videos": [_video_fields(video, preset) for video in plans],
            "width": preset.width,
            "height": preset.height,
            "models": models,
            "disk_bytes": needed,
            "disk_free_bytes": free_bytes(request.output),
        },
    )


def _decide(request: PrepareRequest, progress: Progress) -> _Job:
    from longvie_cli.engine.placement import resolve_device

    check_data_folder(request.output, request.inputs)
    if request.offline:
        go_offline()
    preset = with_size(load_preset(request.preset), request.size)
    preset = with_track_grid(preset, request.track_grid)
    depth = DepthChoice(request.depth_model, request.depth_smoothing)
    tracker = request.tracker or TrackerChoice()
    device = resolve_device(request.device)
    captioner = None if request.captioner is None else Captioner(request.captioner, device=device)
    recipe = SampleRecipe(
        preset,
        request.fit or preset.source_fit,
        request.uncaptioned,
        {"tracker": tracker_fact(tracker), **depth.facts(preset)},
        captioner=None if captioner is None else captioner.name,
    )
    captions = Sidecars() if request.captions is None else CaptionFile(request.captions)
    preparation = Preparation(request.output, request.inputs, captions, recipe, progress)
    return _Job(preset, depth, tracker, captioner, device, preparation)


def _load(request: PrepareRequest, job: _Job, progress: Progress) -> Extractors:
    """Load what captions, if anything does, and return what depth and tracks are made with."""
    if job.captioner is not None:
        job.captioner.load()
    return Extractors(
        depth=job.depth.estimator(job.preset, device=job.device, progress=progress),
        tracker=make_tracker(
            job.tracker,
            device=job.device,
            accept_noncommercial=request.accept_noncommercial,
            progress=progress,
        ),
        smoothing=job.depth.smoothing_used,
    )


def _needed(plans: Sequence[VideoPlan], preset: Preset) -> int:
    clips = sum(len(video.clips) for video in plans)
    history = max((clip.history_frames for video in plans for clip in video.clips), default=0)
    return samples_bytes(preset, clips, history, MOST_CLIPS_TOGETHER)


def _result(
    request: PrepareRequest, preset: Preset, samples: int, dropped: Mapping[str, int]
) -> PrepareResult:
    frames = samples * preset.num_frames
    return PrepareResult(
        "done",
        request.output,
        frames=frames,
        seconds=frames / preset.fps,
        samples=samples,
        dropped=dropped,
    )


def _say_plans(plans: Sequence[VideoPlan], preset: Preset, progress: Progress) -> None:
    """Say what is kept and dropped of each video, as a table, and why."""
    rows = [("video", "frames", "scenes", "clips", "dropped")]
    for video in plans:
        counts = {each.reason: each.count for each in video.dropped}
        numbers = (str(video.num_frames), str(video.scenes), str(len(video.clips)))
        rows.append((video.name, *numbers, _counted(counts)))
    total = dropped_by_reason(plans)
    rows.append(
        (
            "all",
            str(sum(video.num_frames for video in plans)),
            str(sum(video.scenes for video in plans)),
            str(sum(len(video.clips) for video in plans)),
            _counted(total),
        )
    )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:4], widths[1:], strict=True)]
        progress.message("  ".join((row[0].ljust(widths[0]), *cells, row[4])))
    for reason, why in WHY.items():
        if reason in total:
            progress.message(f"  {reason}: {why}")
    for video in plans:
        for note in video.notes:
            progress.note(note)
        for each in video.dropped:
            if each.detail:
                progress.warning(each.detail)


def _counted(counts: Mapping[str, int] | Mapping[Any, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "nothing"


def _video_fields(video: VideoPlan, preset: Preset) -> dict[str, Any]:
    return {
        "name": video.name,
        "frames": video.num_frames,
        "scenes": video.scenes,
        "inputs": list(video.notes),
        "dropped": [each.model_dump(mode="json") for each in video.dropped],
        "clips": [
            {
                "scene": clip.scene,
                "first_frame": clip.first_frame,
                "from_seconds": round(clip.first_frame / preset.fps, 3),
                "to_seconds": round((clip.first_frame + preset.num_frames) / preset.fps, 3),
                "history_frames": clip.history_frames,
                "caption": clip.caption,
            }
            for clip in video.clips
        ],
    }
