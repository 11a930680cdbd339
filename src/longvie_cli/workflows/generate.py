"""`generate`: a prompt and a source of controls become one mp4."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from longvie_cli.planning.generate import decide
from longvie_cli.planning.report_place import check_report_place
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.result import JobResult
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.running.whole import look_through, run_through
from longvie_cli.settings.request_json import files_of, request_json
from longvie_cli.settings.requests import EvaluateRequest, GenerateRequest


def generate(
    request: GenerateRequest, progress: Progress | None = None, *, report: Path | None = None
) -> JobResult:
    """Make a video, going on where an earlier call with the same request stopped.

    The frames depend on the request, the weights and the kind of device alone: stopped and
    continued any number of times, the video is the same.

    Args:
        request: What is asked.
        progress: Told of everything.
        report: Page that is written about the finished video; one of longvie is replaced.

    Raises:
        LongVieError: See `longvie_cli.errors`; everything made so far is saved.
    """
    progress = progress or SilentProgress()
    _check_report(report, request)
    result = run_through(request, decide, progress)
    if report is None or result.status == "helped":
        return result
    # Only here: what measures is not imported where nothing is.
    from longvie_cli.workflows.evaluate import evaluate

    asked = EvaluateRequest(video=result.output, run=result.run_dir, report=report, overwrite=True)
    evaluate(asked, progress)
    return replace(result, report=report)


def plan(
    request: GenerateRequest, progress: Progress | None = None, *, report: Path | None = None
) -> JobResult:
    """Say what `generate` would do; writes nothing.

    Raises:
        LongVieError: What `generate` would raise before its first clip.
    """
    _check_report(report, request)
    return look_through(request, decide, progress or SilentProgress())


def _check_report(report: Path | None, request: GenerateRequest) -> None:
    """Do nothing if the report, where one is wanted, can be written at the end.

    Raises:
        UsageError, OutputConflictError: As `check_report_place`.
    """
    if report is None:
        return
    read = [path for _, path in files_of(request_json(request))]
    written = [request.output, *([request.live] if request.live is not None else [])]
    check_report_place(
        report,
        [*written, *read],
        overwrite=request.overwrite,
        renewed=True,
        run=RunFolder.of(request.output, request.run_dir),
    )
