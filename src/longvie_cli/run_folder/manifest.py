"""What a run was asked for, and what each of its clips is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from longvie_cli.disk.checksums import checksummed_json, read_checksummed_json
from longvie_cli.disk.documents import MAX_JSON_BYTES, first_reason_of, read_document
from longvie_cli.disk.durable import is_passing, storage_error, write_atomic
from longvie_cli.errors import OutputConflictError
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.settings.about import check_settings
from longvie_cli.timeline import ClipSpec

SCHEMA_VERSION = 1
# Another seed for another attempt: far from seeds that people, or --seed-per-clip, count up to.
_RETRY_STRIDE = 1_000_003

_Value = TypeVar("_Value", str, int)


class _Record(BaseModel):
    # What a later longvie adds within this format version is optional: it is kept, not understood.
    model_config = ConfigDict(frozen=True, extra="allow", strict=True)


class Redo(_Record):
    """One order to forget clips of a run and make them again.

    Args:
        clip: The first clip forgotten.
        prompt: New prompt of this clip and of those after it that shared its prompt; None keeps it.
        seed: New seed, likewise.
        new_request: The clips are made by another request, which is then the run's; what redos
            before it said of prompts and seeds no longer counts.
        kept_prompts: With `new_request`, the prompts of the clips before, which stay as they are.
        kept_seeds: Likewise, their seeds.
    """

    clip: int = Field(ge=0)
    prompt: str | None = None
    seed: int | None = None
    new_request: bool = False
    kept_prompts: tuple[str, ...] = ()
    kept_seeds: tuple[int, ...] = ()


class StoredDepth(_Record):
    model: str | None = None
    smoothing: Literal["none", "flow"] | None = None
    video: str | None = None
    polarity: Literal["near-white", "near-black", "auto"] = "auto"


class RunInputs(_Record):
    """Where the run's inputs are on this machine; only here, never in the video.

    Args:
        source: The video or the controls.
        source_kind: Kind of the source.
        weights: Folder of the weights, where one was named.
        lora_paths: The LoRA files.
        depth: Where the depth of the source comes from.
        states: What each file and folder that the request names was, as `input_state`, by path.
    """

    source: str | None = None
    source_kind: str
    weights: str | None = None
    lora_paths: tuple[str, ...] = ()
    depth: StoredDepth | None = None
    states: dict[str, str] = {}


class RunManifest(_Record):
    """`run.json`: everything that decides a run's frames, and where they came from.

    Args:
        schema_version: Version of this format.
        run_id: Drawn when the run began; records of its clips, and of its finished file, name it.
        command: `generate` or `extend`.
        settings: Everything that decides the frames.
        fingerprint: `fingerprint(settings)`; another one is another run.
        request: The resolved request as JSON values, from which the job is made again.
        asked: `fingerprint` of the request as it was given, before an earlier video completed it.
        inputs: Where its inputs are.
        plan: The clips, in order.
        seed: Seed of the run's one noise.
        preset: Name of the preset.
        model_hashes: Hash of each weights file, by name.
        versions: Version of each package that shapes the frames.
        created: When the run began, ISO 8601 in UTC.
        redos: What was ordered to be made again, oldest first. Appending to it forgets the clips.
    """

    schema_version: int = Field(default=SCHEMA_VERSION, ge=1)
    run_id: str
    command: Literal["generate", "extend"]
    settings: dict[str, Any]
    fingerprint: str
    request: dict[str, Any]
    asked: str
    inputs: RunInputs
    plan: tuple[ClipSpec, ...]
    seed: int
    preset: str
    model_hashes: dict[str, str]
    versions: dict[str, str]
    created: str
    redos: tuple[Redo, ...] = ()

    @field_validator("settings")
    @classmethod
    def _usable(cls, settings: dict[str, Any]) -> dict[str, Any]:
        check_settings(settings)
        return settings

    @field_validator("request")
    @classmethod
    def _names_its_output(cls, request: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(request.get("output"), str) or not request["output"]:
            raise ValueError("request.output: no path")
        if not isinstance(request.get("run_dir"), str | None):
            raise ValueError("request.run_dir: no path")
        return request

    @field_validator("plan")
    @classmethod
    def _in_order(cls, plan: tuple[ClipSpec, ...]) -> tuple[ClipSpec, ...]:
        for index, spec in enumerate(plan):
            possible = spec.first_frame >= 0 and spec.skip_frames in (0, 1)
            if spec.index != index or not possible or spec.added_frames < 1:
                raise ValueError(f"{spec} cannot be clip {index}")
        return plan

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if len(self.clip_prompts) != len(self.plan) or len(self.clip_seeds) != len(self.plan):
            raise ValueError("settings: not one prompt and seed a clip")
        return self

    @property
    def clip_prompts(self) -> tuple[str, ...]:
        """The prompt each clip is, or was, made with."""
        stated = self.settings.get("prompts") or [self.settings.get("prompt", "")] * len(self.plan)
        return self._kept_first(stated, [redo.kept_prompts for redo in self.redos])

    @property
    def clip_seeds(self) -> tuple[int, ...]:
        """The seed each clip is, or was, made with, before any retry."""
        stated = self.settings.get("seeds") or [self.settings.get("seed", 0)] * len(self.plan)
        return self._kept_first(stated, [redo.kept_seeds for redo in self.redos])

    def _kept_first(
        self, stated: Sequence[_Value], kept: Sequence[Sequence[_Value]]
    ) -> tuple[_Value, ...]:
        """Return the values of all clips, those of clips kept by the latest request as they were.

        A redo since has made the clips from its own on by the request of today.
        """
        taken_on = [index for index, redo in enumerate(self.redos) if redo.new_request]
        values = list(stated)
        if taken_on:
            count = min(redo.clip for redo in self.redos[taken_on[-1] :])
            values[:count] = kept[taken_on[-1]][:count]
        return tuple(values)


class ClipRecord(_Record):
    """`clips/0000.json`: a finished clip.

    Args:
        run_id: The run it belongs to.
        index: Number of the clip in its run, from 0.
        frames: Frames in its video: those it adds.
        video_hash: `hash_file` of its video.
        tail_hash: `hash_file` of its tail.
        seconds: How long it took to make.
        seed: Seed it was made with.
        prompt: Prompt it was made with.
        follows: Hash of the tail it was made after, empty for a clip that follows none.
        revision: How many redos had forgotten it when it was made.
        attempts: How often it was made until it was kept.
        warnings: What looked wrong in it, in words.
    """

    run_id: str
    index: int = Field(ge=0)
    frames: int = Field(ge=1)
    video_hash: str
    tail_hash: str
    seconds: float = Field(ge=0, le=1e9)
    seed: int
    prompt: str
    follows: str
    revision: int = Field(default=0, ge=0)
    attempts: int = Field(default=1, ge=1)
    warnings: tuple[str, ...] = ()


def retry_seed(seed: int, attempt: int) -> int:
    """Return the seed of a clip's attempt, counted from 0: the first has the clip's own."""
    return (seed + _RETRY_STRIDE * attempt) % 2**63


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return in words how two requests differ, `seed 7, not 8`, one item a key, sorted by key."""
    missing = object()
    words = []
    for key in sorted({*stored, *wanted}):
        old, new = stored.get(key, missing), wanted.get(key, missing)
        if old != new:
            shown = ["nothing" if value is missing else _short(value) for value in (old, new)]
            words.append(f"{key} {shown[0]}, not {shown[1]}")
    return words


