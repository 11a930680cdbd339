"""Fetches models from the hub into its cache: sizes first, then each file, checked, resumable.

`huggingface_hub` (2.4) throws away what an interrupted download had fetched, and so do its xet
transfers; with files of five gigabytes and more that is hours of somebody's evening. So the bytes
are fetched here, by plain ranges into a partial file that stays, and put where the library's cache
has them: `blobs/HASH`, linked from `snapshots/COMMIT/PATH`.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from filelock import FileLock, Timeout
from huggingface_hub import (
    HfApi,
    constants,
    get_session,
    get_token,
    hf_hub_url,
    hf_raise_for_status,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from longvie_cli.disk.durable import commit_file, storage_error, write_atomic
from longvie_cli.errors import (
    LongVieError,
    MissingResourceError,
    OutputConflictError,
    ResumableError,
)
from longvie_cli.hub.installed import (
    Meter,
    entry_status,
    gigabytes,
    missing_error,
)
from longvie_cli.hub.record import (
    FileRecord,
    PullRecord,
    check_content,
    is_checked,
    repo_folder,
    snapshot_folder,
    stored_record,
    write_record,
)
from longvie_cli.hub.registry import ModelEntry
from longvie_cli.progress import Progress

# sha1 of git, or sha256.
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_HTTP_PARTIAL_CONTENT = 206
_HTTP_SERVER_ERROR = 500
# Request timeout, too many requests.
_HTTP_TRY_LATER = (408, 429)


@dataclass(frozen=True)
class Hub:
    """Where models come from and go to.

    Args:
        endpoint: Base address.
        cache: Folder of the hub cache.
        offline: Whether the network must not be asked.
        retry_waits_seconds: Pauses between tries of a broken transfer; the count starts anew
            whenever bytes arrived.
    """

    endpoint: str
    cache: Path
    offline: bool = False
    retry_waits_seconds: tuple[float, ...] = (1.0, 3.0, 10.0)

    @classmethod
    def of_environment(cls) -> Hub:
        """Return the hub of HF_ENDPOINT, HF_HOME, HF_HUB_CACHE and HF_HUB_OFFLINE."""
        return cls(
            endpoint=constants.ENDPOINT,
            cache=Path(constants.HF_HUB_CACHE),
            offline=constants.is_offline_mode(),
        )


def free_bytes(folder: Path) -> int:
    """Return the bytes free where a folder is, or will be."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def pull(
    entries: Sequence[ModelEntry],
    hub: Hub,
    progress: Progress,
    *,
    free_space: Callable[[Path], int] = free_bytes,
) -> list[Path]:
    """Fetch what is missing or damaged of these entries and return their folders.

    Nothing is fetched before it is known that all of it fits on the disk. Stopped at any time, the
    same call goes on with the byte at which it stopped.

    Raises:
        MissingResourceError: Offline and something is missing; or the hub has no such repository,
            revision or file, or does not grant it.
        ResumableError: The disk is too small, or the network failed.
        OutputConflictError: Another process is fetching the same model, or the cache cannot be
            written.
    """
    names = " ".join(entry.name for entry in entries)
    if hub.offline:
        found = [entry_status(entry, hub.cache) for entry in entries]
        if not all(status.complete for status in found):
            raise missing_error(found, command=names, what="--offline")
        return [status.folder for status in found if status.folder is not None]
    wanted = [_listing(entry, hub, names) for entry in entries]
    records = [_without_damage(record, hub, progress) for record in wanted]
    needed = sum(_bytes_to_fetch(record, hub) for record in records)
    free = free_space(hub.cache)
    if needed > free:
        raise ResumableError(
            f"{hub.cache}: {needed} bytes ({gigabytes(needed)}) are needed, {free} bytes "
            f"({gigabytes(free)}) are free.",
            hint=f"Free some space, or set HF_HOME to a larger disk; then: longvie models pull "
            f"{names}",
        )
    meter = Meter(progress, "download (MB)", needed)
    for record in records:
        with _alone(record, hub):
            _fetch(record, hub, progress, meter, names)
    meter.finish()
    return [snapshot_folder(hub.cache, record.repo, record.commit) for record in records]


