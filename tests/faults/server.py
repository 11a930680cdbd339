"""A process that has everything imported and forks one `longvie` a trial.

Importing torch takes seconds and a trial tenths of one. Nothing here runs in parallel before a
fork: one thread, and the warm-up commands leave none behind.

Reads one JSON request a line on stdin and answers with one JSON line on stdout:
{"do": "start", ...} starts a command and returns {"pid": N}; {"do": "wait", "pid": N, ...} returns
how it ended.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from faults.boundary import ALL, Boundary, install

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG: a trial that hangs does not outlive the session


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory() as scratch:
        _warm_up(Path(scratch), json.loads(sys.argv[1]))
    threads = len(os.listdir("/proc/self/task"))
    gc.collect()
    gc.freeze()
    print(json.dumps({"ready": os.getpid(), "threads": threads}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer = _start(request) if request["do"] == "start" else _wait(request)
        print(json.dumps(answer), file=answers, flush=True)


def _warm_up(folder: Path, commands: list[list[str]]) -> None:
    """Run commands once in this process, for what they import and for the worlds they build."""
    from flights_once import fly_once

    fly_once(pytest.MonkeyPatch())
    os.chdir(folder)
    for command in commands:
        code = _run(command)
        if code:
            raise RuntimeError(f"warming up with {command} ended with {code}")
    os.chdir("/")


def _run(command: list[str]) -> int:
    from longvie_cli.cli.app import main as longvie

    sys.argv = ["longvie", *command]
    try:
        longvie()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def _start(request: dict[str, Any]) -> dict[str, Any]:
    pid = os.fork()
    if pid:
        return {"pid": pid}
    code = 70
    try:
        _become(request)
        code = _run(request["command"])
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def _become(request: dict[str, Any]) -> None:
    """Set this process up as the shell would, and then as the fault asks."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(request["environment"])
    tempfile.tempdir = None
    for number, name in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        descriptor = os.open(name, flags, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    os.chdir(request["folder"])
    if limit := request.get("file_size_limit"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if offset := request.get("clock_offset"):
        _move_clock(offset, request.get("clock_back_after"))
    if request.get("obeys_modes"):
        _obey_modes()
    boundary = Boundary(
        roots=request["roots"],
        log=log,
        kinds=request.get("kinds", ALL),
        at=request.get("at"),
        fault=request.get("fault", "kill"),
        sticky=request.get("sticky", False),
        beyond=request.get("beyond", ()),
    )
    install(boundary)


def _obey_modes() -> None:
    """Let permissions hold for root as well: give up CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; low and high words
    if libc.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    for index in range(3):
        sets[index] &= ~0b110
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


def _move_clock(offset: float, turns: int | None) -> None:
    """Let the wall clock be `offset` seconds off; with `turns`, to and fro at every so many looks.

    The monotonic clock stays: no system lets that one jump.
    """
    import datetime as module

    real_time, real_ns, looks = time.time, time.time_ns, [0]

    def off() -> float:
        looks[0] += 1
        return offset if turns is None or looks[0] // turns % 2 == 0 else -offset

    class Clock(module.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls.fromtimestamp(real_time() + off(), tz)

    time.time = lambda: real_time() + off()
    time.time_ns = lambda: real_ns() + int(off() * 1e9)
    for loaded in list(sys.modules.values()):
        if getattr(loaded, "__name__", "").startswith("longvie_cli"):
            for name, value in list(vars(loaded).items()):
                if value is module.datetime:
                    setattr(loaded, name, Clock)


def _wait(request: dict[str, Any]) -> dict[str, Any]:
    """Wait for a command; after `kill_after` seconds it is sent `signal`."""
    pid, deadline = request["pid"], request.get("kill_after")
    handle = os.pidfd_open(pid)
    hung, began = False, time.monotonic()
    try:
        if deadline is not None and not select.select([handle], [], [], deadline)[0]:
            os.kill(pid, request.get("signal", signal.SIGKILL))
        if not select.select([handle], [], [], request["timeout"])[0]:
            os.kill(pid, signal.SIGKILL)
            hung = True
        _, status, used = os.wait4(pid, 0)
    finally:
        os.close(handle)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "hung": hung,
        "seconds": time.monotonic() - began,
        "cpu": used.ru_utime + used.ru_stime,
    }


if __name__ == "__main__":
    main()
