"""One run, decided to the last number before anything is written or loaded."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel

from longvie_cli.disk.documents import briefly
from longvie_cli.disk.durable import part_path
from longvie_cli.errors import MissingResourceError, OutputConflictError, UsageError
from longvie_cli.hub.installed import weight_hashes
from longvie_cli.progress import Progress
from longvie_cli.run_folder.commit import hash_file
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.manifest import Redo, fingerprint
from longvie_cli.settings.presets import Fit, Preset, load_preset, preset_folder
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
from longvie_cli.settings.recorded import files_of, recorded
from longvie_cli.settings.requests import (
    Attention,
    Delivery,
    ExtendRequest,
    GenerateRequest,
    LoraFile,
    Offload,
    Quantize,
)
from longvie_cli.timeline import ClipSpec
from longvie_cli.sources.source import Source

if TYPE_CHECKING:
    from longvie_cli.media.probe import SourceVideo
    import numpy as np
    from numpy.typing import NDArray


FROM_THE_PROMPT = "from the prompt"
"""How the label of a start begins whose picture is made."""


@dataclass(frozen=True)
class Sampling:
    """How the model is run; `device`, `dtype` and `attention` are real ones, no longer `auto`.

    `offload` alone may still be `auto`: it decides no frame, and what fits is known when it runs.
    """

    seed: int
    num_inference_steps: int
    guidance_scale: float
    negative_prompt: str
    depth_strength: float
    track_strength: float
    device: str
    dtype: str
    offload: Offload | Literal["auto"] = "auto"
    quantize: Quantize = "none"
    attention: Attention = "native"
    control_start: float = 0.0
    control_end: float = 1.0
    seed_per_clip: bool = False
    loras: tuple[LoraFile, ...] = ()


@dataclass(frozen=True)
class Start:
    """What the first clip starts from.

    Args:
        label: In words, for people and for the comparison of requests.
        image: First frame, [height, width, 3]; None if the model makes it from the prompt.
        history: Last frames of the earlier video, [n, height, width, 3]; None for a new video.
        image_model: Pipeline folder that makes the picture from prompt and depth; None lets the
            video model do it.
        scenes_from_prompt: Whether later scenes of the source start from a picture made of their
            prompt too, and not from the source's own.
    """

    label: str
    image: NDArray[np.uint8] | None = None
    history: NDArray[np.uint8] | None = None
    image_model: Path | None = None
    scenes_from_prompt: bool = False


@dataclass(frozen=True)
class EarlierVideo:
    """The video that a run continues.

    Args:
        video: The file.
        num_frames: Its frames at the preset's fps.
        joinable: Whether new clips can follow it without encoding it again.
        has_sound: Whether it has sound.
        keeps_sound: Whether that goes along.
        fit: How it is brought to size where it is encoded again.
    """

    video: SourceVideo
    num_frames: int
    joinable: bool
    has_sound: bool
    keeps_sound: bool
    fit: Fit

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.video.path


@dataclass(frozen=True)
class Sound:
    """Sound that goes along.

    Args:
        path: File whose sound it is.
        start: Second of it that belongs to the first frame this run adds.
    """

    path: Path
    start: float = 0.0


@dataclass(frozen=True)
class Job:
    """One run of `generate` or `extend`.

    Args:
        command: The command's name.
        output: The file to make.
        folder: Its run folder.
        preset: Model and geometry.
        specs: The clips, in order.
        prompts: One a clip.
        seeds: One a clip, of its noise.
        source: Where controls come from.
        start: What clip 0 starts from.
        sampling: How the model is run.
        delivery: How the file is written.
        sound: What is heard beside the sound of the earlier video.
        earlier: What `extend` continues.
        settings: Everything that decides the output, as JSON without absolute paths.
        captioned: Whether the prompts came with the source.
        notes: What the user should know before the run, one line each.
    """

    command: str
    output: Path
    folder: RunFolder
    preset: Preset
    specs: tuple[ClipSpec, ...]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    source: Source
    start: Start
    sampling: Sampling
    delivery: Delivery
    sound: Sound | None
    earlier: EarlierVideo | None
    settings: Mapping[str, Any]
    captioned: bool
    notes: tuple[str, ...]

    @property
    def added_frames(self) -> int:
        """Frames this run makes."""
        return sum(spec.added_frames for spec in self.specs)

    @property
    def total_frames(self) -> int:
        """Frames of the finished file."""
        return self.added_frames + (self.earlier.num_frames if self.earlier else 0)

    @property
    def source_frames(self) -> int:
        """Frames of the source that the run shows, one it shares with an earlier video included."""
        last = self.specs[-1]
        return last.first_frame + last.skip_frames + last.added_frames

    @property
    def last_source_frame(self) -> int:
        """Frame of the source's timeline that the last frame of the video shows."""
        return self.source.first_frame + self.source_frames - 1


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


