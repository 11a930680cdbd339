"""`evaluate`: what can be measured of a video, of longvie or not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from longvie_cli.errors import ControlError, LongVieError, MediaError
from longvie_cli.evaluation.controllability import PlacedControls
from longvie_cli.evaluation.evaluation import Evaluation, Inputs, evaluate_video
from longvie_cli.evaluation.results import as_json, table
from longvie_cli.media.ffmpeg import check_readable
from longvie_cli.media.join import join_clips
from longvie_cli.media.probe import SourceVideo, probe_video
from longvie_cli.planning.evaluate import (
    Subject,
    depth_choice,
    named_controls,
    run_controls,
    subject_of,
    subject_of_clips,
    unfinished_run,
)
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.result import ReportResult
from longvie_cli.settings.presets import DEFAULT_PRESET, load_preset
from longvie_cli.settings.requests import EvaluateRequest

_NO_REFERENCE = "no --reference was passed."


@dataclass
class _Brought:
    """What was brought beside the video, and what of it cannot be used.

    Args:
        reference: The reference, or why there is none.
        troubles: What is wrong with what was named.
    """

    reference: SourceVideo | str
    troubles: list[LongVieError]


def evaluate(request: EvaluateRequest, progress: Progress | None = None) -> ReportResult:
    """Measure a video, and others beside it, and return what was found.

    Where what was brought beside it cannot be used, the rest is measured all the same, and the
    result has the exit code of the error.

    Raises:
        MediaError: A video cannot be read, or a file that was named is not there.
        InputError: There is no run where one was named, or none of its clips is finished.
        OutputConflictError: The run that was named is damaged.
    """
    progress = progress or SilentProgress()
    _check_named(request)
    brought = _Brought(_NO_REFERENCE, [])
    if request.reference is not None:
        try:
            brought.reference = probe_video(request.reference)
        except MediaError as error:
            brought.reference = error.message
            brought.troubles.append(error)
    found = []
    with ExitStack() as joined:
        subjects = [joined.enter_context(_subject(request.video, request.run, progress))]
        subjects += [
            joined.enter_context(_subject(path, None, progress)) for path in request.compare
        ]
        for subject in subjects:
            found.append(_evaluated(subject, request, brought, progress))
    return _result(found, brought.troubles, progress)


def _check_named(request: EvaluateRequest) -> None:
    """Do nothing if every file that was named is there: a slip costs no minutes."""
    if request.reference is not None:
        check_readable(request.reference)
    if request.controls is not None and not request.controls.exists():
        raise ControlError(f"--controls {request.controls}: there is no such file or folder.")


@contextmanager
def _subject(path: Path, run: Path | None, progress: Progress) -> Iterator[Subject]:
    """A video, or what is finished of a run, joined in a file for the length of the block."""
    unfinished = unfinished_run(path)
    if unfinished is None:
        yield subject_of(path, run, progress)
        return
    progress.warning(
        f"{path}: {len(unfinished.clips)} of {unfinished.total} clips are finished; these are "
        "measured."
    )
    with tempfile.TemporaryDirectory() as folder:
        joined = Path(folder) / "clips.mp4"
        fps = round(probe_video(unfinished.clips[0]).fps)
        join_clips(unfinished.clips, joined, fps=fps, metadata=None, overwrite=True)
        yield subject_of_clips(path, joined, unfinished)


def _evaluated(
    subject: Subject, request: EvaluateRequest, brought: _Brought, progress: Progress
) -> Evaluation:
    controls = _controls(subject, request, brought, progress)
    estimator, fits = None, True
    if isinstance(controls, PlacedControls):
        preset = subject.preset or load_preset(DEFAULT_PRESET)
        choice, fits = depth_choice(subject, preset, progress)
        estimator = partial(choice.estimator, preset, device="cpu", progress=progress)
    found = evaluate_video(
        Inputs(
            name=str(subject.path),
            video=subject.video,
            clips=subject.clips,
            clips_unknown=subject.clips_unknown,
            controls=controls,
            estimator=estimator,
            estimator_fits=fits,
            reference=brought.reference,
        ),
        progress,
    )
    brought.troubles += found.troubles
    return found


def _controls(
    subject: Subject, request: EvaluateRequest, brought: _Brought, progress: Progress
) -> PlacedControls | str:
    preset = subject.preset or load_preset(DEFAULT_PRESET)
    if request.controls is None:
        try:
            return run_controls(subject, progress)
        except (ControlError, MediaError) as error:
            progress.warning(f"The controls of the run are not used: {error.message}")
            return error.message
    try:
        return named_controls(request.controls, subject.video, preset, progress)
    except (ControlError, MediaError) as error:
        brought.troubles.append(error)
        return error.message


def _result(
    found: list[Evaluation], troubles: list[LongVieError], progress: Progress
) -> ReportResult:
    fields = as_json(found[0])
    if len(found) > 1:
        fields["compared"] = [as_json(other) for other in found[1:]]
    if not troubles:
        return ReportResult(table(found), fields)
    for trouble in dict.fromkeys(troubles):
        progress.warning(f"{trouble.message} {trouble.hint}".rstrip())
    first = troubles[0]
    error: dict[str, Any] = {
        "code": first.exit_code,
        "message": first.message,
        "hint": first.hint,
    }
    fields |= {"status": "incomplete", "error": error}
    return ReportResult(table(found), fields, exit_code=first.exit_code)
