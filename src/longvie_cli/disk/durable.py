"""Files that are there whole or not at all: write beside, fsync, rename, fsync the folder."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from longvie_cli.errors import LongVieError, OutputConflictError, ResumableError

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# The disk or the network folder has failed or is gone; what is on it may well be there again later.
_DISK_FAILED = frozenset(
    code
    for name in ("EIO", "ESTALE", "ETIMEDOUT", "ENOTCONN", "EHOSTDOWN", "EREMOTEIO", "ENODEV")
    if (code := getattr(errno, name, None)) is not None
)
# The machine, or what this process may use of it, is at its end; a file has nothing to do with it.
_SCARCE = {
    errno.EMFILE: "Let it open more files (`ulimit -n 1024`), then run the same command again.",
    errno.ENFILE: "Close other programs, then run the same command again.",
    errno.ENOMEM: "Close other programs, or let it use more memory, then run the same command "
    "again.",
    errno.EAGAIN: "Close other programs, or let it start more processes (`ulimit -u`), then run "
    "the same command again.",
}
_NOT_PERMITTED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_IN_THE_WAY = frozenset({errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENOTEMPTY})
# Windows has none of these.
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def part_path(final: Path) -> Path:
    """Return the name under which `final` is written until it is complete."""
    return final.with_name(final.name + ".part")


def storage_error(path: Path | str, reason: OSError) -> LongVieError:
    """Return the error to raise when `path` could not be written, with what to do about it."""
    return known_storage_error(path, reason) or OutputConflictError(
        f"{path}: cannot be written ({reason.strerror or reason})."
    )


def known_storage_error(path: Path | str, reason: OSError) -> LongVieError | None:
    """Return the error for a full, failed or forbidden disk, or for what the machine lacks.

    None if `reason` is something else.
    """
    if (scarce := scarcity_error(f"{path}: cannot be opened", reason)) is not None:
        return scarce
    if reason.errno in _DISK_FULL:
        return disk_full_error(path)
    if reason.errno in _DISK_FAILED:
        return disk_failed_error(path, reason.strerror or str(reason))
    if reason.errno in _NOT_PERMITTED:
        return OutputConflictError(
            f"{path}: not permitted ({reason.strerror or reason}).",
            hint="Change its permissions, then run the same command again; finished clips are "
            "kept. Or choose another folder.",
        )
    if reason.errno in _IN_THE_WAY:
        return OutputConflictError(
            f"{path}: cannot be written ({reason.strerror or reason}).",
            hint="Something else lies there or on the way. Move it, then run the same command "
            "again.",
        )
    return None


def scarcity_error(trouble: str, reason: OSError) -> ResumableError | None:
    """Return the error where the machine lacks open files, memory or processes; else None.

    Args:
        trouble: What cannot be done, beginning with the file.
        reason: Why.
    """
    hint = _SCARCE.get(reason.errno or 0)
    return None if hint is None else ResumableError(f"{trouble} ({reason.strerror}).", hint=hint)


def is_passing(reason: OSError) -> bool:
    """Return whether a file that cannot be read may well be sound all the same.

    Its disk has failed, reading it is forbidden, or the machine is at its end: no reason to make it
    again.
    """
    return reason.errno in _DISK_FAILED | _NOT_PERMITTED | _SCARCE.keys()


def disk_full_error(path: Path | str) -> ResumableError:
    """Return the error to raise when the disk that should hold `path` is full."""
    return ResumableError(
        f"{path}: no space left on the disk.",
        hint="Free some space and run the same command again; finished clips are kept.",
    )


def disk_failed_error(path: Path | str, reason: str) -> ResumableError:
    """Return the error to raise when the disk or the network folder of `path` fails."""
    return ResumableError(
        f"{path}: the disk or network folder failed ({reason}).",
        hint="See that it is there and sound, then run the same command again; finished clips are "
        "kept.",
    )


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, so that a power cut does not undo it.

    Raises:
        OSError: It cannot be made.
    """
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for made in reversed(missing):
        made.mkdir(exist_ok=True)
        _fsync_folder(made.parent)


def begin_part(part: Path) -> None:
    """Make an empty file to write into; one left by a killed process is neither kept nor shared.

    Raises:
        OSError: It cannot be made.
    """
    part.unlink(missing_ok=True)
    os.close(_new_file(part))


def commit_file(part: Path, final: Path) -> None:
    """Make the complete file `part` appear as `final`, in one step that survives a power cut.

    Raises:
        ResumableError: The disk is full or failed.
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
        ResumableError: The disk is full or failed.
        OutputConflictError: The folder cannot be written.
    """
    part = part_path(path)
    try:
        try:
            part.unlink(missing_ok=True)
            with open(_new_file(part), "wb") as file:
                file.write(data)
        except OSError as reason:
            raise storage_error(path, reason) from reason
        commit_file(part, path)
    except BaseException:
        _remove_quietly(part)
        raise


def _new_file(path: Path) -> int:
    # Never through a link: what lies at a name of ours may have been put there by somebody else.
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINKS, 0o666)


def _remove_quietly(path: Path) -> None:
    # The error that made the file useless is already on its way to the user.
    with suppress(OSError):
        path.unlink(missing_ok=True)
        return
    # A full disk may have no room even for taking a name away: first the file gives up its own.
    with suppress(OSError):
        os.truncate(path, 0)
        path.unlink(missing_ok=True)


def _fsync_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # Windows has no handle to a folder that could be flushed.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as reason:
        # Some network file systems have nothing to flush for a folder.
        if reason.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
