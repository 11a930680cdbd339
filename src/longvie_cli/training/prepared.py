"""Prepared samples, read by number: what `longvie prepare` wrote, as training takes it."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np

from longvie_cli.controls.control_folder import TRACK_PIXEL_FORMAT
from longvie_cli.disk.documents import parse_json
from longvie_cli.disk.durable import storage_error
from longvie_cli.errors import InputError, MediaError
from longvie_cli.media.reader import read_pairs, read_written
from longvie_cli.media.writer import PixelFormat, written_video
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.training.dataset import ClipSize, Sample
from longvie_cli.training.sample_store import (
    Entry,
    ShardReader,
    check_shard,
    read_entries,
    read_index,
    tar_name,
)

_CONTROL_FORMATS: tuple[tuple[str, PixelFormat], ...] = (
    ("depth.mp4", "yuv420p"),
    ("track.mp4", TRACK_PIXEL_FORMAT),
)
# Indexes of shards that are kept in memory; each is some ten kilobytes.
_KEPT_INDEXES = 256


class PreparedSamples:
    """The samples of a folder that `longvie prepare` made: a `Samples` with an end.

    Any number is read by seeking, alike at any time and in any process, and in which order says
    `sample_number`: nothing has a state. What is read is compared with its hash.

    Args:
        folder: DATA of `longvie prepare`.
        size: Of the clips wanted: that of the preset in training. Of longer stored histories the
            last `size.history_frames` frames are given.
        fps: Frames a second wanted.

    Raises:
        InputError: The folder has no finished samples, its index is damaged, a shard is missing, or
            the samples are of another clip length, size or rate.
    """

    def __init__(self, folder: Path, size: ClipSize, *, fps: int) -> None:
        self.folder = folder
        self.size = size
        self._index = index = read_index(folder)
        for what, found, wanted in (
            ("clips of", f"{index.num_frames} frames", f"{size.num_frames} frames"),
            ("pictures of", f"{index.width}x{index.height}", f"{size.width}x{size.height}"),
            ("a rate of", f"{index.fps} fps", f"{fps:g} fps"),
        ):
            if found != wanted:
                raise InputError(
                    f"{folder}: these samples have {what} {found}, but {wanted} are trained on.",
                    hint="Prepare the videos with the --preset and --size of the training.",
                )
        self._first_numbers = np.cumsum([0, *(shard.samples for shard in index.shards)])
        for shard in range(len(index.shards)):
            if not (folder / tar_name(shard)).is_file():
                raise InputError(
                    f"{folder / tar_name(shard)}: this shard of the samples is missing."
                )
        self._reader = ShardReader(folder)
        self._entries = functools.lru_cache(_KEPT_INDEXES)(self._entries_of)

    @property
    def length(self) -> int:
        """How many there are."""
        return self._index.samples

    def sample(self, number: int) -> Sample:
        """Return a sample; control pictures that are stored larger are stretched, as to generate.

        Args:
            number: From 0, below `length`.

        Raises:
            InputError: Its shard is damaged; names it.
            ResumableError: The disk failed.
        """
        if not 0 <= number < self.length:
            raise IndexError(f"sample {number} of {self.length}")
        shard = int(np.searchsorted(self._first_numbers, number, side="right")) - 1
        entry = self._entries(shard)[number - int(self._first_numbers[shard])]
        files = self._reader.read(entry)
        history, prompt = self._facts(entry, files["json"])
        try:
            return self._decoded(files, history, prompt)
        except MediaError as error:
            # Its hash is right, so it was not written by us.
            raise InputError(
                f"{self.folder / tar_name(shard)}: sample {number} cannot be decoded "
                f"({error.message})."
            ) from error

    def _decoded(self, files: dict[str, bytes], history: int, prompt: str) -> Sample:
        index, size = self._index, self.size
        with tempfile.TemporaryDirectory(prefix="longvie-sample-") as name:
            paths = {}
            for member in ("video.mp4", "depth.mp4", "track.mp4"):
                paths[member] = Path(name) / member
                try:
                    paths[member].write_bytes(files[member])
                except OSError as error:
                    raise storage_error(paths[member], error) from error
            video = written_video(
                paths["video.mp4"],
                height=index.height,
                width=index.width,
                fps=index.fps,
                num_frames=history + index.num_frames,
            )
            depth, track = (
                written_video(
                    paths[member],
                    height=index.control_height,
                    width=index.control_width,
                    fps=index.fps,
                    num_frames=index.num_frames,
                    pixel_format=pixel_format,
                )
                for member, pixel_format in _CONTROL_FORMATS
            )
            frames = np.stack(list(read_written([video])))
            pairs = list(
                read_pairs(
                    depth,
                    track,
                    height=index.height,
                    width=index.width,
                    fit="stretch",
                    num_frames=index.num_frames,
                )
            )
        told = min(history, size.history_frames)
        return Sample(
            video=frames[history:],
            dense=np.stack([dense for dense, _ in pairs]),
            sparse=np.stack([sparse for _, sparse in pairs]),
            history=frames[history - told : history],
            prompt=prompt,
        )

    def _facts(self, entry: Entry, data: bytes) -> tuple[int, str]:
        try:
            facts = parse_json(data)
            history, prompt = facts["history_frames"], facts["caption"]
            if type(history) is not int or not 0 <= history <= self._index.history_frames:
                raise ValueError(f"a history of {history!r} frames")
            if not isinstance(prompt, str):
                raise ValueError("a caption that is no text")
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{self.folder / tar_name(entry.shard)}: a sample is not as `prepare` writes it "
                f"({error})."
            ) from error
        return history, prompt

    def verify(self, progress: Progress | None = None) -> None:
        """Compare every stored file with its hash.

        Args:
            progress: Told of the stage `checking`.

        Raises:
            InputError: One is damaged or missing; names its shard.
        """
        progress = progress or SilentProgress()
        progress.start("checking", self.length)
        for shard, summary in enumerate(self._index.shards):
            progress.advance("checking", check_shard(self.folder, shard, summary))
        progress.finish("checking")

    def _entries_of(self, shard: int) -> tuple[Entry, ...]:
        return read_entries(self.folder, shard, self._index.shards[shard].samples)
