"""`longvie models` against a hub on this machine: streams, exit codes, stopping and going on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from delivered import contents
from hub_server import HubServer, Repository, serve_hub
from longvie_cli.hub.registry import REGISTRY, entry_named

DEPTH = entry_named("depth-anything-v2-small")
CONTROLS = entry_named("longvie2-controls")
SMALL_BYTES = 20_000

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Every model of the registry, by its real name and commit, with small random files."""
    random_bytes = random.Random(1).randbytes
    with serve_hub() as hub:
        for known in REGISTRY:
            commit = known.revision if known.pinned else "ab" * 20
            names = (*known.required, "README.md", "scheduler/scheduler_config.json")
            hub.repositories[known.repo] = Repository(
                commit, {name: random_bytes(SMALL_BYTES) for name in names}
            )
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        yield hub


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run the command as a process of its own: the hub's library reads its variables only once."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "longvie_cli", *arguments],
            cwd=tmp_path,
            env=os.environ | variables,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    return run


def fields_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    (line,) = done.stdout.splitlines()
    fields = json.loads(line)
    assert isinstance(fields, dict)
    return fields


@pytest.mark.slow
def test_list_is_a_table_or_one_object(run: Run) -> None:
    done = run("models", "list")
    assert (done.returncode, done.stderr) == (0, "")
    assert "tiny      embedded" in done.stdout
    for known in REGISTRY:
        assert known.name in done.stdout and known.licence in done.stdout
    fields = fields_of(run("models", "list", "--json"))
    assert (fields["schema_version"], fields["status"], fields["warnings"]) == (1, "done", [])
    by_name = {model["name"]: model for model in fields["models"]}
    assert by_name[DEPTH.name]["presets"] == ["longvie2"]
    assert by_name[DEPTH.name]["commit"] == DEPTH.revision
    assert by_name[CONTROLS.name]["commit"] is None
    assert by_name["cotracker3"]["noncommercial"] is True
    assert by_name[CONTROLS.name]["missing"] == ["control.safetensors", "dit.safetensors"]


def test_listing_loads_no_torch_and_is_quick() -> None:
    code = (
        "import sys\n"
        "from longvie_cli.cli.app import main\n"
        "try: main(['models', 'list'])\n"
        "finally: print([m for m in ('torch', 'numpy', 'diffusers') if m in sys.modules],"
        " file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_pull_prints_the_folder_and_path_finds_it_again(server: HubServer, run: Run) -> None:
    done = run("models", "pull", DEPTH.name)
    assert done.returncode == 0, done.stderr
    (folder,) = map(Path, done.stdout.splitlines())
    assert sorted(path.name for path in folder.iterdir()) == sorted(DEPTH.required)
    assert f"{DEPTH.repo}, licence Apache-2.0" in done.stderr
    assert [name for name, _ in server.requests] == list(DEPTH.required)

    asked = server.asked
    assert run("models", "path", DEPTH.name).stdout == done.stdout
    checked = run("models", "verify")
    assert (checked.returncode, checked.stdout) == (0, f"{DEPTH.name}: 3 files, 60.0 kB, intact\n")
    assert run("models", "pull", DEPTH.name, "--offline").stdout == done.stdout
    assert server.asked == asked


@pytest.mark.slow
def test_a_preset_stands_for_its_models(server: HubServer, run: Run) -> None:
    done = run("models", "pull", "longvie2", "tiny", "--json")
    assert done.returncode == 0, done.stderr
    fields = fields_of(done)
    assert list(fields["paths"]) == [
        "tiny",
        "wan2.1-i2v-14b-480p",
        "longvie2-controls",
        "depth-anything-v2-small",
    ]
    unused = ("README.md", "scheduler/scheduler_config.json")
    assert not {name for name, _ in server.requests}.intersection(unused)
    listed = fields_of(run("models", "list", "--json"))
    assert {preset["name"]: preset["state"] for preset in listed["presets"]} == {
        "tiny": "embedded",
        "longvie2": "here",
    }
    # Of the model that is pinned to a branch, the commit is now known.
    commits = {model["name"]: model["commit"] for model in listed["models"]}
    assert commits[CONTROLS.name] == "ab" * 20


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGKILL, -signal.SIGKILL),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
    ],
)
def test_a_killed_pull_goes_on_where_it_was(
    server: HubServer,
    run: Run,
    start_longvie: Callable[..., subprocess.Popen[str]],
    number: signal.Signals,
    code: int,
) -> None:
    name, size = "control.safetensors", 1_000_000
    server.repositories[CONTROLS.repo].files[name] = random.Random(2).randbytes(size)
    server.seconds_a_block = 0.05
    process = start_longvie("models", "pull", CONTROLS.name)
    while server.sent.get(name, 0) < 200_000:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate()
    assert (process.returncode, out) == (code, "")
    if number == signal.SIGTERM:
        assert f"To go on: longvie models pull {CONTROLS.name}" in err
    status = run("models", "path", CONTROLS.name)
    assert (status.returncode, status.stdout) == (3, "")
    assert "control.safetensors" in status.stderr

    server.seconds_a_block = 0.0
    server.requests.clear()
    done = run("models", "pull", CONTROLS.name)
    assert done.returncode == 0, done.stderr
    (first_byte,) = [start for path, start in server.requests if path == name]
    # What was on its way when the process died is all that comes twice.
    assert 100_000 < first_byte < size
    data = (Path(done.stdout.strip()) / name).read_bytes()
    assert data == server.repositories[CONTROLS.repo].files[name]


