"""When a clip exists: its record is there and its files are what the record says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from longvie_cli.disk.durable import commit_file, is_passing, storage_error, write_atomic
from longvie_cli.disk.hashing import hash_file
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.manifest import (
    ClipRecord,
    DamagedRecordError,
    Redo,
    read_record,
    revision_of,
)
from longvie_cli.timeline import ClipSpec

__all__ = [
    "commit_file",
    "completed_clips",
    "harmed_clips",
    "hash_file",
    "stored_clips",
    "write_atomic",
]


@dataclass(frozen=True)
class StoredClip:
    """What the run folder holds of one clip.

    Args:
        spec: The clip.
        record: Its record, where it exists; None where it has to be made.
        damage: What keeps a clip that was finished from existing, in words; empty where it exists
            or was not finished.
    """

    spec: ClipSpec
    record: ClipRecord | None
    damage: str = ""


def completed_clips(
    folder: RunFolder, plan: Sequence[ClipSpec], redos: Sequence[Redo] = ()
) -> list[ClipRecord]:
    """Return the records of the clips that exist, up to the first that does not.

    A clip whose record, video or tail is missing or not intact does not exist, nor does one that
    was made before a redo forgot it.
    """
    records: list[ClipRecord] = []
    for spec in plan:
        record = _stored_clip(folder, spec, redos, hash_file).record
        if record is None:
            break
        records.append(record)
    return records


def stored_clips(
    folder: RunFolder,
    plan: Sequence[ClipSpec],
    redos: Sequence[Redo] = (),
    *,
    hasher: Callable[[Path], str] = hash_file,
) -> list[StoredClip]:
    """Return what is there of every clip, also of those after one that is missing.

    Args:
        folder: The run.
        plan: Its clips.
        redos: What was ordered to be made again.
        hasher: `hash_file`, or something that remembers what it found.
    """
    return [_stored_clip(folder, spec, redos, hasher) for spec in plan]


def harmed_clips(
    folder: RunFolder, plan: Sequence[ClipSpec], redos: Sequence[Redo] = ()
) -> list[StoredClip]:
    """Return the clips whose files are all there, but not as they were written.

    A file that is gone was removed, to save space perhaps; one that has changed was damaged.
    """
    return [
        clip
        for clip in stored_clips(folder, plan, redos)
        if clip.damage
        and all(
            path.exists()
            for path in (folder.clip_video(clip.spec.index), folder.tail(clip.spec.index))
        )
    ]


def _stored_clip(
    folder: RunFolder, spec: ClipSpec, redos: Sequence[Redo], hasher: Callable[[Path], str]
) -> StoredClip:
    path = folder.clip_record(spec.index)
    if not path.is_file():
        return StoredClip(spec, None)
    try:
        record = read_record(path)
    except DamagedRecordError:
        return StoredClip(spec, None, f"{path.name} is damaged")
    if record.revision != revision_of(redos, spec.index):
        return StoredClip(spec, None)
    if (record.index, record.frames) != (spec.index, spec.added_frames):
        return StoredClip(spec, None, f"{path.name} is of another clip")
    for file, promised in (
        (folder.clip_video(spec.index), record.video_hash),
        (folder.tail(spec.index), record.tail_hash),
    ):
        try:
            if file.is_symlink():
                return StoredClip(spec, None, f"{_shown(file)} is a link to somewhere else")
            if hasher(file) != promised:
                return StoredClip(spec, None, f"{_shown(file)} is not what was written")
        except OSError as reason:
            if is_passing(reason):
                raise storage_error(file, reason) from reason
            return StoredClip(spec, None, f"{_shown(file)}: {reason.strerror}")
    return StoredClip(spec, record)


def _shown(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"
