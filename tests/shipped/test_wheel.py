"""The wheel, installed in an environment of its own and used far from the repository."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import longvie_cli

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., str]

pytestmark = pytest.mark.slow


def _run(*command: str | Path, folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built of the repository as `pip install .` builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    arguments = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
    _run(sys.executable, *arguments, folder=folder, environment=dict(os.environ))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment that holds the wheel, and all else of this one.

    What this Python has beside longvie is reached by a .pth file, so that torch is not installed
    again; the links of an editable install are no part of that.
    """
    root = tmp_path_factory.mktemp("environment")
    environment = dict(os.environ)
    environment.pop("PYTHONPATH", None)
    _run(sys.executable, "-m", "venv", "--without-pip", root, folder=root, environment=environment)
    python = root / "bin" / "python"
    install = ("--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    _run(sys.executable, "-m", "pip", *install, folder=root, environment=environment)
    (packages,) = root.glob("lib/python*/site-packages")
    (packages / "everything_else.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return root / "bin"


@pytest.fixture
def run(installed: Path, tmp_path: Path) -> Run:
    """Run a program of that environment in the test's folder."""
    environment = dict(os.environ, PATH=f"{installed}{os.pathsep}{os.environ['PATH']}")
    environment.pop("PYTHONPATH", None)

    def run(program: str, *arguments: str | Path) -> str:
        return _run(installed / program, *arguments, folder=tmp_path, environment=environment)

    return run


def test_the_wheel_holds_what_the_package_holds(wheel: Path) -> None:
    package = Path(longvie_cli.__file__).parent
    ours = {
        path.relative_to(package.parent).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    packed = {name for name in names if name.startswith("longvie_cli/")}
    assert packed == ours
    beside = {name.partition("/")[0].partition("-")[0] for name in names - packed}
    assert beside == {"longvie"}, "besides the package there is only its description"
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_it_is_the_wheel_that_runs_and_its_needs_are_met(run: Run, installed: Path) -> None:
    found = run("python", "-c", "import longvie_cli; print(longvie_cli.__file__)")
    assert Path(found.strip()).is_relative_to(installed.parent)
    assert run("longvie", "--version") == f"longvie {longvie_cli.__version__}\n"
    # Whatever the wheel says it needs is in this environment.
    check = (
        "from importlib.metadata import distribution, version\n"
        "from packaging.requirements import Requirement\n"
        "for text in distribution('longvie').requires:\n"
        "    need = Requirement(text)\n"
        "    if need.marker is None or need.marker.evaluate({'extra': ''}):\n"
        "        assert need.specifier.contains(version(need.name), prereleases=True), text\n"
    )
    run("python", "-c", check)


def test_it_generates_and_extracts(run: Run, tmp_path: Path) -> None:
    quick = ("--seconds", "0.5", "--steps", "1", "--guidance", "1")
    assert run("longvie", "generate", "-p", "Green hills", *quick, "-o", "out.mp4") == "out.mp4\n"
    assert (tmp_path / "out.mp4").stat().st_size > 1000
    shutil.copy(ROOT / "examples" / "reference.mp4", tmp_path / "ref.mp4")
    arguments = ("extract-controls", "ref.mp4", "--seconds", "0.5", "-o", "controls")
    assert run("longvie", *arguments) == "controls\n"
    assert (tmp_path / "controls" / "cond.json").is_file()
    planned = ("generate", "--preset", "longvie2", "-p", "x", "--dry-run", "-o", "plan.mp4")
    run("longvie", *planned)
