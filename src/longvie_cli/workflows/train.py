"""`train`: a stage decided from its file, trained, and written out as a model."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

from longvie_cli.disk.durable import write_atomic
from longvie_cli.engine.loader import without_progress_bars
from longvie_cli.engine.machine import machine_memory
from longvie_cli.engine.placement import resolve_device
from longvie_cli.errors import OutputConflictError, SettingsError
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.parallel.group import group_of, own_device
from longvie_cli.parallel.processes import place_of_process
from longvie_cli.planning.disk import free_bytes, unwritable
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.result import TrainResult
from longvie_cli.settings.training import STEPS, Settings, Stage
from longvie_cli.settings.training_config import Data, TrainingConfig, read_training_config
from longvie_cli.training.checkpoints import checkpoint_step, finished_checkpoints
from longvie_cli.training.dataset import Samples
from longvie_cli.training.export import export_preset, export_trained, replaced
from longvie_cli.training.loop import LOCK_NAME, held, load_average
from longvie_cli.training.loss_log import last_loss
from longvie_cli.training.open_samples import open_samples
from longvie_cli.training.run_checks import (
    check_same_settings,
    check_sharded,
    check_shares,
    check_steps,
    deciding,
)
from longvie_cli.training.run_record import RECORD_NAME, RunRecord, read_record, write_record
from longvie_cli.training.start import Start, find_origin, find_preset, find_start, load_start
from longvie_cli.training.training_run import TrainingRun

_EXPORTED = "exported.json"
# One process validates and writes checkpoints while the others wait.
_LONGEST_WAIT = timedelta(hours=2)
# Says of each prompt that is longer than what is read of it: of thousands, one is enough.
_OF_PROMPTS = "longvie_cli.models.pipeline"
# Settings that only some stages look at, by their place in the file.
_ONLY_IN: dict[tuple[str, ...], tuple[Stage, ...]] = {
    ("branches",): ("control",),
    ("terms",): ("history",),
    ("picture",): ("history",),
    ("degradation", "dense_scale"): ("control", "degradation", "history"),
    ("degradation", "depth"): ("control", "degradation", "history"),
    ("degradation", "frame"): ("degradation", "history"),
    ("degradation", "history"): ("history",),
    ("degradation", "no_history"): ("history",),
    ("history_frames",): ("history",),
}


@dataclass(frozen=True)
class _Asked:
    """What was asked for, and how far it is.

    Args:
        stage: What is trained.
        file: The settings as a file,
        config: and read.
        output: The run folder.
        record: What that says of itself; None where it is new.
        standing: Steps of the newest checkpoint, 0 without one.
    """

    stage: Stage
    file: Path
    config: TrainingConfig
    output: Path
    record: RunRecord | None
    standing: int

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return self.config.steps or STEPS[self.stage]

    @property
    def formats(self) -> tuple[str, ...]:
        """What is written at the end."""
        # The published base is not ours to write again, and the two files hold nothing of it.
        left_out = {"released"} if self.stage == "base" else set()
        return tuple(name for name in self.config.export if name not in left_out)

    @property
    def exported(self) -> dict[str, object]:
        """What the run folder says once all is written."""
        return {"step": self.steps, "formats": list(self.formats)}

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to do."""
        try:
            exported = json.loads((self.output / _EXPORTED).read_bytes())
        except (OSError, ValueError):
            return False
        return self.standing == self.steps and bool(exported == self.exported)


@dataclass(frozen=True)
class _Training:
    """One stage, decided before anything is loaded or written.

    Args:
        asked: What was asked for.
        start: Where it starts.
        samples: What it is trained on.
        validation: What it is judged on; None: not at all.
        device: `cpu`, `cuda` or `cuda:N`.
        notes: What the user should know before it begins.
    """

    asked: _Asked
    start: Start
    samples: Samples
    validation: Samples | None
    device: str
    notes: tuple[str, ...]

    @property
    def memory_bytes(self) -> int:
        """What each process holds, activations not counted."""
        return self.start.memory_bytes(place_of_process().count if self.asked.config.sharded else 1)


