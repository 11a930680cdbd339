"""`extract-controls`: a video becomes a folder of depth and track clips with their cond.json."""

from __future__ import annotations

from longvie_cli.controls.extraction import extract_controls as extract
from longvie_cli.controls.files import load_control_clips
from longvie_cli.controls.tracks import LucasKanadeTracker
from longvie_cli.errors import UsageError
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.settings.presets import load_preset
from longvie_cli.settings.requests import ExtractControlsRequest
from longvie_cli.workflows.depth import DepthChoice
from longvie_cli.workflows.result import JobResult
from longvie_cli.workflows.sources import VideoSource, control_layout, frames_to_make


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
    preset = load_preset(request.preset)
    device = resolve_device(request.device)
    choice = DepthChoice.of(request)
    wanted = request.wanted_frames(preset.geometry)
    if wanted is not None:
        source = VideoSource(request.video, preset, request.fit, device)
        wanted = frames_to_make(source, wanted, flag=request.length_flag, fps=preset.fps)
    extract(
        request.video,
        request.output,
        layout=control_layout(preset),
        fit=request.fit,
        depth=choice.load(
            request.video, preset=preset, fit=request.fit, device=device, progress=progress
        ),
        smoothing=choice.smoothing_used,
        tracker=LucasKanadeTracker(),
        progress=progress,
        num_frames=wanted,
        text=request.prompt or "",
    )
    frames = load_control_clips(request.output, preset.geometry).num_frames
    return JobResult("done", request.output, frames=frames, seconds=frames / preset.fps)
