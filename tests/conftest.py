"""What every test stands on: a home of its own, no settings of the machine, no network."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# Set before anything imports torch: on a machine that is busy with other things, two threads that
# wait for each other are many times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def _isolate(patch: pytest.MonkeyPatch, home: Path) -> None:
    """Give home and caches another place, take LONGVIE_* away, and the hub offline."""
    for name in list(os.environ):
        if name.startswith("LONGVIE_"):
            patch.delenv(name)
    patch.setenv("HOME", str(home))
    for name in ("CONFIG", "CACHE", "DATA", "STATE"):
        patch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
    patch.setenv("HF_HOME", str(home / "huggingface"))
    patch.setenv("HF_HUB_OFFLINE", "1")
    patch.setenv("NO_COLOR", "1")


@pytest.fixture(scope="session", autouse=True)
def session_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For what is made once for several tests: nothing of this machine either."""
    with pytest.MonkeyPatch.context() as patch:
        _isolate(patch, tmp_path_factory.mktemp("home"))
        yield


@pytest.fixture(autouse=True)
def isolated_home(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A fresh home and caches for each test."""
    home = tmp_path_factory.mktemp("home")
    _isolate(monkeypatch, home)
    return home


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def fields(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        (line,) = self.out.splitlines()
        fields = json.loads(line)
        assert isinstance(fields, dict)
        return fields


Longvie = Callable[..., Outcome]


@pytest.fixture
def longvie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Longvie:
    """Run `longvie ARGUMENTS` in this process, in the test's folder."""
    from longvie_cli.cli.app import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Outcome:
        given = [str(argument) for argument in arguments]
        monkeypatch.setattr(sys, "argv", ["longvie", *given])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return Outcome(ended.value.code, out, err)

    return run


@pytest.fixture
def start_longvie(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `longvie ARGUMENTS` as a process of its own, in the test's folder."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str | Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "longvie_cli", *map(str, arguments)],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def small_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with a `tiny` of a few thousand weights; see `small_preset.py`."""
    from small_preset import build_package

    root = tmp_path_factory.mktemp("small_package")
    build_package(root)
    # A run collects garbage to be rid of the text encoder at once. Of the libraries, which are all
    # imported by now, nothing is garbage, and looking through them takes a third of a second.
    gc.collect()
    gc.freeze()
    return root


@pytest.fixture(scope="module")
def small_preset(small_package: Path) -> Iterator[None]:
    """Preset `tiny` is that small one, in this process and in those it starts."""
    from flights_once import fly_once
    from small_preset import package_in_use

    with package_in_use(small_package), pytest.MonkeyPatch.context() as patch:
        fly_once(patch)
        yield


@pytest.fixture(scope="session")
def reference_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flight of one second at 24 fps, 160x90: what a user might bring."""
    from longvie_cli.media.writer import VideoWriter
    from longvie_cli.worlds import Flight

    path = tmp_path_factory.mktemp("reference") / "reference.mp4"
    flight = Flight(1_000_000_007, width=160, height=90, fps=24)
    with VideoWriter(path, height=90, width=160, fps=24) as writer:
        for index in range(24):
            writer.write(flight.frame(index).rgb)
    return path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object | None:
    """Give each file to one process, as loadfile does, but tests/faults as a whole.

    What its files share, an interpreter to fork and the runs to break, takes ten seconds to make.
    """
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class LoadRoomScheduling(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "tests/faults" if file.startswith("tests/faults/") else file

    # In the order of the folders: whole commands first, so that no long file is begun last.
    config.option.loadscopereorder = False
    return LoadRoomScheduling(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Add what the trials of tests/faults came to, and close with what was skipped and why."""
    _show_trials(terminalreporter)
    yield
    reasons = Counter(
        str(report.longrepr[2]).removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
    )
    if reasons:
        counts = "; ".join(f"{number} {reason}" for reason, number in reasons.most_common())
        terminalreporter.line(f"skipped: {counts}")


def _show_trials(terminalreporter: pytest.TerminalReporter) -> None:
    totals: dict[str, Counter[str]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) != "teardown":
                continue
            for name, value in report.user_properties:
                if name == "faults":
                    kind, counts = value
                    totals.setdefault(kind, Counter()).update(counts)
    if totals:
        terminalreporter.section("faults tried")
    for kind, counts in sorted(totals.items()):
        words = ", ".join(f"{number} {what}" for what, number in counts.items())
        terminalreporter.line(f"{kind}: {words}")