def train(
    stage: Stage, config: Path, output: Path | None = None, progress: Progress | None = None
) -> TrainResult:
    """Train a stage, going on from the newest checkpoint of its run folder.

    Args:
        stage: What is trained.
        config: Its file.
        output: Run folder; None: `F.train` beside `F.yaml`.
        progress: Told of it.

    Raises:
        LongVieError: See `longvie_cli.errors`.
    """
    progress = progress or SilentProgress()
    asked = _ask(stage, config, output)
    output = asked.output
    if asked.is_finished:
        progress.message(f"{output}: all {asked.steps} steps are taken; nothing is left to do.")
    else:
        job = _decide(asked)
        if (locked := unwritable(output)) is not None:
            raise locked
        for note in job.notes:
            progress.note(note)
        place = place_of_process()
        with group_of(place, longest_wait=_LONGEST_WAIT), held(output):
            if place.rank == 0:
                settings = deciding(asked.config)
                record = RunRecord(stage=stage, settings=settings, origin=job.start.origin)
                write_record(output, record)
            device = own_device(job.device, place)
            _train(job, device, progress, exports=place.rank == 0)
    checkpoint = finished_checkpoints(output / "checkpoints")[-1]
    return TrainResult("done", stage, asked.steps, last_loss(output), checkpoint, output)


def plan(
    stage: Stage, config: Path, output: Path | None = None, progress: Progress | None = None
) -> TrainResult:
    """Say what `train` would do; writes nothing. Arguments and errors as there."""
    progress = progress or SilentProgress()
    asked = _ask(stage, config, output)
    job, output = _decide(asked), asked.output
    start, settings, preset = job.start, asked.config, job.start.preset
    samples = "without end" if job.samples.length is None else f"{job.samples.length}"
    progress.message(
        f"{output}: stage {stage}, steps {asked.standing} to {asked.steps}, {settings.batch} "
        f"samples each, on {job.device}."
    )
    progress.message(
        f"samples: {samples}, {preset.num_frames} frames of {preset.size.label}"
        + ("" if job.validation is None else "; others are kept for validation")
    )
    origin = start.origin
    progress.message(f"start: {', '.join(map(str, (origin.weights, *origin.checkpoints)))}")
    progress.message(
        f"trained: {start.trained:,} of {start.parameters:,} parameters; about "
        f"{job.memory_bytes / 1e9:.1f} GB in each process, activations not counted; "
        f"{start.checkpoint_bytes / 1e9:.2f} GB a checkpoint"
    )
    for note in job.notes:
        progress.note(note)
    if (locked := unwritable(output)) is not None:
        progress.warning(f"The run will not start: {locked.message}")
    found = finished_checkpoints(output / "checkpoints")
    return TrainResult(
        "planned",
        stage,
        asked.standing,
        last_loss(output),
        found[-1] if found else None,
        output,
        plan={
            "steps": asked.steps,
            "batch": settings.batch,
            "samples": job.samples.length,
            "device": job.device,
            "origin": origin.model_dump(mode="json"),
            "trained_parameters": start.trained,
            "parameters": start.parameters,
            "memory_bytes": job.memory_bytes,
            "checkpoint_bytes": start.checkpoint_bytes,
            "disk_free_bytes": free_bytes(output),
            "export": list(asked.formats),
        },
    )


def _ask(stage: Stage, file: Path, output: Path | None) -> _Asked:
    config = read_training_config(file)
    output = output or file.with_suffix(".train")
    found = finished_checkpoints(output / "checkpoints")
    standing = (checkpoint_step(found[-1]) or 0) if found else 0
    record = _record_to_go_on(output, stage, config)
    asked = _Asked(stage, file, config, output, record, standing)
    check_steps(output, standing, asked.steps)
    return asked


def _decide(asked: _Asked) -> _Training:
    stage, file, config = asked.stage, asked.file, asked.config
    preset = find_preset(config, file)
    device = resolve_device(config.device)
    place = place_of_process()
    check_shares(config.batch, place.count)
    check_sharded(config, place.count)
    record = asked.record
    # An earlier stage may have gone on meanwhile; this run goes on from where it started.
    origin = find_origin(config, file, stage) if record is None else record.origin
    start = find_start(preset, origin, stage, config=config, file=file)

    def opened(data: Data, key: str) -> Samples:
        frames = config.history_frames
        return open_samples(data, preset, stage, history_frames=frames, config=file, key=key)

    samples = opened(config.data, "data")
    validation = None
    if config.validation is not None:
        validation = opened(config.validation, "validation")
        if _same_source(config):
            raise SettingsError(
                f"{file.name}: validation: these are the samples that are trained on.",
                hint="Name another seed or folder, or leave it out.",
            )
    job = _Training(asked, start, samples, validation, device, notes=())
    return replace(job, notes=tuple(_notes(job)))


