"""One process a run folder."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from longvie_cli.errors import LongVieError, OutputConflictError
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.lock import Holder, RunLock, read_holder, this_host

_HOLD = """
import sys
from pathlib import Path
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.lock import RunLock

with RunLock(RunFolder(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


def _hold(folder: RunFolder) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(folder.root)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_told_who_holds_the_run(folder):
    with _hold(folder) as other:
        for _ in range(2):  # the first try must not wipe out the holder's name
            with pytest.raises(OutputConflictError, match=f"process {other.pid} ") as raised:
                RunLock(folder).__enter__()
        assert raised.value.exit_code == 4
        assert raised.value.hint
        other.kill()


def test_a_killed_holder_holds_no_more(folder):
    with _hold(folder) as other:
        other.kill()
        other.wait()
    with RunLock(folder):
        assert read_holder(folder) == Holder(os.getpid(), this_host())
    assert not folder.lock_holder.exists()


def test_a_holder_on_another_machine_is_named_with_it(folder):
    with RunLock(folder):
        folder.lock_holder.write_text("71 render-9\n")
        with pytest.raises(OutputConflictError, match="process 71 on render-9 works"):
            RunLock(folder).__enter__()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EIO])
def test_a_file_system_without_locks_is_said(folder, code, monkeypatch):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(LongVieError, match="has no locks" if code == errno.ENOLCK else "failed"):
        RunLock(folder).__enter__()


def test_the_folder_is_made_and_the_lock_can_be_taken_again(tmp_path):
    folder = RunFolder(tmp_path / "new.longvie")
    for _ in range(2):
        with RunLock(folder):
            assert folder.clips_dir.is_dir()


def test_an_error_inside_lets_go(folder):
    with pytest.raises(RuntimeError), RunLock(folder):
        raise RuntimeError
    with RunLock(folder):
        pass
