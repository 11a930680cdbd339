"""One job in several processes, as torchrun starts them; most tests fork: that imports nothing."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from delivered import frames_of
from longvie_cli.cli import app
from longvie_cli.cli.app import main
from longvie_cli.cli.command import Command
from longvie_cli.models.longvie import LongVieTransformer3DModel
from longvie_cli.parallel.processes import Place
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.tails import load_tail
from longvie_cli.settings.presets import preset_folder
from small_models import EVEN_HEADS, let_controls_act, small_transformer
from small_preset import build_package, package_in_use

FLIGHT = ("generate", "-p", "green hills", "--clips", "2", "--seed", "5", "--steps", "2")
GUIDED = (*FLIGHT, "--guidance", "3")
UNGUIDED = (*FLIGHT, "--guidance", "1")
COMMANDS = {
    name.replace("_", "-"): value
    for module in vars(app).values()
    if isinstance(module, ModuleType)
    for name, value in vars(module).items()
    if isinstance(value, Command)
}
TRAINING = """
preset: tiny
data: {worlds: {seed: 1, flights: 1}}
steps: 4
batch: 2
dtype: float32
checkpoint_every: 1
"""


@dataclass(frozen=True)
class Ended:
    """What a process left behind."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="module", autouse=True)
def even_heads(small: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The small preset with heads that two and four processes can share."""
    root = tmp_path_factory.mktemp("even_heads")
    build_package(root)
    transformer = small_transformer(**EVEN_HEADS)
    let_controls_act(transformer)
    transformer.save_pretrained(root / "longvie_cli" / "assets" / "tiny" / "transformer")
    with package_in_use(root):
        yield


def environments(count: int) -> list[dict[str, str]]:
    """Return what torchrun says to each of `count` processes on one machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
    }
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def forked(
    count: int, folder: Path, *arguments: str | Path, prepare: Callable[[int], None] | None = None
) -> list[Ended]:
    """Run `longvie ARGUMENTS` in `count` processes that work together.

    Args:
        count: Of them.
        folder: Where they run.
        arguments: Of the command.
        prepare: Called in each before, with its rank.
    """
    start = multiprocessing.get_context("fork").Process
    streams = [[folder / f"{rank}.{name}" for name in ("out", "err")] for rank in range(count)]
    given = ["longvie", *map(str, arguments)]

    def run(rank: int, environment: Mapping[str, str]) -> None:
        os.chdir(folder)
        os.environ |= environment
        for descriptor, path in enumerate(streams[rank], start=1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
            name = ("stdout", "stderr")[descriptor - 1]
            setattr(sys, name, os.fdopen(descriptor, "w", buffering=1, closefd=False))
        sys.argv = given
        if prepare is not None:
            prepare(rank)
        main()

    started = [start(target=run, args=each) for each in enumerate(environments(count))]
    for process in started:
        process.start()
    for process in started:
        process.join(timeout=120)
    codes = [process.exitcode for process in started]
    for process in started:
        process.kill()
    texts = [[path.read_text() for path in paths] for paths in streams]
    for path in chain(*streams):
        path.unlink()
    assert None not in codes, ("a process hangs", texts)
    return [Ended(code or 0, *text) for code, text in zip(codes, texts, strict=True)]


def tails(folder: Path, name: str) -> list[Any]:
    """Return the lossless last frames of both clips of a run."""
    return [load_tail(RunFolder(folder / f"{name}.longvie").tail(index)) for index in range(2)]


def assert_alike(folder: Path, ours: str, expected: str, *, within: int) -> None:
    for one, other in zip(tails(folder, ours), tails(folder, expected), strict=True):
        assert np.abs(one.astype(int) - other).max() <= within
    frames = frames_of(folder / f"{ours}.mp4"), frames_of(folder / f"{expected}.mp4")
    assert frames[0].shape == frames[1].shape


def test_two_processes_make_the_video_of_one(longvie, tmp_path: Path) -> None:
    assert longvie(*GUIDED, "-o", "one.mp4").code == 0
    first, second = forked(2, tmp_path, *GUIDED, "--json", "-o", "two.mp4")
    assert first.code == second.code == 0, first.err
    # One speaks, and one alone has the run folder.
    assert json.loads(first.out)["status"] == "done" and (second.out, second.err) == ("", "")
    assert "one evaluates the prompt and one evaluates the negative prompt" in first.err
    assert_alike(tmp_path, "two", "one", within=0)
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {"one.mp4", "one.longvie", "two.mp4", "two.longvie"}
    # It is the run of one process, which goes on with it.
    assert "finished already" in longvie(*GUIDED, "-o", "two.mp4").err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "command", "said"),
    [
        (2, UNGUIDED, "2 processes share every evaluation"),
        (4, GUIDED, "2 share the evaluation of the prompt and 2 share"),
    ],
)
def test_processes_that_share_tokens(
    longvie, tmp_path: Path, count: int, command: tuple[str, ...], said: str
) -> None:
    assert longvie(*command, "-o", "one.mp4").code == 0
    outcomes = forked(count, tmp_path, *command, "-o", "more.mp4")
    assert [outcome.code for outcome in outcomes] == [0] * count, outcomes
    assert said in outcomes[0].err
    assert_alike(tmp_path, "more", "one", within=1)


