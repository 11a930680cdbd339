"""LoRA, control schedule and seeds per clip, from the flag to the frames and the next run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from delivered import QUICK, frames_of
from longvie_cli import load_pipeline
from longvie_cli.controls.files import load_control_clips
from longvie_cli.media.image import read_image
from longvie_cli.media.metadata import read_settings
from longvie_cli.media.writer import VideoWriter
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.manifest import read_record
from longvie_cli.run_folder.tails import load_tail
from longvie_cli.settings.presets import preset_folder
from small_preset import SMALL

SHORT = ("generate", "--seconds", "0.4", *QUICK)


def write_lora(path: Path, *, width: int | None = None, strength: float = 2.0) -> Path:
    """A LoRA of rank 2 in the original Wan naming for the first block of `tiny`."""
    config = json.loads((preset_folder("tiny") / "transformer" / "config.json").read_text())
    width = width or config["num_attention_heads"] * config["attention_head_dim"]
    torch.manual_seed(4)
    tensors = {}
    for layer in ("self_attn.q", "self_attn.v", "cross_attn.k", "cross_attn.k_img"):
        name = f"diffusion_model.blocks.0.{layer}"
        tensors[f"{name}.lora_down.weight"] = torch.randn(2, width) * strength
        tensors[f"{name}.lora_up.weight"] = torch.randn(width, 2) * strength
    tensors["diffusion_model.blocks.0.self_attn.v.diff_b"] = torch.ones(width) * strength
    save_file(tensors, path)
    return path


def tail_of(folder: Path, name: str, clip: int = 0) -> np.ndarray:
    return load_tail(RunFolder(folder / f"{name}.longvie").tail(clip))


def seeds_of(folder: Path, name: str, clips: int) -> list[int]:
    run = RunFolder(folder / f"{name}.longvie")
    return [read_record(run.clip_record(index)).seed for index in range(clips)]


@pytest.mark.slow
def test_a_lora_decides_the_frames_and_is_remembered_without_its_path(
    longvie, tmp_path: Path
) -> None:
    (tmp_path / "loras").mkdir()
    write_lora(tmp_path / "loras" / "style.safetensors")
    lora = "loras/style.safetensors"
    for name, flags in {
        "plain": (),
        "nought": ("--lora", f"{lora}:0"),
        "half": ("--lora", f"{lora}:0.5"),
        "twice": ("--lora", f"{lora}:0.25", "--lora", f"{lora}:0.25"),
    }.items():
        outcome = longvie(*SHORT, *flags, "-o", f"{name}.mp4")
        assert outcome.code == 0, outcome.err
    plain, half = tail_of(tmp_path, "plain"), tail_of(tmp_path, "half")
    assert np.array_equal(plain, tail_of(tmp_path, "nought"))
    # Little: most of a frame is carried.
    assert np.abs(plain.astype(int) - half.astype(int)).mean() > 0.05
    # The same sum in another order: a grey level here and there.
    assert np.abs(tail_of(tmp_path, "twice").astype(int) - half.astype(int)).max() <= 1

    settings = read_settings(tmp_path / "half.mp4")
    assert settings is not None
    (remembered,) = settings["settings"]["lora"]
    assert (remembered["name"], remembered["scale"]) == ("style.safetensors", 0.5)
    assert "loras/" not in json.dumps(settings) and str(tmp_path) not in json.dumps(settings)

    # Another scale is another run; the same one is finished.
    outcome = longvie(*SHORT, "--lora", f"{lora}:0.6", "-o", "half.mp4")
    assert outcome.code == 4 and "lora" in outcome.err
    assert "finished already" in longvie(*SHORT, "--lora", f"{lora}:0.5", "-o", "half.mp4").err

    # extend goes on with it, as long as the file is there.
    more = ("extend", "half.mp4", "--seconds", "0.4", "--dry-run", "--json", "-o", "more.mp4")
    outcome = longvie(*more)
    assert outcome.code == 0, outcome.err
    assert outcome.fields["plan"]["settings"]["lora"] == [remembered]
    assert longvie(*more, "--lora", "none").fields["plan"]["settings"]["lora"] == []
    (tmp_path / lora).unlink()
    outcome = longvie(*more)
    assert outcome.code == 2
    assert "was made with style.safetensors" in outcome.err
    assert "--lora none" in outcome.fields["error"]["hint"]


def test_a_lora_for_another_model_or_none_at_all_is_bad_input(longvie, tmp_path: Path) -> None:
    write_lora(tmp_path / "wide.safetensors", width=5120)
    outcome = longvie(*SHORT, "--lora", "wide.safetensors", "-o", "out.mp4")
    assert outcome.code == 5
    assert "wide.safetensors: this LoRA was made for another model" in outcome.err
    assert "self_attn.q.lora_down.weight is [2, 5120], not [2, " in " ".join(outcome.err.split())
    outcome = longvie(*SHORT, "--lora", "nowhere.safetensors:0.5", "-o", "out2.mp4")
    assert outcome.code == 5 and "nowhere.safetensors: there is no such LoRA" in outcome.err
    assert not (tmp_path / "out2.longvie").exists()


def test_lora_without_peft_says_how_to_get_it(
    longvie, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lora(tmp_path / "a.safetensors")
    monkeypatch.setattr("longvie_cli.models.lora_files.importlib.util.find_spec", lambda name: None)
    outcome = longvie(*SHORT, "--lora", "a.safetensors", "-o", "out.mp4")
    assert outcome.code == 3
    assert "pip install 'peft>=0.17'" in outcome.err


@pytest.mark.slow
def test_the_control_range_decides_the_frames(longvie, tmp_path: Path) -> None:
    common = ("generate", "--seconds", "0.4", "--steps", "4", "--guidance", "1")
    assert longvie(*common, "-o", "whole.mp4").code == 0
    outcome = longvie(*common, "--control-end", "0.5", "-o", "half.mp4")
    assert outcome.code == 0, outcome.err
    assert not np.array_equal(tail_of(tmp_path, "whole"), tail_of(tmp_path, "half"))
    settings = read_settings(tmp_path / "half.mp4")
    assert settings is not None and settings["settings"]["control_end"] == 0.5
    outcome = longvie(*common, "--control-end", "0.6", "-o", "half.mp4")
    assert outcome.code == 4 and "control_end 0.5, not 0.6" in outcome.err
    assert (
        longvie(*common, "--control-start", "0.7", "--control-end", "0.5", "-o", "x.mp4").code == 2
    )


@pytest.mark.slow
def test_clips_with_seeds_of_their_own_resume_and_extend(longvie, tmp_path: Path) -> None:
    common = ("generate", "--clips", "2", "--seed", "5", *QUICK)
    assert longvie(*common, "-o", "one.mp4").code == 0
    outcome = longvie(*common, "--seed-per-clip", "-o", "own.mp4")
    assert outcome.code == 0, outcome.err
    assert seeds_of(tmp_path, "one", 2) == [5, 5]
    assert seeds_of(tmp_path, "own", 2) == [5, 6]
    assert np.array_equal(tail_of(tmp_path, "one"), tail_of(tmp_path, "own"))
    second = tail_of(tmp_path, "own", 1)
    assert not np.array_equal(tail_of(tmp_path, "one", 1), second)

    # Stopped after its first clip, the run makes the same second one.
    run = RunFolder(tmp_path / "own.longvie")
    for path in (run.clip_record(1), run.tail(1), run.clip_video(1), run.delivery):
        path.unlink()
    (tmp_path / "own.mp4").unlink()
    assert longvie(*common, "--seed-per-clip", "-o", "own.mp4").code == 0
    assert np.array_equal(tail_of(tmp_path, "own", 1), second)

    more = longvie("extend", "own.mp4", "--clips", "2", "--dry-run", "--json", "-o", "more.mp4")
    assert [clip["seed"] for clip in more.fields["plan"]["clips"]] == [7, 8]

    (tmp_path / "prompts.yaml").write_text(
        "- {clip: 0, text: hills}\n- {clip: 1, text: snow, seed: 9}\n"
    )
    plan = longvie(*common, "--prompt-file", "prompts.yaml", "--dry-run", "--json", "-o", "p.mp4")
    clips = plan.fields["plan"]["clips"]
    assert [(clip["prompt"], clip["seed"]) for clip in clips] == [("hills", 5), ("snow", 9)]


@pytest.mark.slow
def test_generate_of_the_pipeline_makes_the_commands_frames(longvie, tmp_path: Path) -> None:
    command = ("generate", "--clips", "2", "--seed", "5", "--first-frame", "video", *QUICK)
    assert longvie(*command, "-p", "green hills", "-o", "out.mp4").code == 0
    run = RunFolder(tmp_path / "out.longvie")
    controls = load_control_clips(run.controls_dir, SMALL.geometry)
    size = {"height": SMALL.height, "width": SMALL.width}

    def pair(index: int) -> tuple[np.ndarray, np.ndarray]:
        clip = controls.read(index, **size, fit="stretch")
        return clip.dense, clip.sparse

    pipeline = load_pipeline(SMALL)
    clips = list(
        pipeline.generate(
            "green hills",
            read_image(run.controls_dir / "first.png", **size, fit="stretch"),
            pair,
            num_clips=2,
            seed=5,
            num_inference_steps=1,
            guidance_scale=1.0,
        )
    )
    assert [len(clip) for clip in clips] == [SMALL.num_frames, SMALL.num_frames - 1]
    for index, frames in enumerate(clips):
        assert np.array_equal(frames[-SMALL.history_frames :], load_tail(run.tail(index)))
        # Untrained models make noise, so the video is compared with these frames once encoded.
        with VideoWriter(tmp_path / "same.mp4", **size, fps=SMALL.fps) as writer:
            for frame in frames:
                writer.write(frame)
        assert np.array_equal(frames_of(tmp_path / "same.mp4"), frames_of(run.clip_video(index)))


@pytest.mark.slow
def test_what_is_foretold_belongs_to_the_run(longvie, tmp_path: Path) -> None:
    eight = ("generate", "--seconds", "0.4", "--steps", "8", "--guidance", "2")
    for name, fast in {"exact": "none", "both": "both"}.items():
        outcome = longvie(*eight, "--fast", fast, "-o", f"{name}.mp4")
        assert outcome.code == 0, outcome.err
    assert not np.array_equal(tail_of(tmp_path, "exact"), tail_of(tmp_path, "both"))
    # The default is exact; another choice is another run, and an extension goes on with it.
    assert "finished already" in longvie(*eight, "-o", "exact.mp4").err
    outcome = longvie(*eight, "-o", "both.mp4")
    assert outcome.code == 4 and "fast" in outcome.err
    more = ("extend", "both.mp4", "--seconds", "0.4", "--dry-run", "--json", "-o", "more.mp4")
    assert longvie(*more).fields["plan"]["settings"]["fast"] == "both"


def test_what_cannot_be_compiled_is_refused(longvie, tmp_path: Path) -> None:
    output = ("--seconds", "0.4", "--dry-run", "--json", "-o", "out.mp4")
    plan = longvie("generate", "--compile", "blocks", *output).fields["plan"]
    assert plan["settings"]["compile"] == "blocks"
    refused = longvie("generate", "--compile", "graphs", *output)
    assert refused.code == 2 and "CUDA graphs are for CUDA devices" in refused.err
    refused = longvie("bench", "--compile", "blocks", "--dry-run")
    assert refused.code == 2 and "inside a compiled block" in refused.err


@pytest.mark.parametrize("command", ["generate", "bench"])
def test_what_cannot_be_foretold_is_refused(longvie, tmp_path: Path, command: str) -> None:
    output = ("--dry-run", *(("-o", "out.mp4") if command == "generate" else ()))
    for flags, said in (
        (("--fast", "steps", "--steps", "7"), "--fast steps: 7 steps are too few to foretell some"),
        (("--fast", "guidance", "--guidance", "1"), "no negative prompt is evaluated"),
    ):
        outcome = longvie(command, *flags, *output)
        assert outcome.code == 2 and said in " ".join(outcome.err.split()), outcome.err
    assert list(tmp_path.iterdir()) == []
