"""`extend`: more of a video, from its last frames on; its own frames are copied."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longvie_cli.errors import ControlError, MediaError, OutputConflictError, UsageError
from longvie_cli.media.join import is_joinable
from longvie_cli.media.metadata import read_settings
from longvie_cli.media.packets import read_sound
from longvie_cli.media.probe import SourceVideo, probe_video
from longvie_cli.media.reader import count_frames, read_last_frames
from longvie_cli.hub.installed import go_offline, locate_weights
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.run_folder.commit import hash_file
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.manifest import read_manifest, read_record
from longvie_cli.run_folder.tails import load_tail
from longvie_cli.settings.about import checked_about
from longvie_cli.settings.camera_path import parse_camera_path
from longvie_cli.settings.presets import (
    DEFAULT_PRESET,
    Fit,
    FrameSize,
    Preset,
    TrackGrid,
    load_preset,
    parse_size,
    with_size,
)
from longvie_cli.settings.requests import (
    AtCut,
    ExtendRequest,
    LoraFile,
    check_control_range,
    flags_of,
)
from longvie_cli.settings.tracking import parse_track_grid, parse_tracker
from longvie_cli.timeline import plan_clips
from longvie_cli.running.carry_out import carry_out, describe
from longvie_cli.running.delivery import read_delivery
from longvie_cli.sources.depth_choice import DepthChoice
from longvie_cli.planning.job import (
    FROM_THE_PROMPT,
    EarlierVideo,
    Job,
    Sampling,
    Sound,
    Start,
    check_first_frame,
    check_loras,
    check_name,
    check_paths,
    decided_job,
    first_frame_label,
    say_untrained_size,
)
from longvie_cli.result import JobResult
from longvie_cli.planning.cuts import cuts_to_honour
from longvie_cli.sources.source import (
    CameraSource,
    FlightSource,
    FolderSource,
    NoSource,
    Source,
    VideoSource,
    frames_to_make,
    with_track_grid,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from longvie_cli.controls.normalization import DepthRange


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


def extend(request: ExtendRequest, progress: Progress | None = None) -> JobResult:
    """Continue a video, going on where an earlier call with the same request stopped.

    Raises:
        LongVieError: See `longvie_cli.errors`; everything made so far is saved.
    """
    progress = progress or SilentProgress()
    check_paths(request)
    check_name(request.previous)
    if request.no_clobber and request.output.exists():
        progress.message(f"{request.output}: exists, skipped (--no-clobber).")
        return JobResult("skipped", request.output)
    if request.offline:
        go_offline()
    return carry_out(decide(request, progress, to_run=True), progress)


def plan(request: ExtendRequest, progress: Progress | None = None) -> JobResult:
    """Say what `extend` would do; writes nothing."""
    progress = progress or SilentProgress()
    check_paths(request)
    check_name(request.previous)
    if request.offline:
        go_offline()
    return describe(decide(request, progress), progress)


def decide(request: ExtendRequest, progress: Progress, *, to_run: bool = False) -> Job:
    """Return the job of a request: what is continued, how, by which clips; writes nothing.

    With `to_run`, weights and models must be here: that is found out before any video is read
    through, and before there is a run folder.
    """
    previous = probe_video(request.previous)
    origin = find_origin(request.previous)
    preset = _preset(request, origin)
    if to_run:
        locate_weights(preset)
    fit: Fit = request.fit or origin.settings.get("fit", preset.fit)
    source_fit = _source_fit(request, preset, fit)
    sampling = _sampling(request, origin, preset)
    notes: list[str] = []
    start = _start(previous, origin, preset, fit, notes)
    earlier = _earlier_video(request, previous, preset, fit, notes)
    # A source that was cut up before is cut up again: its cuts are as known as its length.
    at_cut: AtCut | None = (
        request.at_cut or origin.request.get("at_cut") or origin.settings.get("at_cut")
    )
    if request.camera is not None:
        source: Source = _camera_source(request, origin, preset, fit, sampling, start)
    else:
        source = _source(request, origin, preset, source_fit, sampling, progress, notes, at_cut)
    _say_idle(request, source, progress)
    if to_run:
        source.check_models()
    say_untrained_size(preset, progress)
    wanted = request.wanted_frames(preset.geometry, continues=True)
    num_frames = frames_to_make(
        source, wanted, flag=request.length_flag, fps=preset.fps, shared_frames=1
    )
    source.check_length(num_frames + 1)
    if wanted is None and source.frames_left(None) is None:
        notes.append(f"No length given: {num_frames / preset.fps:g} s are added.")
    cuts = cuts_to_honour(
        source, num_frames + 1, at_cut, fps=preset.fps, notes=notes, progress=progress
    )
    specs = plan_clips(preset.geometry, num_frames, continues=True, cuts=cuts)
    scenes = _scenes(request, origin, preset) if cuts else None
    if scenes is not None:
        start = replace(start, scenes_from_prompt=True, image_model=scenes.model)
    prompt = request.prompt
    # Captions go on as captions where the source still has some; else the last words stay.
    captioned = source.kind in ("controls", "camera", "flight") and origin.about.get(
        "captioned", True
    )
    if prompt is None and not request.prompts and not captioned:
        prompt = origin.about.get("last_prompt")
    audio, sound = _sound(request, origin, source, earlier, preset.fps, notes)
    more_settings: dict[str, Any] = {} if scenes is None else {"scenes": scenes.label}
    if sound is not None:
        more_settings["audio_start"] = round(sound.start, 6)
    if earlier.has_sound and not earlier.keeps_sound:
        more_settings["earlier_sound"] = False
    # Recorded as they hold, so that the next `extend` finds them however many came before it.
    asked = request.model_copy(
        update={
            "at_cut": at_cut,
            "audio": audio,
            "first_frame": "prompt" if _scenes_by_prompt(request, origin) else request.first_frame,
            "first_frame_model": _first_frame_model(request, origin),
        }
    )
    return decided_job(
        "extend",
        asked,
        preset=preset,
        specs=specs,
        prompt=prompt,
        source=source,
        start=start,
        fit=source_fit,
        sampling=sampling,
        sound=sound,
        notes=notes,
        earlier=earlier,
        more_settings=more_settings,
    )


def _preset(request: ExtendRequest, origin: Origin) -> Preset:
    name = request.preset or origin.preset_name
    size = request.size or (origin.size if name == origin.preset_name else None)
    preset = with_track_grid(
        with_size(load_preset(name), size), request.track_grid or _earlier_grid(origin)
    )
    weights = request.weights
    if weights is None and name == origin.preset_name:
        weights = origin.weights
    if weights is not None:
        from longvie_cli.engine.loader import find_weights

        preset = preset.model_copy(update={"weights": weights})
        find_weights(preset)
    return preset


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


def _sampling(request: ExtendRequest, origin: Origin, preset: Preset) -> Sampling:
    from longvie_cli.engine.loader import resolve_device, resolve_dtype
    from longvie_cli.engine.placement import check_offload, resolve_attention

    device = resolve_device(request.device)
    before = origin.settings

    def chosen(asked: Any, key: str, default: Any) -> Any:
        return asked if asked is not None else before.get(key, default)

    dtype = resolve_dtype(chosen(request.dtype, "dtype", "auto"), device)
    check_offload(request.offload, device)
    control_start = chosen(request.control_start, "control_start", 0.0)
    control_end = chosen(request.control_end, "control_end", 1.0)
    check_control_range(control_start, control_end)
    seed_per_clip = chosen(request.seed_per_clip, "seed_per_clip", False)
    seed = chosen(request.seed, "seed", 0)
    if request.seed is None and seed_per_clip and before.get("seed_per_clip"):
        # Counting goes on where the earlier clips ended.
        seed += int(origin.about.get("clips", 0))
    loras = _earlier_loras(origin) if request.lora is None else request.lora
    check_loras(loras)
    return Sampling(
        seed=seed,
        num_inference_steps=chosen(
            request.num_inference_steps, "steps", preset.num_inference_steps
        ),
        guidance_scale=chosen(request.guidance_scale, "guidance", preset.guidance_scale),
        negative_prompt=chosen(request.negative_prompt, "negative_prompt", preset.negative_prompt),
        depth_strength=chosen(request.depth_strength, "depth_strength", 1.0),
        track_strength=chosen(request.track_strength, "track_strength", 1.0),
        device=device,
        dtype=dtype,
        offload=request.offload,
        quantize=chosen(request.quantize, "quantize", "none"),
        attention=resolve_attention(chosen(request.attention, "attention", "auto"), device, dtype),
        control_start=control_start,
        control_end=control_end,
        seed_per_clip=seed_per_clip,
        loras=loras,
    )


def _earlier_loras(origin: Origin) -> tuple[LoraFile, ...]:
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


def _start(
    previous: SourceVideo, origin: Origin, preset: Preset, fit: Fit, notes: list[str]
) -> Start:
    name = previous.path.name
    label = f"end of {name} {hash_file(previous.path)}"
    if origin.tail is not None:
        history = load_tail(origin.tail)
        if history.shape[1:3] == (preset.height, preset.width):
            return _started(label, history)
        notes.append(
            f"{name}: its last frames are brought to {preset.size.label}, so it does not "
            "go on without loss."
        )
    elif origin.about:
        notes.append(
            f"{name}: its run folder is not beside it, so it goes on from its last frames "
            "as decoded, which are not lossless."
        )
    history = read_last_frames(
        previous,
        preset.history_frames,
        fps=preset.fps,
        height=preset.height,
        width=preset.width,
        fit=fit,
    )
    return _started(label, history)


def _started(label: str, history: NDArray[np.uint8]) -> Start:
    # With them: decoded frames are others than the lossless ones of a run folder that has gone.
    digest = hashlib.sha256(history.tobytes()).hexdigest()[:16]
    return Start(f"{label}, last frames {digest}", history=history)


def _source_fit(request: ExtendRequest, preset: Preset, earlier: Fit) -> Fit:
    """Return how the source is brought to size: a new one as `generate` would, its own as before.

    Of the earlier video itself `--fit`, or its own fit, decides.
    """
    if request.video is not None:
        return request.fit or preset.source_fit
    if request.controls is not None:
        return request.fit or preset.fit
    return earlier


def _earlier_video(
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
        keeps_sound=video.has_audio and request.audio != "none",
        fit=fit,
    )


@dataclass(frozen=True)
class _Scenes:
    """How scenes that begin anew get their picture from the prompt.

    Args:
        label: In words, for the comparison of requests.
        model: The pipeline that makes it; None lets the video model do it.
    """

    label: str
    model: Path | None


def _scenes_by_prompt(request: ExtendRequest, origin: Origin) -> bool:
    asked = request.first_frame or origin.request.get("first_frame")
    if asked is not None:
        return bool(asked == "prompt")
    return str(origin.settings.get("first_frame", "")).startswith(FROM_THE_PROMPT)


def _first_frame_model(request: ExtendRequest, origin: Origin) -> Path | None:
    earlier = origin.request.get("first_frame_model")
    return request.first_frame_model or (Path(earlier) if earlier else None)


def _scenes(request: ExtendRequest, origin: Origin, preset: Preset) -> _Scenes | None:
    """Return how scenes get a picture from the prompt, None if they show the source's own.

    Raises:
        UsageError: Nothing makes one.
        MissingResourceError: The pipeline is gone.
    """
    if not _scenes_by_prompt(request, origin):
        return None
    model = _first_frame_model(request, origin)
    check_first_frame(preset, model)
    return _Scenes(first_frame_label(model), model)


def _sound(
    request: ExtendRequest,
    origin: Origin,
    source: Source,
    earlier: EarlierVideo,
    fps: int,
    notes: list[str],
) -> tuple[str | None, Sound | None]:
    """Return `--audio` as it holds, and what is heard from the first new frame on.

    A file is the sound of the whole video, so it goes on where the earlier video ends.

    Raises:
        UsageError: There is no video whose sound could go along, or it has none.
        MediaError: The file has no sound.
    """
    audio = request.audio
    if audio is None:
        audio = _earlier_audio(request, origin, source, notes)
    if audio is None or audio == "none":
        return audio, None
    if audio != "source":
        read_sound(Path(audio))
        return audio, Sound(Path(audio), earlier.num_frames / fps)
    if not isinstance(source, VideoSource):
        raise UsageError("--audio source: it goes on without a video to take the sound from.")
    if source.pingpong:
        raise UsageError(
            "--audio source: the sound of a source played back and forth is of no use."
        )
    if not source.video.has_audio:
        raise UsageError(f"--audio source: {source.name} has no sound.")
    # Its frame `first_frame` is the last one of the earlier video.
    return audio, Sound(source.path, (source.first_frame + 1) / fps)


def _earlier_audio(
    request: ExtendRequest, origin: Origin, source: Source, notes: list[str]
) -> str | None:
    """Return what the earlier run took its sound from, None if it had none or that is gone."""
    audio = origin.request.get("audio")
    if audio is None or audio == "none":
        return None
    if audio == "source":
        goes_on = request.video is None and isinstance(source, VideoSource) and not source.pingpong
    else:
        goes_on = Path(audio).is_file()
    if not goes_on:
        notes.append(f"{request.previous.name}: its sound does not go on (--audio).")
        return None
    return str(audio)


def _say_idle(request: ExtendRequest, source: Source, progress: Progress) -> None:
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
        return _depth_range(origin)
    if (depth.model, depth.video) == (origin.depth.model, origin.depth.video):
        return _depth_range(origin)
    notes.append(
        f"{request.previous.name}: depth comes from another place than before, so its greys are "
        "measured anew."
    )
    return None


def _camera_source(
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
        greys=_last_greys(origin, preset),
        depth=_depth(request, origin, own_source=False),
    )


def _last_greys(origin: Origin, preset: Preset) -> NDArray[np.uint8] | None:
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


def _source(
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
        return FlightSource(int(settings["flight"]), preset, place, _depth_range(origin))
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


def _earlier_grid(origin: Origin) -> TrackGrid | None:
    grid = parse_track_grid(origin.settings.get("track_grid"))
    return grid if isinstance(grid, TrackGrid) else None


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
        depth_range=_range_for(depth, request, origin, notes) if picture else _depth_range(origin),
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


def _depth_range(origin: Origin) -> DepthRange | None:
    from longvie_cli.controls.control_folder import read_depth_range
    from longvie_cli.controls.files import NORMALIZATION_NAME

    if origin.folder is None or not (origin.folder.controls_dir / NORMALIZATION_NAME).is_file():
        return None
    return read_depth_range(origin.folder.controls_dir)