@pytest.mark.slow
def test_other_commands_that_make_clips(longvie, tmp_path: Path) -> None:
    assert longvie(*GUIDED, "-o", "one.mp4").code == 0
    for command in (
        ("redo", "one.mp4", "--clip", "1", "--seed", "9"),
        ("extend", "one.mp4", "--seconds", "0.5", "--steps", "2", "-o", "longer.mp4"),
        # Finished: no model is loaded.
        ("resume", "longer.longvie"),
    ):
        outcomes = forked(2, tmp_path, *command)
        assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
        assert outcomes[1].out == outcomes[1].err == ""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (UNGUIDED, 2, "3 processes: they cannot share 8 and 4 attention heads"),
        pytest.param(("generate", "--stops", "3"), 2, "--stops", marks=pytest.mark.slow),
        pytest.param(("generate", "--steps", "0"), 2, "--steps", marks=pytest.mark.slow),
        pytest.param((*UNGUIDED, "--dry-run"), 0, "will not start: 3 proc", marks=pytest.mark.slow),
    ],
)
def test_what_is_wrong_is_said_once(
    tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    outcomes = forked(3, tmp_path, *arguments, "-o", "out.mp4")
    assert outcomes[0].code == code and said in outcomes[0].err
    # The others end by themselves, or because the first one has.
    assert all((outcome.code == 0) == (code == 0) for outcome in outcomes)
    assert [outcome.out + outcome.err for outcome in outcomes[1:]] == ["", ""]
    assert not (tmp_path / "out.mp4").exists()
    assert not (tmp_path / "out.longvie").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("stitch", "one.mp4", "two.mp4", "-o", "out.mp4", "--json"),
        *(
            pytest.param(command, marks=pytest.mark.slow)
            for command in (
                ("extract-controls", "ref.mp4", "-o", "out"),
                ("bench", "--random-weights"),
                ("prepare", "ref.mp4", "-o", "out"),
                ("models", "pull", "tiny"),
                ("status", "out.mp4"),
                ("doctor",),
            )
        ),
    ],
    ids=lambda command: command[0],
)
def test_commands_that_share_no_work_are_refused(tmp_path: Path, command: tuple[str, ...]) -> None:
    """Before anything is looked at: none of these files is there."""
    first, second = forked(2, tmp_path, *command)
    assert first.code == 2, first
    assert "each of its 2 processes would do all of this command" in first.err
    (hint,) = [line for line in first.err.splitlines() if "Run it without torchrun" in line]
    named = {name for name in COMMANDS if name in re.findall(r"[\w-]+", hint)}
    assert named and named == {name for name, made in COMMANDS.items() if made.together}
    assert second.code != 0 and (second.out, second.err) == ("", "")
    if "--json" in command:
        assert json.loads(first.out)["error"]["code"] == 2
    assert not list(tmp_path.iterdir())


def test_what_one_process_alone_lacks_is_said_by_it(tmp_path: Path) -> None:
    """As on a second machine whose copy of the weights is damaged."""
    other = tmp_path / "other machine"
    for folder in (tmp_path, other):
        shutil.copytree(preset_folder("tiny"), folder / "weights")
    (damaged,) = (other / "weights" / "transformer").glob("*.safetensors")
    damaged.write_bytes(b"broken")
    outcomes = forked(
        2,
        tmp_path,
        *GUIDED,
        *("--weights", "weights", "-o", "out.mp4"),
        prepare=lambda rank: os.chdir(other) if rank else None,
    )
    assert [outcome.code for outcome in outcomes] == [75, 3], outcomes
    assert "longvie, process 1: " in outcomes[1].err
    assert damaged.name in outcomes[1].err
    assert "Another process of this run has ended" in outcomes[0].err


def dies_in_its_second_clip(rank: int, victim: int) -> None:
    # Two steps of the first picture, two of the first clip.
    if rank == victim:
        before_evaluation(5, lambda: os._exit(9))


