"""Closed, full and broken standard streams, and a terminal that goes away."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def run_in_shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of shell in which LONGVIE stands for the command."""
    command = line.replace("LONGVIE", f"'{sys.executable}' -m longvie_cli")
    return subprocess.run(
        ["sh", "-c", command], cwd=folder, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("LONGVIE models list >&-", 0),
        ("LONGVIE models list 2>&-", 0),
        ("LONGVIE models list <&-", 0),
        ("LONGVIE models list --json <&- >&- 2>&-", 0),
        ("LONGVIE status nowhere --json >&- 2>&-", 5),
        ("LONGVIE models list 2>/dev/full", 0),
        ("LONGVIE models list >/dev/full", 75),
        ("LONGVIE status nowhere --json >/dev/full", 5),
    ],
)
def test_a_stream_that_takes_nothing_ends_in_an_exit_code(
    tmp_path: Path, line: str, code: int
) -> None:
    ended = run_in_shell(line, tmp_path)
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    if line.endswith(">/dev/full") and code == 75:
        assert "standard output: the result cannot be written" in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_reader_that_leaves_does_not_end_the_run(tmp_path: Path) -> None:
    made = "generate -p hills --clips 1 --steps 1 --guidance 1 -o out.mp4"
    ended = run_in_shell(f"(LONGVIE {made} 2>&1; echo $? >code) | head -1", tmp_path)
    assert len(ended.stdout.splitlines()) == 1
    assert (tmp_path / "code").read_text() == "0\n"
    assert (tmp_path / "out.mp4").is_file()


def read_terminal(terminal: int, until: Path) -> None:
    """Read what is drawn, so that the process never waits for its terminal."""
    deadline = time.monotonic() + 240
    while not until.exists():
        assert time.monotonic() < deadline, f"{until.name} never came"
        if select.select([terminal], [], [], 0.05)[0]:
            os.read(terminal, 1 << 16)


@pytest.mark.slow
@pytest.mark.parametrize("ignored", [False, True], ids=["closed", "nohup"])
def test_a_closed_terminal_stops_the_run_and_nohup_keeps_it(tmp_path: Path, ignored: bool) -> None:
    flags = ("-p", "hills", "--clips", "3", "--steps", "60", "--guidance", "1", "-o", "out.mp4")
    arguments = [sys.executable, "-m", "longvie_cli", "generate", *flags]
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(tmp_path)
        if ignored:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.execv(sys.executable, arguments)
    read_terminal(terminal, tmp_path / "out.longvie" / "clips" / "0000.json")
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == (0 if ignored else 128 + signal.SIGHUP)
    assert (tmp_path / "out.mp4").exists() == ignored
    assert list(tmp_path.rglob("*.part")) == []
