"""Clips of another run never reach a video: said, and made again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from delivered import QUICK, contents, frames_of
from longvie_cli import GenerateRequest, generate
from longvie_cli.disk.checksums import checksummed_json, read_checksummed_json

# What makes `a`.
COMMAND = (
    *("generate", "--clips", "2", *QUICK, "--seed", "3", "-p", "hills"),
    *("-o", "a.mp4", "--json"),
)
pytestmark = pytest.mark.slow

# Seed and prompt of the other runs.
OTHERS = {"seed and prompt": (5, "dunes"), "prompt": (3, "dunes"), "nothing": (3, "hills")}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run `a`, and in a folder each the other runs, all called `b`."""
    folder = tmp_path_factory.mktemp("made")
    _make(folder / "a.mp4", seed=3, prompt="hills")
    for name, (seed, prompt) in OTHERS.items():
        (folder / name).mkdir()
        _make(folder / name / "b.mp4", seed=seed, prompt=prompt)
    return folder


def _make(output: Path, *, seed: int, prompt: str) -> None:
    request = GenerateRequest(
        output=output,
        prompt=prompt,
        seed=seed,
        clips=2,
        num_inference_steps=1,
        guidance_scale=1,
    )
    assert generate(request).status == "done"


def _copy_runs(made: Path, other: str, to: Path) -> None:
    for output in (made / "a.mp4", made / other / "b.mp4"):
        shutil.copytree(output.with_suffix(".longvie"), to / f"{output.stem}.longvie")
        shutil.copy2(output, to)


def _copy_clip(tmp_path: Path, source: str, target: str, *, index: int = 1) -> None:
    for room, pattern in (("clips", f"{index:04d}.mp4"), ("clips", f"{index:04d}.json")):
        shutil.copy(tmp_path / source / room / pattern, tmp_path / target / room / pattern)
    tail = f"{index:04d}.safetensors"
    shutil.copy(tmp_path / source / "tails" / tail, tmp_path / target / "tails" / tail)


@pytest.mark.parametrize("delivered", [True, False])
@pytest.mark.parametrize("other", OTHERS)
def test_a_clip_copied_from_another_run_is_made_again(
    made: Path, longvie, tmp_path: Path, other: str, delivered: bool
) -> None:
    _copy_runs(made, other, tmp_path)
    wanted = (tmp_path / "a.mp4").read_bytes()
    _copy_clip(tmp_path, "b.longvie", "a.longvie")
    if not delivered:
        (tmp_path / "a.mp4").unlink()
        (tmp_path / "a.longvie" / "delivery.json").unlink()
    for repeated in (COMMAND, ("resume", "a.longvie", "--json")):
        outcome = longvie(*repeated)
        assert outcome.code == 0, outcome.err
        if repeated is COMMAND:
            assert any("clip 1" in line and "again" in line for line in outcome.fields["warnings"])
        assert (tmp_path / "a.mp4").read_bytes() == wanted


def test_a_record_edited_to_fit_is_still_not_of_this_run(
    made: Path, longvie, tmp_path: Path
) -> None:
    _copy_runs(made, "seed and prompt", tmp_path)
    wanted = frames_of(tmp_path / "a.mp4")
    ours = json.loads((tmp_path / "a.longvie" / "clips" / "0001.json").read_bytes())
    _copy_clip(tmp_path, "b.longvie", "a.longvie")
    path = tmp_path / "a.longvie" / "clips" / "0001.json"
    record = read_checksummed_json(path.read_bytes())
    # Everything but the hashes of the files: the chain of tails still says it.
    record |= {key: ours[key] for key in ("run_id", "seed", "prompt")}
    path.write_bytes(checksummed_json(record))
    (tmp_path / "a.longvie" / "delivery.json").unlink()
    outcome = longvie(*COMMAND, "--overwrite")
    assert outcome.code == 0, outcome.err
    assert any("another clip" in line for line in outcome.fields["warnings"])
    assert (frames_of(tmp_path / "a.mp4") == wanted).all()


def test_a_finished_file_of_another_run_is_not_taken_for_this_one_s(
    made: Path, longvie, tmp_path: Path
) -> None:
    _copy_runs(made, "seed and prompt", tmp_path)
    wanted = (tmp_path / "a.mp4").read_bytes()
    shutil.copy(tmp_path / "b.longvie" / "delivery.json", tmp_path / "a.longvie")
    shutil.copy(tmp_path / "b.mp4", tmp_path / "a.mp4")
    before = contents(tmp_path / "a.longvie" / "clips")
    outcome = longvie(*COMMAND)
    # Something lies at the output that this run did not make.
    assert outcome.code == 4, outcome.err
    outcome = longvie(*COMMAND, "--overwrite")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "a.mp4").read_bytes() == wanted
    assert contents(tmp_path / "a.longvie" / "clips") == before
