"""`evaluate`: what can be measured of a video, of longvie or not."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from longvie_cli.disk.durable import make_folder, storage_error, write_atomic
from longvie_cli.disk.hashing import hash_file
from longvie_cli.errors import (
    ControlError,
    LongVieError,
    MediaError,
)
from longvie_cli.evaluation.controllability import PlacedControls
from longvie_cli.evaluation.evaluation import Evaluation, Inputs, evaluate_video
from longvie_cli.evaluation.findings import findings
from longvie_cli.evaluation.report import Reported, write_report_html
from longvie_cli.evaluation.results import as_json, table
from longvie_cli.evaluation.strips import ShownSource
from longvie_cli.media.ffmpeg import DamagedVideoError, check_readable
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
from longvie_cli.planning.report_place import check_report_place
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.result import ReportResult
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.manifest import read_record
from longvie_cli.settings.presets import DEFAULT_PRESET, load_preset
from longvie_cli.settings.requests import EvaluateRequest
from longvie_cli.version import __version__

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
    heard = _Heard(progress)
    with ExitStack() as joined:
        subjects = [joined.enter_context(_subject(request.video, request.run, heard))]
        subjects += [joined.enter_context(_subject(path, None, heard)) for path in request.compare]
        for subject in subjects:
            _say_as_named(subject, request, heard)
        found = [_evaluated(subject, request, brought, heard) for subject in subjects]
        result = _result(found, brought.troubles, heard)
        if request.report is not None:
            _write_report(request.report, subjects, found, heard)
            paths = [str(request.report)]
            fields = {**result.fields, "report": str(request.report)}
            result = ReportResult(paths, fields, exit_code=result.exit_code, paths=True)
    return result


def _check_named(request: EvaluateRequest) -> None:
    """Do nothing if every file that was named is there: a slip costs no minutes.

    Raises:
        MediaError, ControlError: One is not there.
        UsageError, OutputConflictError: As `check_report_place`.
    """
    if request.report is not None:
        named = (request.reference, request.controls, request.run)
        inputs = [request.video, *request.compare, *(path for path in named if path is not None)]
        check_report_place(
            request.report,
            inputs,
            overwrite=request.overwrite,
            run=RunFolder.of(request.video, request.run),
        )
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


def _say_as_named(subject: Subject, request: EvaluateRequest, heard: _Heard) -> None:
    """Have what is read beside a video called by the names it was brought with."""
    if request.controls is not None:
        folder = request.controls if request.controls.is_dir() else request.controls.parent
        heard.call(folder, str(folder))
    if subject.is_temporary:
        heard.call(subject.video.path, str(subject.path))
    if subject.run is not None:
        root, stored = subject.run.folder.root, subject.run.manifest.inputs.source
        heard.call(root, root.name)
        if stored is not None:
            source = Path(stored)
            folder = source.parent if source.suffix == ".json" else source
            heard.call(folder, folder.name)


def _evaluated(
    subject: Subject, request: EvaluateRequest, brought: _Brought, progress: _Heard
) -> Evaluation:
    controls = _controls(subject, request, brought, progress)
    estimator, fits = None, True
    if isinstance(controls, PlacedControls):
        preset = subject.preset or load_preset(DEFAULT_PRESET)
        choice, fits = depth_choice(subject, preset)
        estimator = partial(choice.estimator, preset, device="cpu", progress=progress)
    inputs = Inputs(
        name=str(subject.path),
        video=subject.video,
        clips=subject.clips,
        clips_unknown=subject.clips_unknown,
        controls=controls,
        estimator=estimator,
        estimator_fits=fits,
        reference=brought.reference,
    )
    try:
        found = evaluate_video(inputs, progress)
    except DamagedVideoError as error:
        # Its own hint is for commands that can be told where to stop.
        raise DamagedVideoError(
            error.message, hint="Encode it again with a player or editor that repairs it."
        ) from error
    found.skipped = {name: progress.as_named(reason) for name, reason in found.skipped.items()}
    brought.troubles += found.troubles
    return found


def _controls(
    subject: Subject, request: EvaluateRequest, brought: _Brought, progress: Progress
) -> PlacedControls | str:
    preset = subject.preset or load_preset(DEFAULT_PRESET)
    if request.controls is None:
        try:
            return run_controls(subject)
        except (ControlError, MediaError) as error:
            progress.warning(f"The controls of the run are not used: {error.message}")
            return error.message
    try:
        return named_controls(request.controls, subject.video, preset, progress)
    except (ControlError, MediaError) as error:
        brought.troubles.append(error)
        return error.message


class _Heard:
    """Hands everything on, and keeps what the report repeats; no place is said that nobody named.

    Reports and JSON go to others: where a run or its controls lie is no business of theirs.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._names: dict[str, str] = {}
        self.warnings: list[str] = []

    def call(self, place: Path, name: str) -> None:
        """Have a file or folder, and what is in it, called by a name."""
        self._names.setdefault(str(place.absolute()), name)

    def as_named(self, text: str) -> str:
        """Return a text in which every place has its name."""
        for place, name in self._names.items():
            literal = name.replace("\\", r"\\")
            text = re.sub(re.escape(place) + r"(?=[/:\s]|$)", literal, text)
        return text

    def message(self, text: str) -> None:
        self._progress.message(self.as_named(text))

    def note(self, text: str) -> None:
        text = self.as_named(text)
        self.warnings.append(text)
        self._progress.note(text)

    def warning(self, text: str) -> None:
        text = self.as_named(text)
        self.warnings.append(text)
        self._progress.warning(text)

    def start(self, stage: str, total: int, *, done: int = 0) -> None:
        self._progress.start(stage, total, done=done)

    def advance(self, stage: str, amount: int = 1, *, detail: str = "") -> None:
        self._progress.advance(stage, amount, detail=detail)

    def finish(self, stage: str) -> None:
        self._progress.finish(stage)


