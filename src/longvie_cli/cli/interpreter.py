"""The Python that the command runs in."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def keep_docstrings() -> None:
    """Start this process anew with `-O` where `-OO` or PYTHONOPTIMIZE=2 strips docstrings.

    transformers reads those of its own classes while it is imported, and fails without; help texts
    are docstrings too. It stays the same process for whoever started it.
    """
    if sys.flags.optimize < 2:
        return
    environment = os.environ | {"PYTHONOPTIMIZE": "1"}
    command = [sys.executable, *_without_optimizing(sys.orig_argv[1:])]
    os.execve(sys.executable, command, environment)


def let_threads_sleep() -> None:
    """Let threads of torch sleep while they wait for each other; to be called before its import.

    They spin otherwise, each on a core that the thread they wait for may need: beside one other
    busy process a clip of `tiny` on two cores took 72 to 116 s instead of 7 to 15
    (docs/benchmarks.md). What the user has set stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _without_optimizing(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of an interpreter without its own `-O`."""
    kept: list[str] = []
    for place, argument in enumerate(arguments):
        if kept and kept[-1] in ("-X", "-W"):
            kept.append(argument)
            continue
        if not argument.startswith("-") or argument.startswith("--"):
            return [*kept, *arguments[place:]]
        options = argument if argument[1:2] in ("X", "W") else argument.replace("O", "")
        if options != "-":
            kept.append(options)
        if options[-1:] in ("m", "c"):
            return [*kept, *arguments[place + 1 :]]
    return kept