def _listing(entry: ModelEntry, hub: Hub, names: str) -> PullRecord:
    """Ask the hub for the files of an entry; what was checked before keeps its mark."""
    before = stored_record(entry, hub.cache)
    revision = entry.revision if before is None else before.commit
    try:
        info = HfApi(endpoint=hub.endpoint).model_info(
            entry.repo,
            revision=revision,
            files_metadata=True,
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
        )
    except (httpx2.HTTPError, OfflineModeIsEnabled) as error:
        raise _hub_error(error, entry, hub, names) from error
    files: dict[str, FileRecord] = {}
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    for name, sibling in siblings.items():
        if not entry.wants(name):
            continue
        sha256 = sibling.lfs.sha256 if sibling.lfs is not None else None
        blob = sha256 or sibling.blob_id
        # They become names of files, so they must be what they say.
        if blob is None or _HASH.fullmatch(blob) is None or sibling.size is None:
            raise MissingResourceError(f"{entry.repo}: the hub tells no hash of {name}.")
        known = before.files.get(name) if before is not None else None
        kept = known is not None and (known.blob, known.bytes) == (blob, sibling.size)
        files[name] = known if known and kept else _file(blob, sibling.size, sha256)
    absent = [name for name in entry.required if name not in files]
    if absent or info.sha is None or _HASH.fullmatch(info.sha) is None:
        raise MissingResourceError(
            f"{entry.repo} at {revision}: the hub has no {', '.join(absent) or 'commit'}.",
            hint="This version of longvie expects another release of the model.",
        )
    return PullRecord(
        name=entry.name, repo=entry.repo, revision=entry.revision, commit=info.sha, files=files
    )


def _file(blob: str, size: int, sha256: str | None) -> FileRecord:
    return FileRecord(bytes=size, blob=blob, sha256=sha256)


def _without_damage(record: PullRecord, hub: Hub, progress: Progress) -> PullRecord:
    """Read the files nobody has checked yet, and remove those that are not intact."""
    files = dict(record.files)
    unread = {
        name: path
        for name, file in files.items()
        if (path := _blob(record, name, hub)).exists() and not is_checked(path, file)
    }
    if not unread:
        return record
    meter = Meter(progress, "verify (MB)", sum(path.stat().st_size for path in unread.values()))
    for name, path in unread.items():
        intact = check_content(path, files[name], meter.add)
        if intact is None:
            progress.message(f"{record.name}: {name} is damaged and is fetched again.")
            path.unlink(missing_ok=True)
            intact = files[name].model_copy(update={"checked_mtime_ns": None})
        files[name] = intact
    meter.finish()
    return record.model_copy(update={"files": files})


def _bytes_to_fetch(record: PullRecord, hub: Hub) -> int:
    absent: dict[Path, int] = {}
    for name, file in record.files.items():
        blob = _blob(record, name, hub)
        if not blob.exists():
            partial = _partial(record, name, hub)
            absent[blob] = file.bytes - (partial.stat().st_size if partial.exists() else 0)
    return sum(max(0, size) for size in absent.values())


@contextmanager
def _alone(record: PullRecord, hub: Hub) -> Iterator[None]:
    folder = repo_folder(hub.cache, record.repo)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error
    lock = FileLock(folder / "longvie.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OutputConflictError(
            f"{record.name}: another process is fetching this model.",
            hint="Wait for it; the same command then has nothing left to do.",
        ) from error
    try:
        yield
    finally:
        lock.release()


def _fetch(record: PullRecord, hub: Hub, progress: Progress, meter: Meter, names: str) -> None:
    # Written before the first byte, so that from now on it is known what is missing.
    write_record(record, hub.cache)
    if record.commit != record.revision:
        ref = repo_folder(hub.cache, record.repo) / "refs" / record.revision
        ref.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(ref, record.commit.encode())
    files = dict(record.files)
    for name, file in record.files.items():
        blob = _blob(record, name, hub)
        if not blob.exists():
            progress.message(f"{record.name}: {name}, {gigabytes(file.bytes)}")
            files[name] = _fetch_file(record, name, hub, meter, names)
        elif file.checked_mtime_ns is None:
            # The content of another file of this model, fetched a moment ago.
            files[name] = check_content(blob, file) or file
        _link(blob, snapshot_folder(hub.cache, record.repo, record.commit) / name)
        record = record.model_copy(update={"files": dict(files)})
        write_record(record, hub.cache)


def _fetch_file(record: PullRecord, name: str, hub: Hub, meter: Meter, names: str) -> FileRecord:
    file, blob = record.files[name], _blob(record, name, hub)
    partial = _partial(record, name, hub)
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        if partial.exists() and partial.stat().st_size > file.bytes:
            partial.unlink()
        _fetch_bytes(record, name, partial, hub, meter, names)
        intact = check_content(partial, file)
        if intact is None:
            partial.unlink()
            raise ResumableError(
                f"{record.name}: {name}: what arrived is not what the hub published, and was "
                "thrown away.",
                hint=f"longvie models pull {names}",
            )
        blob.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(partial, error) from error
    commit_file(partial, blob)
    return intact


