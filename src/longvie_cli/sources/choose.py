"""Which source a request names."""

from __future__ import annotations

from longvie_cli.progress import Progress
from longvie_cli.settings.presets import Fit, Preset
from longvie_cli.settings.requests import ExtractControlsRequest, GenerateRequest
from longvie_cli.settings.tracking import TrackerChoice
from longvie_cli.sources.camera import CameraSource
from longvie_cli.sources.depth_choice import DepthChoice
from longvie_cli.sources.flight import FlightSource
from longvie_cli.sources.source import MadeSource
from longvie_cli.sources.video import VideoSource


def made_source(
    request: GenerateRequest | ExtractControlsRequest,
    preset: Preset,
    device: str,
    progress: Progress,
    *,
    pingpong: bool = False,
) -> MadeSource:
    """Return the video or the camera path of a request, or else a flight over a landscape."""
    fit = usual_fit(request, preset)
    if request.video is not None:
        return VideoSource(
            request.video,
            preset,
            fit,
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
        fit,
        device,
        seed,
        image=request.image,
        fov=request.fov,
        pingpong=pingpong,
        depth=DepthChoice.of(request),
        progress=progress,
    )


def usual_fit(request: GenerateRequest | ExtractControlsRequest, preset: Preset) -> Fit:
    """Return how pictures of a request are brought to size: as asked, else as is usual for them."""
    # A camera flies through a picture of the size of the controls, as a video has it.
    flown = request.video is not None or request.camera is not None
    return request.fit or (preset.source_fit if flown else preset.fit)
