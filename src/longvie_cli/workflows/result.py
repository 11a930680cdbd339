"""What a command did: the facts of its one line on stdout or its JSON object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class JobResult:
    """The outcome of one command.

    Args:
        status: `done`; `skipped`, the output was there (--no-clobber); `planned`, a dry run.
        output: The file or folder that was asked for.
        run_dir: Run folder, for commands that have one.
        frames: Frames of the output.
        seconds: Length of the output, in seconds of video.
        seed: Seed of the run.
        plan: What a dry run found out, as JSON values.
    """

    status: Literal["done", "skipped", "planned"]
    output: Path
    run_dir: Path | None = None
    frames: int | None = None
    seconds: float | None = None
    seed: int | None = None
    plan: Mapping[str, Any] | None = None
