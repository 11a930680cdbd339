"""Help and version: quick, complete, without torch."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer

import longvie_cli
from longvie_cli.cli import (
    evaluate,
    extend,
    extract_controls,
    generate,
    models,
    options,
    prepare,
    runs,
    stitch,
)
from longvie_cli.cli.app import app
from longvie_cli.cli.command import Command

MODELS = tuple(f"models {name}" for name in ("list", "pull", "verify", "path", "convert"))
RUNS = ("redo", "resume", "status")
COMMANDS = (
    "generate",
    "extend",
    "stitch",
    *RUNS,
    "extract-controls",
    "evaluate",
    "prepare",
    "train",
    "bench",
    "doctor",
    *MODELS,
)
# What takes long to import; the last two longer than all the rest of a help together.
HEAVY = ("torch", "transformers", "diffusers", "cv2", "numpy", "PIL", "yaml", "pydantic", "rich")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import json, sys\n"
        "from longvie_cli.cli.app import main\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    try: main([*words, '--help'])\n"
        "    except SystemExit as end: assert end.code == 0, words\n"
        f"    assert not [m for m in {HEAVY!r} if m in sys.modules], (words, list(sys.modules))\n"
    )
    commands = [[], ["models"], *(name.split() for name in COMMANDS)]
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: longvie") == len(commands)


def test_help_answers_in_half_a_second() -> None:
    # Processor time, not the clock: the claim is about the work, not about what else runs here.
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "longvie_cli", "generate", "--help"],
            capture_output=True,
            check=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(seconds) < 0.5


def test_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, longvie_cli; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    assert all(getattr(longvie_cli, name) is not None for name in longvie_cli.__all__)
    assert not hasattr(longvie_cli, "nothing_of_this_name")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_examples_and_exit_codes(longvie, command: str) -> None:
    outcome = longvie(*command.split(), "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert longvie(*command.split(), "-h") == outcome
    assert f"longvie {command}" in outcome.out
    for words in ("Examples", "Exit codes", "75 stopped", "143 SIGTERM"):
        assert words in " ".join(outcome.out.split())


@pytest.mark.parametrize("command", [(), ("models",), *(tuple(name.split()) for name in COMMANDS)])
def test_every_command_tells_the_version(longvie, command: tuple[str, ...]) -> None:
    outcome = longvie(*command, "--version")
    assert (outcome.code, outcome.out) == (0, f"longvie {longvie_cli.__version__}\n")


@pytest.mark.parametrize("spelling", ["-V", "--version", "version"])
def test_the_version_is_asked_for_in_any_way(longvie, spelling: str) -> None:
    assert longvie(spelling).out == f"longvie {longvie_cli.__version__}\n"


def test_help_is_a_command_too(longvie) -> None:
    assert longvie("help").out == longvie("--help").out == longvie().out
    assert longvie("help", "generate").out == longvie("generate", "--help").out
    assert longvie("help", "models", "pull").out == longvie("models", "pull", "--help").out
    assert longvie("models").out == longvie("models", "--help").out
    unknown = longvie("help", "models", "pul")
    assert (unknown.code, unknown.out) == (2, "")
    assert "Did you mean 'pull'?" in unknown.err
    assert "has no commands of its own" in longvie("help", "stitch", "more").err


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, (*path, name))


ALL = dict(_commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", ALL)
def test_every_text_of_a_help_comes_out_whole(
    longvie, monkeypatch: pytest.MonkeyPatch, path: tuple[str, ...]
) -> None:
    command = ALL[path]
    texts = [command.help, command.epilog, *(parameter.help for parameter in command.params)]
    flags = [each for each in command.params if each.param_type_name == "option"]
    names = [name for flag in flags for name in (*flag.opts, *flag.secondary_opts)]
    for columns in ("60", "80", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        shown = " ".join(longvie(*path, "--help").out.split())
        for text in (*texts, *names):
            assert " ".join((text or "").split()) in shown
        assert "\x1b" not in shown


def test_markup_is_no_markup(longvie) -> None:
    shown = " ".join(longvie("generate", "--help").out.split())
    assert "lines `[0s-20s] text` or `[clip 0-3] text`, or YAML." in shown


def test_the_longest_help_fits_a_few_screens(longvie, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = longvie("generate", "--help").out.splitlines()
    assert len(lines) <= 160
    # Only examples are longer than the terminal is wide: they are there to be copied.
    assert all(len(line) <= 80 for line in lines if not line.startswith("  longvie "))


def test_what_most_people_need_stands_first(longvie) -> None:
    lines = longvie("generate", "--help").out.splitlines()
    headings = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert headings == [
        *("Most used:", "Input:", "Length:", "Look:", "Model:", "Output:", "Machine:"),
        *("Console:", "Examples:"),
    ]
    first = lines[lines.index("Most used:") + 1 : lines.index("Input:") - 1]
    flags = [line.split("--")[1].split()[0] for line in first if line.startswith("  -")]
    assert [flag.replace("-", "_") for flag in flags] == list(options.MOST_USED)


WHOLE = (
    *(generate.generate, extend.extend, extract_controls.extract_controls, stitch.stitch),
    *(prepare.prepare, evaluate.evaluate, runs.redo, runs.resume, models.pull, models.convert),
)


@pytest.mark.parametrize("command", WHOLE, ids=lambda command: command.work.__name__)
def test_a_command_has_a_flag_for_every_field_of_its_request(command: Command) -> None:
    fields = command.request_model().model_fields
    wanted = {field.alias or name for name, field in fields.items()}
    if "prompts" in wanted:
        wanted = wanted - {"prompts"} | {"prompt_file"}
    console = {"config", "json", "quiet", "verbose", "debug", "version"}
    # What a call does beside its job is no setting of it.
    beside = {"dry_run"} | ({"report"} if command.work.__name__ == "generate" else set())
    assert set(command.flags()) - beside == wanted | console


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("generate --preset ", {"tiny", "longvie2"}),
        ("generate --preset l", {"longvie2"}),
        ("extend a.mp4 --depth-model ", {"embedded", "small", "base", "large"}),
        ("extract-controls --tracker co", {"cotracker3", "cotracker3-online"}),
        ("generate --at-cut ", {"refuse", "restart", "ignore"}),
        ("generate --audio s", {"source"}),
        ("generate --device cu", {"cuda"}),
        ("models pull cot", {"cotracker3"}),
        ("models pull longvie2 ti", {"tiny"}),
        ("gener", {"generate"}),
        ("models ver", {"verify"}),
        ("generate --prompt-", {"--prompt-file"}),
    ],
)
def test_a_shell_completes_values(
    longvie, monkeypatch: pytest.MonkeyPatch, words: str, offered: set[str]
) -> None:
    line = ["longvie", *words.split(" ")]
    monkeypatch.setenv("_LONGVIE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", " ".join(line))
    monkeypatch.setenv("COMP_CWORD", str(len(line) - 1))
    assert set(longvie().out.split()) == offered


def test_a_shell_is_told_what_a_flag_does_in_one_line(
    longvie, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_LONGVIE_COMPLETE", "complete_fish")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "longvie generate --")
    offered = [line.split("\t") for line in longvie().out.splitlines()]
    assert all(len(parts) == 2 and parts[0].startswith("--") for parts in offered)
    assert dict(offered)["--prompt-file"].endswith("lines `(0s-20s) text` or `(clip 0-3)...")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["genrate"], "Did you mean 'generate'?"),
        (["models", "lst"], "Did you mean 'list'?"),
        (["generate", "--promt", "x"], "--promt: there is no such flag.\n  Did you mean --prompt?"),
        (["generate", "--fit", "crp", "-o", "a.mp4"], "Did you mean crop?"),
        (["generate", "--steps", "two", "-o", "a.mp4"], "--steps: 'two' should be a valid integer"),
        (["generate", "--preset", "tniy", "-o", "a.mp4"], "Did you mean 'tiny'?"),
        (["--json", "generate"], "Flags follow the command: `longvie COMMAND --json`."),
        (["generate", "-p", "snowy", "hills", "-o", "a.mp4"], "Put quotes around a text"),
        (["generate", "-p", "x"], "`longvie generate --help` says what it takes."),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(longvie, arguments: list[str], words: str) -> None:
    outcome = longvie(*arguments)
    assert outcome.code == 2
    assert words in outcome.err


def test_a_reader_that_leaves_is_no_failure() -> None:
    command = f"{sys.executable} -m longvie_cli generate --help | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr
