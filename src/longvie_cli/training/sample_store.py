"""Samples in uncompressed tar files of bounded size, each with an index, appended resumably.

    prepared.json         what the samples are, and their shards; written last: with it the folder
                          is complete
    shard-00000.tar       000000.json, 000000.video.mp4, 000000.depth.mp4, 000000.track.mp4, ...
    shard-00000.json      where each of these files lies in the tar, and its hash
    unfinished/           the journal and scratch of a preparation that goes on

Any program that reads tar files reads the shards; ours seeks to a sample by its number.
"""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Annotated, Any, Self, TypeVar

import xxhash
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from longvie_cli.disk.checksums import checksummed_json, read_checksummed_json
from longvie_cli.disk.documents import MAX_JSON_BYTES, first_reason_of, parse_json, read_document
from longvie_cli.disk.durable import begin_part, is_passing, storage_error, write_atomic
from longvie_cli.errors import InputError
from longvie_cli.training.clip_choice import Dropped

INDEX_NAME = "prepared.json"
UNFINISHED_NAME = "unfinished"
SHARD_BYTES = 256 << 20
"""A shard is closed before it would grow beyond this, unless a single sample is larger."""

MEMBERS = ("json", "video.mp4", "depth.mp4", "track.mp4")
"""The files of a sample, after its number."""

_BLOCK = 512
_END = bytes(2 * _BLOCK)
_READ_BYTES = 1 << 20
_OWN_FILE = re.compile(r"prepared\.json(\.part)?|shard-\d{5,}\.(tar|json)(\.part)?")

Count = Annotated[int, Field(ge=0)]


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Member(_Stored):
    """Where a file lies in its shard.

    Args:
        offset: Of its first byte.
        size: In bytes.
        hash: Its xxh3 128-bit hash, as `xxh128sum` prints it.
    """

    offset: Count
    size: Annotated[int, Field(ge=1, le=1 << 32)]
    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Entry(_Stored):
    """A sample: its shard, and its files by their endings."""

    shard: Count
    members: dict[str, Member]

    @model_validator(mode="after")
    def _has_all_files(self) -> Self:
        if set(self.members) != set(MEMBERS):
            raise ValueError(f"a sample must have the files {', '.join(MEMBERS)}")
        return self

    @property
    def end(self) -> int:
        """The first byte of the shard after the sample, a whole number of tar blocks."""
        return max(_padded(member.offset + member.size) for member in self.members.values())


class ShardSummary(_Stored):
    """A shard as `prepared.json` lists it: its samples, and the bytes of its tar."""

    samples: Annotated[int, Field(ge=1)]
    size: Annotated[int, Field(ge=1)]


class StoreIndex(_Stored):
    """`prepared.json`.

    Args:
        schema_version: 1.
        num_frames: Of a clip.
        fps: Frames a second.
        height: Of the frames; controls may be stored larger.
        width: Likewise.
        control_height: Of the depth and track pictures.
        control_width: Likewise.
        history_frames: Most frames before a clip.
        samples: How many there are.
        dropped: What was left out, by reason.
        shards: In order.
        settings: Everything that decided the samples.
    """

    schema_version: Annotated[int, Field(ge=1, le=1)]
    num_frames: Annotated[int, Field(ge=5, le=100_000)]
    fps: Annotated[int, Field(ge=1, le=1000)]
    height: Annotated[int, Field(ge=1, le=16384)]
    width: Annotated[int, Field(ge=1, le=16384)]
    control_height: Annotated[int, Field(ge=1, le=16384)]
    control_width: Annotated[int, Field(ge=1, le=16384)]
    history_frames: Annotated[int, Field(ge=0, le=100_000)]
    samples: Annotated[int, Field(ge=1)]
    dropped: dict[str, int]
    shards: tuple[ShardSummary, ...]
    settings: dict[str, Any]

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if sum(shard.samples for shard in self.shards) != self.samples:
            raise ValueError("the samples of the shards are not as many as there are")
        return self


class JournalLine(_Stored):
    """What became of one stretch of a video.

    Args:
        video: Its number among the videos.
        stretch: Its number in the video.
        samples: Where its samples are; none if it was dropped.
        dropped: What was left out of it.
        depth_range: Percentiles of its depth, which later stretches of its scene go on with.
    """

    video: Count
    stretch: Count
    samples: tuple[Entry, ...]
    dropped: tuple[Dropped, ...] = ()
    depth_range: tuple[float, float] | None = None


def tar_name(shard: int) -> str:
    """Return the name of a shard's tar file."""
    return f"shard-{shard:05d}.tar"


def entries_name(shard: int) -> str:
    """Return the name of a shard's index."""
    return f"shard-{shard:05d}.json"


def is_store_name(name: str) -> bool:
    """Return whether a file of this name is one of a store, which is replaced in time."""
    return _OWN_FILE.fullmatch(name) is not None


def read_index(folder: Path) -> StoreIndex:
    """Return `prepared.json` of a folder.

    Raises:
        InputError: There is none, or it is damaged.
        ResumableError: The disk failed.
    """
    path = folder / INDEX_NAME
    if not path.is_file() and (folder / UNFINISHED_NAME).is_dir():
        raise InputError(
            f"{folder}: these samples are not finished.",
            hint="Run the same `longvie prepare` again; it goes on.",
        )
    return _read_checked(path, StoreIndex)


def read_entries(folder: Path, shard: int, count: int) -> tuple[Entry, ...]:
    """Return where the samples of a shard lie.

    Raises:
        InputError: Its index is missing or damaged, or has another number of samples.
        ResumableError: The disk failed.
    """
    path = folder / entries_name(shard)
    entries = _read_checked(path, _Entries).samples
    if len(entries) != count or any(entry.shard != shard for entry in entries):
        raise InputError(f"{path}: it is the index of another shard.", hint=_AGAIN)
    return entries


class _Entries(_Stored):
    samples: tuple[Entry, ...]


_AGAIN = "Prepare the samples again with --overwrite, or bring back the file."

M = TypeVar("M", bound=BaseModel)


def _read_checked(path: Path, model: type[M]) -> M:
    try:
        stored = read_checksummed_json(read_document(path, MAX_JSON_BYTES))
        return model.model_validate_json(json.dumps(stored))
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: there is no such file.", hint="Make samples with `longvie prepare`."
        ) from error
    except ValidationError as error:
        raise InputError(f"{path}: {first_reason_of(error)}.", hint=_AGAIN) from error
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and is_passing(error):
            raise storage_error(path, error) from error
        raise InputError(f"{path}: cannot be read ({error}).", hint=_AGAIN) from error


