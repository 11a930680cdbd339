"""A run that is killed, stopped or starved goes on with the same frames."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from longvie_cli import GenerateRequest, generate

# Three clips, the last of them two frames; with so many steps that a clip takes a while.
STEPS = 40
COMMAND = (
    *("generate", "-p", "green hills", "--seconds", "1.2", "--seed", "11"),
    *("--steps", str(STEPS), "--guidance", "1"),
)
Start = Callable[..., "subprocess.Popen[str]"]


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not path.exists():
        assert process.poll() is None, f"ended before {path.name}: {process.communicate()[1]}"
        assert time.monotonic() < deadline, f"{path.name} never came"
        time.sleep(0.02)


def clip_states(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        path.name: (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted((folder / "clips").glob("*"))
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    generate(
        GenerateRequest(
            output=folder / "out.mp4",
            prompt="green hills",
            seconds=1.2,
            seed=11,
            num_inference_steps=STEPS,
            guidance_scale=1,
        )
    )
    return folder


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_frames(
    start_longvie: Start, longvie, tmp_path: Path, uninterrupted: Path
) -> None:
    """One kill of a process of its own; tests/faults has the others."""
    process = start_longvie(*COMMAND, "-o", "out.mp4")
    wait_for(tmp_path / "out.longvie" / "clips" / "0000.json", process)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    assert finish(process)[0] == -signal.SIGKILL
    assert not (tmp_path / "out.mp4").exists()
    finished_before = {
        name: state
        for name, state in clip_states(tmp_path / "out.longvie").items()
        if (tmp_path / "out.longvie" / "clips" / name).with_suffix(".json").exists()
    }

    outcome = longvie(*COMMAND, "-o", "out.mp4")
    assert (outcome.code, outcome.out) == (0, "out.mp4\n"), outcome.err
    assert (tmp_path / "out.mp4").read_bytes() == (uninterrupted / "out.mp4").read_bytes()
    after = clip_states(tmp_path / "out.longvie")
    assert {name: after[name] for name in finished_before} == finished_before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143)],
    ids=["SIGINT", "SIGTERM"],
)
def test_a_signal_stops_cleanly_and_says_how_to_go_on(
    start_longvie: Start, longvie, tmp_path: Path, uninterrupted: Path, number: int, code: int
) -> None:
    process = start_longvie(*COMMAND, "--json", "-o", "out.mp4")
    wait_for(tmp_path / "out.longvie" / "clips" / "0000.json", process)
    process.send_signal(number)
    ended, out, err = finish(process)
    assert ended == code
    assert "To go on: longvie resume out.longvie" in err
    assert "Traceback" not in err
    assert '"status": "stopped"' in out
    assert list(tmp_path.rglob("*.part")) == []
    if number == signal.SIGTERM:
        return

    resumed = longvie("resume", "out.longvie")
    assert resumed.code == 0, resumed.err
    assert "are there already; going on" in resumed.err
    assert (tmp_path / "out.mp4").read_bytes() == (uninterrupted / "out.mp4").read_bytes()


def test_a_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    import sys

    code = (
        "import signal, time\n"
        "from longvie_cli.cli.signals import stop_on_signals\n"
        "with stop_on_signals():\n"
        "    try:\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(60)\n"
        "    except KeyboardInterrupt:\n"
        "        print('heard', flush=True)\n"
        "        time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "heard\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 143
    process.stdout.close()