def _record_to_go_on(output: Path, stage: Stage, config: TrainingConfig) -> RunRecord | None:
    """Return the record of the run that the folder holds; None where it holds nothing."""
    record = read_record(output)
    if record is None:
        # A run that was killed before it wrote its record leaves these.
        left = {LOCK_NAME, f"{RECORD_NAME}.part"}
        if output.exists() and (
            not output.is_dir() or any(path.name not in left for path in output.iterdir())
        ):
            raise OutputConflictError(
                f"{output}: exists and is no run of training.", hint="Name another output folder."
            )
        return None
    if record.stage != stage:
        raise OutputConflictError(
            f"{output}: holds a run of stage {record.stage}, not {stage}.",
            hint="Name another output folder.",
        )
    check_same_settings(output, record.settings, config)
    return record


def _same_source(config: TrainingConfig) -> bool:
    first, second = config.data, config.validation
    assert second is not None
    if first.worlds is not None and second.worlds is not None:
        return first.worlds.seed == second.worlds.seed
    return first.folder is not None and first.folder == second.folder


def _notes(job: _Training) -> list[str]:
    asked, start = job.asked, job.start
    config, file = asked.config, asked.file
    notes = [
        f"{file.name}: {': '.join(place)}: stage {asked.stage} does not look at it."
        for place, stages in _ONLY_IN.items()
        if asked.stage not in stages and _is_given(config, place)
    ]
    if (
        asked.stage == "base"
        and "released" in config.export
        and "export" in config.model_fields_set
    ):
        notes.append(
            f"{file.name}: export: released: these files hold nothing of the base; left out."
        )
    if find_spec("tensorboard") is None:
        notes.append(
            "TensorBoard is not installed: losses are in losses.jsonl alone "
            "(pip install 'longvie[train]')."
        )
    if config.validation is None:
        notes.append(f"{file.name}: validation: not given; the run is not validated.")
    memory = machine_memory(job.device)
    free = memory.device_free if memory.device_total is not None else memory.host_free
    if free is not None and job.memory_bytes > free:
        notes.append(
            f"Memory: about {job.memory_bytes / 1e9:.0f} GB are needed in each process, "
            f"activations not counted, and {free / 1e9:.0f} GB are free."
        )
    needed = (config.keep_checkpoints + 1) * start.checkpoint_bytes
    disk = free_bytes(asked.output)
    if needed > disk:
        notes.append(
            f"{asked.output}: checkpoints may need {needed / 1e9:.1f} GB, and {disk / 1e9:.1f} GB "
            "are free; the run stops where the disk is full, and goes on once there is room."
        )
    return notes


def _is_given(config: TrainingConfig, place: tuple[str, ...]) -> bool:
    """Return whether a setting stands in the file."""
    part: object = config
    for key in place:
        if not isinstance(part, Settings) or key not in part.model_fields_set:
            return False
        part = getattr(part, key)
    return True


@contextmanager
def _each_kind_once(name: str) -> Iterator[None]:
    """Let a log say each kind of message once."""
    said: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        kind = str(record.msg)
        new = kind not in said
        said.add(kind)
        return new

    logger = logging.getLogger(name)
    logger.addFilter(is_new)
    try:
        yield
    finally:
        logger.removeFilter(is_new)


def _train(job: _Training, device: str, progress: Progress, *, exports: bool) -> None:
    asked = job.asked
    pipeline = load_start(
        job.start, asked.stage, config=asked.config, device=device, progress=progress
    )
    run = TrainingRun(
        asked.output,
        asked.stage,
        asked.config,
        pipeline,
        job.samples,
        progress=progress,
        validation=job.validation,
        fps=job.start.preset.fps,
    )
    with _each_kind_once(_OF_PROMPTS):
        result = run.take_steps()
    if exports:
        if asked.config.sharded:
            # What this process holds of it is a part.
            del run
            pipeline = load_start(job.start, asked.stage, config=asked.config, device="cpu")
        load_average(pipeline.transformer, result.checkpoint)
        _export(job, pipeline, progress)


def _export(job: _Training, pipeline: LongViePipeline, progress: Progress) -> None:
    output, formats = job.asked.output, job.asked.formats
    pipeline.transformer.eval()
    # First the files that need the weights as they are: the folder's are converted in place.
    if "released" in formats:
        with replaced(output / "released") as part:
            export_trained(pipeline.transformer, part)
        progress.message(f"In the format of Vchitect/LongVie2: {output / 'released'}")
    if "preset" in formats:
        with without_progress_bars():
            export_preset(pipeline, job.start.preset, output / "preset")
        progress.message(f"To be used: longvie generate --weights {output / 'preset'}")
    write_atomic(output / _EXPORTED, json.dumps(job.asked.exported).encode() + b"\n")