class ShardReader:
    """Reads files of samples by seeking, and compares each with its hash.

    Args:
        folder: The store.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, entry: Entry, names: Sequence[str] = MEMBERS) -> dict[str, bytes]:
        """Return files of a sample by their endings.

        Raises:
            InputError: The shard is missing or damaged; names it, the file and the place.
            ResumableError: The disk failed.
        """
        path = self._folder / tar_name(entry.shard)
        found: dict[str, bytes] = {}
        try:
            with open(path, "rb") as file:
                end = os.fstat(file.fileno()).st_size
                for name in names:
                    member = entry.members[name]
                    if member.offset + member.size > end:
                        raise InputError(
                            f"{path}: it ends at byte {end}, before the {name} at byte "
                            f"{member.offset} does.",
                            hint=_AGAIN,
                        )
                    file.seek(member.offset)
                    data = file.read(member.size)
                    if xxhash.xxh3_128_hexdigest(data) != member.hash:
                        raise InputError(
                            f"{path}: damaged at byte {member.offset}, where a {name} lies.",
                            hint=_AGAIN,
                        )
                    found[name] = data
        except OSError as error:
            if is_passing(error):
                raise storage_error(path, error) from error
            raise InputError(f"{path}: cannot be read ({error}).", hint=_AGAIN) from error
        return found


class ShardWriter:
    """Appends samples to shards, going on where the journal says they end.

    Everything is in the tar before its line is in the journal; what a killed process left behind
    the last line is cut off and written again.

    Args:
        folder: The store; `unfinished/` in it is there.
        shard_bytes: Size of a shard.

    Attributes:
        lines: What became of each stretch so far, by (video, stretch), without the samples.

    Raises:
        InputError: A shard is shorter than the journal says, or the journal is damaged.
        ResumableError: The disk failed.
        OutputConflictError: The folder cannot be written.
    """

    def __init__(self, folder: Path, *, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder = folder
        self._shard_bytes = shard_bytes
        self._journal = folder / UNFINISHED_NAME / "journal.jsonl"
        self.lines: dict[tuple[int, int], JournalLine] = {}
        self.num_samples = 0
        self._shard = 0
        self._end = 0
        self._entries: list[Entry] = []
        self._summaries: list[ShardSummary] = []
        self._file: IO[bytes] | None = None
        self._replay()

    def _replay(self) -> None:
        whole = 0
        for line, end in _journal_lines(self._journal):
            whole = end
            self._note(line)
        try:
            if self._journal.exists():
                os.truncate(self._journal, whole)
            self._cut()
        except OSError as error:
            raise storage_error(self._folder, error) from error

    def _note(self, line: JournalLine) -> None:
        for entry in line.samples:
            if entry.shard != self._shard:
                self._summaries.append(self._summary())
                self._shard, self._entries = entry.shard, []
            self._entries.append(entry)
            self._end = entry.end
            self.num_samples += 1
        self.lines[line.video, line.stretch] = line.model_copy(update={"samples": ()})

    def _summary(self) -> ShardSummary:
        return ShardSummary(samples=len(self._entries), size=self._end + len(_END))

    def _cut(self) -> None:
        """Remove what lies behind the last sample that the journal has."""
        for shard, summary in enumerate(self._summaries):
            path = self._folder / tar_name(shard)
            if not path.is_file() or path.stat().st_size != summary.size:
                raise InputError(f"{path}: missing, or not as long as it was.", hint=_AGAIN)
        for path in self._folder.glob("shard-*"):
            number = re.fullmatch(r"shard-(\d{5,})\.(tar|json)(\.part)?", path.name)
            if number and int(number[1]) > self._shard - (path.suffix != ".tar"):
                path.unlink()
        path = self._folder / tar_name(self._shard)
        if self._end == 0:
            path.unlink(missing_ok=True)
        elif not path.is_file() or path.stat().st_size < self._end:
            raise InputError(f"{path}: missing, or shorter than it was.", hint=_AGAIN)
        else:
            os.truncate(path, self._end)

    def append(
        self,
        video: int,
        stretch: int,
        samples: Iterator[Mapping[str, bytes]],
        *,
        dropped: Sequence[Dropped] = (),
        depth_range: tuple[float, float] | None = None,
    ) -> None:
        """Add the samples of a stretch, all of them or none.

        Args:
            video: Number of the video.
            stretch: Its number there.
            samples: The files of each by their endings, `MEMBERS`.
            dropped: What was left out of it; looked at when the samples are through.
            depth_range: See `JournalLine`.

        Raises:
            ResumableError: The disk is full or failed.
            OutputConflictError: The folder cannot be written.
        """
        entries = [self._add(files) for files in samples]
        line = JournalLine(
            video=video,
            stretch=stretch,
            samples=tuple(entries),
            dropped=tuple(dropped),
            depth_range=depth_range,
        )
        try:
            self._flush()
            text = line.model_dump_json()
            with open(self._journal, "ab") as file:
                file.write(f"{xxhash.xxh3_128_hexdigest(text.encode())} {text}\n".encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise storage_error(self._journal, error) from error
        self.lines[video, stretch] = line.model_copy(update={"samples": ()})

    def _add(self, files: Mapping[str, bytes]) -> Entry:
        size = sum(_BLOCK + _padded(len(files[name])) for name in MEMBERS)
        if self._entries and self._end + size + len(_END) > self._shard_bytes:
            self._close()
        members: dict[str, Member] = {}
        data = io.BytesIO()
        for name in MEMBERS:
            content = files[name]
            data.write(_header(f"{self.num_samples:06d}.{name}", len(content)))
            digest = xxhash.xxh3_128_hexdigest(content)
            place = self._end + data.tell()
            members[name] = Member(offset=place, size=len(content), hash=digest)
            data.write(content)
            data.write(bytes(_padded(len(content)) - len(content)))
        path = self._folder / tar_name(self._shard)
        try:
            if self._file is None and self._end == 0:
                begin_part(path)
            self._shard_file(path).write(data.getbuffer())
        except OSError as error:
            raise storage_error(path, error) from error
        entry = Entry(shard=self._shard, members=members)
        self._entries.append(entry)
        self._end = entry.end
        self.num_samples += 1
        return entry

    def _shard_file(self, path: Path) -> IO[bytes]:
        """Return the open shard, behind what is stored in it."""
        if self._file is None:
            self._file = open(path, "r+b")  # noqa: SIM115  # kept open between samples
            self._file.seek(self._end)
        return self._file

    def _flush(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def _close(self) -> None:
        """End the shard, and write its index."""
        path = self._folder / tar_name(self._shard)
        try:
            file = self._shard_file(path)
            file.write(_END)
            self._flush()
            file.close()
        except OSError as error:
            raise storage_error(path, error) from error
        self._file = None
        entries = _Entries(samples=tuple(self._entries)).model_dump(mode="json")
        write_atomic(self._folder / entries_name(self._shard), checksummed_json(entries))
        self._summaries.append(self._summary())
        self._shard, self._end, self._entries = self._shard + 1, 0, []

    def close(self) -> None:
        """Give the file back; what was appended stays."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def finish(self) -> tuple[ShardSummary, ...]:
        """End the last shard and return all of them.

        Raises:
            ResumableError: The disk is full or failed.
        """
        if self._entries:
            self._close()
        return tuple(self._summaries)


