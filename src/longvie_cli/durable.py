"""Files that are there whole or not at all: write beside, fsync, rename, fsync the folder."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from longvie_cli.errors import LongVieError, OutputConflictError, ResumableError

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def part_path(final: Path) -> Path:
    """Return the name under which `final` is written until it is complete."""
    return final.with_name(final.name + ".part")


def storage_error(path: Path, reason: OSError) -> LongVieError:
    """Return the error to raise when `path` could not be written."""
    if reason.errno in _DISK_FULL:
        return disk_full_error(path)
    return OutputConflictError(f"{path}: cannot be written ({reason.strerror or reason}).")


def disk_full_error(path: Path) -> ResumableError:
    """Return the error to raise when the disk that should hold `path` is full."""
    return ResumableError(
        f"{path}: no space left on the disk.",
        hint="Free some space and run the same command again; finished clips are kept.",
    )


def commit_file(part: Path, final: Path) -> None:
    """Make the complete file `part` appear as `final`, in one step that survives a power cut.

    Raises:
        ResumableError: The disk is full.
        OutputConflictError: The folder cannot be written.
    """
    try:
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, final)
        _fsync_folder(final.parent)
    except OSError as reason:
        raise storage_error(final, reason) from reason


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path`; a reader sees the old file or the new one, never a torn one.

    Raises:
        ResumableError: The disk is full.
        OutputConflictError: The folder cannot be written.
    """
    part = part_path(path)
    try:
        part.write_bytes(data)
    except OSError as reason:
        _remove_quietly(part)
        raise storage_error(path, reason) from reason
    commit_file(part, path)


def _remove_quietly(path: Path) -> None:
    # The error that made the file useless is already on its way to the user.
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


def _fsync_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # Windows has no handle to a folder that could be flushed.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
