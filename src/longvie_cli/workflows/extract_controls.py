"""`extract-controls`: a video becomes a folder of depth and track clips with their cond.json."""

from __future__ import annotations

from longvie_cli.controls.extraction import extract_controls as extract
from longvie_cli.controls.files import load_control_clips
from longvie_cli.controls.preview import write_preview
from longvie_cli.errors import UsageError
from longvie_cli.models.hub import go_offline
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.settings.presets import load_preset
from longvie_cli.settings.requests import ExtractControlsRequest
from longvie_cli.settings.tracking import TrackerChoice
from longvie_cli.workflows.depth import DepthChoice
from longvie_cli.workflows.result import JobResult
from longvie_cli.workflows.scenes import cuts_to_honour
from longvie_cli.workflows.sources import (
    VideoSource,
    control_layout,
    frames_to_make,
    with_track_grid,
)
from longvie_cli.workflows.trackers import make_tracker


def extract_controls(
    request: ExtractControlsRequest, progress: Progress | None = None
) -> JobResult:
    """Write the controls of a video, going on where an earlier call stopped.

    Raises:
        LongVieError: See `longvie_cli.errors`.
    """
    from longvie_cli.engine.loader import resolve_device

    progress = progress or SilentProgress()
    if request.output.exists() and not request.output.is_dir():
        raise UsageError(f"-o {request.output}: this is a file; the controls need a folder.")
    if request.offline:
        go_offline()
    preset = with_track_grid(load_preset(request.preset), request.track_grid)
    device = resolve_device(request.device)
    choice = DepthChoice.of(request)
    tracker = make_tracker(
        request.tracker or TrackerChoice(),
        device=device,
        accept_noncommercial=request.accept_noncommercial,
        progress=progress,
    )
    depth = choice.load(
        request.video, preset=preset, fit=request.fit, device=device, progress=progress
    )
    wanted = request.wanted_frames(preset.geometry)
    source = VideoSource(
        request.video, preset, request.fit, device, at_cut=request.at_cut, progress=progress
    )
    num_frames = frames_to_make(source, wanted, flag=request.length_flag, fps=preset.fps)
    notes: list[str] = []
    cuts = cuts_to_honour(
        source, num_frames, request.at_cut, fps=preset.fps, notes=notes, progress=progress
    )
    for note in notes:
        progress.message(note)
    extract(
        request.video,
        request.output,
        layout=control_layout(preset, cuts=cuts),
        fit=request.fit,
        depth=depth,
        smoothing=choice.smoothing_used,
        tracker=tracker,
        progress=progress,
        num_frames=wanted,
        text=request.prompt or "",
        overwrite=request.overwrite,
    )
    controls = load_control_clips(request.output, preset.geometry)
    if request.preview:
        preview, sheet = write_preview(
            controls, request.video, fps=preset.fps, fit=request.fit, progress=progress
        )
        progress.message(f"To look at: {preview} and {sheet}")
    frames = controls.num_frames
    return JobResult("done", request.output, frames=frames, seconds=frames / preset.fps)
