"""What can be counted of the house: a file has one purpose, so no file is long."""

from __future__ import annotations

from pathlib import Path

import longvie_cli

MOST_LINES = 500
# One thing each, read from end to end: what a preset needs of memory, a scene made of a picture.
LONG = {"engine/memory.py", "controls/picture_scene.py"}


def test_no_file_is_long_but_two() -> None:
    source = Path(longvie_cli.__file__).parent
    lines = {
        path.relative_to(source).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in source.rglob("*.py")
    }
    assert {name for name, count in lines.items() if count > MOST_LINES} == LONG
