"""Memory flags, the plan of a dry run, and prompts kept in the run folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from delivered import QUICK
from longvie_cli.engine import prompt_cache
from longvie_cli.errors import MissingResourceError
from longvie_cli.run_folder.layout import RunFolder

COMMAND = ("generate", "-p", "green hills", "--seconds", "0.4", *QUICK)


@pytest.mark.slow
def test_a_dry_run_says_what_memory_is_needed(longvie, tmp_path: Path) -> None:
    outcome = longvie(*COMMAND, "--dry-run", "--json", "-o", "out.mp4")
    assert outcome.code == 0, outcome.err
    memory = outcome.fields["plan"]["memory"]
    assert memory["estimated"] and memory["fits"] and memory["offload"] == "none"
    models = {"text_encoder", "image_encoder", "transformer", "vae", "sketcher"}
    assert set(memory["weights"]) == models
    assert memory["peak_host_bytes"] > sum(memory["weights"].values())
    assert "memory: needs about" in outcome.err and "(estimated)" in outcome.err
    assert list(tmp_path.iterdir()) == []
    smaller = longvie(*COMMAND, "--quantize", "int8", "--dry-run", "--json", "-o", "out.mp4")
    plan = smaller.fields["plan"]
    assert plan["settings"]["quantize"] == "int8"
    assert plan["memory"]["weights"]["transformer"] < memory["weights"]["transformer"]


def test_flags_the_cpu_has_no_use_for_are_refused(longvie) -> None:
    outcome = longvie(*COMMAND, "--offload", "group", "--dry-run", "-o", "out.mp4")
    assert outcome.code == 2 and "--offload group: on the CPU" in outcome.err
    outcome = longvie(*COMMAND, "--attention", "sage", "--dry-run", "-o", "out.mp4")
    assert outcome.code == 2 and "runs on CUDA devices only" in outcome.err
    outcome = longvie("generate", "--offload", "disk", "-o", "out.mp4")
    assert outcome.code == 2


def test_too_small_a_machine_is_told_before_anything_is_made(
    longvie, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from longvie_cli.engine import machine

    # The machine is made small, not the code that judges it.
    monkeypatch.setattr(machine, "_host_memory", lambda: (100 << 20, 200 << 20))
    outcome = longvie(*COMMAND, "--json", "-o", "out.mp4")
    assert outcome.code == 2
    assert "this machine has 0.1 GiB free; --offload none needs about" in outcome.err
    assert list((tmp_path / "out.longvie" / "controls").iterdir()) == []
    planned = longvie(*COMMAND, "--json", "--dry-run", "-o", "other.mp4")
    assert planned.code == 0 and planned.fields["plan"]["memory"]["fits"] is False
    assert any("will not start" in warning for warning in planned.fields["warnings"])


@pytest.mark.slow
def test_quantized_weights_belong_to_the_run(longvie, tmp_path: Path) -> None:
    assert longvie(*COMMAND, "--quantize", "int8", "-o", "out.mp4").code == 0
    outcome = longvie(*COMMAND, "-o", "out.mp4")
    assert outcome.code == 4 and 'quantize "int8", not "none"' in outcome.err
    extended = longvie("extend", "out.mp4", "--clips", "1", "--dry-run", "--json", "-o", "on.mp4")
    assert extended.fields["plan"]["settings"]["quantize"] == "int8"
    plain = longvie(
        *("extend", "out.mp4", "--clips", "1", "--quantize", "none"),
        *("--dry-run", "--json", "-o", "on.mp4"),
    )
    assert plain.fields["plan"]["settings"]["quantize"] == "none"


@pytest.mark.slow
def test_kept_prompts_give_the_frames_of_fresh_ones(
    longvie, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (*COMMAND[:-1], "2", "-o", "out.mp4")
    assert COMMAND[-2] == "--guidance"
    assert longvie(*command).code == 0
    folder = RunFolder(tmp_path / "out.longvie")
    output, tail = (tmp_path / "out.mp4").read_bytes(), folder.tail(0).read_bytes()
    kept = sorted(path.name for path in folder.prompts_dir.iterdir())
    assert len(kept) == 2, "the prompt and the negative prompt"
    assert json.loads(folder.run_json.read_text())["model_hashes"]

    def unmake() -> None:
        folder.delivery.unlink()
        (tmp_path / "out.mp4").unlink()
        for path in (folder.clip_record(0), folder.clip_video(0), folder.tail(0)):
            path.unlink()

    # Once with every prompt there and no text encoder to be had, once with none there.
    unmake()
    with monkeypatch.context() as patch:

        def gone(*_: object, **__: object) -> None:
            raise MissingResourceError("no text encoder")

        patch.setattr(prompt_cache, "load_preset_text_encoder", gone)
        outcome = longvie(*command)
    assert outcome.code == 0, outcome.err
    assert (folder.tail(0).read_bytes(), (tmp_path / "out.mp4").read_bytes()) == (tail, output)

    unmake()
    shutil.rmtree(folder.prompts_dir)
    outcome = longvie(*command)
    assert outcome.code == 0, outcome.err
    assert (folder.tail(0).read_bytes(), (tmp_path / "out.mp4").read_bytes()) == (tail, output)
    assert sorted(path.name for path in folder.prompts_dir.iterdir()) == kept