def check_paths(request: GenerateRequest | ExtendRequest) -> None:
    """Do nothing if the output and the run folder of a request can be written.

    Raises:
        UsageError: As `check_output_path` and `check_name`.
    """
    check_output_path(request.output, input_files(request), run_dir=request.run_dir)
    check_name(request.run_dir)


def input_files(request: BaseModel) -> list[Path]:
    """Return everything a request reads."""
    return [path for _, path in files_of(recorded(request))]


def is_input(path: Path, inputs: Sequence[Path]) -> bool:
    """Return whether a file is one of these, by whatever name or link."""
    try:
        return path.resolve() in [place.resolve() for place in inputs]
    except (OSError, RuntimeError):
        return False  # What cannot be followed cannot be written either, as is said later.


def check_output_path(output: Path, inputs: Sequence[Path], *, run_dir: Path | None) -> None:
    """Do nothing if a video can be written to this path.

    Args:
        output: The file.
        inputs: Files and folders that the same command reads.
        run_dir: Its run folder where that is not beside it.

    Raises:
        UsageError: It is no .mp4 name, too long, a folder, or one of the inputs.
    """
    if output.suffix.lower() != ".mp4":
        raise UsageError(f"-o {output}: the output must be named .mp4.")
    if os.path.isdir(output):
        raise UsageError(f"-o {output}: this is a folder.", hint=f"Pass -o {output / 'out.mp4'}.")
    check_name(output)
    _check_name_length(output, run_dir)
    if is_input(output, inputs):
        raise UsageError(
            f"-o {output}: this file is an input of the same command.", hint="Pass another -o."
        )


def check_name(path: Path | None) -> None:
    """Do nothing if clips that lie under this name can be joined.

    Raises:
        UsageError: It holds a line break, which ends an entry of ffmpeg's list of clips.
    """
    if path is not None and {"\n", "\r"} & {*str(path.absolute())}:
        raise UsageError(
            f"{briefly(path)}: clips under a name with a line break cannot be joined.",
            hint="Choose a file or folder without one.",
        )


def _check_name_length(output: Path, run_dir: Path | None) -> None:
    """Do nothing if the output can be written beside itself first, and have a run folder.

    Found out only at the end, it would cost the whole run.

    Raises:
        UsageError: The file system takes no names that long.
    """
    for path in (part_path(output), run_dir or RunFolder.beside(output).root):
        try:
            path.lstat()
        except OSError as reason:
            if reason.errno == errno.ENAMETOOLONG:
                raise UsageError(
                    f"-o {output.name[:40]}...: this name is too long for the disk: "
                    f"{len(os.fsencode(path.name))} bytes as {path.suffix} file.",
                    hint="Choose a name of 200 bytes at most.",
                ) from reason


