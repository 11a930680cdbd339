"""What a run folder of training says of itself, in `training.json`.

Written before the first step; the next stage finds its way back to the weights through it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from longvie_cli.disk.documents import MAX_JSON_BYTES, first_reason_of, parse_json, read_document
from longvie_cli.disk.durable import write_atomic
from longvie_cli.errors import InputError
from longvie_cli.settings.training import Stage

RECORD_NAME = "training.json"


class Origin(BaseModel):
    """Where a run started: weights and the checkpoints that are laid over them.

    Args:
        weights: Folder of them; `preset`: those of the preset; `nothing`: a random transformer.
        checkpoints: Of the stages before, oldest first.
        seed: Of what is random.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str
    checkpoints: tuple[Path, ...] = ()
    seed: int = 0


class RunRecord(BaseModel):
    """A run of training.

    Args:
        schema_version: Of this file.
        stage: What is trained.
        settings: All that decides its numbers, as JSON values.
        origin: Where it started.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(default=1, ge=1, le=1)
    stage: Stage
    settings: dict[str, Any]
    origin: Origin


def read_record(folder: Path) -> RunRecord | None:
    """Return what a run folder says; None where it is none.

    Raises:
        InputError: The file is damaged.
    """
    path = folder / RECORD_NAME
    try:
        data = read_document(path, MAX_JSON_BYTES)
        parse_json(data)
        return RunRecord.model_validate_json(data)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as error:
        raise InputError(f"{path}: {first_reason_of(error)}.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}).") from error


def write_record(folder: Path, record: RunRecord) -> None:
    """Write it, in one step.

    Raises:
        ResumableError: The disk is full.
        OutputConflictError: The folder cannot be written.
    """
    write_atomic(folder / RECORD_NAME, record.model_dump_json(indent=1).encode() + b"\n")
