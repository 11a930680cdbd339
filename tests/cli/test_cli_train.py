"""`longvie train`: every stage, stopped and killed, up to a clip of the model it made."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from delivered import QUICK
from longvie_cli.media.probe import probe_video
from longvie_cli.models.weights.load import load_weights
from longvie_cli.models.weights.names import CONTROL_NAMES
from longvie_cli.models.weights.sources import find_released_files
from longvie_cli.settings.presets import preset_folder
from longvie_cli.training.checkpoints import finished_checkpoints, load_checkpoint
from longvie_cli.training.stages import half_of
from released_checkpoints import write_diffusers_base, write_original_base
from small_models import small_pipeline
from small_preset import SMALL

# What a stage is trained by in a second or two.
TOY = """
preset: tiny
data: {worlds: {seed: 1, flights: 1}}
steps: 4
batch: 1
learning_rate: 1e-3
dtype: float32
gradient_checkpointing: false
checkpoint_every: 2
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write the toy file with some lines changed or added."""

    def write_file(name: str = "toy.yaml", **changes: object) -> Path:
        lines = [line for line in TOY.splitlines() if line.split(":")[0] not in changes]
        lines += [f"{key}: {json.dumps(value)}" for key, value in changes.items()]
        (tmp_path / name).write_text("\n".join(lines))
        return tmp_path / name

    return write_file


def losses(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


def newest(folder: Path) -> dict[str, Any]:
    return load_checkpoint(finished_checkpoints(folder / "checkpoints")[-1])


def assert_same_run(first: Path, second: Path) -> None:
    """Losses, weights, moments and average are equal bit for bit."""
    assert losses(first) == losses(second)
    ours, theirs = newest(first), newest(second)
    for name, value in ours["trained"].items():
        assert torch.equal(value, theirs["trained"][name]), name
    for index, state in ours["optimizer"]["state"].items():
        for name, value in state.items():
            assert torch.equal(value, theirs["optimizer"]["state"][index][name])
    shadows = (state["average"]["shadow_params"] for state in (ours, theirs))
    assert all(torch.equal(one, other) for one, other in zip(*shadows, strict=True))


def wait_for_steps(folder: Path, count: int) -> None:
    """Return once so many steps are logged."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        log = folder / "losses.jsonl"
        if log.exists() and log.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.01)
    raise TimeoutError(folder)


@pytest.mark.slow
def test_a_stage_becomes_a_model_that_makes_a_clip(longvie, tmp_path: Path, write) -> None:
    write(validation={"worlds": {"seed": 2}}, validation_samples=1, validation_steps=1)
    outcome = longvie("train", "control", "--config", "toy.yaml", "--json")
    assert outcome.code == 0, outcome.err
    run = tmp_path / "toy.train"
    assert outcome.fields == {
        "schema_version": 1,
        "status": "done",
        "stage": "control",
        "steps": 4,
        "loss": losses(run)[-1]["loss"],
        "checkpoint": "toy.train/checkpoints/step-00000004",
        "output": "toy.train",
        "warnings": outcome.fields["warnings"],
    }
    assert "training: 4" in outcome.err
    assert probe_video(run / "validation" / "step-00000004.mp4").num_frames == SMALL.num_frames
    # Only the branches have changed, and they have.
    before = load_file(preset_folder("tiny") / "transformer/diffusion_pytorch_model.safetensors")
    after = load_file(run / "preset/transformer/diffusion_pytorch_model.safetensors")
    changed = {
        name for name in before if not torch.equal(after[name], before[name].to(after[name].dtype))
    }
    # Of the norms some round to what they were.
    branches = {name for name in before if CONTROL_NAMES.owns(name)}
    assert changed <= branches and len(changed) > 0.8 * len(branches)

    flight = ("-p", "hills", "--clips", "1", *QUICK, "-o", "a.mp4")
    made = longvie("generate", "--weights", run / "preset", *flight)
    assert made.code == 0, made.err
    assert probe_video(tmp_path / "a.mp4").width == SMALL.width

    # The released files load beside a published base, strictly, as what was trained.
    base = write_diffusers_base(small_pipeline(), tmp_path / "models" / "Wan")
    (run / "released").rename(tmp_path / "models" / "LongVie2")
    files = find_released_files(base.parent, configs=preset_folder("tiny"))
    loaded = load_weights(files, dtype=torch.float32).transformer.state_dict()
    for name in branches:
        assert torch.allclose(loaded[name], after[name].float(), rtol=0.01), name

    # Again there is nothing to do, and it is said.
    before_again = newest(run)["step"]
    again = longvie("train", "control", "--config", "toy.yaml")
    assert (again.code, again.out) == (0, "toy.train/checkpoints/step-00000004\n")
    assert "all 4 steps are taken" in again.err and before_again == newest(run)["step"]


