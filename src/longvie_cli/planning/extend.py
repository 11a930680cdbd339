"""What `extend` shall do: the request completed from the earlier video, then decided as any."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from longvie_cli.disk.hashing import fingerprint
from longvie_cli.errors import UsageError
from longvie_cli.hub.installed import locate_weights
from longvie_cli.media.reader import read_last_frames
from longvie_cli.media.sound import read_sound
from longvie_cli.planning.decide import (
    FROM_THE_PROMPT,
    check_first_frame,
    decided_job,
    decided_sampling,
    first_frame_label,
)
from longvie_cli.planning.earlier import Earlier, earlier_video, find_earlier, say_changed
from longvie_cli.planning.job import AddedSound, Choice, EarlierVideo, Job, Start
from longvie_cli.planning.rest_of_source import source_to_go_on_with
from longvie_cli.progress import Progress
from longvie_cli.run_folder.tails import load_tail
from longvie_cli.settings.presets import Fit, Preset, load_preset, with_size
from longvie_cli.settings.request_json import request_json
from longvie_cli.settings.requests import ExtendRequest
from longvie_cli.settings.sampling import Sampling
from longvie_cli.sources.source import Source, with_track_grid
from longvie_cli.sources.video import VideoSource

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def decide(request: ExtendRequest, progress: Progress, *, to_run: bool = False) -> Job:
    """Return the job of a request: what is continued, how, by which clips; writes nothing.

    With `to_run`, weights and models must be here: that is found out before any video is read
    through, and before there is a run folder.

    Raises:
        LongVieError: See `longvie_cli.errors`.
    """
    earlier = find_earlier(request.previous)
    preset = preset_of(request, earlier)
    if to_run:
        locate_weights(preset)
    notes: list[str] = []
    say_changed(earlier, notes)
    asked = completed(request, earlier, preset)
    fit: Fit = request.fit or earlier.settings.fit or preset.fit
    sampling = sampling_of(request, earlier, preset, progress)
    start = _start(asked, earlier, preset, fit, notes)
    before = earlier_video(earlier, request, preset, fit, notes)
    source = source_to_go_on_with(asked, earlier, preset, fit, sampling, start, progress, notes)
    audio, sound = _sound(request, earlier, source, before, preset.fps, notes)
    # Captions go on as captions where the source still has some; else the last words stay.
    has_captions = source.kind in ("controls", "camera", "flight") and earlier.about.captioned
    choice = Choice(
        command="extend",
        request=asked.model_copy(update={"audio": audio}),
        asked=fingerprint(request_json(request)),
        preset=preset,
        sampling=sampling,
        source=source,
        start=start,
        fit=source.used_fit or fit,
        at_cut=asked.at_cut,
        sound=sound,
        earlier=before,
        last_prompt=None if has_captions else earlier.about.last_prompt,
        inputs=() if earlier.tail is None else (("its last frames", earlier.tail),),
        notes=tuple(notes),
    )
    return decided_job(choice, progress, to_run=to_run)


def completed(request: ExtendRequest, earlier: Earlier, preset: Preset) -> ExtendRequest:
    """Return a request with what the earlier video's says where it says nothing itself.

    So it is recorded, and the next `extend` finds it however many came before it. What belongs to
    the sampling is completed by `decided_sampling`, the source by `source_to_go_on_with`.

    Raises:
        UsageError: Scenes shall start from the prompt, and nothing makes such a picture.
    """
    before = earlier.asked
    # A source that was cut up before is cut up again: its cuts are as known as its length.
    at_cut = request.at_cut or (before.at_cut if before else None) or earlier.settings.at_cut
    first_frame = request.first_frame or (before.first_frame if before else None)
    if first_frame is None and (earlier.settings.first_frame or "").startswith(FROM_THE_PROMPT):
        first_frame = "prompt"
    model = request.first_frame_model or (before.first_frame_model if before else None)
    if first_frame == "prompt" and at_cut == "restart":
        check_first_frame(preset, model)
    changes = {"at_cut": at_cut, "first_frame": first_frame, "first_frame_model": model}
    return request.model_copy(update=changes)


def preset_of(request: ExtendRequest, earlier: Earlier) -> Preset:
    """Return the preset asked for, else the earlier video's, at the size that holds."""
    name = request.preset or earlier.preset_name
    same = name == earlier.preset_name
    size = request.size or (earlier.size if same else None)
    weights = request.weights or (earlier.weights if same else None)
    preset = with_track_grid(
        with_size(load_preset(name, weights), size), request.track_grid or earlier.track_grid
    )
    if weights is not None:
        from longvie_cli.models.weights.sources import find_weights

        find_weights(preset)
    return preset