def output_taken(output: Path) -> OutputConflictError:
    """Return the error for an output that exists and is not this run's own."""
    return OutputConflictError(
        f"{output}: exists already.",
        hint="Pass --overwrite to replace it at the end, --no-clobber to skip, or another -o; or "
        "move that file away.",
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


def redone(job: Job, redos: Sequence[Redo]) -> Job:
    """Return a job with what redos since its request say of prompts and seeds.

    A new prompt holds for the clip and for those after it that shared its prompt up to then, so
    that a run of one prompt goes on with the new one; a new seed likewise.
    """
    prompts, seeds = list(job.prompts), list(job.seeds)
    for redo in redos_of_request(redos):
        if redo.prompt is not None:
            _put(prompts, redo.clip, redo.prompt)
        if redo.seed is not None:
            _put(seeds, redo.clip, redo.seed)
    if (tuple(prompts), tuple(seeds)) == (job.prompts, job.seeds):
        return job
    kept = {
        key: value
        for key, value in job.settings.items()
        if key not in ("prompt", "prompts", "seeds")
    }
    settings = kept | _prompt_settings(prompts) | _seed_settings(job.sampling, seeds)
    return replace(job, prompts=tuple(prompts), seeds=tuple(seeds), settings=settings)


def redos_of_request(redos: Sequence[Redo]) -> Sequence[Redo]:
    """Return the redos that were ordered since the run's request was last replaced."""
    begins = max((index + 1 for index, redo in enumerate(redos) if redo.new_request), default=0)
    return redos[begins:]


_Value = TypeVar("_Value", str, int)


def _put(values: list[_Value], first: int, new: _Value) -> None:
    if first >= len(values):
        return
    old, index = values[first], first
    while index < len(values) and values[index] == old:
        values[index] = new
        index += 1


def _by_clip(given: Prompts) -> tuple[ClipPrompt, ...]:
    return tuple(prompt for prompt in given if isinstance(prompt, ClipPrompt))


def check_loras(loras: Sequence[LoraFile]) -> None:
    """Check that every LoRA file can be used, before any model is loaded.

    Raises:
        InputError: A file is missing or no LoRA.
        MissingResourceError: peft is not installed.
    """
    if loras:
        from longvie_cli.models.lora import check_lora

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


def model_hashes(preset: Preset) -> dict[str, str]:
    """Return the hash of every weights and settings file of a preset, by its name there.

    Of fetched models the hash is the one recorded when they were fetched.

    Raises:
        MissingResourceError: Weights were not fetched, or are damaged.
    """
    folder = preset_folder(preset.name)
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".safetensors", ".json"))
    own = {path.relative_to(folder).as_posix(): hash_file(path) for path in files}
    return own | weight_hashes(preset)


def deciding_settings(
    *,
    preset: Preset,
    specs: Sequence[ClipSpec],
    prompts: Sequence[str],
    seeds: Sequence[int],
    source: Source,
    start: Start,
    fit: str,
    sampling: Sampling,
    delivery: Delivery,
    sound: Sound | None,
) -> dict[str, Any]:
    """Return everything that decides the output, named as in the flags where there is one."""
    # Named only where they are not the default, which earlier versions did not know.
    kernels: dict[str, str] = {}
    if sampling.quantize != "none":
        kernels["quantize"] = sampling.quantize
    if sampling.attention != "native":
        kernels["attention"] = sampling.attention
    restarts = [spec.first_frame for spec in specs if spec.starts_scene]
    return {
        "preset": preset.name,
        "frames": sum(spec.added_frames for spec in specs),
        **_prompt_settings(prompts),
        "first_frame": start.label,
        **source.facts(),
        # Only where there are any: without cuts a run is what it was before they were looked for.
        **({"at_cut": "restart", "cuts": restarts} if restarts else {}),
        **_size_settings(preset),
        "fit": fit,
        "seed": sampling.seed,
        "steps": sampling.num_inference_steps,
        "guidance": sampling.guidance_scale,
        "negative_prompt": sampling.negative_prompt,
        "depth_strength": sampling.depth_strength,
        "track_strength": sampling.track_strength,
        "dtype": sampling.dtype,
        **kernels,
        "crf": delivery.crf,
        "embed_metadata": delivery.embed_metadata,
        "audio": None if sound is None else f"{sound.path.name} {hash_file(sound.path)}",
        **_unusual_settings(sampling, delivery),
        **_seed_settings(sampling, seeds),
    }


def _size_settings(preset: Preset) -> dict[str, Any]:
    return {} if preset.size == load_preset(preset.name).size else {"size": preset.size.label}


def _prompt_settings(prompts: Sequence[str]) -> dict[str, Any]:
    return {"prompt": prompts[0]} if len(set(prompts)) == 1 else {"prompts": list(prompts)}


def _seed_settings(sampling: Sampling, seeds: Sequence[int]) -> dict[str, Any]:
    return {"seeds": list(seeds)} if any(seed != sampling.seed for seed in seeds) else {}


def _unusual_settings(sampling: Sampling, delivery: Delivery) -> dict[str, Any]:
    """Return settings that are named only where they are used: runs begun before still go on."""
    settings: dict[str, Any] = {}
    if sampling.control_start != 0:
        settings["control_start"] = sampling.control_start
    if sampling.control_end != 1:
        settings["control_end"] = sampling.control_end
    if sampling.seed_per_clip:
        settings["seed_per_clip"] = True
    if delivery.retries:
        settings["retries"] = delivery.retries
    if sampling.loras:
        settings["lora"] = [
            {"name": lora.path.name, "hash": hash_file(lora.path), "scale": lora.scale}
            for lora in sampling.loras
        ]
    return settings