@pytest.mark.slow
def test_a_run_killed_in_between_goes_on_bit_for_bit(
    longvie, start_longvie, tmp_path: Path, write
) -> None:
    write(steps=5)
    command = ("train", "control", "--config", "toy.yaml")
    assert longvie(*command, "-o", "unbroken").code == 0

    killed = start_longvie(*command, "-o", "killed")
    wait_for_steps(tmp_path / "killed", 3)
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert longvie(*command, "-o", "killed").code == 0
    assert_same_run(tmp_path / "killed", tmp_path / "unbroken")


@pytest.mark.slow
def test_a_run_that_is_stopped_says_how_it_goes_on(longvie, tmp_path: Path, write) -> None:
    write(steps=5)
    assert longvie("train", "control", "--config", "toy.yaml", "-o", "unbroken").code == 0

    def stop() -> None:
        wait_for_steps(tmp_path / "stopped", 3)
        os.kill(os.getpid(), signal.SIGTERM)

    write("long.yaml", steps=100_000, checkpoint_every=100_000)
    stopper = threading.Thread(target=stop)
    stopper.start()
    stopped = longvie("train", "control", "--config", "long.yaml", "-o", "stopped")
    stopper.join()
    assert stopped.code == 143
    assert "longvie train control --config long.yaml -o stopped" in stopped.err
    assert len(losses(tmp_path / "stopped")) < 100
    write("long.yaml", steps=5, checkpoint_every=2)
    assert longvie("train", "control", "--config", "long.yaml", "-o", "stopped").code == 0
    assert_same_run(tmp_path / "stopped", tmp_path / "unbroken")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ("base", "degradation", "history"))
def test_kills_at_several_steps_change_nothing(
    longvie, start_longvie, tmp_path: Path, write, stage: str
) -> None:
    often = {"probability": 0.7, "regenerate_steps": [1, 2], "regenerate_weights": [1, 1]}
    write(steps=5, degradation={"frame": often, "history": often})
    command = ("train", stage, "--config", "toy.yaml")
    assert longvie(*command, "-o", "unbroken").code == 0
    for count in (1, 3):
        process = start_longvie(*command, "-o", "killed")
        wait_for_steps(tmp_path / "killed", count)
        process.kill()
        process.communicate()
    assert longvie(*command, "-o", "killed").code == 0
    assert_same_run(tmp_path / "killed", tmp_path / "unbroken")


