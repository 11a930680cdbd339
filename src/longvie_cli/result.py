"""What a command did: the facts of its one line on stdout or its JSON object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol


class CommandResult(Protocol):
    """What every command hands to the command line."""

    @property
    def lines(self) -> Sequence[str]:
        """The result on stdout."""

    @property
    def exit_code(self) -> int:
        """What the command ends with."""

    @property
    def paths(self) -> bool:
        """Whether the lines are paths, which programs read, and not words for people."""

    def facts(self) -> dict[str, Any]:
        """The result as JSON values, for --json; `status` is one of them."""


@dataclass(frozen=True)
class JobResult:
    """The outcome of one command.

    Args:
        status: `done`; `skipped`, the output was there (--no-clobber); `planned`, a dry run;
            `helped`, the first process of torchrun did it.
        output: The file or folder that was asked for.
        run_dir: Run folder, for commands that have one.
        frames: Frames of the output.
        seconds: Length of the output, in seconds of video.
        seed: Seed of the run.
        plan: What a dry run found out, as JSON values.
        report: The page that was written of it, where one was asked for.
    """

    status: Literal["done", "skipped", "planned", "helped"]
    output: Path
    run_dir: Path | None = None
    frames: int | None = None
    seconds: float | None = None
    seed: int | None = None
    plan: Mapping[str, Any] | None = None
    report: Path | None = None

    @property
    def exit_code(self) -> int:
        """Always 0: what failed is an error."""
        return 0

    @property
    def lines(self) -> tuple[str]:
        """The path of the output."""
        return (str(self.output),)

    @property
    def paths(self) -> bool:
        """That is a path."""
        return True

    def facts(self) -> dict[str, Any]:
        """Return the fields of the JSON object that this result decides."""
        facts: dict[str, Any] = {
            "status": self.status,
            "output": str(self.output),
            "run_dir": str(self.run_dir) if self.run_dir is not None else None,
            "frames": self.frames,
            "seconds": self.seconds,
            "seed": self.seed,
        }
        if self.plan is not None:
            facts["plan"] = dict(self.plan)
        if self.report is not None:
            facts["report"] = str(self.report)
        return facts


@dataclass(frozen=True)
class PrepareResult(JobResult):
    """The outcome of `prepare`; `frames` and `seconds` are those of all clips, without history.

    Args:
        samples: Clips that are in the output, or of a dry run would be.
        dropped: How often something was left out for each reason.
    """

    samples: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """Return the fields of the JSON object that this result decides."""
        return super().facts() | {"samples": self.samples, "dropped": dict(self.dropped)}


@dataclass(frozen=True)
class TrainResult:
    """The outcome of `train`.

    Args:
        status: `planned`: a dry run.
        stage: What was trained.
        steps: Optimizer steps taken in all.
        loss: Of the last one; None before the first.
        checkpoint: Folder of the newest checkpoint; None before the first.
        output: The run folder.
        plan: What a dry run found out, as JSON values.
    """

    status: Literal["done", "planned"]
    stage: str
    steps: int
    loss: float | None
    checkpoint: Path | None
    output: Path
    plan: Mapping[str, Any] | None = None

    @property
    def exit_code(self) -> int:
        """Always 0: what failed is an error."""
        return 0

    @property
    def lines(self) -> tuple[str]:
        """The newest checkpoint; the run folder before there is one."""
        return (str(self.checkpoint or self.output),)

    @property
    def paths(self) -> bool:
        """That is a path."""
        return True

    def facts(self) -> dict[str, Any]:
        """Return the fields of the JSON object that this result decides."""
        facts: dict[str, Any] = {
            "status": self.status,
            "stage": self.stage,
            "steps": self.steps,
            "loss": self.loss,
            "checkpoint": None if self.checkpoint is None else str(self.checkpoint),
            "output": str(self.output),
        }
        if self.plan is not None:
            facts["plan"] = dict(self.plan)
        return facts


@dataclass(frozen=True)
class ReportResult:
    """The outcome of a command that makes no video but finds something out.

    Args:
        lines: The result on stdout: a table for people, or paths.
        fields: The same as JSON values.
        exit_code: Of the command; not 0 where what was found is that something is wrong.
        paths: Whether the lines are paths.
    """

    lines: Sequence[str]
    fields: Mapping[str, Any]
    exit_code: int = 0
    paths: bool = False

    def facts(self) -> dict[str, Any]:
        """Return the fields of the JSON object that this result decides."""
        return {"status": "done", **self.fields}


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the lines of a table, its columns as wide as their widest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
