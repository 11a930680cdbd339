"""Everything the command prints: one result on stdout, the rest on stderr.

The one door to the terminal: every line goes through `printable` here, so that nothing that was
brought (prompts, names, what tools and libraries say) steers it or looks like a line of ours.
"""

from __future__ import annotations

import errno
import logging
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as RichProgress

from longvie_cli.cli.signals import raise_again
from longvie_cli.disk.documents import json_line
from longvie_cli.errors import (
    LongVieError,
    OtherProcessEnded,
    ResumableError,
    StoppedBySignal,
)
from longvie_cli.progress import duration, printable

if TYPE_CHECKING:
    from longvie_cli.result import CommandResult

# Stages inside a clip: drawn as a bar on a terminal, never as lines of their own.
INNER_STAGES = {"steps", "controls"}
PLAIN_LINE_INTERVAL_SECONDS = 30.0
# A pipe whose other end is closed, a terminal that was.
_READER_LEFT = (errno.EPIPE, errno.EIO)


class Stage:
    """How far one stage is, and the time its units took in this process."""

    def __init__(self, total: int, done: int) -> None:
        self.total = total
        self.done = done
        self.said_at = self.moved_at = time.monotonic()
        self.unit_seconds: list[float] = []
        self.task: TaskID | None = None

    def advance(self, amount: int) -> None:
        now = time.monotonic()
        self.unit_seconds.append((now - self.moved_at) / max(1, amount))
        self.moved_at = now
        self.done += amount

    def remaining(self) -> str:
        """Return the time left from the median unit so far (the first one also warms up)."""
        measured = self.unit_seconds[1:] or self.unit_seconds
        left = self.total - self.done
        if not measured or left <= 0:
            return ""
        return f"about {duration(statistics.median(measured) * left)} left"


class ShownRecord(logging.LogRecord):
    """A log record whose message is one printable line, whatever library's handler shows it."""

    def getMessage(self) -> str:
        return printable(super().getMessage())


