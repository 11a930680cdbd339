"""What `extend` shall do: the request completed from the earlier video, then decided."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longvie_cli.disk.hashing import hash_file
from longvie_cli.errors import UsageError
from longvie_cli.hub.installed import locate_weights
from longvie_cli.media.probe import SourceVideo, probe_video
from longvie_cli.media.reader import read_last_frames
from longvie_cli.media.sound import read_sound
from longvie_cli.planning.cuts import cuts_to_honour
from longvie_cli.planning.decide import (
    FROM_THE_PROMPT,
    check_first_frame,
    check_loras,
    decided_job,
    first_frame_label,
    say_untrained_size,
)
from longvie_cli.planning.earlier import (
    Origin,
    earlier_grid,
    earlier_loras,
    earlier_video,
    find_origin,
)
from longvie_cli.planning.job import EarlierVideo, Job, Sampling, Sound, Start
from longvie_cli.planning.length import frames_to_make
from longvie_cli.planning.rest_of_source import (
    camera_source,
    say_idle,
    source_fit,
    source_to_go_on_with,
)
from longvie_cli.progress import Progress
from longvie_cli.run_folder.tails import load_tail
from longvie_cli.settings.presets import (
    Fit,
    Preset,
    load_preset,
    with_size,
)
from longvie_cli.settings.requests import AtCut, ExtendRequest
from longvie_cli.settings.sampling import check_control_range
from longvie_cli.sources.source import Source, with_track_grid
from longvie_cli.sources.video import VideoSource
from longvie_cli.timeline import plan_clips

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
    fit_of_source = source_fit(request, preset, fit)
    sampling = _sampling(request, origin, preset)
    notes: list[str] = []
    start = _start(previous, origin, preset, fit, notes)
    earlier = earlier_video(request, previous, preset, fit, notes)
    # A source that was cut up before is cut up again: its cuts are as known as its length.
    at_cut: AtCut | None = (
        request.at_cut or origin.request.get("at_cut") or origin.settings.get("at_cut")
    )
    if request.camera is not None:
        source: Source = camera_source(request, origin, preset, fit, sampling, start)
    else:
        source = source_to_go_on_with(
            request, origin, preset, fit_of_source, sampling, progress, notes, at_cut
        )
    say_idle(request, source, progress)
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
    if earlier.has_sound and earlier.sound is None:
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
        fit=fit_of_source,
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
        with_size(load_preset(name), size), request.track_grid or earlier_grid(origin)
    )
    weights = request.weights
    if weights is None and name == origin.preset_name:
        weights = origin.weights
    if weights is not None:
        from longvie_cli.models.weights.load import find_weights

        preset = preset.model_copy(update={"weights": weights})
        find_weights(preset)
    return preset


def _sampling(request: ExtendRequest, origin: Origin, preset: Preset) -> Sampling:
    from longvie_cli.engine.placement import (
        check_offload,
        resolve_attention,
        resolve_device,
        resolve_dtype,
    )

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
    loras = earlier_loras(origin) if request.lora is None else request.lora
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
        stream = read_sound(Path(audio))
        notes += stream.remarks()
        return audio, Sound(stream, earlier.num_frames / fps)
    if not isinstance(source, VideoSource):
        raise UsageError("--audio source: it goes on without a video to take the sound from.")
    if source.pingpong:
        raise UsageError(
            "--audio source: the sound of a source played back and forth is of no use."
        )
    if not source.video.has_audio:
        raise UsageError(f"--audio source: {source.name} has no sound.")
    stream = read_sound(source.path)
    notes += stream.remarks()
    # Its frame `first_frame` is the last one of the earlier video.
    return audio, Sound(stream, (source.first_frame + 1) / fps)


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
