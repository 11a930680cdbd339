"""Samples appended to the shards of a store, resumably: a journal says how far they are whole."""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import xxhash
from pydantic import ValidationError

from longvie_cli.disk.checksums import checksummed_json
from longvie_cli.disk.documents import parse_json
from longvie_cli.disk.durable import begin_part, storage_error, write_atomic
from longvie_cli.errors import InputError
from longvie_cli.training.clip_choice import Dropped
from longvie_cli.training.sample_store import (
    BLOCK,
    MEMBERS,
    PREPARE_AGAIN,
    UNFINISHED_NAME,
    Count,
    Entries,
    Entry,
    Member,
    ShardSummary,
    Stored,
    entries_name,
    padded,
    tar_name,
)

SHARD_BYTES = 256 << 20
"""A shard is closed before it would grow beyond this, unless a single sample is larger."""

_END = bytes(2 * BLOCK)


class JournalLine(Stored):
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
                raise InputError(f"{path}: missing, or not as long as it was.", hint=PREPARE_AGAIN)
        for path in self._folder.glob("shard-*"):
            number = re.fullmatch(r"shard-(\d{5,})\.(tar|json)(\.part)?", path.name)
            if number and int(number[1]) > self._shard - (path.suffix != ".tar"):
                path.unlink()
        path = self._folder / tar_name(self._shard)
        if self._end == 0:
            path.unlink(missing_ok=True)
        elif not path.is_file() or path.stat().st_size < self._end:
            raise InputError(f"{path}: missing, or shorter than it was.", hint=PREPARE_AGAIN)
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
        size = sum(BLOCK + padded(len(files[name])) for name in MEMBERS)
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
            data.write(bytes(padded(len(content)) - len(content)))
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
        entries = Entries(samples=tuple(self._entries)).model_dump(mode="json")
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


def _header(name: str, size: int) -> bytes:
    """Return the header of a file in a tar: no time, no owner, so that equal samples are equal."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    return info.tobuf(tarfile.USTAR_FORMAT)
