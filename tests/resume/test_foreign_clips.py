"""Clips of another run never reach a video: said, and made again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from delivered import QUICK, contents, frames_of
from longvie_cli.disk.checksums import checksummed_json, read_checksummed_json

CLIPS = ("--clips", "2", *QUICK)


def _run(longvie, name: str, *more: str) -> tuple[str, ...]:
    command = ("generate", *CLIPS, *more, "-o", f"{name}.mp4", "--json")
    outcome = longvie(*command)
    assert outcome.code == 0, outcome.err
    return command


def _copy_clip(tmp_path: Path, source: str, target: str, *, index: int = 1) -> None:
    for room, pattern in (("clips", f"{index:04d}.mp4"), ("clips", f"{index:04d}.json")):
        shutil.copy(tmp_path / source / room / pattern, tmp_path / target / room / pattern)
    tail = f"{index:04d}.safetensors"
    shutil.copy(tmp_path / source / "tails" / tail, tmp_path / target / "tails" / tail)


@pytest.mark.parametrize("delivered", [True, False])
@pytest.mark.parametrize(
    "other",
    [
        ("--seed", "5", "-p", "dunes"),
        ("--seed", "3", "-p", "dunes"),
        ("--seed", "3", "-p", "hills"),
    ],
    ids=["seed and prompt", "prompt", "nothing"],
)
def test_a_clip_copied_from_another_run_is_made_again(
    longvie, tmp_path: Path, other, delivered
) -> None:
    command = _run(longvie, "a", "--seed", "3", "-p", "hills")
    _run(longvie, "b", *other)
    wanted = (tmp_path / "a.mp4").read_bytes()
    _copy_clip(tmp_path, "b.longvie", "a.longvie")
    if not delivered:
        (tmp_path / "a.mp4").unlink()
        (tmp_path / "a.longvie" / "delivery.json").unlink()
    for repeated in (command, ("resume", "a.longvie", "--json")):
        outcome = longvie(*repeated)
        assert outcome.code == 0, outcome.err
        if repeated is command:
            assert any("clip 1" in line and "again" in line for line in outcome.fields["warnings"])
        assert (tmp_path / "a.mp4").read_bytes() == wanted


def test_a_record_edited_to_fit_is_still_not_of_this_run(longvie, tmp_path: Path) -> None:
    command = _run(longvie, "a", "--seed", "3", "-p", "hills")
    _run(longvie, "b", "--seed", "5", "-p", "dunes")
    wanted = frames_of(tmp_path / "a.mp4")
    ours = json.loads((tmp_path / "a.longvie" / "clips" / "0001.json").read_bytes())
    _copy_clip(tmp_path, "b.longvie", "a.longvie")
    path = tmp_path / "a.longvie" / "clips" / "0001.json"
    record = read_checksummed_json(path.read_bytes())
    # Everything but the hashes of the files: the chain of tails still says it.
    record |= {key: ours[key] for key in ("run_id", "seed", "prompt")}
    path.write_bytes(checksummed_json(record))
    (tmp_path / "a.longvie" / "delivery.json").unlink()
    outcome = longvie(*command, "--overwrite")
    assert outcome.code == 0, outcome.err
    assert any("another clip" in line for line in outcome.fields["warnings"])
    assert (frames_of(tmp_path / "a.mp4") == wanted).all()


def test_a_finished_file_of_another_run_is_not_taken_for_this_one_s(
    longvie, tmp_path: Path
) -> None:
    command = _run(longvie, "a", "--seed", "3", "-p", "hills")
    _run(longvie, "b", "--seed", "5", "-p", "dunes")
    wanted = (tmp_path / "a.mp4").read_bytes()
    shutil.copy(tmp_path / "b.longvie" / "delivery.json", tmp_path / "a.longvie")
    shutil.copy(tmp_path / "b.mp4", tmp_path / "a.mp4")
    before = contents(tmp_path / "a.longvie" / "clips")
    outcome = longvie(*command)
    # Something lies at the output that this run did not make.
    assert outcome.code == 4, outcome.err
    outcome = longvie(*command, "--overwrite")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "a.mp4").read_bytes() == wanted
    assert contents(tmp_path / "a.longvie" / "clips") == before
