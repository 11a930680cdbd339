"""`resume` and `redo`: a run goes on, or makes clips again, from its run folder alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longvie_cli.errors import InputError, OutputConflictError, UsageError
from longvie_cli.hub.installed import go_offline, locate_weights
from longvie_cli.planning.deciding import model_hashes
from longvie_cli.planning.job import Job
from longvie_cli.planning.paths import check_places
from longvie_cli.planning.prompt_notes import say_of_texts
from longvie_cli.progress import Progress, SilentProgress, command_line
from longvie_cli.result import JobResult
from longvie_cli.run_folder.find import find_run, output_of
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.manifest import Redo
from longvie_cli.run_folder.run import Run
from longvie_cli.running.carry_out import carry_out
from longvie_cli.running.changes import Change, redone
from longvie_cli.running.delivery import finished_run
from longvie_cli.running.opening import check_request
from longvie_cli.running.together import with_helpers
from longvie_cli.settings.request_json import RunRequests, files_of, request_of_json
from longvie_cli.settings.requests import GenerateRequest, RedoRequest, RunRequest

if TYPE_CHECKING:
    from longvie_cli.engine.together import Leader

# Which flag's file a deciding setting with a hash in it speaks of.
_FILE_OF_SETTING = {
    "video_hash": "--video",
    "controls_hashes": "--controls",
    "first_frame": "--image",
    "camera_picture": "--image",
    "lora": "--lora",
    "audio": "--audio",
    "depth": "--depth",
    "depth_model": "--depth-model",
}


def resume(request: RunRequest, progress: Progress | None = None) -> JobResult:
    """Go on with a run as the command that began it would.

    Raises:
        InputError: Something the run was made from is gone.
        OutputConflictError: Something it was made from has changed.
        LongVieError: As the command itself.
    """
    progress = progress or SilentProgress()
    return with_helpers(lambda leader: _resume(request, progress, leader), request.run)


def _resume(request: RunRequest, progress: Progress, leader: Leader | None) -> JobResult:
    run = Run.read(find_run(request.run))
    if (finished := _finished(run)) is not None:
        progress.message(f"{finished.output}: this run is finished already.")
        return finished
    return carry_out(_job(run, progress), progress, resuming=True, leader=leader)


def redo(request: RedoRequest, progress: Progress | None = None) -> JobResult:
    """Forget the clips of a run from one on and make them again; the clips before it stay.

    A new prompt or seed holds for this clip and for those after it that shared its prompt or seed.
    Repeated after a stop, it goes on.

    Raises:
        UsageError: The run has no such clip.
        OutputConflictError: A clip before it cannot be kept; and as `resume`.
        LongVieError: As the command that began the run.
    """
    progress = progress or SilentProgress()
    return with_helpers(lambda leader: _redo(request, progress, leader), request.run)


def _redo(request: RedoRequest, progress: Progress, leader: Leader | None) -> JobResult:
    run = Run.read(find_run(request.run))
    count = len(run.manifest.plan)
    if request.clip >= count:
        raise UsageError(f"--clip {request.clip}: the run has {count} clips, 0 to {count - 1}.")
    ordered = Redo(clip=request.clip, prompt=request.new_prompt, seed=request.new_seed)
    job = _job(run, progress)
    begun = bool(run.redos) and run.redos[-1] == ordered
    if begun and _finished(run) is None:
        progress.message("This redo was begun before; going on.")
        return carry_out(job, progress, resuming=True, leader=leader)
    if request.new_prompt is None and request.new_seed is None:
        progress.message("The same prompt and seed give the same frames on the same machine.")
    changed = redone(job, [ordered])
    _say_of_new_prompts(job, changed, progress)
    change = Change(job, ordered)
    return carry_out(changed, progress, change=change, resuming=True, leader=leader)


def _finished(run: Run) -> JobResult | None:
    keeps_clips = bool(run.manifest.request.get("keep_clips", True))
    return finished_run(run, output_of(run), keeps_clips=keeps_clips)


def _job(run: Run, progress: Progress) -> Job:
    check_request(run)
    folder, manifest = run.folder, run.manifest
    stored = manifest.request
    _refuse_a_copy(folder, stored)
    again = command_line(["longvie", "resume", folder.root])
    request = request_of_json(manifest.command, stored, folder.run_json)
    for flag, path in files_of(stored):
        if not path.exists():
            raise InputError(
                f"{path}: {flag} of this run is not there any more.",
                hint=f"Put it back, then: {again}",
            )
    # Only of the file that the command said it about, not of one that a moved folder, or one from
    # somewhere else, comes to name.
    overwrite = request.overwrite and _is_where_it_began(folder, stored)
    changes = {"output": output_of(run), "run_dir": folder.root, "overwrite": overwrite}
    request = request.model_copy(update=changes)
    check_places(request)
    if request.offline:
        go_offline()
    begun = _decide(request, progress)
    job = redone(begun, manifest.redos)
    _say_of_new_prompts(begun, job, progress)
    locate_weights(job.preset)
    _check_inputs(job, run, again)
    return job


def _say_of_new_prompts(before: Job, after: Job, progress: Progress) -> None:
    new = {text: "the new prompt" for text in after.prompts if text not in before.prompts}
    say_of_texts(progress, after.preset, new)


def _is_where_it_began(folder: RunFolder, stored: Mapping[str, Any]) -> bool:
    output = Path(stored.get("output") or "out.mp4")
    began = stored.get("run_dir") or (RunFolder.beside(output).root if output.name else output)
    return Path(began).resolve() == folder.root.resolve()


def _refuse_a_copy(folder: RunFolder, stored: Mapping[str, Any]) -> None:
    """Do nothing unless a run is a copy of one that is still there, and would replace its output.

    Raises:
        OutputConflictError: It is.
    """
    began = stored.get("run_dir")
    if began and not _is_where_it_began(folder, stored) and RunFolder(Path(began)).is_begun:
        raise OutputConflictError(
            f"{folder.root}: a copy of the run in {began}, with the same output "
            f"{stored.get('output')}.",
            hint="Go on with that run, or move it away to go on with the copy.",
        )


def _decide(request: RunRequests, progress: Progress) -> Job:
    if isinstance(request, GenerateRequest):
        from longvie_cli.planning import generate

        return generate.decide(request, progress)
    from longvie_cli.planning import extend

    return extend.decide(request, progress)


def _check_inputs(job: Job, run: Run, again: str) -> None:
    """Do nothing if the job is what the run was begun as.

    Raises:
        OutputConflictError: Something it is made from has changed; names it.
    """
    before = run.manifest.settings
    paths = dict(files_of(run.manifest.request))
    changed = []
    for key in sorted({*before, *job.settings}):
        if before.get(key) == job.settings.get(key):
            continue
        flag = _FILE_OF_SETTING.get(key)
        if key == "first_frame" and "PREVIOUS.mp4" in paths:
            flag = "PREVIOUS.mp4"
        if flag in paths:
            gone = ", or the run folder with its last frames" if key == "first_frame" else ""
            changed.append(f"{paths[flag]} ({flag}{gone})")
    if run.manifest.model_hashes != model_hashes(job.preset):
        changed.append(f"the weights of preset {job.preset.name}")
    if changed:
        raise OutputConflictError(
            f"{job.folder.root}: changed since this run was started: {', '.join(changed)}.",
            hint=f"Put back what it was, then: {again}. Or begin anew with the command that began "
            "it and --overwrite.",
        )
