"""Which source a request names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longvie_cli.progress import Progress
from longvie_cli.settings.presets import Preset
from longvie_cli.settings.requests import ExtractControlsRequest, GenerateRequest
from longvie_cli.settings.tracking import TrackerChoice
from longvie_cli.sources.camera import CameraSource
from longvie_cli.sources.depth_choice import DepthChoice
from longvie_cli.sources.flight import FlightSource
from longvie_cli.sources.source import MadeSource
from longvie_cli.sources.video import VideoSource

if TYPE_CHECKING:
    pass


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
