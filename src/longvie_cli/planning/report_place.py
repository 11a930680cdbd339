"""Where a report may be written: never over what is read, nor into a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from longvie_cli.disk.durable import part_path
from longvie_cli.errors import OutputConflictError, UsageError
from longvie_cli.planning.disk import unwritable
from longvie_cli.planning.paths import check_name, is_input
from longvie_cli.run_folder.layout import RunFolder

REPORT_MARK = '<meta name="generator" content="longvie evaluate">'
"""What a report of ours holds near its beginning."""

_LOOKED_AT_BYTES = 1024


def check_report_place(
    report: Path,
    inputs: Sequence[Path],
    *,
    overwrite: bool,
    renewed: bool = False,
    run: RunFolder | None = None,
) -> None:
    """Do nothing if a report can be written.

    Args:
        report: The file.
        inputs: What the same command reads or makes.
        overwrite: Whether it may replace anything else.
        renewed: Whether it may replace a report of longvie.
        run: The run folder that the same command makes.

    Raises:
        UsageError: It is no page, or part of the same command.
        OutputConflictError: It is there, belongs to a run, or cannot be written.
    """
    if report.suffix.lower() not in (".html", ".htm") or report.is_dir():
        raise UsageError(f"--report {report}: the report is a page; name it NAME.html.")
    check_name(report)
    if any(is_input(place, inputs) for place in (report, part_path(report))):
        raise UsageError(f"--report {report}: this file is part of the same command.")
    if run is not None and run.may_replace(report):
        raise UsageError(f"--report {report}: the run folder {run.root} is part of this command.")
    folder = RunFolder(report.absolute().parent)
    if folder.is_begun and folder.may_replace(report):
        raise OutputConflictError(
            f"--report {report}: it belongs to the run in {folder.root}.",
            hint="Pass another --report.",
        )
    if report.exists() and not overwrite and not (renewed and _is_report(report)):
        raise OutputConflictError(
            f"{report}: exists.", hint="Pass another --report, or --overwrite."
        )
    if (error := unwritable(report.absolute().parent)) is not None:
        raise error


def _is_report(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return REPORT_MARK.encode() in file.read(_LOOKED_AT_BYTES)
    except OSError:
        return False
