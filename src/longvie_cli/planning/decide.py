"""What `generate` and `extend` decide alike once source and start are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from longvie_cli.disk.hashing import fingerprint
from longvie_cli.errors import MissingResourceError, UsageError
from longvie_cli.planning.cuts import cuts_to_honour
from longvie_cli.planning.deciding import deciding_settings
from longvie_cli.planning.job import Choice, Job, Start
from longvie_cli.planning.length import frames_to_make
from longvie_cli.planning.paths import Input, check_inputs_stay
from longvie_cli.planning.prompt_notes import (
    clip_seconds,
    prompts_in_words,
    say_of_first_pictures,
    say_of_prompts,
)
from longvie_cli.progress import Progress
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.settings.presets import Preset, numbers_of_weights
from longvie_cli.settings.prompts import (
    ClipPrompt,
    Prompts,
    TimedPrompt,
    check_clips_fit,
    check_prompts_fit,
    is_blank,
    prompt_at,
    prompt_of_clip,
    seed_of_clip,
)
from longvie_cli.settings.request_json import files_of, request_json
from longvie_cli.settings.sampling import (
    FrameSettings,
    LoraFile,
    Sampling,
    SamplingSettings,
)
from longvie_cli.sources.source import Source
from longvie_cli.timeline import ClipSpec, plan_clips

FROM_THE_PROMPT = "from the prompt"
"""How the label of a start begins whose picture is made."""


def decided_job(choice: Choice, progress: Progress, *, to_run: bool) -> Job:
    """Return the job of a choice: how many clips, with which prompts and seeds; writes nothing.

    Args:
        choice: What the command found out by itself.
        progress: Told of what the source is looked through for.
        to_run: Models that the source is looked at with must be here: that is found out before the
            source is read through, and before there is a run folder.

    Raises:
        LongVieError: Something that was asked for cannot be, or an input would be harmed.
    """
    request, preset, source, start = choice.request, choice.preset, choice.source, choice.start
    if to_run:
        source.check_models()
    notes = [*_untrained_size(preset), *choice.notes]
    if (of_weights := numbers_of_weights(preset)) is not None:
        notes.append(of_weights)
    continues = choice.earlier is not None
    # The last frame of an earlier video is the first of the source.
    shared_frames = 1 if continues else 0
    wanted = request.wanted_frames(preset.geometry, continues=continues)
    num_frames = frames_to_make(
        source, wanted, flag=request.length_flag, fps=preset.fps, shared_frames=shared_frames
    )
    source.check_length(num_frames + shared_frames)
    cuts = cuts_to_honour(
        source,
        num_frames + shared_frames,
        choice.at_cut,
        fps=preset.fps,
        notes=notes,
        progress=progress,
    )
    if wanted is None and source.frames_left(None) is None:
        notes.append(_length_by_default(choice, num_frames))
    specs = plan_clips(preset.geometry, num_frames, continues=continues, cuts=cuts)
    prompt = _prompt(choice)
    prompts = clip_prompts(specs, prompt, request.prompts, source, preset.fps)
    if request.prompt is None and not request.prompts:
        notes.append(f"No --prompt given; used: {prompts_in_words(prompts)}.")
    say_of_prompts(
        progress,
        preset=preset,
        specs=specs,
        prompts=prompts,
        given=request.prompts,
        negative_prompt=choice.sampling.negative_prompt_read,
    )
    if start.image_model is not None:
        pictured = [prompts[spec.index] for spec in specs if start.is_made_for(spec)]
        say_of_first_pictures(progress, start.image_model, pictured)
    seeds = clip_seeds(specs, choice.sampling, request.prompts)
    check_scene_pictures(specs, source, start)
    inputs = _inputs(choice)
    folder = RunFolder.of(request.output, request.run_dir)
    check_inputs_stay(inputs, folder)
    return Job(
        command=choice.command,
        output=request.output,
        folder=folder,
        preset=preset,
        specs=specs,
        prompts=prompts,
        seeds=seeds,
        source=source,
        start=start,
        sampling=choice.sampling,
        delivery=request,
        sound=choice.sound,
        earlier=choice.earlier,
        settings=deciding_settings(choice, specs, prompts, seeds),
        captioned=prompt is None and not request.prompts,
        asked=choice.asked,
        inputs=inputs,
        notes=tuple(notes),
    )


def decided_sampling(
    asked: SamplingSettings,
    preset: Preset,
    loras: tuple[LoraFile, ...],
    progress: Progress,
    *,
    before: FrameSettings | None = None,
) -> Sampling:
    """Return how the model is run: as asked, else as before, else as the preset was trained.

    Raises:
        UsageError: The device, its type or its placement cannot be, or the control range is empty.
        InputError, MissingResourceError: A LoRA cannot be used.
    """
    from longvie_cli.engine.placement import resolve_placement

    said = ({} if before is None else before.said()) | asked.said()
    placed = resolve_placement(said, asked.device, asked.offload)
    sampling = Sampling.of(preset, **said | placed, loras=loras)
    judge_loras(loras, preset, progress)
    return sampling


def _length_by_default(choice: Choice, num_frames: int) -> str:
    seconds = f"{num_frames / choice.preset.fps:g} s"
    if choice.earlier is not None:
        return f"No length given: {seconds} are added."
    what = "flight" if choice.source.kind == "flight" else "video"
    return f"No length given: the {what} lasts {seconds}."


def _prompt(choice: Choice) -> str | None:
    """Return the prompt of all clips, None where each has its own."""
    if choice.request.prompt is not None or choice.request.prompts:
        return choice.request.prompt
    return choice.last_prompt


def _inputs(choice: Choice) -> tuple[Input, ...]:
    named = files_of(request_json(choice.request))
    implied = [*choice.source.files(), *choice.inputs]
    implied += [("LoRA", lora.path) for lora in choice.sampling.loras]
    if choice.sound is not None:
        implied.append(("sound", choice.sound.path))
    flags: dict[Path, str] = {}
    for flag, path in (*named, *implied):
        flags.setdefault(path.absolute(), flag)
    return tuple((flag, path) for path, flag in flags.items())


def clip_prompts(
    specs: Sequence[ClipSpec],
    prompt: str | None,
    given: Prompts,
    source: Source,
    fps: int,
) -> tuple[str, ...]:
    """Return one prompt a clip: its own, the text in force at its middle, or the source's.

    Raises:
        SettingsError: The prompts over time, or a clip, do not fit the video.
        UsageError: There is no prompt.
    """
    by_clip = _by_clip(given)
    if by_clip:
        check_clips_fit(by_clip, len(specs), "--prompt-file")
        return tuple(prompt_of_clip(by_clip, spec.index) for spec in specs)
    timed = tuple(prompt for prompt in given if isinstance(prompt, TimedPrompt))
    if timed:
        total = sum(spec.added_frames for spec in specs)
        check_prompts_fit(timed, total / fps, "--prompt-file")
        return tuple(prompt_at(timed, (start + end) / 2) for start, end in clip_seconds(specs, fps))
    if prompt:
        return (prompt,) * len(specs)
    captions = tuple(source.caption(spec) for spec in specs)
    if any(map(is_blank, captions)):
        raise UsageError("--prompt: say what the video shall show.", hint='Pass --prompt "...".')
    return captions


def clip_seeds(specs: Sequence[ClipSpec], sampling: Sampling, given: Prompts) -> tuple[int, ...]:
    """Return the seed of each clip's noise: the run's one seed, unless clips have their own."""
    by_clip = _by_clip(given)
    seeds = []
    for spec in specs:
        own = seed_of_clip(by_clip, spec.index)
        counted = sampling.seed + (spec.index if sampling.seed_per_clip else 0)
        seeds.append(counted if own is None else own)
    return tuple(seeds)


def _by_clip(given: Prompts) -> tuple[ClipPrompt, ...]:
    return tuple(prompt for prompt in given if isinstance(prompt, ClipPrompt))


def judge_loras(loras: Sequence[LoraFile], preset: Preset, progress: Progress) -> None:
    """Judge every LoRA file as it will be loaded, before anything is made; say what to know.

    Raises:
        InputError: A file is missing, no LoRA, or none for the preset's model.
        MissingResourceError: peft is not installed.
    """
    if not loras:
        return
    from longvie_cli.models.lora_files import judge_lora
    from longvie_cli.models.weights.components import transformer_of

    transformer = transformer_of(preset)
    for lora in loras:
        for notice in judge_lora(lora.path, transformer):
            progress.warning(notice)


def check_scene_pictures(specs: Sequence[ClipSpec], source: Source, start: Start) -> None:
    """Do nothing if there is a picture for every scene that begins anew.

    Raises:
        UsageError: The source has none of some scene, as controls of a foreign tool have not.
    """
    if start.scenes_label is not None or source.kind != "controls":
        return
    for spec in specs:
        if spec.starts_scene and source.picture(spec.first_frame) is None:
            raise UsageError(
                f"--at-cut restart: {source.name} has no picture of the scene at frame "
                f"{source.first_frame + spec.first_frame}.",
                hint="Pass --first-frame prompt, or --at-cut ignore.",
            )


def check_first_frame(preset: Preset, model: Path | None) -> None:
    """Do nothing if a first frame can be made from the prompt.

    Raises:
        UsageError: Neither the preset nor a pipeline makes one.
    """
    if not preset.makes_first_frame and model is None:
        raise UsageError(
            f"--first-frame prompt: preset {preset.name} continues pictures and makes none.",
            hint="Pass --image FILE, or --first-frame-model DIR: a depth-conditioned text-to-image "
            "pipeline.",
        )


def first_frame_label(model: Path | None) -> str:
    """Return in words what a first frame made from the prompt depends on.

    Of a pipeline its folder's name, and a hash of the names and sizes of all its files.

    Raises:
        MissingResourceError: It is no pipeline folder.
    """
    if model is None:
        return FROM_THE_PROMPT
    if not (model / "model_index.json").is_file():
        raise MissingResourceError(
            f"--first-frame-model {model}: no pipeline in diffusers layout (no model_index.json).",
            hint="Fetch one, for instance: hf download NAME --local-dir FOLDER",
        )
    files = sorted(path for path in model.rglob("*") if path.is_file())
    listing = [(path.relative_to(model).as_posix(), path.stat().st_size) for path in files]
    identity = f"{model.absolute().name} {fingerprint({'files': listing})}"
    return f"{FROM_THE_PROMPT} by {identity}"


def _untrained_size(preset: Preset) -> list[str]:
    """Return in a line that a preset was trained at another size than it is to make, if it was."""
    trained = preset.trained_size
    if trained is None:
        return []
    return [
        f"--size {preset.size.label}: preset {preset.name} was trained at {trained.label}; "
        "other sizes may come out worse."
    ]
