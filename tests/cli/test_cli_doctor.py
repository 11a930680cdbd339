"""`longvie doctor`: tries what the tool stands on, on machines that are whole and that are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from longvie_cli.media.ffmpeg import ffmpeg_executable

COMMAND = Path(sys.executable).with_name("longvie")


@pytest.fixture
def fresh_ffmpeg() -> Iterator[None]:
    """Look for ffmpeg anew, here and in whatever comes after."""
    ffmpeg_executable.cache_clear()
    yield
    ffmpeg_executable.cache_clear()


def _by_name(fields: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in fields["checks"]}


def _run(**environment: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Run the installed command in an environment of its own."""
    done = subprocess.run(
        [COMMAND, "doctor", "--json"],
        capture_output=True,
        text=True,
        env=dict(os.environ) | environment,
        check=False,
    )
    return done.returncode, _by_name(json.loads(done.stdout))


def test_a_whole_machine(longvie) -> None:
    outcome = longvie("doctor", "--json")
    assert outcome.code == 0
    assert outcome.fields["schema_version"] == 1
    for check in outcome.fields["checks"]:
        assert set(check) == {"name", "status", "found", "needed", "fix"}
        assert check["status"] in ("ok", "missing", "warning")
        assert (check["status"] == "ok") == (check["fix"] is None), check
        assert check["found"]
    found = _by_name(outcome.fields)
    whole = ("python", "packages", "temp folder", "output folder", "ffmpeg", "ffmpeg libx264")
    for name in (*whole, "ffmpeg aac", "ffmpeg decoders", "preset tiny", "peft"):
        assert found[name]["status"] == "ok", found[name]
    assert found["preset tiny"]["found"].startswith("loads; ")
    assert found["preset longvie2"]["fix"] == "longvie models pull longvie2"
    assert found["model cotracker3"]["fix"].endswith("pull cotracker3 --accept-noncommercial")


def test_people_read_a_table(longvie) -> None:
    outcome = longvie("doctor", "-q")
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[-1] == "tiny can run here."
    assert any(line.split()[:3] == ["ok", "preset", "tiny"] for line in lines)
    missing = next(i for i, line in enumerate(lines) if "preset longvie2" in line)
    assert lines[missing].startswith("missing")
    assert lines[missing + 1].strip() == "longvie models pull longvie2"


@pytest.mark.usefixtures("fresh_ffmpeg")
@pytest.mark.parametrize("program", [None, "some text", "#!/bin/sh\necho hello\n"])
def test_an_ffmpeg_that_is_none(
    longvie, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str | None
) -> None:
    path = tmp_path / "ffmpeg"
    if program is not None:
        path.write_text(program)
        path.chmod(0o755 if program.startswith("#!") else 0o644)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(path))
    outcome = longvie("doctor", "--json")
    assert outcome.code == 3
    found = _by_name(outcome.fields)
    for name in ("ffmpeg", "ffmpeg libx264"):
        assert found[name]["status"] == "missing"
        assert found[name]["fix"] == "unset IMAGEIO_FFMPEG_EXE"
    assert found["preset tiny"]["status"] == "ok"
    assert longvie("doctor").out.endswith("tiny cannot run here.\n")


def test_a_temp_folder_that_is_a_file(
    longvie, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    # Python takes another folder where TMPDIR is none.
    monkeypatch.setenv("TMPDIR", str(file))
    monkeypatch.setattr(tempfile, "tempdir", None)
    outcome = longvie("doctor", "--json")
    assert outcome.code == 0
    temp = _by_name(outcome.fields)["temp folder"]
    assert (temp["status"], temp["fix"]) == ("warning", "unset TMPDIR")
    assert str(file) in temp["found"]

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(file))
        outcome = longvie("doctor", "--json")
    assert outcome.code == 1
    found = _by_name(outcome.fields)
    for name in ("temp folder", "ffmpeg libx264"):
        assert found[name]["status"] == "missing"
        assert found[name]["fix"] == "mkdir -p ~/tmp && export TMPDIR=~/tmp"


def test_a_folder_that_nothing_can_be_written_into(
    longvie, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/proc")
    outcome = longvie("doctor", "--json")
    assert outcome.code == 1
    folder = _by_name(outcome.fields)["output folder"]
    assert (folder["status"], folder["fix"]) == ("missing", "cd ~")


def test_more_threads_than_cores(longvie) -> None:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(512)
    try:
        found = _by_name(longvie("doctor", "--json").fields)["torch"]
    finally:
        torch.set_num_threads(threads)
    assert found["status"] == "warning"
    assert found["fix"].startswith("export OMP_NUM_THREADS=")


@pytest.fixture
def without_torch(tmp_path: Path) -> dict[str, str]:
    """An environment whose torch is broken."""
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch.so is gone', name='torch')\n")
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}


@pytest.mark.slow
def test_a_torch_that_cannot_be_imported(without_torch: dict[str, str]) -> None:
    code, found = _run(**without_torch)
    assert code == 3
    for name in ("torch", "gpu", "preset tiny"):
        assert found[name]["status"] == "missing"
        assert found[name]["found"] == "libtorch.so is gone"
        assert "-m pip install torch" in found[name]["fix"]
    assert found["memory"]["status"] == found["ffmpeg libx264"]["status"] == "ok"


# Without torch a doctor is quick.
@pytest.mark.slow
def test_a_machine_without_utf8(without_torch: dict[str, str]) -> None:
    _, found = _run(**without_torch, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert found["text encoding"]["status"] == "warning"
    assert found["text encoding"]["fix"] == "export LC_ALL=C.UTF-8"


def test_the_plain_locale_will_do(without_torch: dict[str, str]) -> None:
    # There Python reads and writes UTF-8 of itself.
    _, found = _run(**without_torch, LC_ALL="C")
    assert found["text encoding"]["status"] == "ok"
    assert found["text encoding"]["found"] == "utf-8 (LC_ALL=C)"


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [None, "ACTIVE"])
def test_threads_sleep_while_they_wait_unless_the_user_wants_it_otherwise(
    tmp_path: Path, chosen: str | None
) -> None:
    """Threads that spin take the core that the thread they wait for needs."""
    environment = {**os.environ, "HOME": str(tmp_path), "OMP_DISPLAY_ENV": "TRUE"}
    environment.pop("OMP_WAIT_POLICY", None)
    if chosen is not None:
        environment["OMP_WAIT_POLICY"] = chosen
    command = [sys.executable, "-m", "longvie_cli", "doctor", "--json"]
    # The library that runs torch's threads says itself what it was told when it was loaded.
    said = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False
    ).stderr
    assert f"OMP_WAIT_POLICY = '{chosen or 'PASSIVE'}'" in said