def before_evaluation(number: int, act: Callable[[], None]) -> None:
    """Act in this process where the transformer is called for the `number`th time."""
    evaluations = 0

    def count(module: nn.Module, given: tuple[Any, ...]) -> None:
        nonlocal evaluations
        # The memory plan evaluates the model too, on the meta device.
        if isinstance(module, LongVieTransformer3DModel) and given and not given[0].is_meta:
            evaluations += 1
            if evaluations == number:
                act()

    register_module_forward_pre_hook(count)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_where_one_dies_the_other_ends(longvie, tmp_path: Path, victim: int) -> None:
    outcomes = forked(
        2,
        tmp_path,
        *GUIDED,
        *("-o", "out.mp4"),
        prepare=lambda rank: dies_in_its_second_clip(rank, victim),
    )
    assert outcomes[victim].code == 9
    assert outcomes[1 - victim].code == 75
    assert ("Another process of this run has ended" in outcomes[0].err) == (victim == 1)
    assert outcomes[1].err == ""
    # The same command goes on, in one process too.
    done = longvie(*GUIDED, "-o", "out.mp4")
    assert done.code == 0 and "1 of 2 clips are there already" in done.err


def to_go_on(err: str) -> list[str]:
    """Return the command that a stopped run says it goes on by, word by word."""
    (line,) = [line for line in err.splitlines() if "To go on: " in line]
    return shlex.split(line.partition("To go on: ")[2])


@pytest.mark.parametrize(
    ("arguments", "evaluation", "said"),
    [
        # In the first clip; before there is a run.
        (GUIDED, 5, ("resume", "out.longvie")),
        pytest.param(
            (*GUIDED, "--overwrite"),
            1,
            (*GUIDED, "--overwrite", "-o", "out.mp4"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_stopped_it_says_the_command_of_all_processes(
    tmp_path: Path, arguments: tuple[str, ...], evaluation: int, said: tuple[str, ...]
) -> None:
    def is_stopped(rank: int) -> None:
        if rank == 0:
            before_evaluation(evaluation, lambda: os.kill(os.getpid(), signal.SIGTERM))

    outcomes = forked(2, tmp_path, *arguments, "-o", "out.mp4", prepare=is_stopped)
    assert [outcome.code for outcome in outcomes] == [143, 75], outcomes
    words = to_go_on(outcomes[0].err)
    assert words[:5] == ["torchrun", "--nproc-per-node", "2", "-m", "longvie_cli"]
    assert words[5:] == [*said]
    assert [outcome.code for outcome in forked(2, tmp_path, *words[5:])] == [0, 0]
    assert (tmp_path / "out.mp4").exists()


def test_processes_on_several_machines_are_started_on_each() -> None:
    words = Place(rank=9, count=16, local_rank=1, local_count=8).launcher
    assert words[:5] == ["torchrun", "--nproc-per-node", "8", "--nnodes", "2"]
    assert Place().launcher == ["longvie"]


def test_where_one_of_two_trainers_dies_the_other_ends(longvie, tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text(TRAINING)
    train = ("train", "control", "--config", "toy.yaml", "-o", "run")

    def dies(rank: int) -> None:
        if rank:
            before_evaluation(3, lambda: os._exit(9))

    outcomes = forked(2, tmp_path, *train, prepare=dies)
    assert [outcome.code for outcome in outcomes] == [75, 9], outcomes
    assert "Another process of this run has ended" in outcomes[0].err
    # Another number of processes goes on with it.
    done = longvie(*train)
    assert done.code == 0, done.err
    assert len((tmp_path / "run" / "losses.jsonl").read_text().splitlines()) == 4


@pytest.mark.slow
def test_torchrun(longvie, tmp_path: Path) -> None:
    """The installed command under the real launcher, and its end with SIGTERM."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = [*launcher, "--standalone", "-m", "longvie_cli"]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )

    assert longvie(*GUIDED, "-o", "one.mp4").code == 0
    done = run(*GUIDED, "--json", "-o", "two.mp4")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["output"] == "two.mp4"
    assert_alike(tmp_path, "two", "one", within=0)
    refused = run("stitch", "one.mp4", "two.mp4", "-o", "both.mp4")
    assert refused.returncode != 0 and refused.stderr.count("would do all of this command") == 1
    assert not (tmp_path / "both.mp4").exists()
    longer = (*GUIDED[:4], "9", *GUIDED[5:], "-o", "long.mp4")
    with subprocess.Popen(
        [*command, *longer], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as started:
        clips = tmp_path / "long.longvie" / "clips"
        while started.poll() is None and not list(clips.glob("*.json")):
            time.sleep(0.1)
        started.send_signal(signal.SIGTERM)
        _, err = started.communicate(timeout=60)
    assert started.returncode != 0 and not (tmp_path / "long.mp4").exists()
    assert to_go_on(err)[1:] == [*command[3:5], "-m", "longvie_cli", "resume", "long.longvie"]
