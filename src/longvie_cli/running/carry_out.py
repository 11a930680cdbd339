"""What generate and extend share once the job is decided: open, controls, clips, deliver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from longvie_cli.disk.durable import is_passing, storage_error, write_atomic
from longvie_cli.media.reader import read_frames
from longvie_cli.media.writer import VideoWriter
from longvie_cli.hub.installed import EntryStatus, gigabytes, preset_status
from longvie_cli.progress import Progress
from longvie_cli.run_folder.commit import completed_clips, hash_file
from longvie_cli.run_folder.events import append_event
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.manifest import read_manifest
from longvie_cli.disk.checksums import open_sealed_json, sealed_json
from longvie_cli.settings.requests import Offload
from longvie_cli.running.clip_loop import make_missing_clips
from longvie_cli.running.delivery import (
    damaged_delivery,
    deliver,
    finished_result,
    is_own_output,
    read_delivery,
)
from longvie_cli.sources.depth_choice import say_models
from longvie_cli.planning.disk import free_bytes, run_bytes, say_disk, unwritable
from longvie_cli.planning.expected_time import expected_time
from longvie_cli.planning.job import Job, output_taken
from longvie_cli.running.live import LiveVideo
from longvie_cli.planning.memory import describe_memory, fitting_plan
from longvie_cli.running.opening import Change, changed_settings, opened_run
from longvie_cli.result import JobResult

_NEVER_TIMED = "not known before this machine has made a clip like these, of two steps or more"


def carry_out(
    job: Job, progress: Progress, *, change: Change | None = None, resuming: bool = False
) -> JobResult:
    """Do the job from wherever it stands and return its result.

    Args:
        job: The job.
        progress: Told of everything.
        change: A redo to begin with.
        resuming: The job was read from its run folder: a difference between the two is an error,
            also where the run may overwrite its output.

    Raises:
        UsageError: The machine's memory is too small for this placement.
        OutputConflictError: The output or the run folder belongs to something else.
        MediaError, ControlError: An input turned out to be unusable.
        ResumableError: The disk is full; the same request goes on.
    """
    if (locked := unwritable(job.output.parent, job.folder.root)) is not None:
        raise locked
    with opened_run(job, progress, change=change, resuming=resuming) as folder:
        if finished := finished_result(job):
            progress.message(f"{job.output}: this run is finished already.")
            return finished
        if (trouble := damaged_delivery(folder)) is not None:
            # Whether the output is this run's is found out when it has been joined again.
            progress.warning(trouble)
        elif job.output.exists() and not job.delivery.overwrite and not is_own_output(job):
            raise output_taken(job.output)
        redos = read_manifest(folder.run_json).redos
        live = LiveVideo(job, folder)
        offload: Offload = "none"
        if len(completed_clips(folder, job.specs, redos)) < len(job.specs):
            # Before the controls, which can take minutes.
            offload = fitting_plan(job).offload
            say_disk(run_bytes(job), folder.root, progress, only_if_short=True)
        for note in job.notes:
            progress.message(note)
        append_event(folder.events, "started", clips=len(job.specs), frames=job.added_frames)
        _encode_earlier_video(job, folder, progress)
        controls = job.source.prepare(folder.controls_dir, job.source_frames, progress)
        make_missing_clips(job, folder, controls, progress, offload=offload, redos=redos, live=live)
        return deliver(job, progress)


def describe(job: Job, progress: Progress) -> JobResult:
    """Say what `carry_out` would do, and return it as a plan; writes nothing."""
    fps = job.preset.fps
    seconds = job.total_frames / fps
    weights = preset_status(job.preset)
    weights_here = all(status.complete for status in weights)
    state, clips_to_make = _standing(job, weights_here)
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
    inputs = [*job.source.conversions(), *job.notes]
    for line in inputs:
        progress.message(line)
    for clip in clips:
        progress.message(
            f"  clip {clip['index']}: {clip['from_seconds']:.2f} s to {clip['to_seconds']:.2f} s, "
            f"{clip['frames']} frames: {clip['prompt']}"
        )
    _describe_weights(job, weights, progress)
    models = say_models(job.source.models(), progress)
    finished = weights_here and _finished(job)
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
            "inputs": inputs,
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


def _encode_earlier_video(job: Job, folder: RunFolder, progress: Progress) -> None:
    earlier, preset = job.earlier, job.preset
    if earlier is None or earlier.joinable:
        return
    if folder.earlier_video.is_file() and folder.earlier_record.is_file():
        if _is_as_recorded(folder):
            return
        progress.warning("earlier.mp4 is not what was written; it is made again.")
    height, width, fit = preset.height, preset.width, earlier.fit
    with VideoWriter(
        folder.earlier_video, height=height, width=width, fps=preset.fps, crf=job.delivery.crf
    ) as writer:
        progress.start("earlier video", earlier.num_frames)
        for frame in read_frames(
            earlier.video, fps=preset.fps, height=height, width=width, fit=fit
        ):
            writer.write(frame)
            progress.advance("earlier video")
        progress.finish("earlier video")
    record = {"video_hash": hash_file(folder.earlier_video)}
    write_atomic(folder.earlier_record, sealed_json(record))


def _is_as_recorded(folder: RunFolder) -> bool:
    try:
        record = open_sealed_json(folder.earlier_record.read_bytes())
        return bool(record.get("video_hash") == hash_file(folder.earlier_video))
    except OSError as reason:
        if is_passing(reason):
            raise storage_error(folder.earlier_video, reason) from reason
        return False
    except ValueError:
        return False


def _standing(job: Job, weights_here: bool) -> tuple[str, int]:
    """Return in words where the run stands, and how many clips it would make."""
    count = len(job.specs)
    if not job.folder.is_begun:
        return "a new run", count
    if not weights_here:
        return "begun before; its weights are not here to compare", count
    changed = changed_settings(job)
    if changed:
        words = f"the run folder holds another run, started with {'; '.join(changed[:3])}"
        return words, count
    if _finished(job):
        return "finished already", 0
    redos = read_manifest(job.folder.run_json).redos
    made = len(completed_clips(job.folder, job.specs, redos))
    return f"{made} made already", count - made


def _finished(job: Job) -> bool:
    record = read_delivery(job.folder)
    return (
        record is not None
        and job.output.is_file()
        and hash_file(job.output) == record["output_hash"]
        and record.get("revision", 0) == len(read_manifest(job.folder.run_json).redos)
        and not changed_settings(job)
    )
