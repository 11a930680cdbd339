"""What was fetched of a model: its commit, and size and hash of every file.

The record lies in the model's folder of the hub cache, `models--OWNER--NAME/longvie.json`, so that
it goes along when that folder is copied to a machine without network, and is checked there.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from longvie_cli.disk.documents import MAX_JSON_BYTES, read_document
from longvie_cli.disk.durable import write_atomic
from longvie_cli.hub.registry import ModelEntry

logger = logging.getLogger(__name__)

RECORD_NAME = "longvie.json"
RECORD_VERSION = 1

_BLOCK_BYTES = 1 << 20
_SHA256_DIGITS = 64


class FileRecord(BaseModel):
    """One file of a model.

    Args:
        bytes: Its size.
        blob: Its name among the cache's blobs: sha256 of a large file, git's blob id of a small
            one; empty where the cache holds no blobs (Windows).
        sha256: Of its content; None while nobody has read it.
        checked_mtime_ns: Time of the file when its content was last checked; None: not checked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int
    blob: str
    sha256: str | None = None
    checked_mtime_ns: int | None = None


class PullRecord(BaseModel):
    """The files of one entry at one commit, by their path in the repository."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    record_version: int = RECORD_VERSION
    name: str
    repo: str
    revision: str
    commit: str
    files: dict[str, FileRecord]


def repo_folder(cache: Path, repo: str) -> Path:
    """Return the folder of a repository in the hub cache."""
    return cache / f"models--{repo.replace('/', '--')}"


def snapshot_folder(cache: Path, repo: str, commit: str) -> Path:
    """Return the folder in which the files of a commit appear under their own names."""
    return repo_folder(cache, repo) / "snapshots" / commit


def stored_record(entry: ModelEntry, cache: Path) -> PullRecord | None:
    """Return the record of the pinned commit, or None where there is none."""
    path = repo_folder(cache, entry.repo) / RECORD_NAME
    try:
        record = PullRecord.model_validate_json(read_document(path, MAX_JSON_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        # Nothing is lost: the files themselves are there, and are read again.
        logger.warning("%s: cannot be read and is made anew (%s).", path, error)
        return None
    if record.record_version != RECORD_VERSION or record.repo != entry.repo:
        return None
    return None if entry.pinned and record.commit != entry.revision else record


def write_record(record: PullRecord, cache: Path) -> None:
    """Write a record beside the files it is about.

    Raises:
        ResumableError: The disk is full.
        OutputConflictError: The cache cannot be written.
    """
    data = record.model_dump_json(indent=1).encode()
    write_atomic(repo_folder(cache, record.repo) / RECORD_NAME, data)


def known_record(entry: ModelEntry, cache: Path) -> PullRecord | None:
    """Return the record, or one made of what another program fetched into the cache.

    The cache names a file's blob after the hash of its content, so that such files can be checked
    just as well. None: nothing of the pinned revision is there.
    """
    if record := stored_record(entry, cache):
        return record
    commit = entry.revision if entry.pinned else _branch_commit(entry, cache)
    if commit is None:
        return None
    folder = snapshot_folder(cache, entry.repo, commit)
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and entry.wants(name):
            blob = path.resolve().name if path.is_symlink() else ""
            files[name] = FileRecord(
                bytes=path.stat().st_size,
                blob=blob,
                sha256=blob if len(blob) == _SHA256_DIGITS else None,
            )
    if not files:
        return None
    return PullRecord(
        name=entry.name, repo=entry.repo, revision=entry.revision, commit=commit, files=files
    )


def is_checked(path: Path, file: FileRecord) -> bool:
    """Return whether the file is untouched since its content was checked; reads no content."""
    try:
        facts = path.stat()
    except OSError:
        return False
    return (facts.st_size, facts.st_mtime_ns) == (file.bytes, file.checked_mtime_ns)


def check_content(
    path: Path, file: FileRecord, report: Callable[[int], None] = lambda amount: None
) -> FileRecord | None:
    """Read the whole file; return its record with hash and time, or None if it is not intact.

    Args:
        path: The file.
        file: What it should be.
        report: Called with the number of bytes read, every now and then.
    """
    try:
        facts = path.stat()
        if facts.st_size != file.bytes:
            return None
        content = hashlib.sha256()
        # git's name of a blob: sha1 over a header and the content.
        blob = hashlib.sha1(b"blob %d\0" % file.bytes, usedforsecurity=False)
        small = len(file.blob) not in (0, _SHA256_DIGITS)
        with open(path, "rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                content.update(block)
                if small:
                    blob.update(block)
                report(len(block))
    except OSError:
        return None
    found = content.hexdigest()
    if file.sha256 not in (None, found) or (small and blob.hexdigest() != file.blob):
        return None
    return file.model_copy(update={"sha256": found, "checked_mtime_ns": facts.st_mtime_ns})


def _branch_commit(entry: ModelEntry, cache: Path) -> str | None:
    try:
        text = (repo_folder(cache, entry.repo) / "refs" / entry.revision).read_text()
    except OSError:
        return None
    return text.strip() or None
