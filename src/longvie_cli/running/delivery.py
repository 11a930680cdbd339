"""The finished file: joined in the run folder, recorded, then moved to the output in one step."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longvie_cli.disk.durable import (
    begin_part,
    commit_file,
    make_folder,
    part_path,
    storage_error,
)
from longvie_cli.disk.hashing import hash_file
from longvie_cli.media.join import join_clips
from longvie_cli.media.last_pictures import hash_last_pictures
from longvie_cli.media.metadata import encode_settings
from longvie_cli.media.probe import SourceVideo
from longvie_cli.media.sound import SoundPart
from longvie_cli.media.writer import written_video
from longvie_cli.planning.job import Job
from longvie_cli.planning.paths import output_taken
from longvie_cli.progress import Progress
from longvie_cli.result import JobResult
from longvie_cli.run_folder.delivery_record import DeliveryRecord, write_delivery
from longvie_cli.run_folder.events import append_event
from longvie_cli.run_folder.run import Run, StoredClip
from longvie_cli.settings.about import ABOUT_VERSION, checked_about
from longvie_cli.version import __version__


def finished_run(run: Run, output: Path, *, keeps_clips: bool) -> JobResult | None:
    """Return the result of a run that needs nothing more; reads its folder and its output alone.

    Args:
        run: The run.
        output: Where its file lies.
        keeps_clips: Whether the single clips stay.
    """
    record, folder = run.delivery, run.folder
    if record is None or not run.is_delivered or not output.is_file():
        return None
    if folder.joined_video.exists() or (not keeps_clips and any(folder.clips_dir.glob("*.mp4"))):
        return None  # It was killed while it tidied up.
    if run.harmed(run.clips()) or hash_file(output) != record.output_hash:
        return None
    frames, fps = record.about.frames, record.about.fps
    if frames is None or fps is None:
        return None
    return JobResult("done", output, folder.root, frames, frames / fps, run.manifest.seed)


def finished_result(job: Job, run: Run, clips: Sequence[StoredClip]) -> JobResult | None:
    """Return the result of a run that was finished before, after what was left to do at its end.

    That is to move its file out, and to remove the single clips where they are not kept. A run of
    which a clip was damaged since is not finished.

    Raises:
        OutputConflictError: The run is finished, but something else lies at the output.
    """
    record = run.delivery
    if record is None or not run.is_delivered or run.harmed(clips):
        return None
    if not _is(job.output, record.output_hash):
        if not _is(job.folder.joined_video, record.output_hash):
            return None
        _move_out(job, run, record.output_hash)
    # Left by a kill between its copy to another disk and this.
    _remove(job.folder.joined_video)
    if not job.delivery.keep_clips:
        _drop_clips(job)
    return _result(job)


def deliver(job: Job, run: Run, progress: Progress) -> JobResult:
    """Join the clips, move the file to the output and return the result.

    Raises:
        OutputConflictError: Something else has appeared at the output in the meantime.
        MediaError: The clips cannot be joined, or the sound cannot be used.
        ResumableError: The disk is full.
    """
    folder = job.folder
    about = embedded_settings(job)
    join_clips(
        clips_to_join(job, len(job.specs)),
        folder.joined_video,
        fps=job.preset.fps,
        metadata=encode_settings(about) if job.delivery.embed_metadata else None,
        sound=_sound_parts(job),
        overwrite=True,
    )
    output_hash = hash_file(folder.joined_video)
    before = run.delivery
    replaces = None
    if before is not None:
        same = before.output_hash == output_hash
        replaces = before.replaces if same else before.output_hash
    record = DeliveryRecord(
        run_id=run.manifest.run_id,
        output=job.output.name,
        output_hash=output_hash,
        replaces=replaces,
        revision=run.revision,
        last_clip=job.specs[-1].index,
        about=checked_about(about),
    )
    write_delivery(folder, record)
    _move_out(job, run, output_hash)
    append_event(folder.events, "delivered", output=job.output.name, frames=job.total_frames)
    if not job.delivery.keep_clips:
        _drop_clips(job)
        progress.message("The single clips are removed; the last frames stay for `longvie extend`.")
    return _result(job)


def clips_to_join(job: Job, num_clips: int) -> list[SourceVideo]:
    """Return the first clips of a run, after the earlier video if there is one."""
    clips = [
        _written(job, job.folder.clip_video(spec.index), spec.added_frames)
        for spec in job.specs[:num_clips]
    ]
    if (earlier := job.earlier) is not None:
        encoded = _written(job, job.folder.earlier_video, earlier.num_frames)
        clips.insert(0, earlier.video if earlier.joinable else encoded)
    return clips


def _written(job: Job, path: Path, num_frames: int) -> SourceVideo:
    height, width = job.preset.height, job.preset.width
    return written_video(
        path, height=height, width=width, fps=job.preset.fps, num_frames=num_frames
    )


def _sound_parts(job: Job) -> list[SoundPart]:
    """Return the sound of the whole video, part after part; none where it has no sound."""
    earlier, sound, fps = job.earlier, job.sound, job.preset.fps
    before = earlier.num_frames / fps if earlier is not None else 0.0
    after = job.added_frames / fps
    kept = earlier.sound if earlier is not None else None
    if sound is None:
        return [] if kept is None else [SoundPart(kept, 0, before + after)]
    if kept is not None:
        return [SoundPart(kept, 0, before), SoundPart(sound.stream, sound.start, after)]
    begins = sound.start - before
    if begins >= 0:
        return [SoundPart(sound.stream, begins, before + after)]
    return [SoundPart(None, 0, -begins), SoundPart(sound.stream, 0, before + after + begins)]


def is_own_output(job: Job, run: Run) -> bool:
    """Return whether what lies at the output is what this run delivered there before."""
    record = run.delivery
    hashes = () if record is None else (record.output_hash, record.replaces)
    return any(known is not None and _is(job.output, known) for known in hashes)


def _last_pictures(job: Job) -> dict[str, Any]:
    """Return what the video ends with, so that `extend` sees whether it still does."""
    spec = job.specs[-1]
    last = _written(job, job.folder.clip_video(spec.index), spec.added_frames)
    count = min(job.preset.history_frames, spec.added_frames)
    return {"count": count, "hash": hash_last_pictures(last, count)}


def embedded_settings(job: Job) -> dict[str, Any]:
    """Return what the file says about itself: no paths, no names of users or machines."""
    return {
        "tool": "longvie",
        "version": __version__,
        "schema_version": ABOUT_VERSION,
        "command": job.command,
        "settings": dict(job.settings),
        "source_kind": job.source.kind,
        "last_source_frame": job.last_source_frame,
        "frames": job.total_frames,
        "fps": job.preset.fps,
        "clips": len(job.specs),
        "last_pictures": _last_pictures(job),
        "last_prompt": job.prompts[-1],
        "captioned": job.captioned,
    }


def _move_out(job: Job, run: Run, output_hash: str) -> None:
    joined, output = job.folder.joined_video, job.output
    if output.exists() and not (
        job.delivery.overwrite or is_own_output(job, run) or _is(output, output_hash)
    ):
        raise output_taken(output)
    part = part_path(output)
    try:
        make_folder(output.parent)
        if joined.stat().st_dev == output.parent.stat().st_dev:
            commit_file(joined, output)
            return
        try:
            begin_part(part)
            shutil.copyfile(joined, part)
            commit_file(part, output)
        finally:
            part.unlink(missing_ok=True)
        joined.unlink()
    except OSError as reason:
        raise storage_error(output, reason) from reason


def _drop_clips(job: Job) -> None:
    folder = job.folder
    paths = [folder.clip_video(spec.index) for spec in job.specs]
    paths += [folder.tail(spec.index) for spec in job.specs[:-1]]
    for pattern in ("depth_*.mp4", "track_*.mp4"):
        paths += folder.controls_dir.glob(pattern)
    _remove(*paths, folder.earlier_record, folder.earlier_video)


def _remove(*paths: Path) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as reason:
            raise storage_error(path, reason) from reason


def _is(path: Path, content_hash: str) -> bool:
    return path.is_file() and hash_file(path) == content_hash


def _result(job: Job) -> JobResult:
    return JobResult(
        status="done",
        output=job.output,
        run_dir=job.folder.root,
        frames=job.total_frames,
        seconds=job.total_frames / job.preset.fps,
        seed=job.sampling.seed,
    )
