"""The shell stories and settings in examples/, run as a user would run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from longvie_cli.media.probe import probe_video

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(script: str, *arguments: str, environment: dict[str, str], folder: Path) -> None:
    finished = subprocess.run(
        ["bash", str(EXAMPLES / script), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert finished.returncode == 0, finished.stderr


@pytest.mark.slow
def test_two_looks_of_one_reference(tmp_path: Path, environment: dict[str, str]) -> None:
    run("two_looks.sh", "looks", "1", environment=environment, folder=tmp_path)
    snow, lava = (tmp_path / "looks" / name for name in ("snow.mp4", "lava.mp4"))
    assert probe_video(snow).num_frames == probe_video(lava).num_frames == 16
    assert snow.read_bytes() != lava.read_bytes()
    made = ("looks/controls", "looks/snow.mp4", "looks/lava.mp4", "--to", "sheet.png")
    command = [sys.executable, EXAMPLES / "contact_sheet.py", EXAMPLES / "reference.mp4", *made]
    subprocess.run(command, cwd=tmp_path, check=True)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (6 * 196 - 4, 5 * 116 - 4)


@pytest.mark.slow
def test_a_flight_grows(tmp_path: Path, environment: dict[str, str]) -> None:
    run("longer_and_longer.sh", "out", "1", environment=environment, folder=tmp_path)
    lengths = {
        path.name: probe_video(path).num_frames for path in sorted((tmp_path / "out").glob("*.mp4"))
    }
    assert lengths == {"again.mp4": 16, "first.mp4": 16, "longer.mp4": 32}


@pytest.mark.slow
def test_two_processes_make_a_flight(tmp_path: Path, environment: dict[str, str]) -> None:
    few = ("--seconds", "1", "--steps", "2")
    # Beside the `longvie` of the tests stands the torchrun of this Python, on no PATH by itself.
    path = f"{environment['PATH']}{os.pathsep}{Path(sys.executable).parent}"
    environment = environment | {"PATH": path}
    run("torchrun.sh", "2", "out.mp4", *few, environment=environment, folder=tmp_path)
    assert probe_video(tmp_path / "out.mp4").num_frames == 16


@pytest.mark.slow
def test_the_python_api_makes_two_clips(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "python_api.py"), "--steps", "1"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (finished.returncode, finished.stdout) == (0, "python_api.mp4\n"), finished.stderr
    assert probe_video(tmp_path / "python_api.mp4").num_frames == 65


@pytest.mark.parametrize(
    "settings",
    [
        ("--config", str(EXAMPLES / "settings.yaml")),
        ("--prompt-file", str(EXAMPLES / "prompts.txt"), "--seconds", "10"),
    ],
)
def test_settings_and_prompts_are_understood(
    longvie, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    reference = EXAMPLES / "reference.mp4"
    outcome = longvie("generate", "--video", reference, *settings, "-o", "o.mp4", "--dry-run")
    assert outcome.code == 0, outcome.err
    assert not (tmp_path / "o.mp4").exists()
