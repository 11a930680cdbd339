"""What the video goes on with: a new source, the rest of its own, or nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from longvie_cli.disk.hashing import hash_file
from longvie_cli.errors import ControlError, UsageError
from longvie_cli.planning.earlier import (
    Origin,
    earlier_depth_range,
    last_greys,
)
from longvie_cli.planning.job import Start
from longvie_cli.progress import Progress
from longvie_cli.settings.camera_path import parse_camera_path
from longvie_cli.settings.presets import (
    Fit,
    Preset,
    load_preset,
    with_size,
)
from longvie_cli.settings.requests import AtCut, ExtendRequest, flags_of
from longvie_cli.settings.sampling import Sampling
from longvie_cli.settings.tracking import parse_tracker
from longvie_cli.sources.camera import CameraSource
from longvie_cli.sources.depth_choice import DepthChoice
from longvie_cli.sources.flight import FlightSource
from longvie_cli.sources.folder import FolderSource
from longvie_cli.sources.source import NoSource, Source
from longvie_cli.sources.video import VideoSource

if TYPE_CHECKING:
    from longvie_cli.controls.normalization import DepthRange


def source_fit(request: ExtendRequest, preset: Preset, earlier: Fit) -> Fit:
    """Return how the source is brought to size: a new one as `generate` would, its own as before.

    Of the earlier video itself `--fit`, or its own fit, decides.
    """
    if request.video is not None:
        return request.fit or preset.source_fit
    if request.controls is not None:
        return request.fit or preset.fit
    return earlier


def say_idle(request: ExtendRequest, source: Source, progress: Progress) -> None:
    """Warn of what was asked for and does nothing, as what it goes on with shows.

    Raises:
        UsageError: Ready depth has no video whose depth it could be.
    """
    if source.kind == "video":
        return
    if request.depth is not None:
        raise UsageError(f"--depth: there is no video that it is the depth of ({source.name}).")
    estimated = isinstance(source, CameraSource) and source.has_picture
    names = ["tracker", "depth_smoothing", *([] if estimated else ["depth_model"])]
    if idle := [name for name in names if getattr(request, name) is not None]:
        progress.warning(f"{flags_of(idle)}: nothing to do, it goes on with {source.name}.")


def _depth(request: ExtendRequest, origin: Origin, *, own_source: bool) -> DepthChoice:
    """Return where depth comes from: as asked for, or as before; ready depth is of one video."""
    before = origin.depth if own_source else replace(origin.depth, video=None)
    smoothing = request.depth_smoothing or before.smoothing
    if request.depth is not None:
        polarity = request.depth_polarity or "auto"
        return DepthChoice(before.model, smoothing, request.depth, polarity)
    if request.depth_model is not None:
        return DepthChoice(request.depth_model, smoothing)
    polarity = request.depth_polarity or before.polarity
    return DepthChoice(before.model, smoothing, before.video, polarity)


def _range_for(
    depth: DepthChoice, request: ExtendRequest, origin: Origin, notes: list[str]
) -> DepthRange | None:
    """Return the depth range of the earlier run, None where depth has another scale now."""
    if request.depth is None and request.depth_model is None:
        return earlier_depth_range(origin)
    if (depth.model, depth.video) == (origin.depth.model, origin.depth.video):
        return earlier_depth_range(origin)
    notes.append(
        f"{request.previous.name}: depth comes from another place than before, so its greys are "
        "measured anew."
    )
    return None


def camera_source(
    request: ExtendRequest,
    origin: Origin,
    preset: Preset,
    fit: Fit,
    sampling: Sampling,
    start: Start,
) -> CameraSource:
    """Return a new path through the last frame, whose depth keeps its greys where it had some."""
    assert request.camera is not None and start.history is not None, "asked for a --camera"
    fov = request.fov or float(origin.settings.get("fov", 55.0))
    return CameraSource(
        request.camera,
        preset,
        fit,
        sampling.device,
        sampling.seed,
        pixels=start.history[-1],
        fov=fov,
        pingpong=request.repeat == "pingpong",
        greys=last_greys(origin, preset),
        depth=_depth(request, origin, own_source=False),
    )


def source_to_go_on_with(
    request: ExtendRequest,
    origin: Origin,
    preset: Preset,
    fit: Fit,
    sampling: Sampling,
    progress: Progress,
    notes: list[str],
    at_cut: AtCut | None,
) -> Source:
    """Return what the video goes on with: a new source, the rest of its own, or nothing."""
    pingpong = request.repeat == "pingpong"
    if request.video is not None:
        return VideoSource(
            request.video,
            preset,
            fit,
            sampling.device,
            pingpong,
            at_cut=at_cut,
            progress=progress,
            depth=_depth(request, origin, own_source=False),
            **_tracking(request, origin),
        )
    if request.controls is not None:
        return FolderSource(request.controls, preset, fit, progress, pingpong)
    rest = _rest_of_source(request, origin, preset, fit, sampling, progress, notes, at_cut)
    if rest is None:
        if request.repeat is not None:
            raise UsageError("--repeat: there is no --video or --controls to repeat.")
        notes.append(f"{request.previous.name}: goes on without controls.")
        return NoSource()
    if (left := rest.frames_left(2)) is not None and left < 2:
        notes.append(
            f"{request.previous.name}: nothing is left of {rest.name}; goes on without controls."
        )
        return NoSource()
    return rest


def _rest_of_source(
    request: ExtendRequest,
    origin: Origin,
    preset: Preset,
    fit: Fit,
    sampling: Sampling,
    progress: Progress,
    notes: list[str],
    at_cut: AtCut | None,
) -> Source | None:
    settings, kind = origin.settings, origin.about.get("source_kind")
    place = int(origin.about.get("last_source_frame", 0))
    pingpong = request.repeat == "pingpong" or bool(settings.get("pingpong"))
    if kind == "flight":
        return FlightSource(int(settings["flight"]), preset, place, earlier_depth_range(origin))
    if kind == "camera":
        return _rest_of_camera(request, origin, preset, fit, sampling, notes, pingpong)
    if origin.source_path is None or kind not in ("video", "controls"):
        return None
    path = origin.source_path
    if not path.exists():
        raise ControlError(
            f"{path}: the source of {request.previous.name} is no longer there.",
            hint="Pass it, or another one, with --video or --controls.",
        )
    if kind == "controls":
        source = FolderSource(path, preset, fit, progress, pingpong, place)
        made_from = settings.get("controls_hashes", [])
        # Clips may have been added since.
        if source.facts()["controls_hashes"][: len(made_from)] != made_from:
            raise ControlError(
                f"{path}: these controls have changed since {request.previous.name} was made from "
                "them.",
                hint="Pass --controls to begin with them anew.",
            )
        return source
    if hash_file(path) != settings.get("video_hash"):
        raise ControlError(
            f"{path}: this file has changed since {request.previous.name} was made from it.",
            hint="Pass --video to begin with it anew.",
        )
    depth = _depth(request, origin, own_source=True)
    if depth.video is not None and not depth.video.exists():
        raise ControlError(
            f"{depth.video}: the depth of {path.name} is no longer there.",
            hint="Put it back, or pass --video to begin with it anew.",
        )
    return VideoSource(
        path,
        preset,
        fit,
        sampling.device,
        pingpong,
        place,
        _range_for(depth, request, origin, notes),
        depth,
        at_cut,
        progress,
        **_tracking(request, origin),
    )


def _tracking(request: ExtendRequest, origin: Origin) -> dict[str, Any]:
    """Return the tracker asked for, or the earlier video's."""
    tracker = request.tracker
    if tracker is None:
        earlier = str(origin.settings.get("tracker", "lk"))
        tracker = parse_tracker(earlier)
        if tracker.checkout is not None:
            # A run remembers the folder's name, not where it was.
            raise UsageError(
                f"{request.previous.name}: its points were tracked by {earlier}.",
                hint="Pass --tracker path:DIR with that folder, or another tracker.",
            )
    return {"tracker": tracker, "accept_noncommercial": request.accept_noncommercial}


