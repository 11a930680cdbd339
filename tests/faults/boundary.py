"""Faults at the edge to the operating system, in a process that has just been forked.

Every operation that changes a file, and every read of one, beneath the watched folders is counted
where Python hands it to the kernel: `io.FileIO`, `os.write`, `os.fsync`, `os.replace` ... Nothing
of longvie is replaced. At the chosen operation the process is killed, or the kernel "answers" with
an error. What libraries do in C or Rust, and what ffmpeg does, passes by; those are met by real
faults (full tmpfs, RLIMIT_FSIZE, damaged files).
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

# Operations after which something has changed for good: a run is killed after each of them.
LASTING = ("create", "write", "fsync", "replace", "unlink", "mkdir", "rmdir", "spawn", "ended")
# Operations at which the disk can turn out to be full.
FILLING = ("create", "write", "fsync", "replace", "mkdir")
READING = ("open", "read")
_UNWATCHED = ("feed",)
ALL = (*LASTING, *READING, *_UNWATCHED)


class Boundary:
    """Counts operations and makes one of them fail.

    Args:
        roots: Folders whose files are watched; a file elsewhere is none of our business.
        log: Open descriptor to which each operation is written as `kind path`, one a line.
        kinds: Kinds that count.
        at: Number of the operation, from 0, at which the fault happens; None for none.
        fault: `kill`, or the name of an errno.
        sticky: Whether all operations of these kinds from then on fail as well.
        beyond: Operations (`kind path`) before which counting does not begin.
    """

    def __init__(
        self,
        *,
        roots: Sequence[str],
        log: int,
        kinds: Sequence[str],
        at: int | None,
        fault: str,
        sticky: bool,
        beyond: Sequence[str] = (),
    ) -> None:
        self._roots = tuple(os.path.realpath(root) for root in roots)
        self._log = log
        self._kinds = frozenset(kinds)
        self._at = at
        self._fault = fault
        self._sticky = sticky
        self._count = 0
        self._os_write = os.write
        self._beyond = frozenset(beyond)
        self._counting = not beyond
        self._broken = False

    def watched(self, path: object, dir_fd: int | None = None) -> str | None:
        """Return where a path is beneath the watched folders, None if it is elsewhere."""
        try:
            name = os.fsdecode(path)  # type: ignore[arg-type]
        except TypeError:
            return None
        if dir_fd is not None:
            name = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), name)
        # Its folder is resolved and not itself: it may be a link that is about to be replaced.
        folder, last = os.path.split(os.path.abspath(name))
        name = os.path.join(os.path.realpath(folder), last)
        for root in self._roots:
            if name == root or name.startswith(root + os.sep):
                # Names in the temp folder are random.
                first = root == self._roots[0]
                return os.path.relpath(name if first else root, self._roots[0])
        return None

    def of_descriptor(self, descriptor: int) -> str | None:
        try:
            name = os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            return None
        return self.watched(name) if name.startswith(os.sep) else None  # else a pipe

    def around(
        self,
        kind: str,
        path: str | None,
        work: Callable[[], Any],
        *,
        half: Callable[[], Any] | None = None,
    ) -> Any:
        """Do an operation, or fail at it, or do it (or `half` of it) and be killed."""
        if path is None or kind not in self._kinds:
            return work()
        due = self._is_due(f"{kind} {path}")
        if due and self._fault != "kill":
            self._broken = True
            code = getattr(errno, self._fault)
            raise OSError(code, os.strerror(code), path)
        try:
            return (half or work)() if due else work()
        finally:
            if due:
                os.kill(os.getpid(), signal.SIGKILL)

    def write(self, path: str | None, data: Any, work: Callable[[Any], int]) -> int:
        """Write, or fail, or write half of it and be killed."""
        return int(
            self.around(
                "write",
                path,
                lambda: work(data),
                half=lambda: work(bytes(data)[: len(data) // 2]),
            )
        )

    def _is_due(self, operation: str) -> bool:
        """Note an operation and return whether the fault happens at it."""
        self._os_write(self._log, f"{operation}\n".encode())
        self._counting = self._counting or operation not in self._beyond
        if not self._counting:
            return self._broken and self._sticky
        self._count += 1
        return self._count - 1 == self._at or (self._broken and self._sticky)


class _WatchedFile(io.FileIO):
    """A file as `open` gives it, with its reads and writes watched."""

    boundary: Boundary
    shown: str | None = None

    def write(self, data: Any) -> int:  # type: ignore[override]
        return self.boundary.write(self.shown, data, super().write)

    def readinto(self, buffer: Any) -> int | None:  # type: ignore[override]
        read = super().readinto
        return self.boundary.around("read", self.shown, lambda: read(buffer))  # type: ignore

    def read(self, size: int = -1) -> bytes | None:  # type: ignore[override]
        read = super().read
        return self.boundary.around("read", self.shown, lambda: read(size))  # type: ignore

    def readall(self) -> bytes | None:  # type: ignore[override]
        read = super().readall
        return self.boundary.around("read", self.shown, read)  # type: ignore


def install(boundary: Boundary) -> None:
    """Watch this process from now on."""
    _watch_open(boundary)
    _watch_os(boundary)
    _watch_processes(boundary)


def _watch_open(boundary: Boundary) -> None:
    real_open = io.open

    def watched_open(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        by_number = isinstance(file, int)
        shown = boundary.of_descriptor(file) if by_number else boundary.watched(file)
        if shown is None:
            return real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        text = "b" not in mode
        raw_mode = mode.replace("b", "").replace("t", "")
        writes = any(letter in raw_mode for letter in "wax")

        def make() -> _WatchedFile:
            return _WatchedFile(file, raw_mode, closefd, opener)

        raw = make() if by_number else boundary.around("create" if writes else "open", shown, make)
        raw.boundary, raw.shown = boundary, shown
        if buffering == 0:
            return raw
        size = io.DEFAULT_BUFFER_SIZE if buffering < 2 else buffering
        if "+" in raw_mode:
            buffered: Any = io.BufferedRandom(raw, size)
        elif writes:
            buffered = io.BufferedWriter(raw, size)
        else:
            buffered = io.BufferedReader(raw, size)
        if not text:
            return buffered
        wrapper = io.TextIOWrapper(buffered, encoding, errors, newline)
        wrapper.mode = mode  # type: ignore[misc]
        return wrapper

    builtins.open = io.open = watched_open  # type: ignore[assignment]


def _watch_os(boundary: Boundary) -> None:
    real_open, real_write, real_read, real_pread = os.open, os.write, os.read, os.pread

    def watched_open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        def work() -> int:
            return real_open(path, flags, mode, dir_fd=dir_fd)

        kind = "create" if flags & os.O_CREAT else "open"
        return int(boundary.around(kind, boundary.watched(path, dir_fd), work))

    def watched_write(descriptor: int, data: Any) -> int:
        shown = boundary.of_descriptor(descriptor)
        return boundary.write(shown, data, lambda part: real_write(descriptor, part))

    def watched_read(descriptor: int, size: int) -> bytes:
        shown = boundary.of_descriptor(descriptor)
        return bytes(boundary.around("read", shown, lambda: real_read(descriptor, size)))

    def watched_pread(descriptor: int, size: int, offset: int) -> bytes:
        shown = boundary.of_descriptor(descriptor)
        return bytes(boundary.around("read", shown, lambda: real_pread(descriptor, size, offset)))

    os.open, os.write, os.read, os.pread = watched_open, watched_write, watched_read, watched_pread

    for name in ("fsync", "fdatasync"):
        _watch_descriptor(boundary, name)
    for name, kind in (
        ("unlink", "unlink"),
        ("remove", "unlink"),
        ("rmdir", "rmdir"),
        ("mkdir", "mkdir"),
    ):
        _watch_path(boundary, name, kind)
    for name in ("replace", "rename", "link"):
        _watch_two_paths(boundary, name)


def _watch_descriptor(boundary: Boundary, name: str) -> None:
    real = getattr(os, name)

    def watched(descriptor: int) -> Any:
        shown = boundary.of_descriptor(descriptor)
        return boundary.around("fsync", shown, lambda: real(descriptor))

    setattr(os, name, watched)


def _watch_path(boundary: Boundary, name: str, kind: str) -> None:
    real = getattr(os, name)

    def watched(path: Any, *arguments: Any, dir_fd: int | None = None) -> Any:
        shown = boundary.watched(path, dir_fd)
        return boundary.around(kind, shown, lambda: real(path, *arguments, dir_fd=dir_fd))

    setattr(os, name, watched)


def _watch_two_paths(boundary: Boundary, name: str) -> None:
    real = getattr(os, name)

    def watched(source: Any, target: Any, **options: Any) -> Any:
        shown = boundary.watched(target)
        return boundary.around("replace", shown, lambda: real(source, target, **options))

    setattr(os, name, watched)


def _watch_processes(boundary: Boundary) -> None:
    """Count ffmpeg's starts, its ends, and the frames it is fed, where it writes a file."""
    import subprocess

    class WatchedPopen(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, arguments: Any, **options: Any) -> None:
            last = os.fsdecode(arguments[-1])
            target = last.removeprefix("file:") if last.startswith("file:") else None
            self._shown = None if target is None else boundary.watched(target)
            boundary.around("spawn", self._shown, lambda: None)
            super().__init__(arguments, **options)
            if self.stdin is not None and self._shown is not None:
                self.stdin = _Fed(self.stdin, boundary, self._shown)

        def wait(self, timeout: float | None = None) -> int:
            known = self.returncode is not None
            status = super().wait(timeout)
            if not known:
                boundary.around("ended", self._shown, lambda: None)
            return status

    subprocess.Popen = WatchedPopen  # type: ignore[misc]


class _Fed:
    """The pipe to an ffmpeg that writes a file."""

    def __init__(self, pipe: Any, boundary: Boundary, shown: str) -> None:
        self._pipe, self._boundary, self._shown = pipe, boundary, shown

    def write(self, data: Any) -> Any:
        return self._boundary.around("feed", self._shown, lambda: self._pipe.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipe, name)
