"""A command looks once: at each file, at the preset, at the run; and hardly at what is finished.

Nothing is replaced: processes are counted where Python starts them, and the three readers are the
real ones with a count around them.
"""

from __future__ import annotations

import functools
import importlib
import os
import pkgutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import longvie_cli
from longvie_cli.cli.app import main
from longvie_cli.media.probe import probe_video
from longvie_cli.run_folder.manifest import read_manifest
from longvie_cli.settings.presets import load_preset
from small_preset import CHANGES, build_package

REFERENCE = Path(__file__).resolve().parents[2] / "examples" / "reference.mp4"
COMMAND = (
    *("generate", "--video", str(REFERENCE), "-p", "snow", "--seconds", "3"),
    *("--steps", "1", "--guidance", "1", "-o", "out.mp4"),
)
# A look at the source, its first picture, the pass for scenes, the pass for depth; the depth of the
# clips read back, the hash of the last pictures, the first clip's depth as what the video looks
# like, the join.
ONCE_A_RUN = 8
# A clip's depth and tracks are written, both are read as decoded, the clip itself is written.
ONCE_A_CLIP = 4


@dataclass
class Looks:
    """What a command looked at, and how often."""

    ffmpeg: list[str] = field(default_factory=list)
    probed: Counter[Path] = field(default_factory=Counter)
    presets: int = 0
    manifests: int = 0
    seconds: float = 0.0


_watching: list[Looks] = []


def _see(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen" and _watching:
        executable, command = arguments[:2]
        if "ffmpeg" in Path(os.fsdecode(executable or command[0])).name:
            _watching[-1].ffmpeg.append(" ".join(map(os.fsdecode, command[1:])))


# For good: a hook cannot be taken away. It does nothing while nobody watches.
sys.addaudithook(_see)


def _counted(
    patch: pytest.MonkeyPatch, function: Callable[..., Any], note: Callable[[Any], None]
) -> None:
    """Put a count around a function in every module that has it."""

    @functools.wraps(function)
    def counted(*arguments: Any, **more: Any) -> Any:
        note(arguments[0])
        return function(*arguments, **more)

    # One that is imported later would keep the count of today for good.
    for found in pkgutil.walk_packages(longvie_cli.__path__, "longvie_cli."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    modules = [module for name, module in sys.modules.items() if name.startswith("longvie_cli")]
    for module in modules:
        if getattr(module, function.__name__, None) is function:
            patch.setattr(module, function.__name__, counted)


@contextmanager
def watched() -> Iterator[Looks]:
    """Count the looks of what is done meanwhile."""
    looks = Looks()

    def probed(path: Any) -> None:
        looks.probed[Path(path).resolve()] += 1

    def read(path: Any) -> None:
        looks.manifests += 1

    def loaded(name: Any) -> None:
        looks.presets += 1

    before = os.times()
    _watching.append(looks)
    with pytest.MonkeyPatch.context() as patch:
        _counted(patch, probe_video, probed)
        _counted(patch, read_manifest, read)
        _counted(patch, load_preset, loaded)
        yield looks
    _watching.pop()
    looks.seconds = sum(os.times()[:4]) - sum(before[:4])


@pytest.fixture(scope="module")
def small_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small models with clips as long as those of the shipped preset: two in three seconds."""
    root = tmp_path_factory.mktemp("package")
    build_package(root, {**CHANGES, "num_frames": 33})
    return root


@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory, small_preset: None) -> tuple[Looks, Looks]:
    """What the command looks at, and what it looks at when it is given once more."""
    folder = tmp_path_factory.mktemp("looks")
    found = []
    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch, watched() as seen:
            patch.chdir(folder)
            with pytest.raises(SystemExit) as ended:
                main(COMMAND)
        assert ended.value.code == 0
        found.append(seen)
    first, again = found
    assert (folder / "out.mp4").is_file()
    # A count of nothing would be within every limit.
    assert first.ffmpeg and first.probed[REFERENCE] and first.presets
    for name, seen in (("made", first), ("finished", again)):
        print(
            f"\n{name}: {len(seen.ffmpeg)} ffmpeg starts, {sum(seen.probed.values())} probes, "
            f"{seen.presets} presets, {seen.manifests} manifests, {seen.seconds:.1f} s",
        )
    return first, again


def test_few_ffmpegs_are_started(looks: tuple[Looks, Looks]) -> None:
    assert len(looks[0].ffmpeg) <= ONCE_A_RUN + 2 * ONCE_A_CLIP, "\n".join(looks[0].ffmpeg)


def test_each_file_is_probed_once(looks: tuple[Looks, Looks]) -> None:
    assert set(looks[0].probed.values()) == {1}, looks[0].probed


def test_preset_and_manifest_are_read_once(looks: tuple[Looks, Looks]) -> None:
    assert looks[0].presets == 1
    assert looks[0].manifests <= 1


def test_a_finished_run_is_known_by_its_record_alone(looks: tuple[Looks, Looks]) -> None:
    again = looks[1]
    assert (again.ffmpeg, dict(again.probed)) == ([], {})
    assert again.presets <= 1
    assert again.manifests <= 1
