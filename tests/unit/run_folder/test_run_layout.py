"""Where things lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from longvie_cli.errors import OutputConflictError
from longvie_cli.run_folder.layout import RunFolder


def test_paths_are_those_of_the_contract():
    run = RunFolder.beside(Path("films/horse.mp4"))
    assert run.root == Path("films/horse.longvie")
    assert run.run_json == run.root / "run.json"
    assert run.events == run.root / "events.jsonl"
    assert run.controls_dir == run.root / "controls"
    assert run.clip_video(0) == run.root / "clips" / "0000.mp4"
    assert run.clip_record(59) == run.root / "clips" / "0059.json"
    assert run.tail(12345) == run.root / "tails" / "12345.safetensors"


def test_create_may_be_repeated(tmp_path):
    run = RunFolder(tmp_path / "a" / "b.longvie")
    run.create()
    run.create()
    folders = sorted(path.name for path in run.root.iterdir())
    assert folders == ["clips", "controls", "prompts", "tails"]


def test_a_file_in_the_way_is_said(tmp_path):
    (tmp_path / "horse.longvie").write_text("in the way")
    with pytest.raises(OutputConflictError, match=r"horse\.longvie"):
        RunFolder(tmp_path / "horse.longvie").create()
