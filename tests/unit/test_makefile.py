"""What `make` would fetch on which machine; nothing is fetched here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    shutil.which("make") is None or sys.platform != "linux", reason="Linux with make"
)


def _dry_run(tmp_path: Path, *arguments: str, path: str = os.environ["PATH"]) -> str:
    return subprocess.run(
        ["make", "-n", "-C", str(ROOT), "setup", f"VENV={tmp_path}/venv", *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ) | {"PATH": path},
    ).stdout


def _with_driver(tmp_path: Path, exit_code: int) -> str:
    """Return a PATH on which `nvidia-smi` finds a GPU, or none."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nexit {exit_code}\n")
    program.chmod(0o755)
    return f"{program.parent}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="there is a driver")
def test_without_a_driver_torch_is_the_build_for_the_cpu(tmp_path: Path) -> None:
    said = _dry_run(tmp_path, path=_with_driver(tmp_path, 9))
    assert '"torch==2.13.0+cpu" --extra-index-url https://download.pytorch.org/whl/cpu' in said
    assert "for the CPU, about 200 MB (make CUDA=1: " in said


def test_with_a_driver_torch_is_what_pypi_has(tmp_path: Path) -> None:
    said = _dry_run(tmp_path, path=_with_driver(tmp_path, 0))
    assert '"torch==2.13.0"' in said
    assert "download.pytorch.org" not in said
    assert "about 2.7 GB" in said


@pytest.mark.parametrize(("choice", "is_cpu"), [("CUDA=0", True), ("CUDA=1", False)])
def test_one_variable_overrides_it(tmp_path: Path, choice: str, is_cpu: bool) -> None:
    assert ("+cpu" in _dry_run(tmp_path, choice)) == is_cpu
