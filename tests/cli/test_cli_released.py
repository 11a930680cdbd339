"""`generate --controls` on the released format: what is used, what is said, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from longvie_cli.media.writer import VideoWriter
from recorded import released_example

DRY = ("--dry-run", "--json", "-o", "out.mp4")


def write_video(path: Path, frames: int, *, width: int = 64) -> None:
    with VideoWriter(path, height=48, width=width, fps=16) as writer:
        for index in range(frames):
            writer.write(np.full((48, width, 3), index, np.uint8))


@pytest.fixture
def valley(tmp_path: Path) -> Path:
    """A folder as the public repository has it: two clips of 81 frames and the first picture."""
    folder = tmp_path / "example" / "valley"
    folder.mkdir(parents=True)
    for index in range(2):
        for kind in ("depth", "track"):
            write_video(folder / f"{kind}_{index:02}.mp4", 81)
    write_conditions(folder, 2)
    Image.new("RGB", (96, 64), (90, 120, 60)).save(folder / "first.png")
    return folder


def write_conditions(folder: Path, count: int) -> None:
    entries = [
        {
            "text": f"a valley, part {index}",
            "depth": f"./example/valley/depth_{index:02}.mp4",
            "track": f"./example/valley/track_{index:02}.mp4",
        }
        for index in range(count)
    ]
    (folder / "cond.json").write_text(json.dumps(entries))


@pytest.mark.slow
@pytest.mark.parametrize("place", ["example/valley", "example/valley/cond.json"])
def test_clips_prompts_and_first_picture_are_the_folders(longvie, valley: Path, place: str) -> None:
    outcome = longvie("generate", "--controls", place, "--preset", "longvie2", *DRY)
    assert outcome.code == 0, outcome.err
    fields = outcome.fields
    assert fields["frames"] == 161
    plan = fields["plan"]
    assert [clip["prompt"] for clip in plan["clips"]] == ["a valley, part 0", "a valley, part 1"]
    assert plan["first_frame"] == "of the controls"
    assert plan["settings"]["fit"] == "stretch"
    assert any("64x48 are brought to 640x352 (stretch)" in line for line in plan["inputs"])
    assert "cut anew" not in outcome.err


@pytest.mark.slow
def test_a_prompt_and_an_image_stand_for_the_folders(longvie, valley: Path) -> None:
    (valley / "first.png").rename("other.png")
    flags = ("-p", "dunes", "--image", "other.png", "--fit", "pad", "--preset", "longvie2")
    outcome = longvie("generate", "--controls", valley, *flags, *DRY)
    assert outcome.code == 0, outcome.err
    plan = outcome.fields["plan"]
    assert {clip["prompt"] for clip in plan["clips"]} == {"dunes"}
    assert plan["first_frame"].startswith("other.png ")
    assert plan["settings"]["fit"] == "pad"


@pytest.mark.slow
def test_files_of_another_length_are_said_to_be_cut_anew(longvie, valley: Path) -> None:
    for kind in ("depth", "track"):
        write_video(valley / f"{kind}_01.mp4", 41)
    outcome = longvie("generate", "--controls", valley, "--preset", "longvie2", *DRY)
    assert outcome.code == 0, outcome.err
    assert "2 control files of 41 to 81 frames are cut anew into 2 clips of 81 frames" in (
        " ".join(outcome.err.split())
    )
    assert outcome.fields["frames"] == 121


def short_track(folder: Path) -> None:
    write_video(folder / "track_01.mp4", 80)


def wide_track(folder: Path) -> None:
    write_video(folder / "track_01.mp4", 81, width=80)


def no_track(folder: Path) -> None:
    (folder / "track_01.mp4").unlink()


def no_clips(folder: Path) -> None:
    (folder / "cond.json").write_text("[]")


def no_conditions(folder: Path) -> None:
    (folder / "cond.json").unlink()


def no_picture(folder: Path) -> None:
    (folder / "first.png").unlink()


def no_text(folder: Path) -> None:
    entries = json.loads((folder / "cond.json").read_text())
    for entry in entries:
        del entry["text"]
    (folder / "cond.json").write_text(json.dumps(entries))


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (short_track, 5, "depth_01.mp4 has 81 frames and track_01.mp4 has 80"),
        (wide_track, 5, "track_01.mp4: it is 80x48, but depth_00.mp4 is 64x48"),
        (no_track, 5, '"track" names ./example/valley/track_01.mp4, and there is no such file'),
        (no_clips, 5, "a list of at least one clip"),
        (no_conditions, 5, "the folder has no cond.json"),
        (no_picture, 2, "valley has no first.png to begin with. Pass --image FILE."),
        (no_text, 2, "--prompt: say what the video shall show"),
    ],
)
def test_wrong_inputs_are_refused_before_any_model_is_loaded(
    longvie,
    valley: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path], None],
    code: int,
    words: str,
) -> None:
    monkeypatch.setattr("longvie_cli.engine.loader.load_pipeline", pytest.fail)
    spoil(valley)
    outcome = longvie("generate", "--controls", valley, "--preset", "longvie2", "-o", "out.mp4")
    assert outcome.code == code, outcome.err
    assert words in " ".join(outcome.err.split())
    assert not Path("out.longvie").exists()


@pytest.mark.slow
def test_only_a_model_that_can_is_asked_for_a_first_frame(longvie, valley: Path) -> None:
    (valley / "first.png").unlink()
    outcome = longvie("generate", "--controls", valley, *DRY)
    assert outcome.code == 2
    assert "or --first-frame prompt" in outcome.err
    prompt = ("--first-frame", "prompt")
    outcome = longvie("generate", "--controls", valley, *prompt, *DRY)
    assert outcome.fields["plan"]["first_frame"] == "from the prompt"
    outcome = longvie("generate", "--controls", valley, *prompt, "--preset", "longvie2", *DRY)
    assert outcome.code == 2
    assert "preset longvie2 continues pictures and makes none" in outcome.err
    outcome = longvie("generate", "-p", "x", "--clips", "1", "--preset", "longvie2", *DRY)
    assert outcome.fields["plan"]["first_frame"] == "of the flight"


@pytest.mark.slow
def test_the_released_example_itself(longvie) -> None:
    folder = released_example()
    outcome = longvie("generate", "--controls", folder, "--preset", "longvie2", *DRY)
    assert outcome.code == 0, outcome.err
    assert outcome.fields["frames"] == 161
    assert outcome.fields["plan"]["first_frame"] == "of the controls"
    entries = json.loads((folder / "cond.json").read_text("utf-8"))
    prompts = [clip["prompt"] for clip in outcome.fields["plan"]["clips"]]
    assert prompts == [entry["text"] for entry in entries]
    assert "832x480 are brought to 640x352 (stretch)" in outcome.err
    assert "cut anew" not in outcome.err
