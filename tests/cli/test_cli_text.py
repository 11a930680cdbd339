"""What of prompts and LoRA files is said, or refused, before anything is made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from longvie_cli.cli.interpreter import _without_optimizing

SHORT = ("--seconds", "0.2", "--steps", "1", "--guidance", "1")


@pytest.fixture
def bad_lora(tmp_path: Path) -> Path:
    path = tmp_path / "bad.safetensors"
    name = "diffusion_model.blocks.0.self_attn.q"
    pair = {"lora_down": torch.ones(2, 24), "lora_up": torch.ones(24, 4)}
    save_file({f"{name}.{key}.weight": value for key, value in pair.items()}, path)
    return path


@pytest.mark.slow
def test_a_lora_is_refused_before_anything_is_made(longvie, tmp_path: Path, bad_lora: Path) -> None:
    good = longvie("generate", "-p", "snow", *SHORT, "-o", "good.mp4")
    assert good.code == 0
    before = sorted(tmp_path.rglob("*"))
    lora = ("--lora", bad_lora)
    commands = {
        "generate": ("generate", "-p", "snow", *SHORT, *lora, "-o", "out.mp4"),
        "extend": ("extend", "good.mp4", "--seconds", "0.2", *lora, "-o", "out.mp4"),
    }
    for command in commands.values():
        planned, made = longvie(*command, "--dry-run", "--json"), longvie(*command, "--json")
        assert planned.code == made.code == 5
        assert planned.fields["error"] == made.fields["error"]
        assert made.fields["error"]["message"].startswith("bad.safetensors: ")
        assert "rank 2, but" in made.fields["error"]["message"]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_a_lora_of_a_run_that_does_not_fit_any_more_is_refused(
    longvie, tmp_path: Path, bad_lora: Path
) -> None:
    name = "diffusion_model.blocks.0.self_attn.q"
    pair = {"lora_down": torch.ones(2, 24), "lora_up": torch.ones(24, 2)}
    lora = tmp_path / "style.safetensors"
    save_file({f"{name}.{key}.weight": value for key, value in pair.items()}, lora)
    assert longvie("generate", "-p", "snow", *SHORT, "--lora", lora, "-o", "out.mp4").code == 0
    lora.write_bytes(bad_lora.read_bytes())
    outcome = longvie("redo", "out.mp4", "--clip", "0", "--json")
    assert outcome.code == 5
    assert outcome.fields["error"]["message"].startswith("style.safetensors: ")


@pytest.mark.slow
def test_what_is_cut_of_a_prompt_is_said_each_time(longvie, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text(f"[0s-end] {'snowy mountains ' * 400}")
    given = ("generate", "--prompt-file", "long.txt", *SHORT, "-o", "out.mp4", "--json")
    for more in (("--dry-run",), (), ()):
        outcome = longvie(*given, *more)
        assert outcome.code == 0
        (warning,) = [line for line in outcome.fields["warnings"] if "tokens" in line]
        assert warning.startswith("the prompt: 6400 tokens, more than are read; kept are the first")
        assert warning in outcome.err
    new = longvie("redo", "out.mp4", "--clip", "0", "--prompt", "sandy dunes " * 40, "--json")
    assert any(line.startswith("the new prompt: 480") for line in new.fields["warnings"])


@pytest.mark.slow
def test_prompts_that_no_clip_shows_are_said_by_every_command(longvie, tmp_path: Path) -> None:
    (tmp_path / "many.txt").write_text("[0s-0.1s] dawn\n[0.1s-0.2s] noon\n[0.2s-end] night")
    given = ("--prompt-file", "many.txt", "--seconds", "0.75", "--steps", "1", "--json")
    made = longvie("generate", *given, "-o", "out.mp4")
    assert made.code == 0
    for command in (
        ("generate", *given, "-o", "out.mp4", "--dry-run"),
        ("extend", "out.mp4", *given, "-o", "more.mp4", "--dry-run"),
        ("redo", "out.mp4", "--clip", "0", "--json"),
    ):
        outcome = longvie(*command)
        assert outcome.code == 0
        hidden = [line for line in outcome.fields["warnings"] if "never shown" in line]
        assert ["'dawn'" in hidden[0], "'noon'" in hidden[1], len(hidden)] == [True, True, 2]


def test_without_a_prompt_the_one_that_is_used_is_said(longvie) -> None:
    for more in (("--dry-run",), ()):
        outcome = longvie("generate", *SHORT, "-o", "out.mp4", "--json", *more)
        (used,) = [line for line in outcome.fields["warnings"] if line.startswith("No --prompt")]
        assert used in outcome.err
    prompt = longvie("generate", *SHORT, "-o", "b.mp4", "--json", "--dry-run").fields["plan"]
    assert repr(prompt["clips"][0]["prompt"]) in used


def test_an_empty_shell_variable_is_no_prompt(longvie, tmp_path: Path) -> None:
    for prompt in ("", "  ", "\u200b"):
        outcome = longvie("generate", "-p", prompt, *SHORT, "-o", "out.mp4")
        assert (outcome.code, outcome.err.startswith("longvie: --prompt: ")) == (2, True)
    assert [*tmp_path.iterdir()] == []


def test_a_preset_says_what_it_does_not_know(longvie) -> None:
    given = ("generate", "-p", "a cat riding a bicycle in Paris", *SHORT, "-o", "out.mp4", "--json")
    for more in (("--dry-run",), ()):
        warnings = longvie(*given, *more).fields["warnings"]
        assert any("'cat', 'riding', 'bicycle', 'Paris'" in line for line in warnings)


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (["-OO", "-m", "longvie_cli", "-OO"], ["-m", "longvie_cli", "-OO"]),
        (["/bin/longvie", "-p", "-OO"], ["/bin/longvie", "-p", "-OO"]),
        (["-IOO", "-X", "utf8", "-OOm", "longvie_cli"], ["-I", "-X", "utf8", "-m", "longvie_cli"]),
        (["-OO", "-W", "error", "x.py", "-O"], ["-W", "error", "x.py", "-O"]),
        (["-O", "-O", "-Ximporttime", "x.py"], ["-Ximporttime", "x.py"]),
    ],
)
def test_an_interpreter_is_started_anew_without_stripping(
    arguments: list[str], kept: list[str]
) -> None:
    assert _without_optimizing(arguments) == kept


def test_help_is_whole_without_docstrings() -> None:
    command = [sys.executable, "-OO", "-m", "longvie_cli", "stitch", "--help"]
    stripped = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    whole = subprocess.run(
        [command[0], *command[2:]], capture_output=True, text=True, check=True
    ).stdout
    assert stripped == whole


@pytest.mark.slow
def test_a_video_is_made_without_docstrings_and_asserts(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONOPTIMIZE": "2"}
    command = [sys.executable, "-m", "longvie_cli", "generate", "-p", "snow", *SHORT]
    made = subprocess.run(
        [*command, "-o", "out.mp4"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (made.returncode, made.stdout) == (0, "out.mp4\n"), made.stderr