def write_index(folder: Path, index: StoreIndex) -> None:
    """Write `prepared.json`, atomically: the folder is complete."""
    write_atomic(folder / INDEX_NAME, checksummed_json(index.model_dump(mode="json")))


def check_shard(folder: Path, shard: int, summary: ShardSummary) -> int:
    """Compare every file of a shard with its hash; return how many samples it has.

    Raises:
        InputError: It, or its index, is damaged or missing; names the file.
        ResumableError: The disk failed.
    """
    path = folder / tar_name(shard)
    reader = ShardReader(folder)
    if path.is_file() and path.stat().st_size != summary.size:
        raise InputError(
            f"{path}: it has {path.stat().st_size} bytes, not {summary.size}.", hint=_AGAIN
        )
    for entry in read_entries(folder, shard, summary.samples):
        reader.read(entry)
    return summary.samples


def _journal_lines(path: Path) -> Iterator[tuple[JournalLine, int]]:
    """Yield the lines of a journal, each with the byte after it; a torn last line is left out."""
    if not path.exists():
        return
    end = 0
    try:
        with open(path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    return
                digest, _, text = line[:-1].partition(b" ")
                if xxhash.xxh3_128_hexdigest(text).encode() != digest:
                    raise InputError(
                        f"{path}: damaged at byte {end}.",
                        hint="Prepare the samples again with --overwrite.",
                    )
                end += len(line)
                parse_json(text)
                yield JournalLine.model_validate_json(text), end
    except OSError as error:
        raise storage_error(path, error) from error
    except (ValidationError, ValueError) as error:
        raise InputError(
            f"{path}: another version wrote it.", hint="Prepare the samples with --overwrite."
        ) from error


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _header(name: str, size: int) -> bytes:
    """Return the header of a file in a tar: no time, no owner, so that equal samples are equal."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    return info.tobuf(tarfile.USTAR_FORMAT)
