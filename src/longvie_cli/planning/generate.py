"""What `generate` shall do, decided to the last number; writes nothing."""

from __future__ import annotations

from pathlib import Path

from longvie_cli.disk.hashing import fingerprint, hash_file
from longvie_cli.errors import UsageError
from longvie_cli.hub.installed import locate_weights
from longvie_cli.media.gradual import is_blank
from longvie_cli.media.image import describe_image, read_image
from longvie_cli.media.sound import read_sound
from longvie_cli.planning.decide import (
    check_first_frame,
    decided_job,
    decided_sampling,
    first_frame_label,
)
from longvie_cli.planning.job import AddedSound, Choice, Job, Start
from longvie_cli.progress import Progress
from longvie_cli.settings.presets import Fit, Preset, load_preset, with_size
from longvie_cli.settings.request_json import request_json
from longvie_cli.settings.requests import GenerateRequest
from longvie_cli.sources.choose import made_source, usual_fit
from longvie_cli.sources.folder import FolderSource
from longvie_cli.sources.source import Source, to_model_size, with_track_grid
from longvie_cli.sources.video import VideoSource


def decide(request: GenerateRequest, progress: Progress, *, to_run: bool = False) -> Job:
    """Return the job of a request: clips, prompts, source, first frame; writes nothing.

    With `to_run`, weights and models must be here: that is found out before a source is read
    through, and before there is a run folder.

    Raises:
        LongVieError: See `longvie_cli.errors`.
    """
    preset = _preset(request)
    sampling = decided_sampling(request, preset, request.lora or (), progress)
    if request.first_frame == "prompt":
        check_first_frame(preset, request.first_frame_model)
    fit = usual_fit(request, preset)
    source = _source(request, preset, fit, sampling.device, progress)
    if to_run and source.kind != "controls":
        # All that is missing in one message, before a video is read through. Controls are looked
        # at first: what is wrong with them is wrong whatever is fetched.
        locate_weights(preset)
    # What is wrong with the source is said before what is wrong beside it.
    source.frames_left(0)
    notes: list[str] = []
    if request.image is not None and request.camera is None:
        # Of a picture that the camera goes through, its source says it.
        notes += describe_image(request.image)
    sound = _sound(request, source, notes)
    start = _start(request, preset, fit, source)
    if request.image is None and start.image is not None and is_blank(start.image):
        progress.warning(
            f"{source.name}: its first picture shows one colour only, and the video would begin "
            "with it. Pass --image FILE, or --first-frame prompt."
        )
    choice = Choice(
        command="generate",
        request=request,
        asked=fingerprint(request_json(request)),
        preset=preset,
        sampling=sampling,
        source=source,
        start=start,
        fit=fit,
        at_cut=request.at_cut,
        sound=sound,
        notes=tuple(notes),
    )
    job = decided_job(choice, progress, to_run=to_run)
    if to_run:
        locate_weights(preset)
    return job


def _preset(request: GenerateRequest) -> Preset:
    from longvie_cli.models.weights.sources import find_weights

    preset = with_track_grid(
        with_size(load_preset(request.preset, request.weights), request.size), request.track_grid
    )
    if preset.weights is not None:
        find_weights(preset)
    return preset


def _source(
    request: GenerateRequest, preset: Preset, fit: Fit, device: str, progress: Progress
) -> Source:
    pingpong = request.repeat == "pingpong"
    if request.controls is not None:
        return FolderSource(request.controls, preset, fit, progress, pingpong)
    return made_source(request, preset, device, progress, pingpong=pingpong)


def _start(request: GenerateRequest, preset: Preset, fit: Fit, source: Source) -> Start:
    """Return what the video starts from: --image, the source's own picture, or the prompt."""
    if request.image is not None:
        # It takes the way of the pictures that the controls are made of, so that they fit it.
        beside_pictures = request.video is not None or request.camera is not None
        height, width = preset.control_size if beside_pictures else (preset.height, preset.width)
        image = read_image(request.image, height=height, width=width, fit=fit)
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
    label = first_frame_label(model)
    return Start(label, image_model=model, scenes_label=label)


def _sound(request: GenerateRequest, source: Source, notes: list[str]) -> AddedSound | None:
    if request.audio == "none":
        return None
    if request.audio != "source":
        stream = read_sound(Path(request.audio))
        notes += stream.remarks()
        return AddedSound(stream)
    if request.repeat is not None:
        raise UsageError(
            "--audio source: the sound of a source played back and forth is of no use."
        )
    assert isinstance(source, VideoSource), "checked by the request"
    if not source.video.has_audio:
        raise UsageError(f"--audio source: {source.name} has no sound.")
    stream = read_sound(source.path)
    notes += stream.remarks()
    return AddedSound(stream)