def write_manifest(path: Path, manifest: RunManifest) -> None:
    """Write `run.json` in one step, and then its copy.

    Raises:
        ResumableError: The disk is full.
        OutputConflictError: The folder cannot be written.
    """
    data = _json_bytes(manifest)
    write_atomic(path, data)
    write_atomic(RunFolder(path.parent).run_copy, data)


def read_manifest(path: Path) -> RunManifest:
    """Return what `run.json` says, or its copy where it is missing or damaged.

    Raises:
        OutputConflictError: Both are missing or damaged, or it is of a newer version.
    """
    try:
        return _read(path, RunManifest)
    except DamagedRecordError as damaged:
        try:
            return _read(RunFolder(path.parent).run_copy, RunManifest)
        except OutputConflictError:
            raise damaged from damaged.__cause__


def manifest_trouble(folder: RunFolder) -> str:
    """Return what is wrong with `run.json`, for which its copy then stands; empty if nothing is.

    Raises:
        OutputConflictError: It is of a newer version, or may not be read.
        ResumableError: The disk failed.
    """
    try:
        _read(folder.run_json, RunManifest)
    except DamagedRecordError as damaged:
        return damaged.message
    return ""


def mend_manifest(folder: RunFolder) -> str:
    """Make `run.json` and its copy one again; to be called by who holds the lock.

    Returns:
        What was mended, in words; empty where nothing was, or only a copy that was not there yet.

    Raises:
        OutputConflictError: Both are missing or damaged, or it is of a newer version.
        ResumableError: The disk is full or failed.
    """
    trouble = manifest_trouble(folder)
    if trouble:
        trouble += " It is written anew from its copy."
    manifest = read_manifest(folder.run_json)
    try:
        same = _read(folder.run_copy, RunManifest) == manifest
    except OutputConflictError as error:
        same = False
        if folder.run_copy.exists() and not trouble:
            trouble = f"{error.message} It is written anew."
    if not same or manifest_trouble(folder):
        write_manifest(folder.run_json, manifest)
    return trouble


def write_record(path: Path, record: ClipRecord) -> None:
    """Write a clip's record in one step: with it the clip exists.

    Raises:
        ResumableError: The disk is full.
        OutputConflictError: The folder cannot be written.
    """
    write_atomic(path, _json_bytes(record))


def read_record(path: Path) -> ClipRecord:
    """Return a clip's record.

    Raises:
        DamagedRecordError: It is missing or damaged.
        OutputConflictError: It is of a newer version, or may not be read.
        ResumableError: The disk failed.
    """
    return _read(path, ClipRecord)


_Stored = TypeVar("_Stored", RunManifest, ClipRecord)


class DamagedRecordError(OutputConflictError):
    """A JSON file of a run is missing, torn or changed."""


def _read(path: Path, kind: type[_Stored]) -> _Stored:
    try:
        data = read_document(path, MAX_JSON_BYTES)
    except OSError as reason:
        if is_passing(reason):
            raise storage_error(path, reason) from reason
        raise DamagedRecordError(f"{path}: cannot be read ({reason.strerror}).") from reason
    except ValueError as reason:
        raise _damaged(path, str(reason)) from reason
    try:
        values = read_checksummed_json(data)
        version = values.get("schema_version", SCHEMA_VERSION)
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise OutputConflictError(
                f"{path}: written by a newer longvie (format {version}, this one reads up to "
                f"{SCHEMA_VERSION})."
            )
        return kind.model_validate_json(json.dumps(values))
    except ValidationError as reason:
        raise _damaged(path, first_reason_of(reason)) from reason
    except ValueError as reason:
        raise _damaged(path, str(reason)) from reason


def _damaged(path: Path, why: str) -> DamagedRecordError:
    return DamagedRecordError(
        f"{path}: not a file this longvie wrote, or damaged ({why}).",
        hint="Choose another --run-dir, or remove the run folder to start again.",
    )


def _json_bytes(stored: BaseModel) -> bytes:
    return checksummed_json(stored.model_dump(mode="json"))


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