@pytest.mark.slow
def test_verify_names_what_is_damaged_and_the_command_that_mends_it(
    server: HubServer, run: Run
) -> None:
    folder = Path(run("models", "pull", DEPTH.name).stdout.strip())
    blob = (folder / "model.safetensors").resolve()
    blob.write_bytes(bytes(SMALL_BYTES))
    done = run("models", "verify", "--json")
    assert done.returncode == 3
    error = fields_of(done)["error"]
    assert error["message"] == f"{DEPTH.name}: damaged: model.safetensors."
    assert error["hint"] == f"longvie models pull {DEPTH.name}"
    server.requests.clear()
    assert run("models", "pull", DEPTH.name).returncode == 0
    assert server.requests == [("model.safetensors", 0)]
    assert run("models", "verify", DEPTH.name).returncode == 0


@pytest.mark.slow
def test_noncommercial_models_need_one_yes(server: HubServer, run: Run, tmp_path: Path) -> None:
    done = run("models", "pull", "cotracker3")
    assert (done.returncode, done.stdout, server.asked) == (3, "", 0)
    assert "licence CC-BY-NC-4.0" in done.stderr
    assert "longvie models pull cotracker3 --accept-noncommercial" in done.stderr
    assert run("models", "pull", "cotracker3", "--accept-noncommercial").returncode == 0
    large = "depth-anything-v2-large"
    assert run("models", "pull", large).returncode == 3
    assert run("models", "pull", large, LONGVIE_ACCEPT_NONCOMMERCIAL="1").returncode == 0
    # Remembered, for that model.
    assert run("models", "pull", large).returncode == 0
    (tmp_path / "longvie.yaml").write_text("accept_noncommercial: true\n")
    assert run("models", "pull", "depth-anything-v2-base").returncode == 0


@pytest.mark.parametrize("how", ["flag", "variable", "settings"])
def test_offline_touches_nothing_and_lists_what_is_missing(
    server: HubServer, run: Run, tmp_path: Path, how: str
) -> None:
    if how == "settings":
        (tmp_path / "longvie.yaml").write_text("offline: true\n")
    done = run(
        "models",
        "pull",
        CONTROLS.name,
        *(["--offline"] if how == "flag" else []),
        HF_HUB_OFFLINE="1" if how == "variable" else "0",
    )
    assert (done.returncode, done.stdout, server.asked) == (3, "", 0)
    assert "(control.safetensors, dit.safetensors)" in done.stderr
    assert f"longvie models pull {CONTROLS.name}" in done.stderr


def test_an_unknown_name_is_a_usage_error_with_a_suggestion(longvie) -> None:
    outcome = longvie("models", "pull", "longvie")
    assert (outcome.code, outcome.out) == (2, "")
    assert "Did you mean 'longvie2'?" in outcome.err
    assert longvie("models", "convert", "nowhere", "-o", "out").code == 2
    assert longvie("models", "pull").code == 2


def test_generate_without_weights_ends_before_it_begins(longvie, tmp_path: Path) -> None:
    outcome = longvie("generate", "--preset", "longvie2", "-p", "hills", "-o", "o.mp4")
    assert (outcome.code, outcome.out) == (3, "")
    assert "dit.safetensors" in outcome.err
    assert "  longvie models pull longvie2\n" in outcome.err
    assert contents(tmp_path) == {}


def test_extract_controls_asks_for_the_depth_model_alone(
    longvie, tmp_path: Path, reference_video: Path
) -> None:
    outcome = longvie("extract-controls", reference_video, "--preset", "longvie2", "-o", "c")
    assert (outcome.code, outcome.out) == (3, "")
    assert f"longvie models pull {DEPTH.name}" in outcome.err
    assert "wan2.1" not in outcome.err


@pytest.mark.slow
def test_a_dry_run_says_which_weights_are_here(server: HubServer, run: Run, tmp_path: Path) -> None:
    assert run("models", "pull", DEPTH.name).returncode == 0
    plan = ("generate", "--preset", "longvie2", "-p", "hills", "--dry-run", "--json", "-o", "o.mp4")
    done = run(*plan, "--offline")
    assert done.returncode == 0, done.stderr
    fields = fields_of(done)
    weights = {model["name"]: model for model in fields["plan"]["weights"]}
    assert weights[DEPTH.name]["state"] == "here"
    assert weights[DEPTH.name]["bytes"] == 3 * SMALL_BYTES
    assert weights[CONTROLS.name]["missing_bytes"] == CONTROLS.approximate_bytes
    assert any("longvie models pull longvie2" in warning for warning in fields["warnings"])
    assert contents(tmp_path) == {}