def _fetch_bytes(
    record: PullRecord, name: str, partial: Path, hub: Hub, meter: Meter, names: str
) -> None:
    """Append to the partial file until it has its size."""
    size = record.files[name].bytes
    url = hf_hub_url(record.repo, name, revision=record.commit, endpoint=hub.endpoint)
    tries = 0
    while (have := _size(partial)) < size or not partial.exists():
        try:
            _append(url, partial, have, meter, size)
            if _size(partial) <= have < size:
                raise httpx2.RemoteProtocolError("the answer held no further bytes")
        except (httpx2.HTTPError, OfflineModeIsEnabled) as error:
            tries = 0 if _size(partial) > have else tries
            if not _passes(error) or tries == len(hub.retry_waits_seconds):
                raise _transfer_error(error, record, name, _size(partial), names) from error
            time.sleep(hub.retry_waits_seconds[tries])
            tries += 1


def _append(url: str, partial: Path, have: int, meter: Meter, size: int) -> None:
    """Append what the hub sends to a file of `have` bytes, until it has more than `size`."""
    headers = {
        "User-Agent": "longvie",
        # A compressed answer could not be continued from a byte of the file.
        "Accept-Encoding": "identity",
    }
    if token := get_token():
        headers["Authorization"] = f"Bearer {token}"
    if have:
        headers["Range"] = f"bytes={have}-"
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
        hf_raise_for_status(response)
        if have and response.status_code != _HTTP_PARTIAL_CONTENT:
            meter.add(-have)
            have = 0
        with open(partial, "ab" if have else "wb") as file:
            # As the bytes come: a larger chunk would be lost with the connection.
            for chunk in response.iter_bytes():
                file.write(chunk)
                meter.add(len(chunk))
                have += len(chunk)
                if have > size:
                    return  # Not the file; it would fill the disk.


def _passes(error: Exception) -> bool:
    """Return whether trying again may help: the network, or the server's own trouble."""
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return status >= _HTTP_SERVER_ERROR or status in _HTTP_TRY_LATER
    return isinstance(error, httpx2.TransportError)


def _transfer_error(
    error: Exception, record: PullRecord, name: str, have: int, names: str
) -> LongVieError:
    reason = _words(error)
    return ResumableError(
        f"{record.name}: {name}: the download stopped at {have} of {record.files[name].bytes} "
        f"bytes ({reason}).",
        hint=f"To go on from there: longvie models pull {names}",
    )


def _hub_error(error: Exception, entry: ModelEntry, hub: Hub, names: str) -> LongVieError:
    if isinstance(error, GatedRepoError):
        return MissingResourceError(
            f"{entry.repo}: its owner grants access on request.",
            hint=f"Ask for it on {hub.endpoint}/{entry.repo}, then: hf auth login",
        )
    if isinstance(error, RevisionNotFoundError):
        return MissingResourceError(f"{entry.repo}: the hub has no revision {entry.revision}.")
    if isinstance(error, RepositoryNotFoundError):
        return MissingResourceError(
            f"{entry.repo}: {hub.endpoint} has no such repository, or it is private.",
            hint="If you have access: hf auth login",
        )
    return ResumableError(
        f"{hub.endpoint}: the hub cannot be reached ({_words(error)}).",
        hint=f"Check the network and HF_ENDPOINT, then: longvie models pull {names}",
    )


def _words(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else f"{text[:157]}..."


def _blob(record: PullRecord, name: str, hub: Hub) -> Path:
    blob = repo_folder(hub.cache, record.repo) / "blobs" / record.files[name].blob
    pointer = snapshot_folder(hub.cache, record.repo, record.commit) / name
    # Where links are not possible, the cache keeps the file itself in the snapshot.
    return pointer if pointer.is_file() and not pointer.is_symlink() else blob


def _partial(record: PullRecord, name: str, hub: Hub) -> Path:
    blob = repo_folder(hub.cache, record.repo) / "blobs" / record.files[name].blob
    return blob.with_name(f"{blob.name}.longvie.part")


def _link(blob: Path, pointer: Path) -> None:
    if pointer == blob or pointer.exists():
        return
    try:
        pointer.parent.mkdir(parents=True, exist_ok=True)
        pointer.unlink(missing_ok=True)
        try:
            pointer.symlink_to(os.path.relpath(blob, pointer.parent))
        except OSError:
            # No links on this file system, or no right to make them (Windows).
            os.replace(blob, pointer)
    except OSError as error:
        raise storage_error(pointer, error) from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
