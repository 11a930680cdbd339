"""Training samples by number, and one source of them: flights over procedural landscapes.

A source answers `sample(number)` alike at any time and in any process; which number comes when says
`sample_number`. There is no iterator, so there is no state to save or to lose.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from longvie_cli.controls.rendering import render_track_clip, track_grid
from longvie_cli.media.frames import Frames
from longvie_cli.worlds import EVALUATION_SEED_START, Flight
from longvie_cli.worlds.seeding import stream_seed, tensor_stream


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
