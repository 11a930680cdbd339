"""Help and version: quick, complete, without torch."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import pytest

import longvie_cli

MODELS = tuple(f"models {name}" for name in ("list", "pull", "verify", "path", "convert"))
RUNS = ("redo", "resume", "status")
COMMANDS = ("generate", "extend", "stitch", *RUNS, "extract-controls", *MODELS)
HEAVY = ("torch", "transformers", "diffusers", "cv2", "numpy", "PIL", "yaml")


@pytest.mark.parametrize("command", [(), ("models",), *(tuple(name.split()) for name in COMMANDS)])
def test_help_loads_nothing_heavy(command: tuple[str, ...]) -> None:
    code = (
        "import json, sys\n"
        "from longvie_cli.cli.app import main\n"
        "try: main(sys.argv[1:])\n"
        f"finally: print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command, "--help"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stderr) == []
    assert "Usage: longvie" in done.stdout


def test_help_answers_in_half_a_second() -> None:
    # Processor time, not the clock: the claim is about the work, not about what else runs here.
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "longvie_cli", "generate", "--help"],
            capture_output=True,
            check=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(seconds) < 0.5


def test_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, longvie_cli; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    assert all(getattr(longvie_cli, name) is not None for name in longvie_cli.__all__)
    assert not hasattr(longvie_cli, "nothing_of_this_name")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_command_shows_examples_and_exit_codes(longvie, command: str, flag: str) -> None:
    outcome = longvie(*command.split(), flag)
    assert outcome.code == 0
    assert outcome.err == ""
    assert f"longvie {command}" in outcome.out
    for words in ("Examples", "Exit codes", "75 stopped", "143 SIGTERM"):
        assert words in " ".join(outcome.out.split())


@pytest.mark.parametrize("command", [(), ("models",), *(tuple(name.split()) for name in COMMANDS)])
def test_every_command_tells_the_version(longvie, command: tuple[str, ...]) -> None:
    outcome = longvie(*command, "--version")
    assert (outcome.code, outcome.out) == (0, f"longvie {longvie_cli.__version__}\n")


def test_a_reader_that_leaves_is_no_failure() -> None:
    command = f"{sys.executable} -m longvie_cli generate --help | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr
