"""What a job would do, said and returned as a plan; writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from longvie_cli.disk.documents import one_line
from longvie_cli.errors import UsageError
from longvie_cli.hub.installed import EntryStatus, gigabytes, preset_status
from longvie_cli.parallel.processes import place_of_process
from longvie_cli.planning.disk import free_bytes, run_bytes, say_disk, unwritable
from longvie_cli.planning.expected_time import expected_time
from longvie_cli.planning.job import Job
from longvie_cli.planning.memory import describe_memory
from longvie_cli.progress import Progress
from longvie_cli.result import JobResult
from longvie_cli.run_folder.run import Run
from longvie_cli.running.changes import changed_settings
from longvie_cli.running.delivery import finished_run
from longvie_cli.sources.depth_choice import say_models

_FINISHED = "finished already"
_NEVER_TIMED = "not known before this machine has made a clip like these, of two steps or more"


def describe(job: Job, progress: Progress) -> JobResult:
    """Say what `carry_out` would do, and return it as a plan; writes nothing."""
    fps = job.preset.fps
    seconds = job.total_frames / fps
    weights = preset_status(job.preset)
    weights_here = all(status.complete for status in weights)
    run = Run.read(job.folder) if job.folder.is_begun else None
    state, clips_to_make = _standing(job, run, weights_here)
    disk_bytes = run_bytes(job)
    clips: list[dict[str, Any]] = []
    made = job.earlier.num_frames if job.earlier else 0
    for spec, prompt, seed in zip(job.specs, job.prompts, job.seeds, strict=True):
        first = made / fps
        made += spec.added_frames
        clips.append(
            {
                "index": spec.index,
                "frames": spec.added_frames,
                "from_seconds": round(first, 3),
                "to_seconds": round(made / fps, 3),
                "prompt": prompt,
                "seed": seed,
            }
        )
    progress.message(
        f"{job.output}: {job.total_frames} frames, {seconds:.2f} s at {fps} fps, "
        f"{job.preset.width}x{job.preset.height}, {len(job.specs)} new clips ({state})."
    )
    progress.message(f"source: {job.source.name}; first frame: {job.start.label}")
    for line in job.remarks:
        progress.note(line)
    for clip in clips:
        progress.message(
            f"  clip {clip['index']}: {clip['from_seconds']:.2f} s to {clip['to_seconds']:.2f} s, "
            f"{clip['frames']} frames: {one_line(clip['prompt'])}"
        )
    _describe_weights(job, weights, progress)
    models = say_models(job.source.models(), progress)
    finished = state == _FINISHED
    if job.output.exists() and not job.delivery.overwrite and not finished:
        progress.warning(
            f"{job.output} exists already; without --overwrite the run will not start."
        )
    memory = describe_memory(job, progress)
    say_disk(disk_bytes, job.folder.root, progress, only_if_short=False)
    if (locked := unwritable(job.output.parent, job.folder.root)) is not None:
        progress.warning(f"The run will not start: {locked.message}")
    expected = None
    if memory is not None:
        _describe_processes(job, progress)
        if place_of_process().count == 1:
            # What one process takes says nothing of several.
            expected = expected_time(job, clips_to_make, offload=memory["offload"])
    progress.message(f"expected time: {expected.text if expected else _NEVER_TIMED}")
    return JobResult(
        status="planned",
        output=job.output,
        run_dir=job.folder.root,
        frames=job.total_frames,
        seconds=seconds,
        seed=job.sampling.seed,
        plan={
            "clips": clips,
            "state": state,
            "source": job.source.name,
            "first_frame": job.start.label,
            "inputs": list(job.remarks),
            "settings": dict(job.settings),
            "device": job.sampling.device,
            "weights": [
                {
                    "name": status.entry.name,
                    "state": "here" if status.complete else "missing",
                    "bytes": status.present_bytes,
                    "missing_bytes": status.missing_bytes,
                    "missing": list(status.missing),
                }
                for status in weights
            ],
            "models": models,
            "memory": memory,
            "disk_bytes": disk_bytes,
            "disk_free_bytes": free_bytes(job.folder.root),
            "expected_seconds": None if expected is None else round(expected.seconds, 1),
            "expected_from": None if expected is None else expected.measured,
        },
    )


def _describe_processes(job: Job, progress: Progress) -> None:
    place = place_of_process()
    if place.count == 1:
        return
    from longvie_cli.engine.together import Leader

    try:
        progress.message(Leader(place).degrees(job.preset, job.sampling).words)
    except UsageError as error:
        progress.warning(f"The run will not start: {error.message} {error.hint}")


def _describe_weights(job: Job, weights: Sequence[EntryStatus], progress: Progress) -> None:
    for status in weights:
        here = "here" if status.complete else f"{gigabytes(status.missing_bytes)} missing"
        progress.message(
            f"weights: {status.entry.name}: {gigabytes(status.present_bytes)} present, {here}"
        )
    if not all(status.complete for status in weights):
        progress.warning(
            "Weights are missing; without them the run will not start: "
            f"longvie models pull {job.preset.name}"
        )


def _standing(job: Job, run: Run | None, weights_here: bool) -> tuple[str, int]:
    """Return in words where the run stands, and how many clips it would make."""
    count = len(job.specs)
    if run is None:
        return "a new run", count
    if not weights_here:
        return "begun before; its weights are not here to compare", count
    changed = changed_settings(run, job)
    if changed:
        words = f"the run folder holds another run, started with {'; '.join(changed[:3])}"
        return words, count
    if finished_run(run, job.output, keeps_clips=job.delivery.keep_clips):
        return _FINISHED, 0
    made = sum(clip.record is not None for clip in run.clips())
    return f"{made} made already", count - made