def _write_report(
    report: Path, subjects: Sequence[Subject], found: Sequence[Evaluation], heard: _Heard
) -> None:
    """Write the page, and say in a few lines what is in it."""
    page = write_report_html(
        [
            Reported(one, _url(subject, report), *_about(subject), _source(subject, heard))
            for subject, one in zip(subjects, found, strict=True)
        ],
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        version=__version__,
        warnings=heard.warnings,
    )
    try:
        make_folder(report.absolute().parent)
    except OSError as reason:
        raise storage_error(report.absolute().parent, reason) from reason
    write_atomic(report, page)
    for one in found:
        for finding in findings(one):
            heard.message(f"{one.inputs.name}: {finding.text}")


def _url(subject: Subject, report: Path) -> str:
    """Return where the file of a video is from its report on, empty where it is not on disk."""
    video = subject.video.path
    if subject.is_temporary:
        return ""
    # By its own name where it is a link: what that leads to need not go along with the report.
    relative = os.path.relpath(video.parent.resolve() / video.name, report.parent.resolve())
    return quote(relative.replace(os.sep, "/").encode("utf-8", "surrogateescape"))


def _about(subject: Subject) -> tuple[dict[str, Any], dict[int, float]]:
    """Return the settings of a video's run, and how long each of its clips took."""
    run = subject.run
    if run is None:
        return {}, {}
    seconds = {}
    for spec in run.manifest.plan:
        with suppress(LongVieError, OSError):
            seconds[spec.index] = read_record(run.folder.clip_record(spec.index)).seconds
    settings = {"command": run.manifest.command, **run.manifest.settings}
    settings |= {"longvie": run.manifest.versions.get("longvie"), "began": run.manifest.created}
    return settings, seconds


def _source(subject: Subject, progress: Progress) -> ShownSource | None:
    """Return the video that a run was made from; None where there is none, or it is not the same
    any more."""
    run, preset = subject.run, subject.preset
    if run is None or preset is None or run.manifest.inputs.source_kind != "video":
        return None
    settings, stored = run.manifest.settings, run.manifest.inputs.source
    if stored is None or settings.get("pingpong"):
        return None
    try:
        if not Path(stored).is_file() or hash_file(Path(stored)) != settings.get("video_hash"):
            progress.message(f"{Path(stored).name}: gone or changed; the report does not show it.")
            return None
        first = int(settings.get("first_source_frame") or 0)
        begins = subject.first_controlled_frame
        return ShownSource(probe_video(Path(stored)), preset.fps, first, begins)
    except (MediaError, OSError):
        return None


def _result(
    found: list[Evaluation], troubles: list[LongVieError], progress: _Heard
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
        "message": progress.as_named(first.message),
        "hint": progress.as_named(first.hint),
    }
    fields |= {"status": "incomplete", "error": error}
    return ReportResult(table(found), fields, exit_code=first.exit_code)
