"""Whether a run of training can begin, or go on, with the settings it is given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from longvie_cli.errors import OutputConflictError, UsageError
from longvie_cli.settings.training import TrainingSettings

# What may differ when a run goes on; everything else decides its numbers.
_MAY_CHANGE = {
    *("steps", "checkpoint_every", "keep_checkpoints"),
    *("validate_every", "validation_samples", "validation_steps"),
    # Of the file of `longvie train`.
    *("validation", "device", "export"),
}


def deciding(settings: TrainingSettings) -> dict[str, Any]:
    """Return the settings that decide the numbers of a run, as JSON values."""
    kept: dict[str, Any] = settings.model_dump(mode="json", exclude=_MAY_CHANGE)
    return kept


def check_same_settings(place: Path, begun: Mapping[str, Any], settings: TrainingSettings) -> None:
    """Do nothing if a run that was begun with some settings can go on with others.

    Raises:
        OutputConflictError: It cannot; names the first one that differs.
    """
    own = deciding(settings)
    for key in sorted(own):
        if begun.get(key) != own[key]:
            raise OutputConflictError(
                f"{place}: this run was started with {key} {begun.get(key)}, not {own[key]}.",
                hint="Set it back to go on, or name another output folder.",
            )


def check_shares(batch: int, num_processes: int) -> None:
    """Do nothing if the samples of a step can be shared by some processes.

    Raises:
        UsageError: They cannot.
    """
    if batch % num_processes:
        raise UsageError(
            f"batch: {batch} samples cannot be shared by {num_processes} processes; use a "
            "multiple of their number."
        )


def check_sharded(settings: TrainingSettings, num_processes: int) -> None:
    """Do nothing if weights can be cut over the processes that there are.

    Raises:
        UsageError: There is only one.
    """
    if settings.sharded and num_processes == 1:
        raise UsageError(
            "sharded: there is one process to hold the weights.",
            hint="Start several: torchrun --nproc-per-node N -m longvie_cli train ...",
        )


def check_steps(folder: Path, standing: int, wanted: int) -> None:
    """Do nothing if a run that stands at a step can end at another.

    Raises:
        UsageError: It is past it.
    """
    if standing > wanted:
        raise UsageError(f"steps: {wanted}, but {folder} stands at step {standing} already.")