class Console:
    """Reports progress and results; one for the whole process.

    Args:
        json_result: Print the result as a JSON object.
        quiet: Keep back everything but warnings and errors.
    """

    def __init__(self, *, json_result: bool, quiet: bool) -> None:
        self.json_result = json_result
        self.quiet = quiet
        # Of processes that work together, the first one speaks.
        self.speaks = True
        self._name = "longvie"
        self._fails_alike = False
        self.warnings: list[str] = []
        self._stages: dict[str, Stage] = {}
        self._stderr = RichConsole(stderr=True, highlight=False, markup=False, emoji=False)
        self._bars: RichProgress | None = None
        self._result_descriptor: int | None = None

    def follow(self, rank: int) -> None:
        """Leave everything but failures of its own to the first process of the same job."""
        self.quiet, self.speaks = True, False
        self._name = f"longvie, process {rank}"
        self._fails_alike = True

    def begin_own_part(self) -> None:
        """Say failures from now on: until here all processes have done the same."""
        self._fails_alike = False

    def is_said_elsewhere(self, error: LongVieError) -> bool:
        """Return whether another process of the job says a failure of this one."""
        spread = isinstance(error, OtherProcessEnded | StoppedBySignal)
        return not self.speaks and (spread or self._fails_alike)

    @contextmanager
    def only_results_on_stdout(self) -> Iterator[None]:
        """Send to stderr whatever else this process and its children write to stdout."""
        sys.stdout.flush()
        saved = os.dup(1)
        os.dup2(2, 1)
        self._result_descriptor = saved
        try:
            yield
        finally:
            self._stop_bars()
            sys.stdout.flush()
            os.dup2(saved, 1)
            os.close(saved)
            self._result_descriptor = None

    def result(self, result: CommandResult | None, fields: Mapping[str, Any]) -> None:
        """Print the result: its lines, or with --json the object made of these fields.

        Paths are handed on byte by byte to programs, and shown as all else on a terminal, as `ls`
        does it.

        Raises:
            ResumableError: stdout takes nothing, as a file on a full disk does.
        """
        self._stop_bars()
        if not self.speaks:
            return
        descriptor = 1 if self._result_descriptor is None else self._result_descriptor
        lines = () if result is None else result.lines
        if self.json_result:
            lines = [json_line(fields)]
        elif result is None or not result.paths or os.isatty(descriptor):
            lines = [printable(line) for line in lines]
        data = "".join(f"{line}\n" for line in lines or [""]).encode(errors="surrogateescape")
        try:
            os.write(descriptor, data)
        except OSError as error:
            if error.errno in _READER_LEFT:
                return  # The work is done and saved all the same.
            raise ResumableError(
                f"standard output: the result cannot be written ({error.strerror}).",
                hint="All is made and saved; only this line is missing.",
            ) from error

    @contextmanager
    def redrawn(self) -> Iterator[Callable[[Sequence[str]], None]]:
        """Give a function that shows lines in place of those before, on a terminal.

        Elsewhere it says the first line whenever that has changed.
        """
        if self._draws_bars():
            from rich.live import Live

            with Live(console=self._stderr, auto_refresh=False, transient=True) as live:
                yield lambda lines: live.update("\n".join(map(printable, lines)), refresh=True)
            return
        said = ""

        def say(lines: Sequence[str]) -> None:
            nonlocal said
            line = lines[0]
            if line != said and not self.quiet:
                self._line(line)
            said = line

        yield say

    def error(self, error: LongVieError, *, debug: bool) -> None:
        """Say what went wrong and what to do about it."""
        self._stop_bars()
        if self.is_said_elsewhere(error):
            return
        if debug:
            for part in traceback.format_exception(error):
                first, *more = part.rstrip().splitlines() or [""]
                self._line(first)
                for line in more:
                    # What an exception says in several lines, as those of ours never begin.
                    self._line(f"    {line}")
        self._line(f"{self._name}: {error.message}")
        if error.hint:
            self._line(f"  {error.hint}")

    def message(self, text: str) -> None:
        if not self.quiet:
            self._line(text)

    def note(self, text: str) -> None:
        """Say one line of what happens to something of the user's; it is in the JSON result too."""
        self.warnings.append(text)
        self.message(text)

    def warning(self, text: str) -> None:
        self.warnings.append(text)
        if self.speaks:
            self._line(f"warning: {text}")

    def start(self, stage: str, total: int, *, done: int = 0) -> None:
        state = self._stages[stage] = Stage(total, done)
        if self.quiet:
            return
        if self._draws_bars():
            if self._bars is None:
                self._bars = RichProgress(
                    TextColumn("{task.description}", markup=False),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TimeElapsedColumn(),
                    TextColumn("{task.fields[detail]}", markup=False),
                    console=self._stderr,
                    transient=True,
                )
                self._bars.start()
            shown = printable(stage)
            state.task = self._bars.add_task(shown, total=total or None, completed=done, detail="")
        elif stage not in INNER_STAGES and stage != "clips":
            self._line(f"{stage}: {total}" + (f", {done} done before" if done else ""))

    def advance(self, stage: str, amount: int = 1, *, detail: str = "") -> None:
        raise_again()
        state = self._stages.get(stage)
        if state is None:
            return
        state.advance(amount)
        if self.quiet:
            return
        if state.task is not None and self._bars is not None:
            note = " ".join(part for part in (printable(detail), state.remaining()) if part)
            self._bars.update(state.task, completed=state.done, detail=note)
            return
        due = time.monotonic() - state.said_at >= PLAIN_LINE_INTERVAL_SECONDS
        if stage == "clips" or (due and stage not in INNER_STAGES):
            state.said_at = time.monotonic()
            parts = [f"{stage} {state.done}/{state.total}", detail, state.remaining()]
            self._line(", ".join(part for part in parts if part))

    def finish(self, stage: str) -> None:
        state = self._stages.pop(stage, None)
        if state is not None and state.task is not None and self._bars is not None:
            self._bars.remove_task(state.task)
        if not self._stages:
            self._stop_bars()

    def _draws_bars(self) -> bool:
        return self._stderr.is_terminal and not self.json_result

    def _stop_bars(self) -> None:
        bars, self._bars = self._bars, None
        if bars is not None:
            with suppress(OSError):
                bars.stop()

    def _line(self, text: str) -> None:
        text = printable(text)
        # A reader that left, a terminal that was closed, a log on a full disk: none ends a run.
        with suppress(OSError):
            if self._bars is not None:
                self._bars.console.print(text, soft_wrap=True)
            else:
                print(text, file=sys.stderr, flush=True)
