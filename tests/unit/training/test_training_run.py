"""A stage's run: killed anywhere it goes on alike, one process or two, and it learns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import toy_run
from toy_run import toy_pipeline, train

from longvie_cli.errors import InputError, OutputConflictError, UsageError
from longvie_cli.media.probe import probe_video
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.progress import SilentProgress
from longvie_cli.training.checkpoints import finished_checkpoints, load_checkpoint
from longvie_cli.training.dataset import Sample
from longvie_cli.training.loop import load_average
from longvie_cli.training.stages import start_branches, trained_names
from longvie_cli.training.training_run import TrainingRun
from longvie_cli.training.validation import Validation

HERE = Path(__file__).parent


def start(folder: Path, stage: str, how: str) -> subprocess.Popen[bytes]:
    paths = [str(HERE), str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    program = [sys.executable, str(HERE / "toy_run.py"), str(folder), stage, how]
    return subprocess.Popen(program, env=environment)


def losses(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


def newest(folder: Path) -> dict[str, Any]:
    return load_checkpoint(finished_checkpoints(folder / "checkpoints")[-1])


def same_weights(first: dict[str, Any], second: dict[str, Any]) -> bool:
    averages = zip(
        first["average"]["shadow_params"], second["average"]["shadow_params"], strict=True
    )
    return all(
        torch.equal(value, second["trained"][name]) for name, value in first["trained"].items()
    ) and all(torch.equal(ours, theirs) for ours, theirs in averages)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    train(folder)
    return folder


@pytest.mark.parametrize(
    "kills",
    (
        # The second one resumes at step 2 and dies in its second checkpoint, that of step 6.
        pytest.param(["at-3", "save-2"], marks=pytest.mark.slow),
        pytest.param(["at-1", "at-4", "at-1"], marks=pytest.mark.slow),
        pytest.param(["save-1", "save-1", "at-5"], marks=pytest.mark.slow),
    ),
)
def test_a_run_killed_anywhere_has_the_same_losses_bit_for_bit(
    kills: Sequence[str], unbroken: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    for how in kills:
        assert start(folder, "history", how).wait(timeout=120) == -9
    # What is global must not matter either.
    torch.manual_seed(len(kills))
    result = train(folder)
    assert result.step == 6
    assert losses(folder) == losses(unbroken)
    assert same_weights(newest(folder), newest(unbroken))
    assert not list((folder / "checkpoints").glob("*.part"))


class _StoppedAt(SilentProgress):
    """Asks the run to stop once so many steps are taken, as Ctrl-C does."""

    def __init__(self, step: int) -> None:
        self.left = step

    def advance(self, stage: str, amount: int = 1, *, detail: str = "") -> None:
        self.left -= amount
        if self.left == 0:
            raise KeyboardInterrupt


def test_a_run_that_is_stopped_keeps_every_step(unbroken: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, progress=_StoppedAt(3))
    assert newest(tmp_path)["step"] == 3
    assert train(tmp_path).step == 6
    assert losses(tmp_path) == losses(unbroken)
    assert same_weights(newest(tmp_path), newest(unbroken))


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(unbroken: Path, tmp_path: Path) -> None:
    folder = tmp_path / "two"
    processes = [start(folder, "history", f"join-{rank}") for rank in (0, 1)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    for ours, theirs in zip(losses(folder), losses(unbroken), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-6)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-5)


@pytest.mark.parametrize("stage", ("base", "control", "degradation", "history"))
def test_a_stage_changes_what_it_trains_and_nothing_else(stage: Any, tmp_path: Path) -> None:
    before = toy_pipeline().transformer.state_dict()
    pipeline = toy_pipeline()
    train(tmp_path, stage, steps=2, pipeline=pipeline)
    after = pipeline.transformer.state_dict()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed == set(trained_names(pipeline.transformer, stage))


@pytest.mark.slow
def test_a_stage_learns_the_clips_it_sees(tmp_path: Path) -> None:
    pipeline = toy_pipeline()
    gentle = toy_run.SETTINGS.degradation.model_copy(update={"off_steps": 10_000})
    changes = {"learning_rate": 3e-3, "steps": 80, "degradation": gentle, "ema_decay": 0.9}
    train(tmp_path, "base", checkpoint_every=200, pipeline=pipeline, **changes)
    rows = [row["loss"] for row in losses(tmp_path)]
    first, last = sum(rows[:20]) / 20, sum(rows[-20:]) / 20
    assert last < 0.4 * first


class _Some(toy_run.ToySamples):
    """Clips that no other place is given: `count` of them from a first number on."""

    def __init__(self, first: int, count: int) -> None:
        self.first = first
        self.length = count

    def sample(self, number: int) -> Sample:
        return super().sample(self.first + number)


@pytest.mark.slow
def test_control_branches_learn_one_clip(tmp_path: Path) -> None:
    """Half copies of a base that knows other clips lose a quarter of their loss on this one."""
    settings = toy_run.SETTINGS.model_copy(
        update={
            "degradation": toy_run.SETTINGS.degradation.model_copy(update={"off_steps": 10_000}),
            "checkpoint_every": 1000,
            "first_steps": 0,
            "weigh_timesteps": False,
            "gradient_checkpointing": False,
            "ema_decay": None,
            "validation_samples": 16,
        }
    )
    pipeline, clip = toy_pipeline(), _Some(0, 1)
    base = settings.model_copy(update={"steps": 50, "learning_rate": 3e-3})
    TrainingRun(tmp_path / "base", "base", base, pipeline, _Some(10, 50)).run()
    start_branches(pipeline.transformer, "half_copy")
    judge = Validation(pipeline, clip, "control", settings, fps=16)
    before = judge.loss()
    control = settings.model_copy(update={"steps": 100, "learning_rate": 5e-3})
    TrainingRun(tmp_path / "control", "control", control, pipeline, clip).run()
    # Measured: 0.370 and 0.215.
    assert judge.loss() < 0.75 * before


def test_what_is_loaded_is_the_average(unbroken: Path) -> None:
    pipeline: LongViePipeline = toy_pipeline()
    checkpoint = finished_checkpoints(unbroken / "checkpoints")[-1]
    load_average(pipeline.transformer, checkpoint)
    state = load_checkpoint(checkpoint)
    own = pipeline.transformer.state_dict()
    for name, value in zip(state["trained"], state["average"]["shadow_params"], strict=True):
        assert torch.equal(own[name], value)
        assert not torch.equal(value, state["trained"][name])


@pytest.mark.slow
def test_old_checkpoints_go_and_bfloat16_with_recomputation_trains(tmp_path: Path) -> None:
    train(tmp_path / "bf16", "control", dtype="bfloat16")
    names = [path.name for path in finished_checkpoints(tmp_path / "bf16" / "checkpoints")]
    assert names == ["step-00000004", "step-00000006"]
    train(tmp_path / "plain", "control", gradient_checkpointing=False)
    train(tmp_path / "recomputed", "control")
    for ours, theirs, rough in zip(
        *(losses(tmp_path / name) for name in ("plain", "recomputed", "bf16")), strict=True
    ):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["loss"] == pytest.approx(rough["loss"], rel=0.03)


def test_the_rate_rises_after_the_first_steps(unbroken: Path) -> None:
    assert [row["lr"] for row in losses(unbroken)] == pytest.approx([1e-3 / 3] * 2 + [1e-3] * 4)


def test_a_folder_of_another_run_is_refused(unbroken: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputConflictError, match="started with seed 5, not 6"):
        train(unbroken, seed=6)
    with pytest.raises(OutputConflictError, match="belongs to stage history"):
        train(unbroken, "control")
    with pytest.raises(UsageError, match="stands at step 6 already"):
        train(unbroken, steps=3)
    # The same again has nothing to do.
    assert train(unbroken).loss is None


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    train(tmp_path, steps=2)
    state = tmp_path / "checkpoints" / "step-00000002" / "state.pt"
    data = bytearray(state.read_bytes())
    data[len(data) // 2] ^= 1
    state.write_bytes(data)
    with pytest.raises(InputError, match="step-00000002: this checkpoint is damaged"):
        train(tmp_path)


@pytest.mark.slow
def test_validation_shows_the_average_and_changes_no_step(unbroken: Path, tmp_path: Path) -> None:
    settings = {"validate_every": 4, "validation_samples": 2, "validation_steps": 2}
    run = toy_run.toy_run(tmp_path, validation=toy_run.ToySamples(), **settings)
    run.run()
    assert losses(tmp_path) == losses(unbroken)
    assert same_weights(newest(tmp_path), newest(unbroken))
    shown = sorted(path.name for path in (tmp_path / "validation").iterdir())
    assert shown == [f"step-0000000{n}.{kind}" for n in (4, 6) for kind in ("json", "mp4")]
    assert probe_video(tmp_path / "validation" / "step-00000004.mp4").width == 24

    noted = json.loads((tmp_path / "validation" / "step-00000006.json").read_text())
    pipeline = toy_pipeline()
    load_average(pipeline.transformer, finished_checkpoints(tmp_path / "checkpoints")[-1])
    judge = Validation(pipeline, toy_run.ToySamples(), "history", run.settings, fps=16)
    assert noted == {"step": 6, "loss": pytest.approx(judge.loss(), rel=1e-5)}


def test_weights_that_small_steps_would_not_move_are_refused(tmp_path: Path) -> None:
    pipeline = toy_pipeline()
    pipeline.transformer.to(torch.bfloat16)
    with pytest.raises(ValueError, match="float32"):
        train(tmp_path, pipeline=pipeline)
