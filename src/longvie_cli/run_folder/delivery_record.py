"""`delivery.json`: the record of a finished run."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from longvie_cli.disk.checksums import checksummed_json, read_checksummed_json
from longvie_cli.disk.documents import MAX_JSON_BYTES, first_reason_of, read_document
from longvie_cli.disk.durable import write_atomic
from longvie_cli.errors import OutputConflictError
from longvie_cli.progress import command_line
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.settings.about import ABOUT_VERSION, About, checked_about


class DeliveryRecord(BaseModel):
    """What was delivered.

    Args:
        schema_version: Version of this format.
        run_id: The run it belongs to.
        output: Name of the file.
        output_hash: `hash_file` of it.
        replaces: Hash of what of ours may still lie at the output if the process ends before the
            file is moved there.
        revision: How often the run had been changed.
        last_clip: Index of its last clip.
        about: What the file says of itself.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    schema_version: int = Field(default=ABOUT_VERSION, ge=1)
    run_id: str
    output: str
    output_hash: str
    replaces: str | None = None
    revision: int = Field(default=0, ge=0)
    last_clip: int = Field(ge=0)
    about: About


def write_delivery(folder: RunFolder, record: DeliveryRecord) -> None:
    """Write the record in one step: with it the run is finished.

    Raises:
        ResumableError: The disk is full.
        OutputConflictError: The folder cannot be written.
    """
    write_atomic(folder.delivery, checksummed_json(record.model_dump(mode="json")))


def read_delivery(folder: RunFolder) -> DeliveryRecord | None:
    """Return the record of a finished run, None if it is not finished.

    Raises:
        OutputConflictError: The record is damaged.
    """
    if not folder.delivery.is_file():
        return None
    try:
        values = read_checksummed_json(read_document(folder.delivery, MAX_JSON_BYTES))
        about = values.pop("about")
        if not isinstance(about, dict):
            raise ValueError("about: no object")
        about = checked_about(about)
        return DeliveryRecord.model_validate(values | {"about": about})
    except ValidationError as reason:
        raise _damaged(folder, first_reason_of(reason)) from reason
    except OSError as reason:
        raise _damaged(folder, str(reason.strerror)) from reason
    except (ValueError, KeyError, TypeError) as reason:
        raise _damaged(folder, str(reason)) from reason


def _damaged(folder: RunFolder, why: str) -> OutputConflictError:
    resume = command_line(["longvie", "resume", folder.root])
    return OutputConflictError(
        f"{folder.delivery}: damaged ({why}).", hint=f"`{resume}` writes it anew."
    )
