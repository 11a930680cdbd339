"""`longvie prepare`: one path or one object on stdout, exit codes, plans, captions."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from delivered import contents, frames_of
from longvie_cli.media.frames import resize_frame
from longvie_cli.media.writer import VideoWriter
from longvie_cli.training.captioner import Captioner
from longvie_cli.training.dataset import ClipSize
from longvie_cli.training.prepared import PreparedSamples
from mixed_scenes import pictured
from small_captioner import WORDS, save_captioner
from small_preset import SMALL


@pytest.fixture
def walk(tmp_path: Path) -> Path:
    """Two clips of nine frames, and another scene that is too short for one."""
    path = tmp_path / "walk.mp4"
    with VideoWriter(path, height=32, width=48, fps=16, crf=5) as writer:
        for frame in (*pictured(0, 17, speed=1), *pictured(2, 7, speed=1)):
            writer.write(frame)
    return path


def captions_of(folder: Path) -> list[str]:
    with tarfile.open(folder / "shard-00000.tar") as tar:
        members = [name for name in tar.getnames() if name.endswith(".json")]
        return [json.load(tar.extractfile(name))["caption"] for name in members]


def test_a_plan_says_what_would_be_kept_and_writes_nothing(
    longvie, tmp_path: Path, walk: Path
) -> None:
    (tmp_path / "walk.txt").write_text("a walk")
    before = contents(tmp_path)
    outcome = longvie("prepare", walk, "nowhere.mp4", "--dry-run", "--json", "-o", "data")
    assert outcome.code == 0, outcome.err
    fields = outcome.fields
    assert (fields["status"], fields["output"], fields["samples"]) == ("planned", "data", 2)
    assert fields["dropped"] == {"too_short": 1, "unreadable": 1}
    assert (fields["frames"], fields["seconds"]) == (18, 18 / 16)
    first, second = fields["plan"]["videos"]
    assert [clip["history_frames"] for clip in first["clips"]] == [0, 8]
    assert [clip["from_seconds"] for clip in first["clips"]] == [0, 0.5]
    assert first["clips"][0]["caption"] == "a walk"
    assert second["dropped"][0]["detail"] == "nowhere.mp4: there is no such file."
    assert "nowhere.mp4: there is no such file." in fields["warnings"]
    assert any("48x32 is resized to 96x64" in line for line in fields["warnings"])
    assert [model["state"] for model in fields["plan"]["models"]] == ["here", "here"]
    assert contents(tmp_path) == before


def test_samples_are_made_once_and_the_table_says_what_was_dropped(
    longvie, tmp_path: Path, walk: Path
) -> None:
    (tmp_path / "walk.txt").write_text("[0s-0.5s] hills\n[0.5s-end] a \x1b[31mred\x07 wall")
    made = longvie("prepare", walk, "nowhere.mp4", "-o", "data")
    assert (made.code, made.out) == (0, "data\n"), made.err
    lines = [line.split() for line in made.err.splitlines()]
    assert ["walk.mp4", "24", "2", "2", "1", "too_short"] in lines
    assert ["nowhere.mp4", "0", "0", "0", "1", "unreadable"] in lines
    assert ["all", "24", "2", "2", "1", "too_short,", "1", "unreadable"] in lines
    assert "clips 2/2" in made.err
    assert captions_of(tmp_path / "data") == ["hills", "a \x1b[31mred\x07 wall"]
    size = ClipSize(SMALL.num_frames, SMALL.height, SMALL.width, 4)
    samples = PreparedSamples(tmp_path / "data", size, fps=SMALL.fps)
    assert samples.sample(1).history.shape == (4, SMALL.height, SMALL.width, 3)
    written = contents(tmp_path / "data")
    assert set(written) == {"prepared.json", "shard-00000.json", "shard-00000.tar"}

    again = longvie("prepare", walk, "nowhere.mp4", "--json", "-o", "data")
    assert (again.code, again.fields["samples"]) == (0, 2)
    assert again.fields["dropped"] == {"too_short": 1, "unreadable": 1}
    assert contents(tmp_path / "data") == written

    # Others are not replaced unasked, nor is damage passed over.
    other = longvie("prepare", walk, "--json", "-o", "data")
    assert (other.code, other.fields["error"]["code"]) == (4, 4)
    assert "of other videos or captions" in other.fields["error"]["message"]
    shard = tmp_path / "data" / "shard-00000.tar"
    shard.write_bytes(written["shard-00000.tar"][:-3000] + bytes(3000))
    damaged = longvie("prepare", walk, "nowhere.mp4", "-o", "data")
    assert damaged.code == 5
    assert "shard-00000.tar: damaged at byte" in damaged.err
    mended = longvie("prepare", walk, "nowhere.mp4", "--overwrite", "-o", "data")
    assert mended.code == 0, mended.err
    assert contents(tmp_path / "data") == written


@pytest.mark.slow
def test_captions_of_a_file_and_none(longvie, tmp_path: Path, walk: Path) -> None:
    (tmp_path / "captions.yaml").write_text("walk.mp4: a wall of colours\nother.mp4: x\n")
    made = longvie("prepare", walk, "--captions", "captions.yaml", "-o", "a")
    assert made.code == 0, made.err
    assert captions_of(tmp_path / "a") == ["a wall of colours"] * 2
    refused = longvie("prepare", walk, "--json", "-o", "b")
    assert refused.code == 5
    assert "2 no_caption, 1 too_short" in refused.fields["error"]["message"]
    assert "--uncaptioned empty" in refused.fields["error"]["hint"]
    assert not list((tmp_path / "b").iterdir())
    for text, words in (
        ("[1, 2]", "it must map videos to captions"),
        ("walk.mp4: 7", "7 is no text"),
        ("a: b: c", "cannot be read"),
        ("walk.mp4: " + "x" * 20_000, "more than 10000 characters"),
    ):
        (tmp_path / "captions.yaml").write_text(text)
        outcome = longvie("prepare", walk, "--captions", "captions.yaml", "-o", "c")
        assert outcome.code == 5, outcome.err
        assert words in outcome.err
    assert not (tmp_path / "c").exists()


@pytest.mark.slow
def test_a_model_captions_what_nobody_did(longvie, tmp_path: Path, walk: Path) -> None:
    model = save_captioner(tmp_path / "blip")
    (tmp_path / "captions.json").write_text('{"other.mp4": "x"}')
    given = (walk, "--captions", "captions.json", "--captioner", "blip")
    plan = longvie("prepare", *given, "--dry-run", "--json", "-o", "data")
    assert (plan.code, plan.fields["samples"]) == (0, 2), plan.err
    captioner = {"role": "captioner", "name": "blip", "state": "here"}
    assert plan.fields["plan"]["models"][2] == captioner
    made = longvie("prepare", *given, "-o", "data")
    assert made.code == 0, made.err
    captions = captions_of(tmp_path / "data")
    assert all(set(text.split()) & set(WORDS) for text in captions)
    assert captions[0] == Captioner(model).caption(middle_of(walk, 0))
    # People's words stand; another model makes other samples.
    (tmp_path / "captions.json").write_text('{"walk.mp4": "a wall"}')
    assert longvie("prepare", *given, "--overwrite", "-o", "data").code == 0
    assert captions_of(tmp_path / "data") == ["a wall"] * 2
    refused = longvie("prepare", *given[:3], "-o", "data")
    assert (refused.code, "made with captioner blip" in refused.err) == (4, True)
    (model / "config.json").write_text("{}")
    broken = longvie("prepare", *given, "-o", "other")
    assert broken.code == 5
    assert "no captioning model can be loaded" in broken.err


def middle_of(video: Path, clip: int) -> np.ndarray:
    first = clip * (SMALL.num_frames - 1)
    frame = frames_of(video)[first + SMALL.num_frames // 2]
    return resize_frame(frame, SMALL.height, SMALL.width, "crop")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("-o", "data"), 2, "VIDEOS"),
        (("walk.mp4", "-o", "walk.mp4"), 2, "this is a file; the samples need a folder"),
        (("walk.mp4", "-o", "."), 4, "it lies in the folder of -o"),
        (("walk.mp4", "--size", "104x72", "-o", "data"), 2, "multiples of"),
        (("walk.mp4", "--depth-model", "base", "-o", "data"), 3, "longvie models pull"),
        (("walk.mp4", "--captioner", "nowhere", "-o", "data"), 3, "hf download"),
        (("walk.mp4", "--uncaptioned", "keep", "-o", "data"), 2, "--uncaptioned"),
        (("walk.mp4", "--captions", "no.yaml", "-o", "data"), 5, "no.yaml: cannot be read"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_made(
    longvie, tmp_path: Path, walk: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    outcome = longvie("prepare", *arguments)
    assert outcome.code == code, outcome.err
    assert said in outcome.err
    assert set(contents(tmp_path)) == {"walk.mp4"}


def test_names_are_shown_as_text(longvie, tmp_path: Path) -> None:
    name = "a\x1b[2J\nlongvie: done.mp4"
    np.save(tmp_path / "x.npy", np.zeros(3))
    (tmp_path / "x.npy").rename(tmp_path / name)
    outcome = longvie("prepare", name, "--dry-run", "-o", "data")
    assert outcome.code == 0, outcome.err
    assert "\x1b" not in outcome.err
    assert not any(line.startswith("longvie: done") for line in outcome.err.splitlines())
