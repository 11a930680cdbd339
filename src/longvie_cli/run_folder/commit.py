"""When a clip exists: its record is there and its files are what the record says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import xxhash

from longvie_cli.durable import commit_file, write_atomic
from longvie_cli.errors import OutputConflictError
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.manifest import ClipRecord, read_record
from longvie_cli.timeline import ClipSpec

__all__ = ["commit_file", "completed_clips", "hash_file", "write_atomic"]

_BLOCK_BYTES = 1 << 20


def hash_file(path: Path) -> str:
    """Return the xxh3 128-bit hash of a file's bytes, in hexadecimal.

    Raises:
        OSError: The file cannot be read.
    """
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def completed_clips(folder: RunFolder, plan: Sequence[ClipSpec]) -> list[ClipRecord]:
    """Return the records of the clips that exist, up to the first that does not.

    A clip whose record, video or tail is missing or not intact does not exist, and neither does
    any clip after it, since each starts on the last frames of the one before.
    """
    records: list[ClipRecord] = []
    for spec in plan:
        record = _intact_clip(folder, spec)
        if record is None:
            break
        records.append(record)
    return records


def _intact_clip(folder: RunFolder, spec: ClipSpec) -> ClipRecord | None:
    try:
        record = read_record(folder.clip_record(spec.index))
        hashes = hash_file(folder.clip_video(spec.index)), hash_file(folder.tail(spec.index))
    except (OutputConflictError, OSError):
        return None
    promised = (record.index, record.frames, record.video_hash, record.tail_hash)
    return record if promised == (spec.index, spec.added_frames, *hashes) else None
