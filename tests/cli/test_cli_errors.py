"""Every way to be wrong has its exit code, one sentence on stderr and nothing on stdout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from longvie_cli.media.writer import VideoWriter


def write_video(
    path: Path, *, frames: int, height: int = 90, width: int = 160, fps: int = 16
) -> Path:
    with VideoWriter(path, height=height, width=width, fps=fps) as writer:
        for index in range(frames):
            writer.write(np.full((height, width, 3), index * 5 % 256, np.uint8))
    return path


def brought(kind: str, folder: Path) -> Path:
    path = folder / "brought.mp4"
    if kind == "missing":
        return path
    if kind == "text":
        path.write_text("This is no video, whatever its name says.\n" * 20)
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "cut":
        data = write_video(folder / "whole.mp4", frames=20).read_bytes()
        path.write_bytes(data[: len(data) * 2 // 3])
    elif kind == "one frame":
        write_video(path, frames=1)
    return path


@pytest.mark.parametrize("kind", ["missing", "text", "empty", "folder", "cut", "one frame"])
@pytest.mark.parametrize("command", ["generate", "extract-controls"])
def test_an_unusable_video_is_bad_input(longvie, tmp_path: Path, kind: str, command: str) -> None:
    path = brought(kind, tmp_path)
    source = ["--video", path, "-p", "hills"] if command == "generate" else [path]
    outcome = longvie(command, *source, "-o", "out.mp4" if command == "generate" else "out")
    assert outcome.code == 5, outcome.err
    assert outcome.out == ""
    assert "brought.mp4" in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["generate"], 2, "Missing option '-o'"),
        (
            ["generate", "--sed", "3", "-o", "o.mp4"],
            2,
            "--sed: there is no such flag.\n  Did you mean --seed?",
        ),
        (["generate", "--fit", "squash", "-o", "o.mp4"], 2, "--fit"),
        (["nonsense"], 2, "nonsense"),
        (["generate", "--minutes", "1", "--clips", "2", "-o", "o.mp4"], 2, "only one of them"),
        (["generate", "--seconds", "-3", "-o", "o.mp4"], 2, "--seconds"),
        (["generate", "-p", "hills", "-o", "o.avi"], 2, "must be named .mp4"),
        (["generate", "-p", "hills", "--device", "toaster", "-o", "o.mp4"], 2, "--device"),
        (["generate", "--config", "nowhere.yaml", "-o", "o.mp4"], 5, "no such file"),
        (["generate", "--controls", "nowhere", "-p", "x", "-o", "o.mp4"], 5, "nowhere"),
        (["generate", "-p", "x", "--image", "nowhere.png", "-o", "o.mp4"], 5, "nowhere.png"),
        (["generate", "-p", "x", "--audio", "nowhere.mp3", "-o", "o.mp4"], 5, "nowhere.mp3"),
        (["generate", "--prompt-file", "nowhere.txt", "-o", "o.mp4"], 5, "nowhere.txt"),
        (["extend", "nowhere.mp4", "-o", "o.mp4"], 5, "nowhere.mp4"),
        (["stitch", "nowhere.mp4", "-o", "o.mp4"], 5, "nowhere.mp4"),
        (["stitch", ".", "-o", "o.mp4"], 2, "no run and no mp4"),
    ],
)
def test_each_mistake_has_its_code(longvie, arguments: list[str], code: int, words: str) -> None:
    outcome = longvie(*arguments)
    assert (outcome.code, outcome.out) == (code, ""), outcome.err
    assert words in outcome.err
    assert "Traceback" not in outcome.err


def test_an_unknown_setting_is_bad_input_with_a_suggestion(longvie, tmp_path: Path) -> None:
    (tmp_path / "longvie.yaml").write_text("sed: 7\n")
    outcome = longvie("generate", "-p", "hills", "-o", "out.mp4")
    assert outcome.code == 5
    assert "longvie.yaml: sed" in outcome.err
    assert "Did you mean 'seed'?" in outcome.err


def test_an_output_that_exists_is_left_alone(longvie, tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_text("mine")
    outcome = longvie("generate", "-p", "hills", "--clips", "1", "-o", "out.mp4")
    assert outcome.code == 4
    assert "--overwrite" in outcome.err
    assert (tmp_path / "out.mp4").read_text() == "mine"
    assert not (tmp_path / "out.longvie").exists()


def test_no_clobber_skips_an_output_that_exists(longvie, tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_text("mine")
    outcome = longvie("generate", "-p", "hills", "--no-clobber", "--json", "-o", "out.mp4")
    assert outcome.code == 0
    assert outcome.fields["status"] == "skipped"
    assert (tmp_path / "out.mp4").read_text() == "mine"


def test_more_than_the_source_has_names_the_longest_possible(longvie, tmp_path: Path) -> None:
    write_video(tmp_path / "short.mp4", frames=40)
    outcome = longvie(
        "generate", "--video", "short.mp4", "-p", "x", "--minutes", "5", "-o", "out.mp4"
    )
    assert outcome.code == 2
    assert "--minutes 5: short.mp4 has 40 frames (2.50 s at 16 fps), but 4800 are needed." in (
        outcome.err
    )
    assert "--minutes 0.041, or --repeat pingpong" in outcome.err


def test_prompts_past_the_end_are_refused(longvie, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("[0s-5s] hills\n[5s-20s] hills in snow\n")
    outcome = longvie("generate", "--prompt-file", "prompts.txt", "--seconds", "10", "-o", "o.mp4")
    assert outcome.code == 5
    assert "[5s-20s] reaches past the end of the video (10.00 s)" in outcome.err


def test_a_folder_of_something_else_is_no_run_folder(longvie, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_text("beach")
    outcome = longvie("generate", "-p", "x", "--clips", "1", "--run-dir", "photos", "-o", "o.mp4")
    assert outcome.code == 4
    assert "holiday.jpg" in outcome.err
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["holiday.jpg"]


def test_json_reports_a_failure_as_one_object(longvie) -> None:
    outcome = longvie("generate", "--video", "nowhere.mp4", "-p", "x", "--json", "-o", "o.mp4")
    assert outcome.code == 5
    fields = outcome.fields
    assert (fields["schema_version"], fields["status"]) == (1, "error")
    assert fields["error"]["code"] == 5
    assert "nowhere.mp4" in fields["error"]["message"]
    assert set(fields["error"]) == {"code", "message", "hint"}


def test_json_reports_a_wrong_flag_as_one_object(longvie) -> None:
    outcome = longvie("generate", "--json", "--sed", "3")
    assert (outcome.code, outcome.fields["error"]["code"]) == (2, 2)


def test_debug_shows_the_traceback(longvie) -> None:
    outcome = longvie("stitch", "nowhere.mp4", "--debug", "-o", "o.mp4")
    assert outcome.code == 5
    assert "Traceback (most recent call last)" in outcome.err


@pytest.mark.slow
def test_a_run_that_made_nothing_gives_way_to_the_mended_request(
    longvie, tmp_path: Path, reference_video: Path
) -> None:
    ask = ("generate", "--video", reference_video, "-p", "x", "--depth-polarity", "near-white")
    for frames in (8, 9):
        write_video(tmp_path / f"depth{frames}.mp4", frames=frames)
        outcome = longvie(*ask, "--depth", f"depth{frames}.mp4", "-o", "out.mp4")
        assert outcome.code == 5, outcome.err
        assert f"the depth has {frames} frames" in outcome.err
