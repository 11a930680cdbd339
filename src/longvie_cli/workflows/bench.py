"""`bench`: seconds, memory and share of the roofline of a preset's engines, in turns."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from longvie_cli.benchmarking.engine_run import ENGINES, Task, make_controls
from longvie_cli.benchmarking.flops import clip_flops, evaluation_bytes, tokens_of
from longvie_cli.benchmarking.machine import Roof, describe_machine, measure_roof
from longvie_cli.benchmarking.report import engine_results, table
from longvie_cli.benchmarking.roofline import roofline_svg
from longvie_cli.benchmarking.turns import measure_in_turns
from longvie_cli.disk.durable import write_atomic
from longvie_cli.engine.machine import MachineMemory, machine_memory
from longvie_cli.engine.memory import (
    GIB,
    MemoryPlan,
    Models,
    models_of_preset,
)
from longvie_cli.engine.placement import choose_plan
from longvie_cli.errors import OutputConflictError, UsageError
from longvie_cli.models.step_cache import plan_of
from longvie_cli.models.weights.sources import find_weights
from longvie_cli.planning.decide import decided_sampling
from longvie_cli.planning.disk import unwritable
from longvie_cli.planning.memory import installed_plans
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.result import ReportResult, aligned
from longvie_cli.settings.presets import Preset, load_preset, with_size
from longvie_cli.settings.requests import BenchRequest
from longvie_cli.settings.sampling import Sampling

_STAGE = "clips measured"


@dataclass(frozen=True)
class _Job:
    """What is measured, decided before anything is loaded."""

    request: BenchRequest
    preset: Preset
    samplings: Mapping[str, Sampling]
    plans: Mapping[str, MemoryPlan]

    @property
    def sampling(self) -> Sampling:
        """What all engines have in common: steps, guidance and device."""
        return next(iter(self.samplings.values()))


def bench(request: BenchRequest, progress: Progress | None = None) -> ReportResult:
    """Measure the engines in turns and return what was found.

    Raises:
        UsageError: This machine is too small for one of them.
        MissingResourceError: The preset's weights are not here, and no random ones were asked for.
        OutputConflictError: The picture is there, or cannot be written.
    """
    progress = progress or SilentProgress()
    _check_picture(request)
    if not request.random_weights:
        find_weights(_preset(request))
    job = _decide(request, progress, limit=None)
    device = torch.device(job.sampling.device)
    _say_plans(job, progress)
    progress.start(_STAGE, request.repeats * len(job.samplings))
    with tempfile.TemporaryDirectory() as folder:
        controls = Path(folder) / "controls"
        make_controls(job.preset, controls)
        roofs = _roofs(job, device)
        tasks = [
            Task(
                engine=name,
                preset=job.preset,
                sampling=job.samplings[name],
                from_random=request.random_weights,
                memory_limit=request.memory_limit,
                controls=controls,
                latents=Path(folder) / f"{name}.pt",
            )
            for name in job.samplings
        ]
        times = measure_in_turns(
            tasks, request.repeats, lambda name: progress.advance(_STAGE, detail=name)
        )
        progress.finish(_STAGE)
        models = models_of_preset(job.preset)
        flops = clip_flops(
            models,
            job.preset,
            evaluations=plan_of(job.sampling).evaluations,
            history=job.preset.history_frames,
        )
        results = engine_results(tasks, times, flops, roofs)
    if request.picture is not None:
        picture = roofline_svg(results, _moved(job, models), _title(job))
        write_atomic(request.picture, picture.encode())
    return ReportResult(
        [*_machine_lines(job, device), "", *table(results)],
        {
            "machine": describe_machine(device),
            **_asked(job),
            "repeats": request.repeats,
            "random_weights": request.random_weights,
            "results": [
                result.facts() | {"memory_plan": job.plans[result.engine].as_json()}
                for result in results
            ],
            "picture": None if request.picture is None else str(request.picture),
        },
    )


def plan(request: BenchRequest, progress: Progress | None = None) -> ReportResult:
    """Return what would be measured: operations of a clip, and memory of each engine.

    With a memory limit the memory is that of a GPU of this size, whether there is one or not.

    Raises:
        UsageError: No placement of an engine fits.
    """
    progress = progress or SilentProgress()
    _check_picture(request)
    job = _decide(request, progress, limit=request.memory_limit)
    flops = clip_flops(
        models_of_preset(job.preset),
        job.preset,
        evaluations=plan_of(job.sampling).evaluations,
        history=job.preset.history_frames,
    )
    rows = [("ENGINE", "TYPE", "OFFLOAD", "DEVICE", "HOST")]
    for name, memory in job.plans.items():
        sampling = job.samplings[name]
        rows.append(
            (
                name,
                sampling.weights_in_words,
                memory.offload,
                f"{memory.peak_device_bytes / GIB:.1f} GiB" if memory.peak_device_bytes else "-",
                f"{memory.peak_host_bytes / GIB:.1f} GiB",
            )
        )
    counted = [("STAGE", "TFLOP A CLIP")]
    counted += [(stage.replace("_", " "), f"{count / 1e12:.4g}") for stage, count in flops.items()]
    counted.append(("all", f"{sum(flops.values()) / 1e12:.4g}"))
    return ReportResult(
        [_title(job), "", *aligned(rows), "", *aligned(counted)],
        {
            "status": "planned",
            **_asked(job),
            "stage_flops": flops,
            "memory_plans": {name: memory.as_json() for name, memory in job.plans.items()},
        },
    )


def _decide(request: BenchRequest, progress: Progress, *, limit: int | None) -> _Job:
    """Return what is measured.

    Args:
        request: As asked.
        progress: Told what is changed.
        limit: Bytes of a GPU that is planned for, whether or not there is one.
    """
    if request.compile not in (None, "none"):
        # As a flag it is refused; a variable or longvie.yaml is meant for other commands too.
        progress.note(f"compile {request.compile}: not measured; stages are timed uncompiled.")
        request = request.model_copy(update={"compile": None})
    preset = _preset(request)
    asked = request if limit is None else request.model_copy(update={"device": "cpu"})
    sampling = decided_sampling(asked, preset, request.lora or (), progress)
    if limit is not None:
        dtype = request.dtype if request.dtype not in (None, "auto") else "bfloat16"
        sampling = replace(sampling, device="cuda", dtype=dtype)
    memory = _memory(sampling.device, request.memory_limit, planned=limit is not None)
    samplings: dict[str, Sampling] = {}
    plans: dict[str, MemoryPlan] = {}
    for name in request.engine:
        of_engine = ENGINES[name].applied_to(sampling)
        chosen = choose_plan(
            of_engine.offload,
            installed_plans(preset, of_engine),
            memory,
            device=of_engine.device,
            others=lambda of_engine=of_engine, **changed: installed_plans(
                preset, replace(of_engine, **changed)
            ),
        )
        samplings[name] = replace(of_engine, offload=chosen.offload)
        plans[name] = chosen
    return _Job(request, preset, samplings, plans)


def _preset(request: BenchRequest) -> Preset:
    preset = load_preset(request.preset, request.weights)
    return preset if request.size is None else with_size(preset, request.size)


def _memory(device: str, limit: int | None, *, planned: bool) -> MachineMemory:
    if planned:
        return MachineMemory(limit, limit, None, None)
    found = machine_memory(device)
    if limit is None:
        return found
    if found.device_free is None:
        raise UsageError(
            f"--memory-limit: {device} computes in the machine's own memory.",
            hint="With --dry-run it says what a GPU of that size could do.",
        )
    return replace(found, device_free=min(limit, found.device_free))


def _check_picture(request: BenchRequest) -> None:
    picture = request.picture
    if picture is None:
        return
    if picture.suffix.lower() != ".svg":
        raise UsageError(f"--picture {picture}: the picture is an SVG; name it NAME.svg.")
    if picture.exists() and not request.overwrite:
        raise OutputConflictError(
            f"{picture}: exists.", hint="Pass another --picture, or --overwrite."
        )
    if (error := unwritable(picture.absolute().parent)) is not None:
        raise error


def _roofs(job: _Job, device: torch.device) -> dict[str, Roof]:
    """Return the roof of each engine, measured once for each type."""
    known: dict[tuple[str, bool], Roof] = {}
    roofs = {}
    for name, sampling in job.samplings.items():
        kind = sampling.dtype, sampling.multiplies_fp8
        if kind not in known:
            known[kind] = measure_roof(device, getattr(torch, sampling.dtype), fp8=kind[1])
        roofs[name] = known[kind]
    return roofs


def _moved(job: _Job, models: Models) -> dict[str, dict[str, int]]:
    """Return the fewest bytes of a clip by engine and stage."""
    config = models.transformer.config
    tokens = tokens_of(config, models, job.preset, job.preset.history_frames)
    evaluations = plan_of(job.sampling).evaluations
    return {
        name: {
            stage: evaluations * count
            for stage, count in evaluation_bytes(
                config, tokens, getattr(torch, sampling.dtype).itemsize
            ).items()
        }
        for name, sampling in job.samplings.items()
    }


def _asked(job: _Job) -> dict[str, Any]:
    preset, sampling = job.preset, job.sampling
    return {
        "preset": preset.name,
        "size": preset.size.label,
        "frames": preset.num_frames,
        "steps": sampling.num_inference_steps,
        "guidance": sampling.guidance_scale,
    }


def _title(job: _Job) -> str:
    asked = _asked(job)
    return (
        f"{asked['preset']}: a clip of {asked['frames']} frames of {asked['size']}, "
        f"{asked['steps']} steps, guidance {asked['guidance']:g}"
        + (", random weights" if job.request.random_weights else "")
    )


def _machine_lines(job: _Job, device: torch.device) -> list[str]:
    machine = describe_machine(device)
    where = machine["gpu"] or f"{machine['cpu']}, {machine['threads']} threads"
    return [_title(job), f"on {where}, torch {machine['torch']}"]


def _say_plans(job: _Job, progress: Progress) -> None:
    for name, memory in job.plans.items():
        size = memory.peak_device_bytes or memory.peak_host_bytes
        progress.message(f"{name}: about {size / GIB:.1f} GiB (estimated)")
