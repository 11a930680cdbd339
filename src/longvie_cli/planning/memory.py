"""Whether a job fits this machine, said before anything is loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from longvie_cli.errors import MissingResourceError, UsageError
from longvie_cli.planning.job import Job
from longvie_cli.progress import Progress

if TYPE_CHECKING:
    from longvie_cli.engine.machine import MachineMemory
    from longvie_cli.engine.memory import MemoryPlan
    from longvie_cli.engine.placement import Plans
    from longvie_cli.settings.presets import Preset
    from longvie_cli.settings.sampling import Sampling

_GIGABYTE = 1e9


def fitting_plan(job: Job) -> MemoryPlan:
    """Return the memory plan of a job in the placement it asks for, or the fastest that fits.

    Raises:
        UsageError: The machine is too small; the hint names flags that fit.
        MissingResourceError: The preset's models are not installed.
    """
    from longvie_cli.engine.machine import machine_memory
    from longvie_cli.engine.placement import choose_plan

    sampling = job.sampling
    return choose_plan(
        sampling.offload,
        installed_plans(job.preset, sampling),
        machine_memory(sampling.device),
        device=sampling.device,
        others=lambda **changed: installed_plans(job.preset, replace(sampling, **changed)),
    )


def describe_memory(job: Job, progress: Progress) -> dict[str, Any] | None:
    """Say what a job needs of the machine's memory, and return it as JSON values.

    Too small a machine is a warning here, since nothing is run; None where the preset's models are
    not installed.
    """
    from longvie_cli.engine.machine import machine_memory

    memory = machine_memory(job.sampling.device)
    try:
        plan, shortage = fitting_plan(job), None
    except UsageError as error:
        plans = installed_plans(job.preset, job.sampling)
        asked = job.sampling.offload
        plan = list(plans.values())[-1] if asked == "auto" else plans[asked]
        shortage = f"{error.message} {error.hint}".strip()
    except MissingResourceError as error:
        progress.message(f"memory: not known ({error.message})")
        return None
    weights = ", ".join(
        f"{part.name.replace('_', ' ')} {_size(part.weight_bytes)}" for part in plan.components
    )
    progress.message(f"weights: {weights}")
    for line in _needs(job, plan, memory):
        progress.message(line)
    if shortage is not None:
        progress.warning(f"The run will not start: {shortage}")
    return plan.as_json() | {"fits": shortage is None, "machine": dict(vars(memory))}


def _needs(job: Job, plan: MemoryPlan, memory: MachineMemory) -> list[str]:
    device = job.sampling.device
    on_host = f"{_size(plan.peak_host_bytes)}{_of(memory.host_free)}"
    if memory.device_free is None:
        return [f"memory: needs about {on_host} (estimated)"]
    placement = {
        "none": "all weights on the device",
        "once": "weights that are used once a clip come to the device for that",
        "model": "models come to the device in turn",
        "group": "the transformer's blocks are streamed",
    }[plan.offload]
    return [
        f"memory: needs about {_size(plan.peak_device_bytes)}{_of(memory.device_free)} on {device} "
        f"and {on_host} beside it (estimated); {placement}"
    ]


def _of(free: int | None) -> str:
    return "" if free is None else f" of {_size(free)} free"


def _size(num_bytes: int) -> str:
    if num_bytes < _GIGABYTE:
        return f"{num_bytes / 1e6:.1f} MB"
    return f"{num_bytes / _GIGABYTE:.1f} GB"


def installed_plans(preset: Preset, sampling: Sampling) -> Plans:
    """Return the memory plans of a preset in every placement, fastest first.

    Raises:
        MissingResourceError: The preset's models are not installed.
    """
    from longvie_cli.engine.memory import plans_of_preset

    try:
        return plans_of_preset(preset, sampling)
    except OSError as error:
        raise MissingResourceError(
            f"preset {preset.name}: its models are not installed ({error}).",
            hint="Install longvie again.",
        ) from error
