"""`delivery.json`: the record of a finished run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from longvie_cli.disk.checksums import open_sealed_json
from longvie_cli.disk.documents import MAX_JSON_BYTES, first_reason_of, read_document
from longvie_cli.errors import OutputConflictError
from longvie_cli.progress import command_line
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.settings.about import ABOUT_VERSION, checked_about

SCHEMA_VERSION = ABOUT_VERSION


class _Delivered(BaseModel):
    """What is read of `delivery.json`."""

    model_config = ConfigDict(strict=True)

    output_hash: str
    replaces: str | None = None
    revision: int = 0
    last_clip: int = Field(ge=0)
    about: dict[str, Any]


def read_delivery(folder: RunFolder) -> Mapping[str, Any] | None:
    """Return the record of a finished run, None if it is not finished.

    Raises:
        OutputConflictError: The record is damaged.
    """
    if not folder.delivery.is_file():
        return None
    try:
        record = open_sealed_json(read_document(folder.delivery, MAX_JSON_BYTES))
        _Delivered.model_validate(record)
        return record | {"about": checked_about(record["about"])}
    except ValidationError as reason:
        raise _damaged(folder, first_reason_of(reason)) from reason
    except OSError as reason:
        raise _damaged(folder, str(reason.strerror)) from reason
    except ValueError as reason:
        raise _damaged(folder, str(reason)) from reason


def damaged_delivery(folder: RunFolder) -> str | None:
    """Return in words what is wrong with the record of a finished run, None if nothing is."""
    try:
        read_delivery(folder)
    except OutputConflictError as error:
        return f"{error.message} The video is joined again."
    return None


def sound_delivery(folder: RunFolder) -> Mapping[str, Any] | None:
    try:
        return read_delivery(folder)
    except OutputConflictError:
        return None


def _damaged(folder: RunFolder, why: str) -> OutputConflictError:
    resume = command_line(["longvie", "resume", folder.root])
    return OutputConflictError(
        f"{folder.delivery}: damaged ({why}).", hint=f"`{resume}` writes it anew."
    )
