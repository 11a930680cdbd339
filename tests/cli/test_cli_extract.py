"""`longvie extract-controls` of a picture, of a landscape, and what it says before it begins."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from delivered import QUICK, contents, frames_of
from longvie_cli.media.image import read_image
from longvie_cli.media.writer import VideoWriter
from longvie_cli.worlds import Flight
from small_preset import SMALL

PATH = "forward 1, turn 20 in 2s"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A landscape as a photo, 300x200."""
    frame = Flight(1_000_000_711, width=300, height=200, fps=16).frame(0).rgb
    Image.fromarray(frame).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.slow
def test_controls_along_a_path_are_those_a_run_makes_for_itself(
    longvie, tmp_path: Path, image: Path
) -> None:
    source = ("--image", image, "--camera", PATH, "--seconds", "0.5")
    made = longvie("generate", *source, "-p", "hills", *QUICK, "-o", "out.mp4")
    assert made.code == 0, made.err
    outcome = longvie("extract-controls", *source, "-o", "controls")
    assert (outcome.code, outcome.out) == (0, "controls\n"), outcome.err
    assert f"photo.png: 300x200 is resized to {SMALL.size.label}" in outcome.err
    theirs = contents(tmp_path / "out.longvie" / "controls")
    assert contents(tmp_path / "controls") == theirs

    # What is missing is made again with the same bytes; a preview comes on top.
    for name in ("cond.json", "track_0000.mp4"):
        (tmp_path / "controls" / name).unlink()
    assert longvie("extract-controls", *source, "--preview", "-o", "controls").code == 0
    found = contents(tmp_path / "controls")
    assert set(found) - set(theirs) == {"preview.mp4", "contact_sheet.png"}
    # The list of hashes names the preview too.
    del theirs["hashes.json"]
    assert {name: found[name] for name in theirs} == theirs
    width = SMALL.width
    shown = frames_of(tmp_path / "controls" / "preview.mp4")[:, :, :width].astype(int)
    first = read_image(
        tmp_path / "controls" / "first.png", height=SMALL.height, width=width, fit="native"
    )
    assert np.abs(shown[0] - first).mean() < 3
    assert np.abs(shown[-1] - first).mean() > 1

    # Another path is another folder, and the folder can be generated from.
    other = ("--image", image, "--camera", "orbit left", "--seconds", "0.5")
    refused = longvie("extract-controls", *other, "-o", "controls")
    assert refused.code == 4 and "made with camera" in refused.err
    plan = longvie("generate", "--controls", "controls", "-p", "x", "--dry-run", "-o", "p.mp4")
    assert plan.code == 0, plan.err


@pytest.mark.slow
def test_a_landscape_is_extracted_with_its_captions_or_the_prompt(longvie, tmp_path: Path) -> None:
    outcome = longvie(
        *("extract-controls", "--seed", "7", "--clips", "1", "--preview", "--json", "-o", "a")
    )
    assert outcome.code == 0, outcome.err
    assert (outcome.fields["frames"], outcome.fields["seed"]) == (SMALL.num_frames, 7)
    (clip,) = json.loads((tmp_path / "a" / "cond.json").read_text())
    assert len(clip["text"]) > 10
    assert (tmp_path / "a" / "contact_sheet.png").is_file()
    outcome = longvie(
        *("extract-controls", "--seed", "7", "--camera", "forward", "--clips", "1"),
        *("-p", "red dunes", "-o", "b"),
    )
    assert outcome.code == 0, outcome.err
    (clip,) = json.loads((tmp_path / "b" / "cond.json").read_text())
    assert clip["text"] == "red dunes"