@pytest.mark.slow
def test_each_stage_starts_where_the_one_before_ended(longvie, tmp_path: Path, write) -> None:
    """Base from nothing, half copies of it, then on; what a stage does not train stays."""
    quick = {"steps": 1, "export": ["preset"]}
    write("base.yaml", start_from="nothing", **quick)
    write("control.yaml", start_from="base.train", **quick)
    write("degradation.yaml", start_from="control.train/checkpoints/step-00000001", **quick)
    write("history.yaml", start_from="degradation.train", **quick)
    stages = ("base", "control", "degradation", "history")
    for stage in stages:
        outcome = longvie("train", stage, "--config", f"{stage}.yaml")
        assert outcome.code == 0, outcome.err
        if stage == "base":
            early = longvie("train", "history", "--config", "control.yaml", "-o", "early")
            assert early.code == 5 and "there are none" in early.err
    weights = {
        stage: load_file(
            tmp_path / f"{stage}.train/preset/transformer/diffusion_pytorch_model.safetensors"
        )
        for stage in stages
    }
    for earlier, later in itertools.pairwise(stages):
        changed = {
            name
            for name, value in weights[earlier].items()
            if not torch.equal(value, weights[later][name])
        }
        trained = set(newest(tmp_path / f"{later}.train")["trained"])
        assert changed and changed <= trained
    record = json.loads((tmp_path / "history.train" / "training.json").read_text())
    assert record["origin"]["weights"] == "nothing"
    assert len(record["origin"]["checkpoints"]) == 3


@pytest.mark.parametrize("write_base", (write_diffusers_base, write_original_base))
def test_control_starts_from_a_pure_wan_base(
    longvie, tmp_path: Path, write, write_base: Callable[..., Path]
) -> None:
    base = small_pipeline()
    write_base(base, tmp_path / "Wan2.1-I2V-14B-480P")
    write(start_from="Wan2.1-I2V-14B-480P", steps=1, learning_rate=1e-12, ema_decay=None)
    outcome = longvie("train", "control", "--config", "toy.yaml")
    assert outcome.code == 0, outcome.err
    trained = newest(tmp_path / "toy.train")["trained"]
    # At this rate the branches stay where they started.
    source = dict(base.transformer.blocks[1].named_parameters())
    # The files of the base have another self-attention than the pipeline they were written from.
    name = "ffn.net.0.proj.weight"
    for first, branch in ((0, "dense"), (1, "sparse")):
        half = half_of(source[name], name, first, base.transformer.config.attention_head_dim)
        assert torch.allclose(trained[f"{branch}_blocks.1.{name}"], half, atol=1e-6)
    refused = longvie("train", "history", "--config", "toy.yaml", "-o", "early")
    assert refused.code == 5 and "there are none" in refused.err


def test_a_plan_says_all_and_writes_nothing(longvie, tmp_path: Path, write) -> None:
    write(branches="random", picture="own")
    outcome = longvie("train", "degradation", "--config", "toy.yaml", "--dry-run", "--json")
    assert outcome.code == 0, outcome.err
    fields = outcome.fields
    assert (fields["status"], fields["steps"], fields["loss"]) == ("planned", 0, None)
    assert 0 < fields["plan"]["trained_parameters"] < fields["plan"]["parameters"]
    assert fields["plan"]["memory_bytes"] > 4 * fields["plan"]["parameters"]
    for key in ("branches", "picture", "validation"):
        assert any(f"toy.yaml: {key}: " in note for note in fields["warnings"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["toy.yaml"]


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"stepz": 3}, 5, "toy.yaml: stepz: there is no such setting.\n  Did you mean 'steps'?"),
        ({"data": {"worlds": {"sed": 3}}}, 5, "data: worlds: sed: there is no such setting"),
        ({"data": {}}, 5, "name one of `worlds: {}` and `folder: DATA`"),
        ({"steps": "many"}, 5, "toy.yaml: steps: should be a valid integer"),
        ({"batch": True}, 5, "toy.yaml: batch: should be a valid integer"),
        ({"preset": "tniy"}, 5, "toy.yaml: preset: tniy: there is no such preset"),
        ({"start_from": "nowhere"}, 5, "start_from: nowhere: there is no such folder"),
        ({"start_from": "nothing"}, 5, "start_from: nothing: stage control needs a trained base"),
        ({"start_from": "../up"}, 5, "leads out of the folder"),
        ({"data": {"folder": "."}}, 5, "holds no finished samples of longvie prepare"),
        ({"validation": {"worlds": {"seed": 1}}}, 5, "the samples that are trained on"),
        ({"device": "cuda:9"}, 2, "cuda:9"),
    ],
)
def test_what_cannot_be_is_refused_before_work(
    longvie, tmp_path: Path, write, changes: dict[str, Any], code: int, words: str
) -> None:
    write(**changes)
    outcome = longvie("train", "control", "--config", "toy.yaml")
    assert (outcome.code, outcome.out) == (code, "")
    assert words in outcome.err and "Traceback" not in outcome.err
    assert not (tmp_path / "toy.train").exists()


