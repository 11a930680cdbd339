"""Commands write and remove what is theirs: not their inputs, nor what another run made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from longvie_cli.controls.files import load_control_clips
from longvie_cli.controls.written_files import HASHES_NAME, WrittenFiles
from longvie_cli.disk.checksums import checksummed_json
from longvie_cli.progress import SilentProgress
from longvie_cli.settings.presets import load_preset

QUICK = ("--seconds", "0.5", "--steps", "1", "--guidance", "1")


@pytest.mark.parametrize("name", ["{victim}", "../victim", "..", ""])
def test_a_list_of_hashes_reaches_no_file_outside_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "controls").mkdir()
    listed = {"files": {name.format(victim=tmp_path / "victim"): "00"}, "videos": {}}
    (tmp_path / "controls" / HASHES_NAME).write_bytes(checksummed_json(listed))
    files = WrittenFiles(tmp_path / "controls")
    assert files.damaged() == []
    files.remove_damaged(SilentProgress())
    assert (tmp_path / "victim").read_text() == "mine"
    # Once it has something to say, it is whole again.
    (tmp_path / "controls" / "first.png").write_bytes(b"picture")
    files.add([tmp_path / "controls" / "first.png"])
    (tmp_path / "controls" / "first.png").write_bytes(b"other")
    assert WrittenFiles(tmp_path / "controls").damaged() == [tmp_path / "controls" / "first.png"]


def test_no_input_is_an_output_by_whatever_name(longvie, tmp_path: Path, reference_video) -> None:
    (tmp_path / "real").mkdir()
    shutil.copy(reference_video, tmp_path / "real" / "source.mp4")
    (tmp_path / "link").symlink_to("real")
    before = (tmp_path / "real" / "source.mp4").read_bytes()
    common = ("generate", "-p", "hills", *QUICK, "--overwrite")
    for flags in (
        ("--video", "link/source.mp4", "-o", "real/source.mp4"),
        ("--audio", "real/source.mp4", "-o", "link/source.mp4"),
        ("--video", "real/source.mp4", "-o", "out.mp4", "--live", "link/source.mp4"),
    ):
        outcome = longvie(*common, *flags)
        assert outcome.code == 2, outcome.err
        assert "same command" in outcome.err
    sound = ("--audio", "real/source.mp4", "-o", "link/source.mp4", "--overwrite")
    assert longvie("stitch", reference_video, *sound).code == 2
    assert (tmp_path / "real" / "source.mp4").read_bytes() == before


@pytest.mark.slow
def test_a_copied_run_makes_a_video_of_its_own(longvie, tmp_path: Path) -> None:
    assert longvie("generate", "-p", "hills", *QUICK, "-o", "one.mp4").code == 0
    before = (tmp_path / "one.mp4").read_bytes()
    shutil.copytree(tmp_path / "one.longvie", tmp_path / "two.longvie")
    outcome = longvie("redo", "two.longvie", "--clip", "0", "--seed", "5")
    assert (outcome.code, outcome.out) == (0, "two.mp4\n"), outcome.err
    assert (tmp_path / "one.mp4").read_bytes() == before != (tmp_path / "two.mp4").read_bytes()
    assert "finished" in longvie("status", "one.longvie").out
    # A folder that was named itself says where its output is, for itself alone.
    outcome = longvie("generate", "-p", "hills", *QUICK, "--run-dir", "runs/a", "-o", "three.mp4")
    assert outcome.code == 0, outcome.err
    before = (tmp_path / "three.mp4").read_bytes()
    shutil.copytree(tmp_path / "runs" / "a", tmp_path / "runs" / "b")
    outcome = longvie("redo", "runs/b", "--clip", "0", "--seed", "5")
    assert outcome.code == 4 and "a copy of the run in" in outcome.err
    assert (tmp_path / "three.mp4").read_bytes() == before


@pytest.mark.slow
def test_an_extension_is_not_gone_on_with_from_worse_frames(longvie, tmp_path: Path) -> None:
    assert longvie("generate", "-p", "hills", *QUICK, "-o", "one.mp4").code == 0
    assert longvie("extend", "one.mp4", "-p", "dunes", *QUICK, "-o", "two.mp4").code == 0
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "one.longvie").rename(tmp_path / "far" / "away" / "one.longvie")
    (tmp_path / "two.mp4").unlink()
    record = tmp_path / "two.longvie" / "clips" / "0000.json"
    record.unlink()
    (tmp_path / "two.longvie" / "delivery.json").unlink()
    outcome = longvie("resume", "two.longvie")
    assert outcome.code == 4, outcome.err
    assert "the run folder with its last frames" in outcome.err
    (tmp_path / "far" / "away" / "one.longvie").rename(tmp_path / "one.longvie")
    outcome = longvie("resume", "two.longvie")
    assert (outcome.code, outcome.out) == (0, "two.mp4\n"), outcome.err


@pytest.mark.slow
def test_folders_of_links_can_be_read(longvie, tmp_path: Path, reference_video) -> None:
    (tmp_path / "clips").mkdir()
    for name in ("1.mp4", "2.mp4"):
        (tmp_path / "clips" / name).symlink_to(reference_video)
    assert longvie("stitch", "clips", "-o", "twice.mp4").code == 0
    # The hub's cache: the files of a snapshot are links to its blobs.
    made = tmp_path / "made"
    assert longvie("extract-controls", "--seed", "3", "--seconds", "2", "-o", made).code == 0
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for index, path in enumerate(sorted(made.iterdir())):
        shutil.copy(path, blobs / str(index))
        (snapshot / path.name).symlink_to(Path("../../blobs") / str(index))
    entries = json.loads((snapshot / "cond.json").read_text("utf-8"))
    controls = load_control_clips(snapshot, load_preset("tiny").geometry)
    assert len(controls.clips) == len(entries)
