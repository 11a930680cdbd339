"""The protocol through which the library reports how far it is, and how things are written in it.

The CLI draws it.
"""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Iterable
from typing import Protocol

# What steers a terminal, breaks a line, turns the direction of writing or is no character at all.
_UNSHOWN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# Two of them that emoji and several scripts are written with.
_JOINERS = "\u200c\u200d"


def printable(text: str) -> str:
    r"""Return a text on one line, with everything that is not shown as itself escaped as `\x1b`.

    Whatever was brought (prompts, file names, what tools say) can then be put on a terminal, in a
    log or in a page: it cannot steer one, nor look like a line of ours.
    """
    if text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if unicodedata.category(character) not in _UNSHOWN or character in _JOINERS:
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"  # A byte of a file name that is no UTF-8.
    return character.encode("unicode_escape", "backslashreplace").decode()


def command_line(words: Iterable[object]) -> str:
    """Return a command that can be read on a terminal and typed into a shell as it stands there."""
    return " ".join(_typed(str(word)) for word in words)


def _typed(word: str) -> str:
    if printable(word) == word:
        return shlex.quote(word)
    escaped = "".join(
        character
        if printable(character) == character and character not in "\\'"
        else "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
        for character in word
    )
    return f"$'{escaped}'"


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
