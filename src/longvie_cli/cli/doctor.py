"""`longvie doctor`: what this machine can run, and what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longvie_cli.cli.command import command

if TYPE_CHECKING:
    from longvie_cli.cli.console import Console
    from longvie_cli.result import ReportResult


@command(examples=("longvie doctor", "longvie doctor --json | jq '.checks[] | select(.fix)'"))
def doctor(console: Console) -> ReportResult:
    """Try what longvie stands on, and name the command that mends what is missing.

    Python and its packages, torch, GPU, memory, disk, ffmpeg, text encoding and the weights that
    were fetched. Asks no network and changes nothing. Exit code 0 if the preset tiny can run here,
    3 if a dependency is missing, 1 if something else is.
    """
    from longvie_cli.workflows import doctor as workflow

    return workflow.doctor(console)
