"""What generate and extend share once the job is decided: open, controls, clips, deliver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longvie_cli.disk.checksums import checksummed_json, read_checksummed_json
from longvie_cli.disk.durable import is_passing, storage_error, write_atomic
from longvie_cli.disk.hashing import hash_file
from longvie_cli.media.reader import read_frames
from longvie_cli.media.writer import VideoWriter
from longvie_cli.planning.disk import run_bytes, say_disk, unwritable
from longvie_cli.planning.job import Job
from longvie_cli.planning.memory import fitting_plan
from longvie_cli.planning.paths import output_taken
from longvie_cli.progress import Progress
from longvie_cli.result import JobResult
from longvie_cli.run_folder.events import append_event
from longvie_cli.run_folder.run import Run
from longvie_cli.running.changes import Change
from longvie_cli.running.clip_loop import make_missing_clips
from longvie_cli.running.delivery import deliver, finished_result, is_own_output
from longvie_cli.running.opening import opened_run
from longvie_cli.settings.sampling import Offload

if TYPE_CHECKING:
    from longvie_cli.engine.together import Leader


def carry_out(
    job: Job,
    progress: Progress,
    *,
    change: Change | None = None,
    resuming: bool = False,
    leader: Leader | None = None,
) -> JobResult:
    """Do the job from wherever it stands and return its result.

    Args:
        job: The job.
        progress: Told of everything.
        change: A redo to begin with.
        resuming: The job was read from its run folder: a difference between the two is an error,
            also where the run may overwrite its output.
        leader: Tells other processes what to denoise; None where there are none.

    Raises:
        UsageError: The machine's memory is too small for this placement, or so many processes
            cannot share a clip.
        OutputConflictError: The output or the run folder belongs to something else.
        MediaError, ControlError: An input turned out to be unusable.
        ResumableError: The disk is full; the same request goes on.
    """
    if (locked := unwritable(job.output.parent, job.folder.root)) is not None:
        raise locked
    # How they share a clip is refused before there is a run folder.
    shared = None if leader is None else leader.degrees(job.preset, job.sampling).words
    with opened_run(job, progress, change=change, resuming=resuming) as run:
        clips = run.clips()
        if finished := finished_result(job, run, clips):
            progress.message(f"{job.output}: this run is finished already.")
            return finished
        if (trouble := run.delivery_trouble) is not None:
            # Whether the output is this run's is found out when it has been joined again.
            progress.warning(f"{trouble.message} The video is joined again.")
        elif job.output.exists() and not job.delivery.overwrite and not is_own_output(job, run):
            raise output_taken(job.output)
        offload: Offload = "none"
        if any(clip.record is None for clip in clips):
            # Before the controls, which can take minutes.
            offload = fitting_plan(job).offload
            if shared is not None:
                progress.message(shared)
            say_disk(run_bytes(job), job.folder.root, progress, only_if_short=True)
        for note in job.remarks:
            progress.note(note)
        append_event(job.folder.events, "started", clips=len(job.specs), frames=job.added_frames)
        _encode_earlier_video(job, run, progress)
        controls = job.source.prepare(job.folder.controls_dir, job.source_frames, progress)
        make_missing_clips(job, run, clips, controls, progress, offload=offload, leader=leader)
        return deliver(job, run, progress)


def _encode_earlier_video(job: Job, run: Run, progress: Progress) -> None:
    folder, earlier, preset = job.folder, job.earlier, job.preset
    if earlier is None or earlier.joinable:
        return
    if folder.earlier_video.is_file() and folder.earlier_record.is_file():
        if _is_as_recorded(run):
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
    record = {"run_id": run.manifest.run_id, "video_hash": hash_file(folder.earlier_video)}
    write_atomic(folder.earlier_record, checksummed_json(record))


def _is_as_recorded(run: Run) -> bool:
    folder = run.folder
    try:
        record = read_checksummed_json(folder.earlier_record.read_bytes())
        found = {"run_id": run.manifest.run_id, "video_hash": hash_file(folder.earlier_video)}
        return record == found
    except OSError as reason:
        if is_passing(reason):
            raise storage_error(folder.earlier_video, reason) from reason
        return False
    except ValueError:
        return False