@pytest.mark.slow
def test_a_folder_of_another_run_is_refused(longvie, tmp_path: Path, write) -> None:
    write(steps=1, export=[])
    command = ("train", "control", "--config", "toy.yaml", "-o", "run")
    assert longvie(*command).code == 0
    wrong = longvie("train", "base", "--config", "toy.yaml", "-o", "run")
    assert wrong.code == 4 and "holds a run of stage control, not base" in wrong.err
    write(steps=1, export=[], seed=3)
    changed = longvie(*command)
    assert changed.code == 4 and "started with seed 0, not 3" in changed.err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    foreign = longvie(*command[:-1], "mine")
    assert foreign.code == 4 and "is no run of training" in foreign.err
    # More steps are no other run.
    write(steps=2, export=[])
    assert longvie(*command, "--json").fields["steps"] == 2


def torchrun(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `longvie COMMAND` in two processes that train together."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    return subprocess.run(
        [*launcher, "--standalone", "-m", "longvie_cli", *map(str, command)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_two_processes_of_torchrun_train_as_one(longvie, tmp_path: Path, write) -> None:
    write(batch=2)
    command = ("train", "control", "--config", "toy.yaml")
    assert longvie(*command, "-o", "one").code == 0
    done = torchrun(tmp_path, *command, "--json", "-o", "two")
    assert done.returncode == 0, done.stderr
    # One of them speaks.
    assert json.loads(done.stdout)["steps"] == 4
    for ours, theirs in zip(losses(tmp_path / "two"), losses(tmp_path / "one"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-6)


@pytest.mark.slow
def test_sharded_weights_train_as_whole_ones_and_go_on(longvie, tmp_path: Path, write) -> None:
    # Redrawn often, so that the processes would evaluate the model unequally often.
    often = {"probability": 0.7, "regenerate_steps": [1, 3], "regenerate_weights": [1, 1]}
    changes = {
        "batch": 2,
        "gradient_checkpointing": True,
        "degradation": {"frame": often, "history": often},
        "validation": {"worlds": {"seed": 2, "flights": 1}},
        "validate_every": 2,
        "validation_samples": 1,
        "validation_steps": 1,
    }
    command = ("train", "history", "--config", "toy.yaml")
    write(**changes)
    assert longvie(*command, "-o", "whole").code == 0
    write(**changes, sharded=True)
    alone = longvie(*command, "-o", "alone")
    assert alone.code == 2 and "torchrun" in alone.err
    write(**changes, sharded=True, steps=2)
    for steps in (2, 4):
        write(**changes, sharded=True, steps=steps)
        done = torchrun(tmp_path, *command, "-o", "cut")
        assert done.returncode == 0, done.stderr
    for ours, theirs in zip(losses(tmp_path / "cut"), losses(tmp_path / "whole"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
    seen = [
        json.loads((tmp_path / name / "validation/step-00000004.json").read_text())["loss"]
        for name in ("cut", "whole")
    ]
    assert seen[0] == pytest.approx(seen[1], abs=1e-5)
    # Its model is the same, and a later stage starts from its checkpoint.
    file = "preset/transformer/diffusion_pytorch_model.safetensors"
    cut, whole = (load_file(tmp_path / name / file) for name in ("cut", "whole"))
    for name, value in whole.items():
        assert torch.allclose(cut[name].float(), value.float(), rtol=0.01, atol=1e-4), name
    write("next.yaml", start_from="cut", steps=1, export=[])
    assert longvie("train", "history", "--config", "next.yaml").code == 0
