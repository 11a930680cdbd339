"""Samples in uncompressed tar files of bounded size, each with an index: what lies there, read.

    prepared.json         what the samples are, and their shards; written last: with it the folder
                          is complete
    shard-00000.tar       000000.json, 000000.video.mp4, 000000.depth.mp4, 000000.track.mp4, ...
    shard-00000.json      where each of these files lies in the tar, and its hash
    unfinished/           the journal and scratch of a preparation that goes on

Any program that reads tar files reads the shards; ours seeks to a sample by its number. They are
written by `shard_writer.py`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import xxhash
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from longvie_cli.disk.checksums import checksummed_json, read_checksummed_json
from longvie_cli.disk.documents import MAX_JSON_BYTES, first_reason_of, read_document
from longvie_cli.disk.durable import is_passing, storage_error, write_atomic
from longvie_cli.errors import InputError

INDEX_NAME = "prepared.json"
UNFINISHED_NAME = "unfinished"
MEMBERS = ("json", "video.mp4", "depth.mp4", "track.mp4")
"""The files of a sample, after its number."""

BLOCK = 512
"""A tar's unit, in bytes."""

_OWN_FILE = re.compile(r"prepared\.json(\.part)?|shard-\d{5,}\.(tar|json)(\.part)?")

Count = Annotated[int, Field(ge=0)]


class Stored(BaseModel):
    """What is stored as JSON, and taken back only as it was written."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Member(Stored):
    """Where a file lies in its shard.

    Args:
        offset: Of its first byte.
        size: In bytes.
        hash: Its xxh3 128-bit hash, as `xxh128sum` prints it.
    """

    offset: Count
    size: Annotated[int, Field(ge=1, le=1 << 32)]
    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Entry(Stored):
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
        return max(padded(member.offset + member.size) for member in self.members.values())


class ShardSummary(Stored):
    """A shard as `prepared.json` lists it: its samples, and the bytes of its tar."""

    samples: Annotated[int, Field(ge=1)]
    size: Annotated[int, Field(ge=1)]


class StoreIndex(Stored):
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


def padded(size: int) -> int:
    """Return how many bytes a file of a size takes in a tar: whole blocks."""
    return -(-size // BLOCK) * BLOCK


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
    entries = _read_checked(path, Entries).samples
    if len(entries) != count or any(entry.shard != shard for entry in entries):
        raise InputError(f"{path}: it is the index of another shard.", hint=PREPARE_AGAIN)
    return entries


class Entries(Stored):
    """The index of a shard."""

    samples: tuple[Entry, ...]


PREPARE_AGAIN = "Prepare the samples again with --overwrite, or bring back the file."
"""What helps where a store is damaged."""

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
        raise InputError(f"{path}: {first_reason_of(error)}.", hint=PREPARE_AGAIN) from error
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and is_passing(error):
            raise storage_error(path, error) from error
        raise InputError(f"{path}: cannot be read ({error}).", hint=PREPARE_AGAIN) from error


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
                            hint=PREPARE_AGAIN,
                        )
                    file.seek(member.offset)
                    data = file.read(member.size)
                    if xxhash.xxh3_128_hexdigest(data) != member.hash:
                        raise InputError(
                            f"{path}: damaged at byte {member.offset}, where a {name} lies.",
                            hint=PREPARE_AGAIN,
                        )
                    found[name] = data
        except OSError as error:
            if is_passing(error):
                raise storage_error(path, error) from error
            raise InputError(f"{path}: cannot be read ({error}).", hint=PREPARE_AGAIN) from error
        return found


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
            f"{path}: it has {path.stat().st_size} bytes, not {summary.size}.", hint=PREPARE_AGAIN
        )
    for entry in read_entries(folder, shard, summary.samples):
        reader.read(entry)
    return summary.samples
