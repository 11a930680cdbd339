"""Opening a run folder: one process, one request, never somebody else's files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from longvie_cli.controls.control_folder import remove_controls
from longvie_cli.disk.durable import part_path, storage_error
from longvie_cli.disk.hashing import fingerprint
from longvie_cli.errors import OutputConflictError, UsageError
from longvie_cli.planning.deciding import new_manifest
from longvie_cli.planning.job import Job
from longvie_cli.planning.paths import output_taken
from longvie_cli.progress import Progress
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.lock import RunLock
from longvie_cli.run_folder.manifest import mend_manifest
from longvie_cli.run_folder.run import Run
from longvie_cli.running.changes import (
    Change,
    begin_redo,
    begun_otherwise,
    changed_settings,
    take_on,
)


@contextmanager
def opened_run(
    job: Job, progress: Progress, *, change: Change | None = None, resuming: bool = False
) -> Iterator[Run]:
    """Hold the run of a job, new or begun by the same request.

    Args:
        job: The job.
        progress: Told of what had to be mended.
        change: A redo to write down first.
        resuming: Never start anew.

    Raises:
        OutputConflictError: Another process holds it, another request began it and made something
            (and --overwrite is not given), it is a folder of something else, or the run is new and
            the output is there already.
        UsageError: `--from-clip` cannot be followed.
    """
    folder, from_clip = job.folder, job.delivery.from_clip
    _check_ours(folder)
    folder.check_no_links()
    if from_clip is not None and not folder.is_begun:
        raise UsageError(f"--from-clip {from_clip}: there is no run in {folder.root} to take on.")
    if not folder.is_begun and job.output.exists() and not job.delivery.overwrite:
        raise output_taken(job.output)
    with RunLock(folder):
        folder.check_no_links()
        run = None
        if folder.is_begun:
            if trouble := mend_manifest(folder):
                progress.warning(trouble)
            run = _begun(Run.read(folder), job, change, resuming)
        if run is None:
            run = Run(folder, new_manifest(job))
            run.rewrite(run.manifest)
        yield run


def _begun(run: Run, job: Job, change: Change | None, resuming: bool) -> Run | None:
    """Return a run that was begun before as the job goes on with it; None to begin anew.

    Raises:
        OutputConflictError, UsageError: As `opened_run`.
    """
    check_request(run)
    from_clip = job.delivery.from_clip
    changed = changed_settings(run, job if change is None else change.before)
    if changed and from_clip is not None and change is None:
        take_on(run, job, from_clip)
    elif changed and (resuming or not (job.delivery.overwrite or _is_untouched(run.folder))):
        raise begun_otherwise(run, job, changed)
    elif changed:
        _forget(run.folder)
        return None
    elif change is not None:
        begin_redo(run, job, change.redo)
    return run


def check_request(run: Run) -> None:
    """Do nothing if the settings in `run.json` are those the run was begun with.

    Raises:
        OutputConflictError: They were changed: clips of two requests are no video.
    """
    if fingerprint(run.manifest.settings) != run.manifest.fingerprint:
        raise OutputConflictError(
            f"{run.folder.run_json}: its settings were changed by hand; the clips are of others.",
            hint="Put it back, or begin anew with the command that began it and another -o.",
        )


def _is_untouched(folder: RunFolder) -> bool:
    """Return whether a run stopped before it made anything, as one with an unusable input does."""
    rooms = (folder.controls_dir, folder.clips_dir, folder.tails_dir)
    files = (folder.earlier_video, folder.first_picture)
    return not any(any(room.iterdir()) for room in rooms) and not any(map(Path.exists, files))


def _check_ours(folder: RunFolder) -> None:
    if not folder.root.is_dir() or folder.is_begun:
        return
    # What a process makes before its run.json is there, if it is killed until then.
    ours = {
        folder.controls_dir,
        folder.clips_dir,
        folder.tails_dir,
        folder.prompts_dir,
        folder.lock,
        folder.lock_holder,
        part_path(folder.lock_holder),
        part_path(folder.run_json),
    }
    for path in folder.root.iterdir():
        if path not in ours:
            raise OutputConflictError(
                f"{folder.root}: this folder is no run of longvie (it holds {path.name}).",
                hint="Pass another --run-dir.",
            )


def _forget(folder: RunFolder) -> None:
    """Remove what an earlier request left in its run folder, all but its run.json.

    That is replaced by the new one in one step: a folder without one is nobody's.
    """
    for path in folder.own_files():
        try:
            path.unlink()
        except OSError as reason:
            raise storage_error(path, reason) from reason
    if folder.controls_dir.is_dir():
        remove_controls(folder.controls_dir)
    folder.create()
