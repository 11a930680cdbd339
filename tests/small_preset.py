"""The embedded preset with models that are smaller still, so that a command takes a second or two.

The package is linked into a folder of its own, with another `assets/tiny`; everything finds it as
it finds the one that is shipped.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import longvie_cli
from longvie_cli.settings import presets
from longvie_cli.settings.presets import Preset, load_preset
from small_models import small_pipeline, small_sketcher

# What differs from the preset that is shipped: few pixels, but as many as --size may ask for, and
# clips that are short, but longer than the half second that most tests make.
CHANGES: Mapping[str, Any] = {
    "num_frames": 9,
    "height": 64,
    "width": 96,
    "max_text_tokens": 20,
    "track_grid": {"columns": 4, "rows": 3},
}
# As commands find it where `package_in_use`.
SMALL = Preset.model_validate(load_preset("tiny").model_dump() | CHANGES)


def build_package(root: Path, changes: Mapping[str, Any] = CHANGES) -> None:
    """Make a `longvie_cli` in `root` whose preset `tiny` has models of a few thousand weights.

    Args:
        root: What PYTHONPATH would name.
        changes: Fields of its `preset.json` that differ from those of the preset that is shipped.
    """
    real = Path(longvie_cli.__file__).parent
    package = root / "longvie_cli"
    (package / "assets").mkdir(parents=True)
    for entry in real.iterdir():
        if entry.name not in ("assets", "__pycache__"):
            (package / entry.name).symlink_to(entry)
    (package / "assets" / "longvie2").symlink_to(real / "assets" / "longvie2")
    tiny = package / "assets" / "tiny"
    small_pipeline(small_sketcher()).save_pretrained(tiny)
    shutil.copytree(real / "assets" / "tiny" / "depth", tiny / "depth")
    preset = json.loads((real / "assets" / "tiny" / "preset.json").read_bytes())
    (tiny / "preset.json").write_text(json.dumps(preset | changes))


@contextmanager
def package_in_use(root: Path) -> Iterator[None]:
    """Let this process find its presets in the package in `root`, and those it starts all of it."""
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presets, "files", lambda package: root / package)
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        yield