def _rest_of_camera(
    request: ExtendRequest,
    origin: Origin,
    preset: Preset,
    fit: Fit,
    sampling: Sampling,
    notes: list[str],
    pingpong: bool,
) -> Source | None:
    """Return the path of the earlier run, further on; None if its picture is gone."""
    from longvie_cli.controls.files import FIRST_FRAME_NAME

    settings = origin.settings
    picture = None
    if "camera_picture" in settings:
        if origin.folder is None:
            return None
        picture = origin.folder.controls_dir / FIRST_FRAME_NAME
        if not picture.is_file():
            return None
    depth = _depth(request, origin, own_source=False)
    source = CameraSource(
        parse_camera_path(str(settings["camera"])),
        preset,
        fit,
        sampling.device,
        int(settings["landscape"]),
        image=picture,
        fov=float(settings.get("fov", 55.0)),
        pingpong=pingpong,
        first_frame=int(origin.about.get("last_source_frame", 0)),
        depth_range=_range_for(depth, request, origin, notes)
        if picture
        else earlier_depth_range(origin),
        depth=depth,
    )
    # The hash is of the picture at the size of the controls, which may be another one now.
    before = replace(source, preset=with_size(load_preset(origin.preset_name), origin.size))
    if before.facts().get("camera_picture") != settings.get("camera_picture"):
        raise ControlError(
            f"{picture}: this picture has changed since {request.previous.name} was made from it.",
            hint="Pass --camera to begin with the last frame.",
        )
    return source