def sampling_of(
    request: ExtendRequest, earlier: Earlier, preset: Preset, progress: Progress
) -> Sampling:
    """Return how the model is run: as asked, else as it was for the earlier video.

    Raises:
        UsageError: A LoRA of the earlier video is gone.
        LongVieError: As `decided_sampling`.
    """
    before = earlier.settings
    per_clip = before.seed_per_clip if request.seed_per_clip is None else request.seed_per_clip
    if request.seed is None and per_clip and before.seed_per_clip:
        # Counting goes on where the earlier clips ended.
        seed = (before.seed or 0) + earlier.about.clips
        before = before.model_copy(update={"seed": seed})
    loras = earlier.loras() if request.lora is None else request.lora
    return decided_sampling(request, preset, loras, progress, before=before)


def _start(
    asked: ExtendRequest, earlier: Earlier, preset: Preset, fit: Fit, notes: list[str]
) -> Start:
    history = _history(earlier, preset, fit, notes)
    # With them: decoded frames are others than the lossless ones of a run folder that has gone.
    digest = hashlib.sha256(history.tobytes()).hexdigest()[:16]
    label = f"end of {earlier.name} {earlier.content_hash}, last frames {digest}"
    start = Start(label, history=history, prompt=earlier.about.last_prompt or None)
    if asked.first_frame != "prompt":
        return start
    model = asked.first_frame_model
    return replace(start, image_model=model, scenes_label=first_frame_label(model))


def _history(earlier: Earlier, preset: Preset, fit: Fit, notes: list[str]) -> NDArray[np.uint8]:
    """Return the frames that the first clip is told as history, lossless where they are kept."""
    if earlier.tail is not None:
        history = load_tail(earlier.tail)
        if history.shape[1:3] == (preset.height, preset.width):
            return history
        notes.append(
            f"{earlier.name}: its last frames are brought to {preset.size.label}, so it does not "
            "go on without loss."
        )
    elif earlier.is_ours and not earlier.changed:
        notes.append(
            f"{earlier.name}: its run folder is not beside it, so it goes on from its last frames "
            "as decoded, which are not lossless."
        )
    return read_last_frames(
        earlier.video,
        preset.history_frames,
        fps=preset.fps,
        height=preset.height,
        width=preset.width,
        fit=fit,
    )


def _sound(
    request: ExtendRequest,
    earlier: Earlier,
    source: Source,
    before: EarlierVideo,
    fps: int,
    notes: list[str],
) -> tuple[str | None, AddedSound | None]:
    """Return `--audio` as it holds, and what is heard from the first new frame on.

    A file is the sound of the whole video, so it goes on where the earlier video ends.

    Raises:
        UsageError: There is no video whose sound could go along, or it has none.
        MediaError: The file has no sound.
    """
    audio = request.audio
    if audio is None:
        audio = _earlier_audio(request, earlier, source, notes)
    if audio is None or audio == "none":
        return audio, None
    if audio != "source":
        stream = read_sound(Path(audio))
        notes += stream.remarks()
        return audio, AddedSound(stream, before.num_frames / fps)
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
    return audio, AddedSound(stream, (source.first_frame + 1) / fps)


def _earlier_audio(
    request: ExtendRequest, earlier: Earlier, source: Source, notes: list[str]
) -> str | None:
    """Return what the earlier run took its sound from, None if it had none or that is gone."""
    audio = None if earlier.asked is None else earlier.asked.audio
    if audio is None or audio == "none":
        return None
    if audio == "source":
        goes_on = request.video is None and isinstance(source, VideoSource) and not source.pingpong
    else:
        goes_on = Path(audio).is_file()
    if not goes_on:
        notes.append(f"{earlier.name}: its sound does not go on (--audio).")
        return None
    return audio
