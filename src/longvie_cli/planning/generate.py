"""What `generate` shall do, decided to the last number; writes nothing."""

from __future__ import annotations

from pathlib import Path

from longvie_cli.disk.hashing import hash_file
from longvie_cli.errors import UsageError
from longvie_cli.hub.installed import locate_weights
from longvie_cli.media.reader import read_image
from longvie_cli.media.sound import read_sound
from longvie_cli.planning.cuts import cuts_to_honour
from longvie_cli.planning.decide import (
    check_first_frame,
    check_loras,
    decided_job,
    first_frame_label,
    say_untrained_size,
)
from longvie_cli.planning.job import Job, Sampling, Sound, Start
from longvie_cli.planning.length import frames_to_make
from longvie_cli.progress import Progress
from longvie_cli.settings.presets import Preset, load_preset, with_size
from longvie_cli.settings.requests import GenerateRequest
from longvie_cli.sources.choose import made_source
from longvie_cli.sources.folder import FolderSource
from longvie_cli.sources.source import Source, to_model_size, with_track_grid
from longvie_cli.sources.video import VideoSource
from longvie_cli.timeline import plan_clips


def decide(request: GenerateRequest, progress: Progress, *, to_run: bool = False) -> Job:
    """Return the job of a request: clips, prompts, source, first frame; writes nothing.

    With `to_run`, models that its source is looked at with must be here: that is found out before
    the source is read through, and before there is a run folder.
    """
    from longvie_cli.engine.placement import (
        check_offload,
        resolve_attention,
        resolve_device,
        resolve_dtype,
    )
    from longvie_cli.models.weights.load import find_weights

    preset = with_track_grid(_preset(request), request.track_grid)
    if preset.weights is not None:
        find_weights(preset)
    device = resolve_device(request.device)
    dtype = resolve_dtype(request.dtype, device)
    check_offload(request.offload, device)
    sampling = Sampling(
        seed=request.seed,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        negative_prompt=request.negative_prompt,
        depth_strength=request.depth_strength,
        track_strength=request.track_strength,
        device=device,
        dtype=dtype,
        offload=request.offload,
        quantize=request.quantize,
        attention=resolve_attention(request.attention, device, dtype),
        control_start=request.control_start,
        control_end=request.control_end,
        seed_per_clip=request.seed_per_clip,
        loras=request.lora,
    )
    check_loras(sampling.loras)
    if request.first_frame == "prompt":
        check_first_frame(preset, request.first_frame_model)
    source = _source(request, preset, sampling.device, progress)
    notes: list[str] = []
    sound = _sound(request, source, notes)
    if to_run:
        if source.kind != "controls":
            # All that is missing in one message, before a video is read through.
            locate_weights(preset)
        source.check_models()
    say_untrained_size(preset, progress)
    wanted = request.wanted_frames(preset.geometry)
    num_frames = frames_to_make(source, wanted, flag=request.length_flag, fps=preset.fps)
    source.check_length(num_frames)
    cuts = cuts_to_honour(
        source, num_frames, request.at_cut, fps=preset.fps, notes=notes, progress=progress
    )
    if wanted is None and source.frames_left(None) is None:
        flown = "flight" if source.kind == "flight" else "video"
        notes.append(f"No length given: the {flown} lasts {num_frames / preset.fps:g} s.")
    return decided_job(
        "generate",
        request,
        preset=preset,
        specs=plan_clips(preset.geometry, num_frames, cuts=cuts),
        prompt=request.prompt,
        source=source,
        start=_start(request, preset, source),
        fit=request.fit,
        sampling=sampling,
        sound=sound,
        notes=notes,
    )


def _preset(request: GenerateRequest) -> Preset:
    preset = with_size(load_preset(request.preset), request.size)
    return preset.model_copy(update={"weights": request.weights})


def _source(request: GenerateRequest, preset: Preset, device: str, progress: Progress) -> Source:
    pingpong = request.repeat == "pingpong"
    if request.controls is not None:
        return FolderSource(request.controls, preset, request.fit, progress, pingpong)
    return made_source(request, preset, device, progress, pingpong=pingpong)


def _start(request: GenerateRequest, preset: Preset, source: Source) -> Start:
    """Return what the video starts from: --image, the source's own picture, or the prompt."""
    if request.image is not None:
        # It takes the way of the pictures that the controls are made of, so that they fit it.
        beside_pictures = request.video is not None or request.camera is not None
        height, width = preset.control_size if beside_pictures else (preset.height, preset.width)
        image = read_image(request.image, height=height, width=width, fit=request.fit)
        image = to_model_size(image, preset)
        return Start(f"{request.image.name} {hash_file(request.image)}", image)
    can_make = preset.makes_first_frame or request.first_frame_model is not None
    by_prompt = request.first_frame == "prompt"
    if request.first_frame is None and source.kind in ("flight", "camera"):
        by_prompt = can_make and bool(request.prompt or request.prompts)
    if not by_prompt:
        picture = source.picture(0)
        if picture is not None:
            return Start(f"of the {source.kind}", picture)
        raise UsageError(
            f"--image: {source.name} has no first.png to begin with.",
            hint="Pass --image FILE, or --first-frame prompt."
            if can_make
            else "Pass --image FILE.",
        )
    model = request.first_frame_model
    return Start(first_frame_label(model), image_model=model, scenes_from_prompt=True)


def _sound(request: GenerateRequest, source: Source, notes: list[str]) -> Sound | None:
    if request.audio == "none":
        return None
    if request.audio != "source":
        stream = read_sound(Path(request.audio))
        notes += stream.remarks()
        return Sound(stream)
    assert isinstance(source, VideoSource), "checked by the request"
    if request.repeat is not None:
        raise UsageError(
            "--audio source: the sound of a source played back and forth is of no use."
        )
    if not source.video.has_audio:
        raise UsageError(f"--audio source: {source.name} has no sound.")
    stream = read_sound(source.path)
    notes += stream.remarks()
    return Sound(stream)
