"""One process a run folder."""

from __future__ import annotations

import os
from types import TracebackType

from filelock import FileLock, Timeout

from longvie_cli.durable import storage_error, write_atomic
from longvie_cli.errors import OutputConflictError
from longvie_cli.run_folder.layout import RunFolder


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
                f"{self._folder.root}: process {self._holder()} works on this run.",
                hint="Wait for it, stop it, or choose another --run-dir.",
            ) from reason
        except OSError as reason:
            raise storage_error(self._folder.lock, reason) from reason
        # Not in the lock file itself: whoever tries the lock truncates that.
        write_atomic(self._folder.lock_holder, f"{os.getpid()}\n".encode())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._folder.lock_holder.unlink(missing_ok=True)
        self._lock.release()

    def _holder(self) -> str:
        try:
            return self._folder.lock_holder.read_text("ascii").strip()
        except (OSError, ValueError):
            return "(unknown)"  # it has the lock but has not signed yet
