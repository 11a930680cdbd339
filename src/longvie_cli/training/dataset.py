"""Training samples by number: stored ones, and flights over procedural landscapes without end.

A source answers `sample(number)` alike at any time and in any process; which number comes when says
`sample_number`. There is no iterator, so there is no state to save or to lose.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from longvie_cli.controls.rendering import render_track_clip, track_grid
from longvie_cli.disk.documents import MAX_JSON_BYTES, first_reason_of, parse_json, read_document
from longvie_cli.disk.durable import make_folder, write_atomic
from longvie_cli.disk.hashing import hash_file
from longvie_cli.errors import InputError, OutputConflictError
from longvie_cli.media.frames import Frames
from longvie_cli.worlds import EVALUATION_SEED_START, Flight
from longvie_cli.worlds.seeding import stream_seed, tensor_stream

_INDEX = "samples.json"
_VIDEOS = ("video", "dense", "sparse", "history")


@dataclass(frozen=True)
class ClipSize:
    """How large the samples of a training run are.

    Args:
        num_frames: Of a clip, 4k + 1.
        height: In pixels.
        width: In pixels.
        history_frames: Most frames before the clip.
    """

    num_frames: int
    height: int
    width: int
    history_frames: int


@dataclass(frozen=True)
class Sample:
    """One clip to train on.

    Args:
        video: uint8 [frames, height, width, 3].
        dense: Its depth control, likewise, near black.
        sparse: Its track control, likewise.
        history: The frames just before it, oldest first; [0, height, width, 3] where it is the
            first of its video.
        prompt: What it shows.
    """

    video: Frames
    dense: Frames
    sparse: Frames
    history: Frames
    prompt: str


class Samples(Protocol):
    """A source of samples."""

    @property
    def length(self) -> int | None:
        """How many there are; None: any number has one."""

    def sample(self, number: int) -> Sample:
        """Return the sample of a number from 0, below `length`; equal on every call."""


def sample_number(samples: Samples, position: int, seed: int) -> int:
    """Return which sample is trained on at a position, counted from 0 over the whole run.

    Of a finite source every epoch has each sample once, in an order of its own drawn from the seed
    and the epoch; an endless one goes on through its numbers.
    """
    if samples.length is None:
        return position
    epoch, place = divmod(position, samples.length)
    return _order(samples.length, seed, epoch)[place]


@functools.lru_cache(maxsize=2)
def _order(length: int, seed: int, epoch: int) -> list[int]:
    return torch.randperm(length, generator=tensor_stream(seed, "order", epoch)).tolist()


class WorldSamples:
    """Flights over procedural landscapes: exact depth and tracks, without end.

    Args:
        size: Of the clips.
        fps: Frames a second.
        seed: Of the landscapes; those reserved for evaluation are never drawn.
        track_columns: Tracked points in a row.
        track_rows: Rows of them.
        latest_start: Flights begin anywhere before this frame.
        flights: How many there are; None: without end.
    """

    def __init__(
        self,
        size: ClipSize,
        *,
        fps: float,
        seed: int,
        track_columns: int,
        track_rows: int,
        latest_start: int = 1600,
        flights: int | None = None,
    ) -> None:
        self.size = size
        self.fps = fps
        self.seed = seed
        self.latest_start = latest_start
        self.flights = flights
        self.points = track_grid(size.height, size.width, columns=track_columns, rows=track_rows)

    @property
    def length(self) -> int | None:
        """How many there are; None: there is no end."""
        return self.flights

    def sample(self, number: int) -> Sample:
        """Return the clip of a number: landscape, look and camera are drawn from it."""
        size = self.size
        world = stream_seed(self.seed, "world", number) % EVALUATION_SEED_START
        start = stream_seed(self.seed, "start", number) % self.latest_start + size.history_frames
        flight = Flight(
            world, width=size.width, height=size.height, fps=self.fps, num_frames=size.num_frames
        )
        rendered = [
            flight.frame(index)
            for index in range(start - size.history_frames, start + size.num_frames)
        ]
        frames = np.stack([frame.rgb for frame in rendered])
        clip = rendered[size.history_frames :]
        tracks, visible = flight.tracks(
            start, size.num_frames, self.points, depths=[frame.depth for frame in clip]
        )
        depth = _depth_pictures(np.stack([frame.disparity for frame in clip]))
        return Sample(
            video=frames[size.history_frames :],
            dense=np.repeat(depth[..., None], 3, axis=-1),
            sparse=render_track_clip(depth, tracks, visible),
            history=frames[: size.history_frames],
            prompt=flight.caption_at(start, size.num_frames),
        )


def _depth_pictures(disparity: np.ndarray) -> np.ndarray:
    """Return depth bytes of a clip, near black: 5th to 95th percentile, truncated (spec 6.1)."""
    low, high = np.percentile(disparity, (5, 95))
    scaled = (high - disparity) / max(float(high - low), 1e-6)
    return (255 * scaled.clip(0, 1)).astype(np.uint8)


class _Shard(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    file: Annotated[str, Field(pattern=r"^shard-\d{5}\.safetensors$")]
    samples: Annotated[int, Field(ge=1)]
    hash: str
    prompts: tuple[str, ...]


class _Index(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_version: Annotated[int, Field(ge=1, le=1)]
    shards: tuple[_Shard, ...]


class StoredSamples:
    """Samples in the shards of a folder, read one at a time.

    Args:
        folder: As `ShardWriter` wrote it. Shards are not hashed here; `verify` does that.

    Raises:
        InputError: The folder has no index, or a damaged one, or a shard is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shards = _read_index(folder).shards
        for shard in self._shards:
            if not (folder / shard.file).is_file():
                raise InputError(f"{folder / shard.file}: this shard of the samples is missing.")
        self._places = [
            (shard, inside) for shard in self._shards for inside in range(shard.samples)
        ]

    @property
    def length(self) -> int:
        """How many there are."""
        return len(self._places)

    def sample(self, number: int) -> Sample:
        """Return a sample.

        Raises:
            InputError: Its shard is damaged.
        """
        shard, inside = self._places[number]
        with _damage_named(self.folder / shard.file):
            with safe_open(self.folder / shard.file, "numpy") as file:
                videos = {name: file.get_tensor(f"{inside}.{name}") for name in _VIDEOS}
            return Sample(**videos, prompt=shard.prompts[inside])

    def verify(self) -> None:
        """Compare every shard with its hash.

        Raises:
            InputError: One is damaged.
        """
        for shard in self._shards:
            if hash_file(self.folder / shard.file) != shard.hash:
                raise InputError(f"{self.folder / shard.file}: its hash is not that of the index.")


