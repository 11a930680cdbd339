"""What `generate` and `extend` decide alike once source and start are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from longvie_cli.disk.hashing import fingerprint
from longvie_cli.errors import MissingResourceError, UsageError
from longvie_cli.planning.deciding import deciding_settings
from longvie_cli.planning.job import EarlierVideo, Job, Sound, Start
from longvie_cli.progress import Progress
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.settings.presets import Fit, Preset, load_preset
from longvie_cli.settings.prompts import (
    ClipPrompt,
    Prompts,
    TimedPrompt,
    check_clips_fit,
    check_prompts_fit,
    prompt_at,
    prompt_of_clip,
    seed_of_clip,
)
from longvie_cli.settings.requests import ExtendRequest, GenerateRequest
from longvie_cli.settings.sampling import LoraFile, Sampling
from longvie_cli.sources.source import Source
from longvie_cli.timeline import ClipSpec

if TYPE_CHECKING:
    pass


FROM_THE_PROMPT = "from the prompt"
"""How the label of a start begins whose picture is made."""


def decided_job(
    command: Literal["generate", "extend"],
    request: GenerateRequest | ExtendRequest,
    *,
    preset: Preset,
    specs: Sequence[ClipSpec],
    prompt: str | None,
    source: Source,
    start: Start,
    fit: Fit,
    sampling: Sampling,
    sound: Sound | None,
    notes: Sequence[str],
    earlier: EarlierVideo | None = None,
    more_settings: Mapping[str, Any] | None = None,
) -> Job:
    """Return the job once everything is decided but what follows from the rest: prompts, seeds.

    Args:
        command: The command's name.
        request: As recorded in the run folder and delivered.
        prompt: One for all clips, where `request` has none over time.
        more_settings: Deciding settings that only this command has.

    Raises:
        UsageError, SettingsError: Prompts or pictures of scenes are missing or do not fit.
    """
    prompts = clip_prompts(specs, prompt, request.prompts, source, preset.fps)
    seeds = clip_seeds(specs, sampling, request.prompts)
    check_scene_pictures(specs, source, start)
    settings = deciding_settings(
        preset=preset,
        specs=specs,
        prompts=prompts,
        seeds=seeds,
        source=source,
        start=start,
        fit=fit,
        sampling=sampling,
        delivery=request,
        sound=sound,
    )
    return Job(
        command=command,
        output=request.output,
        folder=RunFolder(request.run_dir) if request.run_dir else RunFolder.beside(request.output),
        preset=preset,
        specs=tuple(specs),
        prompts=prompts,
        seeds=seeds,
        source=source,
        start=start,
        sampling=sampling,
        delivery=request,
        sound=sound,
        earlier=earlier,
        settings=settings | dict(more_settings or {}),
        captioned=prompt is None and not request.prompts,
        notes=tuple(notes),
    )


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
        # Counted from the first frame that this run adds.
        origin = specs[0].first_frame + specs[0].skip_frames
        middles = (
            spec.first_frame + spec.skip_frames + spec.added_frames / 2 - origin for spec in specs
        )
        return tuple(prompt_at(timed, middle / fps) for middle in middles)
    if prompt:
        return (prompt,) * len(specs)
    captions = tuple(source.caption(spec) for spec in specs)
    if not all(captions):
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


def check_loras(loras: Sequence[LoraFile]) -> None:
    """Check that every LoRA file can be used, before any model is loaded.

    Raises:
        InputError: A file is missing or no LoRA.
        MissingResourceError: peft is not installed.
    """
    if loras:
        from longvie_cli.models.lora_files import check_lora

        for lora in loras:
            check_lora(lora.path)


def check_scene_pictures(specs: Sequence[ClipSpec], source: Source, start: Start) -> None:
    """Do nothing if there is a picture for every scene that begins anew.

    Raises:
        UsageError: The source has none of some scene, as controls of a foreign tool have not.
    """
    if start.scenes_from_prompt or source.kind != "controls":
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


def say_untrained_size(preset: Preset, progress: Progress) -> None:
    """Warn that a preset was trained at another size than it is to make."""
    trained = load_preset(preset.name).size
    if preset.size != trained:
        progress.warning(
            f"--size {preset.size.label}: preset {preset.name} was trained at {trained.label}; "
            "other sizes may come out worse."
        )
