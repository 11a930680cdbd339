"""Engines in turns, each in a process of its own: A B A B, so that a slow minute meets all."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from longvie_cli import errors
from longvie_cli.benchmarking.engine_run import ClipTimes, Task


def measure_in_turns(
    tasks: Sequence[Task], repeats: int, on_clip: Callable[[str], None]
) -> dict[str, list[ClipTimes]]:
    """Return what each engine took for each of its clips, by the engine's name.

    Args:
        tasks: One an engine.
        repeats: Clips of each.
        on_clip: Called with the engine's name after each clip.

    Raises:
        LongVieError: An engine cannot be run.
    """
    times: dict[str, list[ClipTimes]] = {task.engine: [] for task in tasks}
    with _all_of(tasks) as workers:
        for _ in range(repeats):
            for name, worker in workers.items():
                times[name].append(ClipTimes.model_validate(worker("measure")))
                # What fits a GPU alone need not fit it twice.
                if len(tasks) > 1 and tasks[0].sampling.device != "cpu":
                    worker("release")
                on_clip(name)
    return times


@contextmanager
def _all_of(tasks: Sequence[Task]) -> Iterator[Mapping[str, Callable[[str], dict[str, Any]]]]:
    command = [sys.executable, "-m", "longvie_cli.benchmarking.worker"]
    started: list[subprocess.Popen[str]] = []
    try:
        workers = {}
        for task in tasks:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            started.append(process)
            ask = _asker(task.engine, process)
            ask(task.model_dump_json())
            workers[task.engine] = ask
        yield workers
    finally:
        for process in started:
            process.kill()
            process.communicate()


def _asker(engine: str, process: subprocess.Popen[str]) -> Callable[[str], dict[str, Any]]:
    assert process.stdin is not None and process.stdout is not None
    questions, answers = process.stdin, process.stdout

    def ask(line: str) -> dict[str, Any]:
        try:
            print(line, file=questions, flush=True)
            said = answers.readline()
        except BrokenPipeError:
            said = ""
        if not said:
            raise errors.LongVieError(
                f"engine {engine}: its process ended with {process.wait()}.",
                hint="What it said stands above; with too little memory the system ends it.",
            )
        fields = json.loads(said)
        assert isinstance(fields, dict)
        if (error := fields.get("error")) is not None:
            kind: type[errors.LongVieError] = getattr(errors, error["kind"])
            raise kind(f"engine {engine}: {error['message']}", hint=error["hint"])
        return fields

    return ask
