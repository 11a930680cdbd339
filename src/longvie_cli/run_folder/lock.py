"""One process a run folder."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

from filelock import FileLock, Timeout

from longvie_cli.disk.durable import storage_error, write_atomic
from longvie_cli.errors import LongVieError, OutputConflictError
from longvie_cli.run_folder.layout import RunFolder

_NO_LOCKS_HERE = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})


class RunLock:
    """Holds a run folder for this process while the `with` block runs.

    The operating system lets go of the lock when the process ends, however it ends.

    Args:
        folder: The run; its folder is made if needed.

    Raises:
        OutputConflictError: Another process holds the folder (the message names it), or the folder
            cannot be written.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._lock = FileLock(folder.lock, timeout=0)

    def __enter__(self) -> RunLock:
        self._folder.create()
        try:
            self._lock.acquire()
        except Timeout as reason:
            raise OutputConflictError(
                f"{self._folder.root}: {self._holder()} works on this run.",
                hint="Wait for it, stop it, or choose another --run-dir.",
            ) from reason
        except OSError as reason:
            raise self._not_locked(reason) from reason
        try:
            # Not in the lock file itself: that is the system's.
            write_atomic(self._folder.lock_holder, f"{os.getpid()} {this_host()}\n".encode())
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Nothing but a report, and another error may be on its way.
        with suppress(OSError):
            self._folder.lock_holder.unlink(missing_ok=True)
        with suppress(OSError):
            self._lock.release()

    def _holder(self) -> str:
        holder = read_holder(self._folder)
        if holder is None:
            return "process (unknown)"  # it has the lock but has not signed yet
        return holder.words

    def _not_locked(self, reason: OSError) -> LongVieError:
        if reason.errno in _NO_LOCKS_HERE:
            return OutputConflictError(
                f"{self._folder.lock}: this file system has no locks ({reason.strerror}).",
                hint="Choose a --run-dir on another disk, or have locks switched on (NFS: nolock "
                "is set, or its lock service is not running).",
            )
        return storage_error(self._folder.lock, reason)


@dataclass(frozen=True)
class Holder:
    """Who works on a run, as it signed.

    Args:
        process: Its number.
        host: Name of its machine, empty where it did not say.
    """

    process: int
    host: str

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is on another machine, so that its number means nothing here."""
        return self.host not in ("", this_host())

    @property
    def words(self) -> str:
        """Its number, and its machine if that is another."""
        return f"process {self.process}" + (f" on {self.host}" if self.is_elsewhere else "")


def read_holder(folder: RunFolder) -> Holder | None:
    """Return who signed as working on a run, None if nobody did; it may have died since."""
    try:
        process, _, host = folder.lock_holder.read_text("utf-8").strip().partition(" ")
        return Holder(int(process), host)
    except (OSError, ValueError):
        return None


def this_host() -> str:
    """Return the name of this machine, without line breaks."""
    return " ".join(socket.gethostname().split())
