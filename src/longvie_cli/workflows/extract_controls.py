"""`extract-controls`: a source becomes a folder of depth and track clips with their cond.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from longvie_cli.controls.files import CONDITIONS_NAME, load_control_clips
from longvie_cli.controls.preview import write_preview
from longvie_cli.hub.installed import go_offline
from longvie_cli.planning.cuts import cuts_to_honour
from longvie_cli.planning.disk import extraction_bytes, free_bytes, say_disk, unwritable
from longvie_cli.planning.length import frames_to_make
from longvie_cli.planning.paths import check_control_folder
from longvie_cli.planning.prompt_notes import say_of_texts
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.result import JobResult
from longvie_cli.settings.presets import Preset, load_preset, with_size
from longvie_cli.settings.requests import ExtractControlsRequest
from longvie_cli.sources.choose import made_source
from longvie_cli.sources.depth_choice import say_models
from longvie_cli.sources.source import MadeSource, with_track_grid
from longvie_cli.timeline import plan_clips


@dataclass(frozen=True)
class _Extraction:
    """One extraction, decided before anything is written.

    Args:
        preset: Sizes and clip length.
        source: What is extracted.
        num_frames: How much of it.
        cuts: Frames that begin scenes which are laid out anew.
        notes: What the user should know before it begins.
    """

    preset: Preset
    source: MadeSource
    num_frames: int
    cuts: tuple[int, ...]
    notes: tuple[str, ...]


def extract_controls(
    request: ExtractControlsRequest, progress: Progress | None = None
) -> JobResult:
    """Write the controls of a source, going on where an earlier call stopped.

    The folder is what a run of `generate` with the same source makes for itself.

    Raises:
        LongVieError: See `longvie_cli.errors`.
    """
    progress = progress or SilentProgress()
    job = _decide(request, progress, to_run=True)
    preset, source = job.preset, job.source
    if (locked := unwritable(request.output)) is not None:
        raise locked
    needed = extraction_bytes(source, preset, job.num_frames)
    say_disk(needed, request.output, progress, only_if_short=True)
    for note in (*source.conversions(), *job.notes):
        progress.note(note)
    source.write_controls(
        request.output,
        job.num_frames,
        progress,
        text=request.prompt or "",
        overwrite=request.overwrite,
    )
    controls = load_control_clips(request.output, preset.geometry)
    frames = controls.num_frames
    if request.preview:
        pictures = source.control_pictures(frames)
        preview, sheet = write_preview(controls, pictures, fps=preset.fps, progress=progress)
        progress.message(f"To look at: {preview} and {sheet}")
    return JobResult(
        "done", request.output, frames=frames, seconds=frames / preset.fps, seed=request.seed
    )


def plan(request: ExtractControlsRequest, progress: Progress | None = None) -> JobResult:
    """Say what `extract_controls` would do; writes nothing."""
    progress = progress or SilentProgress()
    job = _decide(request, progress, to_run=False)
    preset, source, fps = job.preset, job.source, job.preset.fps
    seconds = job.num_frames / fps
    specs = plan_clips(preset.geometry, job.num_frames, cuts=job.cuts)
    height, width = preset.control_size
    progress.message(
        f"{request.output}: {job.num_frames} frames, {seconds:.2f} s at {fps} fps, "
        f"{width}x{height}, {len(specs)} clips of depth and tracks."
    )
    progress.message(f"source: {source.name}")
    inputs = [*source.conversions(), *job.notes]
    for line in inputs:
        progress.note(line)
    clips: list[dict[str, Any]] = []
    for spec in specs:
        first = spec.first_frame + spec.skip_frames
        last = first + spec.added_frames
        clips.append(
            {
                "index": spec.index,
                "frames": spec.added_frames,
                "from_seconds": round(first / fps, 3),
                "to_seconds": round(last / fps, 3),
            }
        )
        progress.message(
            f"  clip {spec.index}: {first / fps:.2f} s to {last / fps:.2f} s, "
            f"{spec.added_frames} frames"
        )
    if (request.output / CONDITIONS_NAME).is_file():
        progress.message(
            f"{request.output}: holds controls; they stay if they are these, others are replaced "
            "only with --overwrite."
        )
    models = say_models(source.models(), progress)
    needed = extraction_bytes(source, preset, job.num_frames)
    say_disk(needed, request.output, progress, only_if_short=False)
    if (locked := unwritable(request.output)) is not None:
        progress.warning(f"The run will not start: {locked.message}")
    return JobResult(
        "planned",
        request.output,
        frames=job.num_frames,
        seconds=seconds,
        seed=request.seed,
        plan={
            "clips": clips,
            "source": source.name,
            "inputs": inputs,
            "width": width,
            "height": height,
            "settings": source.facts(),
            "models": models,
            "disk_bytes": needed,
            "disk_free_bytes": free_bytes(request.output),
        },
    )


def _decide(request: ExtractControlsRequest, progress: Progress, *, to_run: bool) -> _Extraction:
    from longvie_cli.engine.placement import resolve_device

    check_control_folder(request)
    if request.offline:
        go_offline()
    preset = with_size(load_preset(request.preset), request.size)
    preset = with_track_grid(preset, request.track_grid)
    if request.prompt is not None:
        say_of_texts(progress, preset, {request.prompt: "--prompt"})
    source = made_source(request, preset, resolve_device(request.device), progress)
    if to_run:
        # Before a long video is read through.
        source.check_models()
    wanted = request.wanted_frames(preset.geometry)
    num_frames = frames_to_make(
        source, wanted, flag=request.length_flag, fps=preset.fps, repeatable=False
    )
    source.check_length(num_frames)
    notes: list[str] = []
    if wanted is None and source.frames_left(None) is None:
        notes.append(f"No length given: {num_frames / preset.fps:g} s.")
    cuts = cuts_to_honour(
        source, num_frames, request.at_cut, fps=preset.fps, notes=notes, progress=progress
    )
    return _Extraction(preset, source, num_frames, cuts, tuple(notes))