def test_a_dry_run_says_what_would_be_made_and_writes_nothing(
    longvie, tmp_path: Path, reference_video: Path
) -> None:
    outcome = longvie("extract-controls", reference_video, "--dry-run", "--json", "-o", "controls")
    assert outcome.code == 0, outcome.err
    fields, plan = outcome.fields, outcome.fields["plan"]
    assert (fields["status"], fields["frames"], fields["seconds"]) == ("planned", 16, 1)
    assert [clip["frames"] for clip in plan["clips"]] == [9, 7]
    assert any("24 fps is resampled to 16 fps" in line for line in plan["inputs"])
    states = [(model["role"], model["name"], model["state"]) for model in plan["models"]]
    assert states == [("depth", "embedded", "here"), ("tracker", "lk", "here")]
    # Raw depth is stored twice while it is steadied: most of what is needed.
    raw = 16 * SMALL.height * SMALL.width * 2 * 2
    assert raw < plan["disk_bytes"] < 2 * raw
    assert plan["disk_free_bytes"] > 0
    assert contents(tmp_path) == {}

    arguments = ("--depth-model", "base", "--tracker", "cotracker3", "-o", "controls")
    outcome = longvie("extract-controls", reference_video, "--dry-run", "--json", *arguments)
    assert outcome.code == 0
    assert [model["state"] for model in outcome.fields["plan"]["models"]] == ["missing"] * 2
    assert sum("will not start" in line for line in outcome.fields["warnings"]) == 2
    assert longvie("extract-controls", reference_video, *arguments).code == 3
    assert contents(tmp_path) == {}


@pytest.fixture
def short_depth(tmp_path: Path) -> Path:
    path = tmp_path / "depth.mp4"
    with VideoWriter(path, height=64, width=64, fps=16) as writer:
        for _ in range(10):
            writer.write(np.full((64, 64, 3), 99, np.uint8))
    return path


@pytest.mark.parametrize("dry", [("--dry-run",), ()])
def test_depth_that_is_too_short_is_said_before_anything_is_made(
    longvie, tmp_path: Path, reference_video: Path, short_depth: Path, dry: tuple[str, ...]
) -> None:
    before = contents(tmp_path)
    for command in (
        ("generate", "--video", reference_video, "-p", "hills", "-o", "out.mp4"),
        ("extract-controls", reference_video, "-o", "controls"),
    ):
        outcome = longvie(*command, "--depth", short_depth, *dry)
        assert outcome.code == 5, outcome.err
        assert "the depth has 10 frames (0.62 s at 16 fps), but reference.mp4 needs 16" in (
            outcome.err
        )
        assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        ((), 2, "There is nothing to take controls from"),
        (("--image", "photo.png"), 2, "a picture alone has no motion"),
        (("photo.png",), 5, "a still picture (png), not a video"),
        (("ref.mp4", "--camera", "forward"), 2, "VIDEO, --camera: pass only one of them"),
        (("ref.mp4", "--image", "photo.png"), 2, "VIDEO, --image: pass only one of them"),
        (("--camera", "forward", "--depth", "d.mp4"), 2, "no VIDEO that it is the depth of"),
        (("--seed", "3", "--tracker", "lk"), 2, "--tracker: it would do nothing"),
        (("ref.mp4", "--seed", "3"), 2, "--seed: it would do nothing"),
        (("--camera", "forward 1 in 1s", "--seconds", "9"), 2, "at most --seconds 1, or a longer"),
    ],
)
def test_combinations_that_make_no_sense_are_said(
    longvie, tmp_path: Path, image: Path, flags: tuple[str, ...], code: int, said: str
) -> None:
    outcome = longvie("extract-controls", *flags, "-o", "controls")
    assert outcome.code == code, outcome.err
    assert said in outcome.err
    assert set(contents(tmp_path)) == {"photo.png"}


def test_a_source_in_a_settings_file_gives_way_to_one_that_is_given(
    longvie, tmp_path: Path, reference_video: Path
) -> None:
    (tmp_path / "longvie.yaml").write_text("image: nowhere.png\ntracker: cotracker3\nseed: 3\n")
    outcome = longvie(
        "extract-controls", reference_video, "--tracker", "lk", "--dry-run", "-o", "c"
    )
    assert outcome.code == 0, outcome.err
    # What a file says of trackers may be meant for videos.
    outcome = longvie("extract-controls", "--camera", "forward", "--dry-run", "-o", "c")
    assert outcome.code == 5 and "nowhere.png" in outcome.err
