"""Text that was brought steers no terminal and looks like no line of ours, on whatever way."""

from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

HOSTILE = "snow\x1b]2;owned\x07\x1b[2J\x9b31m\u202egpj\r\nlongvie: all is well [bold]x[/bold]"


def assert_harmless(outcome) -> None:
    for text in (outcome.out, outcome.err):
        steering = {
            character
            for character in text
            if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp") and character != "\n"
        }
        assert steering == set()
    assert "\nlongvie: all is well" not in f"\n{outcome.err}"


@pytest.fixture(scope="module")
def controls(tmp_path_factory: pytest.TempPathFactory, small_preset: None) -> Path:
    """Controls somebody sent, with a hostile text in their cond.json."""
    folder = tmp_path_factory.mktemp("received") / "controls"
    command = [sys.executable, "-m", "longvie_cli", "extract-controls", "--seed", "1"]
    command += ["--seconds", "0.5", "-o", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    path = folder / "cond.json"
    entries = [entry | {"text": HOSTILE} for entry in json.loads(path.read_text("utf-8"))]
    path.write_text(json.dumps(entries), "utf-8")
    return folder


@pytest.mark.slow
def test_captions_of_received_controls_are_shown_escaped(longvie, controls: Path) -> None:
    given = ("generate", "--controls", controls, "--steps", "1", "--guidance", "1")
    for more in (("--dry-run",), ("--dry-run", "--json"), (), ("--json", "--overwrite")):
        outcome = longvie(*given, "-o", "out.mp4", *more)
        assert outcome.code == 0
        assert_harmless(outcome)
    assert "\\x1b]2;owned\\x07" in longvie(*given, "-o", "out.mp4", "--dry-run").err
    for command in (("status", "out.mp4"), ("status", "out.mp4", "--json"), ("resume", "out.mp4")):
        outcome = longvie(*command)
        assert outcome.code == 0
        assert_harmless(outcome)
    assert "\\x1b]2;owned" in longvie("status", "out.mp4").out
    assert longvie("status", "out.mp4", "--json").fields["clips"][0]["prompt"] == HOSTILE


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "-p", HOSTILE, "-o", "a.mp4", "--dry-run"),
        ("generate", "-p", "snow", "-o", f"{HOSTILE}.mov"),
        ("generate", "-p", "snow", "-o", "a.mp4", "--video", f"{HOSTILE}.mp4"),
        ("generate", "-p", "snow", "-o", "a.mp4", "--lora", f"{HOSTILE}.safetensors"),
        ("generate", "-p", "snow", "-o", "a.mp4", "--preset", HOSTILE),
        ("generate", "-p", "snow", "-o", "a.mp4", "--steps", HOSTILE),
        ("generate", "-p", "snow", "-o", "a.mp4", f"--{HOSTILE}"),
        ("generate", "-p", "snow", "-o", "a.mp4", "--camera", HOSTILE),
        ("generate", "-p", "snow", "-o", "a.mp4", "--debug", "--video", f"{HOSTILE}.mp4"),
        ("status", HOSTILE),
        ("models", "pull", HOSTILE),
        (HOSTILE,),
    ],
)
def test_names_and_values_are_shown_escaped(longvie, arguments: tuple[str, ...]) -> None:
    for more in ((), ("--json",)):
        outcome = longvie(*arguments, *more)
        if "--debug" not in arguments:
            assert "Traceback" not in outcome.err
        assert_harmless(outcome)


def test_files_of_others_are_shown_escaped(longvie, tmp_path: Path) -> None:
    (tmp_path / "longvie.yaml").write_text(json.dumps({HOSTILE: 1}))
    assert_harmless(longvie("generate", "-p", "snow", "-o", "a.mp4"))
    (tmp_path / "longvie.yaml").write_text(json.dumps({"fit": HOSTILE}))
    assert_harmless(longvie("generate", "-p", "snow", "-o", "a.mp4"))
    (tmp_path / "longvie.yaml").unlink()
    (tmp_path / "prompts.txt").write_text(f"[0s-9\x1b[2Js] {HOSTILE}")
    assert_harmless(longvie("generate", "--prompt-file", "prompts.txt", "-o", "a.mp4"))
    (tmp_path / "s\x1b[2J.mp4").write_text("no video \x1b[2J")
    outcome = longvie("generate", "-p", "snow", "--video", "s\x1b[2J.mp4", "-o", "a.mp4")
    assert outcome.code == 5
    assert_harmless(outcome)


@pytest.mark.slow
def test_a_command_to_go_on_with_can_be_typed(longvie) -> None:
    run = "r\x1b[2J\u202e.longvie"
    given = ("--seconds", "0.2", "--steps", "1", "--guidance", "1", "--run-dir", run, "-o", "a.mp4")
    assert longvie("generate", "-p", "snow", *given).code == 0
    other = longvie("generate", "-p", "sand", *given)
    assert other.code == 4
    assert_harmless(other)
    assert "longvie resume $'" in other.err


@pytest.mark.slow
def test_a_path_is_data_in_a_pipe_and_shown_on_a_terminal(longvie, tmp_path: Path) -> None:
    name = "a\x1b[2J.mp4"
    given = ["generate", "-p", "snow", "--seconds", "0.2", "--steps", "1", "-o", name]
    assert longvie(*given).out == f"{name}\n"
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "longvie_cli", *given]
    with subprocess.Popen(command, cwd=tmp_path, stdout=theirs, stderr=subprocess.PIPE) as process:
        _, said = process.communicate()
    os.close(theirs)
    assert process.returncode == 0, said
    assert os.read(ours, 1000).strip() == b"a\\x1b[2J.mp4"
    os.close(ours)


def test_what_libraries_log_is_escaped(longvie, capfd: pytest.CaptureFixture[str]) -> None:
    longvie("status", "nowhere")
    handler = logging.StreamHandler()
    logger = logging.getLogger("some.library")
    logger.addHandler(handler)
    logger.error("%s", HOSTILE)
    logger.removeHandler(handler)
    assert "\x1b" not in capfd.readouterr().err