def write_shards(folder: Path, samples: Sequence[Sample], *, samples_per_shard: int) -> None:
    """Write samples as shards, then the index: a folder that has one is complete.

    Frames are stored as they are, 8 bits a channel, so that training sees what was written.

    Raises:
        OutputConflictError: The folder has samples already, or cannot be written.
        ResumableError: The disk is full.
    """
    if (folder / _INDEX).exists():
        raise OutputConflictError(f"{folder}: holds samples already.", hint="Name another folder.")
    make_folder(folder)
    shards: list[_Shard] = []
    for first in range(0, len(samples), samples_per_shard):
        held = samples[first : first + samples_per_shard]
        path = folder / f"shard-{len(shards):05d}.safetensors"
        tensors = {
            f"{inside}.{name}": np.ascontiguousarray(getattr(sample, name))
            for inside, sample in enumerate(held)
            for name in _VIDEOS
        }
        write_atomic(path, save(tensors))
        shards.append(
            _Shard(
                file=path.name,
                samples=len(held),
                hash=hash_file(path),
                prompts=tuple(sample.prompt for sample in held),
            )
        )
    index = _Index(schema_version=1, shards=tuple(shards))
    text = json.dumps(index.model_dump(mode="json"), ensure_ascii=False, indent=1)
    write_atomic(folder / _INDEX, text.encode() + b"\n")


def _read_index(folder: Path) -> _Index:
    path = folder / _INDEX
    try:
        stored: Any = parse_json(read_document(path, MAX_JSON_BYTES))
        index = _Index.model_validate_json(json.dumps(stored))
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no index of samples in this folder.") from error
    except ValidationError as error:
        raise InputError(f"{path}: {first_reason_of(error)}.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}).") from error
    if not index.shards or any(len(shard.prompts) != shard.samples for shard in index.shards):
        raise InputError(f"{path}: it lists no sample, or not one prompt for each.")
    return index


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: a sample cannot be read ({error}).", hint="Make this shard again."
        ) from error
