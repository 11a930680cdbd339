"""The commands of README.md, as they stand there, in its order.

Every command in a fence of shell is run, with one step and no guidance; what needs more than this
machine has is named here, with the reason, and planned instead where there is a plan.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from sounds import run_ffmpeg

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
SHELLS = ("bash", "sh", "shell", "console")

# Commands that are not run as they are, by what stands in them.
NOT_RUN = (
    (r"^make\b", "sets up and tests all of this; CI runs it"),
    (r"^(python3? -m )?pip install\b", "installs this; test_wheel.py does"),
    (r"^(python3? -m venv|source|\.) ", "an environment of the reader's own"),
    (r"^git clone\b", "the repository is here"),
    (r"^longvie (models )?pull\b", "downloads gigabytes of weights"),
    (r"^longvie models (convert|verify|path)\b", "needs the weights of longvie2"),
    (r"--install-completion\b", "changes the reader's shell"),
)
PLANNED = (
    (r"--preset longvie2\b", "needs the weights of longvie2"),
    (r"--depth-model (small|base|large)\b", "needs a depth model from the hub"),
    (r"--tracker cotracker3\b", "needs a tracker from the hub"),
    (r"--first-frame-model\b", "needs an image model"),
    (r"--lora\b", "needs a LoRA of the reader's"),
)

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Fence:
    """A fenced block.

    Args:
        heading: The heading above it.
        language: What stands behind its first fence.
        line: Number of its first line, from 1.
        text: What it holds.
    """

    heading: str
    language: str
    line: int
    text: str

    @property
    def name(self) -> str:
        return f"{self.heading}, line {self.line}"


def _fences() -> list[Fence]:
    found, heading, opened = [], "the beginning", None
    lines = README.read_text("utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        mark = re.match(r"\s*```(\w*)", line)
        if opened is None:
            if re.match(r"#+ ", line):
                heading = line.lstrip("# ")
            elif mark:
                opened = (mark[1], number + 1)
        elif mark:
            language, first = opened
            text = "\n".join(lines[first - 1 : number - 1]) + "\n"
            found.append(Fence(heading, language, first, text))
            opened = None
    assert opened is None, f"README.md: the fence of line {opened} is never closed"
    return found


def _commands(text: str) -> list[str]:
    """Return the commands of a block, those of several lines in one piece, as bash sees them."""
    found, piece = [], ""
    for line in text.splitlines(keepends=True):
        piece += line.removeprefix("$ ")
        whole = not piece.rstrip("\n").endswith("\\")
        if whole and subprocess.run(["bash", "-nc", piece], capture_output=True).returncode == 0:
            found.append(piece)
            piece = ""
    assert not piece.strip(), f"bash cannot read this:\n{piece}"
    return [piece for piece in found if re.sub(r"(?m)^\s*(#.*)?$", "", piece).strip()]


def _what_stands(command: str) -> str:
    """Return a command without comments, in one line."""
    lines = (re.sub(r"(^|\s)#.*", "", line).rstrip("\\ ") for line in command.splitlines())
    return " ".join(" ".join(lines).split())


def _reason(command: str, rules: tuple[tuple[str, str], ...]) -> str | None:
    stands = _what_stands(command)
    return next((reason for pattern, reason in rules if re.search(pattern, stands)), None)


def _as_run(command: str) -> str | None:
    """Return what is run of a command: itself, its plan, or None."""
    if reason := _reason(command, NOT_RUN):
        print(f"not run: {_what_stands(command)}: {reason}")
        return None
    stands = _what_stands(command)
    assert "longvie" in stands or stands.split()[0] in ("mkdir", "cd", "ls", "echo"), (
        f"README.md: {stands!r} is neither run nor named in NOT_RUN"
    )
    reason = _reason(command, PLANNED)
    if reason and "--dry-run" not in stands and "--help" not in stands:
        print(f"planned only: {stands}: {reason}")
        return f"{stands} --dry-run"
    return command


FENCES = _fences()
SHELL = [fence for fence in FENCES if fence.language in SHELLS]
PYTHON = [fence for fence in FENCES if fence.language == "python"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a fresh clone, with the reader's own files that README.md speaks of."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "examples", folder / "examples")
    reference = folder / "examples" / "reference.mp4"
    # Five minutes: the same frames, each shown for seconds.
    run_ffmpeg("-itsscale", "31", "-i", reference, "-c", "copy", folder / "ref.mp4")
    return folder


def test_there_are_commands_to_run() -> None:
    commands = [command for fence in SHELL for command in _commands(fence.text)]
    longvie = [c for c in commands if "longvie" in _what_stands(c) and not _reason(c, NOT_RUN)]
    assert len(longvie) >= 5
    whole = [c for c in longvie if not _reason(c, PLANNED)]
    assert len(whole) >= 5
    # Nothing that looks like shell hides in a fence without a language.
    others = [
        fence for fence in FENCES if fence.language not in (*SHELLS, "python", "yaml", "json")
    ]
    for fence in others:
        assert not re.search(r"(?m)^\$? ?longvie ", fence.text), fence.name


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fence", SHELL, ids=lambda fence: fence.name)
def test_what_readme_says_works(fence: Fence, folder: Path, environment: dict[str, str]) -> None:
    lines = ["set -euo pipefail"]
    for command in _commands(fence.text):
        if (run := _as_run(command)) is not None:
            said = shlex.quote(f"then: {_what_stands(command)}")
            lines += [f"echo {said} >&2", run]
    ran = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert ran.returncode == 0, ran.stderr[ran.stderr.rfind("then: ") :]


@pytest.mark.parametrize("fence", PYTHON, ids=lambda fence: fence.name)
def test_the_python_of_readme_runs(fence: Fence, folder: Path, environment: dict[str, str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", fence.text],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
