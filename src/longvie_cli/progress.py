"""The protocol through which the library reports how far it is; the CLI draws it."""

from __future__ import annotations

from typing import Protocol


def duration(seconds: float) -> str:
    """Return a time as people say it: `40 s`, `12 min`, `7.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


class Progress(Protocol):
    """Receives progress. Implementations never raise and never write to stdout."""

    def message(self, text: str) -> None:
        """Say one line: where the work stands, a decision of its own."""

    def note(self, text: str) -> None:
        """Say one line of what is changed, dropped or guessed of what the user brought.

        It also ends up in `warnings` of the JSON result.
        """

    def warning(self, text: str) -> None:
        """Say one line that the user should act on; it also ends up in the JSON result."""

    def start(self, stage: str, total: int, *, done: int = 0) -> None:
        """Begin a stage (`depth`, `tracks`, `clips` ...) of `total` units, `done` of them done."""

    def advance(self, stage: str, amount: int = 1, *, detail: str = "") -> None:
        """Move a stage on by `amount` units."""

    def finish(self, stage: str) -> None:
        """End a stage."""


class SilentProgress:
    """Reports nothing."""

    def message(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...

    def warning(self, text: str) -> None: ...

    def start(self, stage: str, total: int, *, done: int = 0) -> None: ...

    def advance(self, stage: str, amount: int = 1, *, detail: str = "") -> None: ...

    def finish(self, stage: str) -> None: ...
