"""A run as it lies on disk: what it was asked for, which of its clips exist, what was delivered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from longvie_cli.disk.durable import is_passing, storage_error
from longvie_cli.disk.hashing import hash_file
from longvie_cli.errors import OutputConflictError
from longvie_cli.run_folder.delivery_record import DeliveryRecord, read_delivery
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.manifest import (
    ClipRecord,
    DamagedRecordError,
    Redo,
    RunManifest,
    read_manifest,
    read_record,
    retry_seed,
    write_manifest,
)
from longvie_cli.timeline import ClipSpec

Hasher = Callable[[Path], str]
"""`hash_file`, or something that remembers what it found."""


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


@dataclass(frozen=True)
class _Planned:
    """A clip as the run has it planned, after what is stored of the clip before it."""

    spec: ClipSpec
    prompt: str
    seed: int
    before: StoredClip | None

    @property
    def follows(self) -> str | None:
        """Hash of the tail it is made after; None where that is not known."""
        if self.spec.starts_scene or self.before is None:
            return ""
        return None if self.before.record is None else self.before.record.tail_hash


class Run:
    """One run, read once; whoever changes its run.json does it through this object.

    Args:
        folder: Where it lies.
        manifest: What its run.json says.
    """

    def __init__(self, folder: RunFolder, manifest: RunManifest) -> None:
        self.folder = folder
        self._manifest = manifest

    @classmethod
    def read(cls, folder: RunFolder) -> Run:
        """Return the run in a folder.

        Raises:
            OutputConflictError: Its run.json and the copy are damaged, or of a newer version.
        """
        return cls(folder, read_manifest(folder.run_json))

    @property
    def manifest(self) -> RunManifest:
        """What its run.json says."""
        return self._manifest

    def rewrite(self, manifest: RunManifest) -> None:
        """Write another run.json; to be called by who holds the lock.

        Raises:
            ResumableError: The disk is full.
            OutputConflictError: The folder cannot be written.
        """
        write_manifest(self.folder.run_json, manifest)
        self._manifest = manifest

    @property
    def redos(self) -> tuple[Redo, ...]:
        """What was ordered to be made again, oldest first."""
        return self._manifest.redos

    @property
    def revision(self) -> int:
        """How often the run was changed: a finished file counts only with this revision."""
        return len(self.redos)

    def revision_of(self, clip_index: int) -> int:
        """Return how many redos have forgotten a clip: its record counts only with this number."""
        return sum(redo.clip <= clip_index for redo in self.redos)

    def picture_of(self, clip_index: int) -> Path:
        """Return where the picture is stored that is made for a clip which begins a scene."""
        return self.folder.scene_picture(clip_index, self.revision_of(clip_index))

    @cached_property
    def _delivered(self) -> DeliveryRecord | OutputConflictError | None:
        try:
            record = read_delivery(self.folder)
        except OutputConflictError as error:
            return error
        return None if record is None or record.run_id != self._manifest.run_id else record

    @property
    def delivery(self) -> DeliveryRecord | None:
        """The record of its finished file, whatever was ordered since; None if there is no sound
        one that is of this run."""
        return self._delivered if isinstance(self._delivered, DeliveryRecord) else None

    @property
    def delivery_trouble(self) -> OutputConflictError | None:
        """What is wrong with the record of its finished file, None if nothing is."""
        return self._delivered if isinstance(self._delivered, OutputConflictError) else None

    @property
    def is_delivered(self) -> bool:
        """Whether a finished file was recorded that nothing was ordered since."""
        return self.delivery is not None and self.delivery.revision == self.revision

    def clips(self, *, hasher: Hasher = hash_file) -> list[StoredClip]:
        """Return what is there of every clip, also of those after one that is missing.

        A clip whose record, video or tail is missing or not intact does not exist, nor does one
        that was made before a redo forgot it, for another run, with another seed or prompt than
        the plan has, or after another tail than the one that lies before it.

        Raises:
            OutputConflictError: A record is of a newer version.
            ResumableError: The disk failed.
        """
        found: list[StoredClip] = []
        manifest = self._manifest
        planned = zip(manifest.plan, manifest.clip_prompts, manifest.clip_seeds, strict=True)
        for spec, prompt, seed in planned:
            before = found[-1] if found else None
            found.append(self._stored(_Planned(spec, prompt, seed, before), hasher))
        return found

    def _stored(self, planned: _Planned, hasher: Hasher) -> StoredClip:
        spec = planned.spec
        path = self.folder.clip_record(spec.index)
        if not path.is_file():
            return StoredClip(spec, None)
        try:
            record = read_record(path)
        except DamagedRecordError:
            return StoredClip(spec, None, f"{path.name} is damaged")
        if record.revision < self.revision_of(spec.index):
            return StoredClip(spec, None)
        damage = self._foreign(record, planned) or self._harm(record, spec, hasher)
        return StoredClip(spec, None if damage else record, damage)

    def _foreign(self, record: ClipRecord, planned: _Planned) -> str:
        """Return in words why a record is not of this clip of this run; empty if it is."""
        spec = planned.spec
        name = self.folder.clip_record(spec.index).name
        if record.run_id != self._manifest.run_id:
            return f"{name} is of another run"
        same = (record.index, record.frames, record.revision)
        if same != (spec.index, spec.added_frames, self.revision_of(spec.index)):
            return f"{name} is of another clip"
        seeds = (retry_seed(planned.seed, attempt) for attempt in range(record.attempts))
        if record.prompt != planned.prompt or record.seed not in seeds:
            return f"{name} has another prompt or seed than the run"
        if planned.follows is not None and record.follows != planned.follows:
            return f"{name} was made after another clip than the one before it"
        return ""

    def _harm(self, record: ClipRecord, spec: ClipSpec, hasher: Hasher) -> str:
        """Return in words what is wrong with the files of a clip; empty if nothing is."""
        for file, promised in (
            (self.folder.clip_video(spec.index), record.video_hash),
            (self.folder.tail(spec.index), record.tail_hash),
        ):
            shown = f"{file.parent.name}/{file.name}"
            try:
                if file.is_symlink():
                    return f"{shown} is a link to somewhere else"
                if hasher(file) != promised:
                    return f"{shown} is not what was written"
            except OSError as reason:
                if is_passing(reason):
                    raise storage_error(file, reason) from reason
                return f"{shown}: {reason.strerror}"
        return ""

    def harmed(self, clips: Sequence[StoredClip]) -> list[StoredClip]:
        """Return those of `clips` whose files are all there, but not as they were written.

        A file that is gone was removed, to save space perhaps; one that has changed was damaged.
        """
        return [
            clip
            for clip in clips
            if clip.damage
            and self.folder.clip_video(clip.spec.index).exists()
            and self.folder.tail(clip.spec.index).exists()
        ]
