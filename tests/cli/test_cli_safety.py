"""Odd names, links out of a folder and hostile files: used as what they are, or refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from delivered import QUICK, contents, frames_of
from longvie_cli.run_folder.layout import RunFolder

ODD_NAMES = (
    "-i.mp4",
    "-y -f mp4.mp4",
    "quo'te\"s.mp4",
    "%d.mp4",
    "a%03d.mp4",
    "http:x.mp4",
    "concat:a|b.mp4",
    "pipe:0.mp4",
    "[a]*?.mp4",
    "back\\slash $HOME `id`.mp4",
    "#;=.mp4",
    "x" * 246 + ".mp4",
)
# All of it at once, for a run that has to be quick.
ODDEST_NAME = "-i http:concat:%03d [a]*?'\"\t\\;#=|$HOME.mp4"


def _make_join_and_extend(longvie, folder: Path, reference: Path, name: str) -> None:
    source = folder / "in" / name
    source.parent.mkdir()
    shutil.copy(reference, source)
    before = contents(source.parent)
    made = folder / "out" / name
    made.parent.mkdir()
    # After `--` nothing is an option; a path with a folder before it is none either.
    ask = ("--seconds", "0.4", *QUICK, "--json")
    outcome = longvie("generate", "--video", f"in/{name}", "-p", "dunes", *ask, "-o", f"out/{name}")
    assert outcome.code == 0, outcome.err
    assert outcome.fields["output"] == f"out/{name}"
    assert len(frames_of(made)) == 6
    further = made.with_name("Z" + name[1:])
    outcome = longvie("extend", f"out/{name}", "--seconds", "0.4", "-o", f"out/{further.name}")
    assert outcome.code == 0, outcome.err
    assert outcome.out == f"out/{further.name}\n"
    assert np.array_equal(frames_of(further)[:6], frames_of(made))
    run = RunFolder.beside(made).root
    outcome = longvie("stitch", "-o", f"out/Y{name[1:]}", "--", f"out/{name}", run)
    assert outcome.code == 0, outcome.err
    assert len(frames_of(made.with_name("Y" + name[1:]))) == 12
    assert longvie("status", "--", run).code == 0
    assert contents(source.parent) == before
    assert {path.name for path in folder.iterdir()} == {"in", "out"}


@pytest.mark.slow
def test_a_name_of_everything_odd_is_a_name(longvie, tmp_path, reference_video) -> None:
    _make_join_and_extend(longvie, tmp_path, reference_video, ODDEST_NAME)


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD_NAMES)
def test_an_odd_name_is_a_name(longvie, tmp_path, reference_video, name) -> None:
    _make_join_and_extend(longvie, tmp_path, reference_video, name)


@pytest.mark.parametrize("command", ["generate", "extend", "stitch"])
def test_a_name_too_long_is_refused_before_any_work(
    longvie, tmp_path, reference_video, command
) -> None:
    given = {
        "generate": ["generate", "--video", reference_video, "-p", "x"],
        "extend": ["extend", reference_video, "-p", "x"],
        "stitch": ["stitch", reference_video],
    }
    for length in (247, 251, 300, 5000):
        outcome = longvie(*given[command], "-o", "x" * length + ".mp4")
        assert outcome.code == 2, outcome.err
        assert "too long for the disk" in outcome.err and len(outcome.err) < 500
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("end", ["\n", "\r"])
def test_a_line_break_in_a_name_is_refused_before_any_work(
    longvie, tmp_path, reference_video, end
) -> None:
    name = f"line{end}break.mp4"
    shutil.copy(reference_video, tmp_path / name)
    flight = ("generate", "-p", "x", "--seconds", "0.4", *QUICK)
    for arguments, code in (
        ((*flight, "-o", f"a{end}b.mp4"), 2),
        ((*flight, "--run-dir", f"a{end}b", "-o", "out.mp4"), 2),
        (("extend", name, "-p", "x", "-o", f"a{end}b.mp4"), 2),
        (("stitch", name, "-o", f"a{end}b.mp4"), 2),
    ):
        outcome = longvie(*arguments)
        assert outcome.code == code, outcome.err
        assert "line break cannot be told" in outcome.err
    assert {path.name for path in tmp_path.iterdir()} == {name}
    if end == "\r":
        return
    # As an input it is as good as any.
    assert longvie("stitch", name, name, "-o", "twice.mp4").code == 0
    source = ("--video", name, "-p", "dunes", "--seconds", "0.4", *QUICK)
    outcome = longvie("generate", *source, "-o", "out.mp4")
    assert outcome.code == 0, outcome.err


@pytest.mark.slow
def test_a_name_that_is_no_text_is_refused_and_json_stays_json(tmp_path, reference_video) -> None:
    name = os.fsdecode(b"n\xff\xfe.mp4")
    shutil.copy(reference_video, tmp_path / name)
    for arguments in (
        ["generate", "--video", name, "-p", "x", "-o", "out.mp4"],
        ["generate", "-p", "x", "-o", name],
        ["generate", "-p", name, "-o", "out.mp4"],
        ["extend", name, "-p", "x", "-o", "out.mp4"],
        ["stitch", name, "-o", "out.mp4"],
        ["status", name],
    ):
        ran = subprocess.run(
            [sys.executable, "-m", "longvie_cli", *arguments, "--json"],
            cwd=tmp_path,
            capture_output=True,
        )
        assert ran.returncode == 2, ran.stderr
        fields = json.loads(ran.stdout.decode())
        assert "it is no UTF-8 text" in fields["error"]["message"]
    assert {path.name for path in tmp_path.iterdir()} == {name}


@pytest.fixture(scope="module")
def made_run(tmp_path_factory) -> Path:
    """A finished flight of one clip."""
    from longvie_cli import GenerateRequest, generate

    folder = tmp_path_factory.mktemp("made")
    generate(
        GenerateRequest(
            output=folder / "out.mp4",
            prompt="dunes",
            seconds=0.4,
            num_inference_steps=1,
            guidance_scale=1,
        )
    )
    return folder


LINKS = (
    "clips/0000.mp4",
    "run.json",
    "controls",
    "events.jsonl",
    "tails/0000.safetensors",
    "clips",
)


@pytest.mark.parametrize("name", LINKS)
def test_a_link_out_of_a_run_is_not_followed(longvie, tmp_path, made_run, name) -> None:
    shutil.copytree(made_run, tmp_path, dirs_exist_ok=True)
    link, elsewhere = tmp_path / "out.longvie" / name, tmp_path / "elsewhere"
    # The very same content, so that nothing but the link is wrong.
    link.rename(elsewhere)
    link.symlink_to(elsewhere)
    before = contents(tmp_path)
    for arguments in (
        ("generate", "-p", "dunes", "--seconds", "0.4", *QUICK, "-o", "out.mp4"),
        ("generate", "-p", "hills", "--seconds", "0.4", *QUICK, "--overwrite", "-o", "out.mp4"),
        ("extend", "out.mp4", "--seconds", "0.4", "-o", "on.mp4"),
        ("stitch", "out.longvie", "-o", "joined.mp4"),
        ("resume", "out.longvie"),
        ("redo", "out.mp4", "--clip", "0"),
        ("status", "out.mp4"),
    ):
        outcome = longvie(*arguments)
        assert outcome.code == 4, (arguments, outcome.err)
        assert f"{name}: is a link" in outcome.err
    assert contents(tmp_path) == before


def test_controls_are_not_written_through_a_link(longvie, tmp_path, reference_video) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "controls"
    victim.write_text("mine")
    folder.mkdir()
    (folder / "depth_0000.mp4").symlink_to(victim)
    outcome = longvie("extract-controls", reference_video, "-o", "controls", "--overwrite")
    assert outcome.code == 4, outcome.err
    assert "depth_0000.mp4: is a link" in outcome.err
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("name", ["../outside.mp4", "inner/../../outside.mp4", "link.mp4"])
def test_cond_json_names_nothing_outside_its_folder(
    longvie, tmp_path, reference_video, name
) -> None:
    folder = tmp_path / "controls"
    folder.mkdir()
    (folder / "inner").mkdir()
    shutil.copy(reference_video, tmp_path / "outside.mp4")
    (folder / "link.mp4").symlink_to(tmp_path / "outside.mp4")
    (folder / "cond.json").write_text(json.dumps([{"text": "x", "depth": name, "track": name}]))
    outcome = longvie("generate", "--controls", "controls", "--image", "x.png", "-o", "out.mp4")
    assert outcome.code == 5, outcome.err
    assert "leads out of this folder" in outcome.err


@pytest.mark.parametrize("key", ["video", "controls", "image", "prompt_file", "run_dir", "live"])
def test_a_settings_file_names_nothing_outside_its_folder(longvie, tmp_path, key) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "secret").write_text("[0s-end] secret\n")
    (work / "longvie.yaml").write_text(f"{key}: ../secret\n")
    # A prompt on the command line would hide a prompt file.
    prompt = () if key == "prompt_file" else ("-p", "x")
    outcome = longvie("generate", "--config", "work/longvie.yaml", *prompt, "-o", "out.mp4")
    assert outcome.code == 5, outcome.err
    assert f"longvie.yaml: {key}: '../secret': it leads out of the folder" in outcome.err


def _gif(path: Path, width: int, height: int) -> None:
    Image.new("RGB", (4, 4), "red").save(path)
    data = bytearray(path.read_bytes())
    data[6:10] = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    path.write_bytes(data)


def test_a_picture_of_a_giant_canvas_is_refused(longvie, tmp_path) -> None:
    _gif(tmp_path / "giant.gif", 65_535, 65_535)
    for flag in ("--image", "--video"):
        outcome = longvie("generate", flag, "giant.gif", "-p", "x", "-o", "out.mp4")
        assert outcome.code == 5, outcome.err
        assert "giant.gif" in outcome.err and "Traceback" not in outcome.err


@pytest.mark.parametrize(
    "length", [["--minutes", "1e300"], ["--seconds", "1e12"], ["--clips", "99999999999"]]
)
def test_a_length_beyond_all_measure_is_refused_at_once(longvie, length) -> None:
    outcome = longvie("generate", "-p", "x", *length, "-o", "out.mp4")
    assert outcome.code == 2, outcome.err
    assert length[0] in outcome.err
