"""Controls out of a video: estimated or ready depth, tracked points."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from longvie_cli.controls.control_folder import ControlLayout
from longvie_cli.controls.depth import DepthEstimator
from longvie_cli.controls.depth_smoothing import FlowSmoother
from longvie_cli.controls.depth_store import DEPTH_BATCH_FRAMES, DepthStore
from longvie_cli.controls.depth_video import DepthVideo, check_length
from longvie_cli.controls.tracks import PointTracker, PointTracks
from longvie_cli.errors import MediaError
from longvie_cli.media.frames import Fit
from longvie_cli.media.probe import SourceVideo
from longvie_cli.media.reader import count_frames, read_frames

MIN_FRAMES = 5

# Frames of a video that are kept from pass to pass: two minutes at 192x112, seconds at 832x480.
_KEPT_BYTES = 128 << 20

Smoothing = Literal["none", "flow"]


@dataclass(frozen=True)
class Extractors:
    """What depth and tracks of a video are made with, loaded or not.

    Args:
        depth: Estimates depth, or is the video's depth.
        tracker: Follows the points, per clip.
        smoothing: `flow` steadies the depth along the motion of the picture, `none` leaves it.
    """

    depth: DepthEstimator | DepthVideo
    tracker: PointTracker
    smoothing: Smoothing = "flow"


class VideoControls:
    """A `ControlSource` that takes the depth and the tracks of a video.

    Args:
        video: Read at the fps and size of `layout`.
        layout: Clips, size, track grid, and the depth range where it is given.
        extractors: What depth and tracks are made with.
        fit: How frames are brought to the size of `layout`.
        start_frame: First frame used, counted at the fps of `layout`.
        num_frames: Frames used from there on, all where None. The depth percentiles are over these.
        text: Prompt of every clip in `cond.json`.

    Raises:
        MediaError: the video cannot be read or has fewer than 5 frames to use, or a ready depth
            video is shorter than what is used of it.
    """

    def __init__(
        self,
        video: SourceVideo,
        layout: ControlLayout,
        extractors: Extractors,
        *,
        fit: Fit,
        start_frame: int = 0,
        num_frames: int | None = None,
        text: str = "",
    ) -> None:
        self.layout = layout
        self._video = video
        self._fit = fit
        self._depth = extractors.depth
        self._smoother = FlowSmoother() if extractors.smoothing == "flow" else None
        self._tracker = extractors.tracker
        self._start_frame = start_frame
        self._num_frames = num_frames
        self._text = text
        self._reader = _ForwardReader(self)
        self._kept: list[NDArray[np.uint8]] | None = None
        self.expected_frames = self._frames_to_use()

    def _frames_to_use(self) -> int:
        """Return the frames there will be: exact where few, or where the depth is ready."""
        fps, start = self.layout.geometry.fps, self._start_frame
        ready = isinstance(self._depth, DepthVideo)
        expected = max(0, round(self._video.duration_seconds * fps) - start)
        if expected <= 2 * MIN_FRAMES or ready:
            expected = max(0, count_frames(self._video, fps=fps) - start)
        if self._num_frames is not None:
            expected = min(expected, self._num_frames)
        if expected < MIN_FRAMES:
            place = f" from frame {start} on" if start else ""
            raise MediaError(
                f"{self._video.path}: {expected} frames at {fps} fps{place}; controls need "
                f"{MIN_FRAMES} or more.",
                hint="Pass a longer video, or a still picture with --image.",
            )
        if isinstance(self._depth, DepthVideo):
            needed_by = self._video.path.name
            check_length(self._depth.video, start + expected, fps=fps, needed_by=needed_by)
        return expected

    def settings(self) -> dict[str, Any]:
        """Return what decides depth and tracks."""
        with self._video.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {
            "source": self._video.path.name,
            "source_sha256": digest,
            "fit": self._fit,
            "start_frame": self._start_frame,
            "max_frames": self._num_frames,
            "depth": self._depth.name,
            "depth_smoothing": self._smoother.name if self._smoother else "none",
            "tracks": self._tracker.name,
        }

    def pictures(self, frames: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Yield some of the frames used, [H, W, 3] RGB, in one pass over the video."""
        if frames:
            decoded = self.frames(frames[0])
            steps = (frame - before for before, frame in pairwise((frames[0] - 1, *frames)))
            yield from (next(islice(decoded, step - 1, None)) for step in steps)

    @property
    def steadies(self) -> bool:
        """Whether the depth is steadied along the flow."""
        return self._smoother is not None

    def disparity(self, stored: DepthStore) -> Iterator[NDArray[np.float32]]:
        """Yield the estimated, or the ready, disparity, a batch at a time."""
        if isinstance(self._depth, DepthVideo):
            return self._ready(self._depth, stored.num_frames)
        return self._estimated(self._depth, stored)

    def steady(self, raw: DepthStore, start_frame: int) -> Iterator[NDArray[np.float32]]:
        """Yield the steady disparity from a frame on, a batch at a time."""
        assert self._smoother is not None, "asked first"
        return self._smoother.smooth(self.frames, raw, start_frame)

    def _estimated(
        self, estimator: DepthEstimator, stored: DepthStore
    ) -> Iterator[NDArray[np.float32]]:
        start = stored.num_frames
        context = min(estimator.context_frames, start)
        frames = self.frames(start - context)
        before = list(islice(frames, context))
        while batch := list(islice(frames, DEPTH_BATCH_FRAMES)):
            # As stored, not as estimated: a pass that goes on later knows no other.
            earlier = stored.read(start - len(before), len(before)) if before else None
            yield estimator.estimate(np.stack([*before, *batch]), earlier)
            start += len(batch)
            seen = [*before, *batch]
            before = seen[max(0, len(seen) - estimator.context_frames) :]

    def _ready(self, video: DepthVideo, start_frame: int) -> Iterator[NDArray[np.float32]]:
        layout = self.layout
        pictures = video.disparity(
            fps=layout.geometry.fps,
            height=layout.height,
            width=layout.width,
            fit=self._fit,
            start_frame=self._start_frame + start_frame,
        )
        # The length was checked; where the depth goes on, the video does not.
        pictures = islice(pictures, max(0, self.expected_frames - start_frame))
        while batch := list(islice(pictures, DEPTH_BATCH_FRAMES)):
            yield np.stack(batch)

    def track(self, start_frame: int, num_frames: int, points: NDArray[np.float32]) -> PointTracks:
        """Return tracked points."""
        return self._tracker.track(self._reader.read(start_frame, num_frames), points)

    def text(self, start_frame: int, num_frames: int) -> str:
        """Return the prompt of every clip."""
        return self._text

    def frames(self, start_frame: int) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames used, from one of them on; those of a short video are decoded once."""
        if self._kept is not None:
            return iter(self._kept[start_frame:])
        frames = read_frames(
            self._video,
            fps=self.layout.geometry.fps,
            height=self.layout.height,
            width=self.layout.width,
            fit=self._fit,
            start_frame=self._start_frame + start_frame,
        )
        if self._num_frames is not None:
            frames = islice(frames, self._num_frames - start_frame)
        return self._keeping(frames) if start_frame == 0 else frames

    def _keeping(self, frames: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        """Yield frames, and keep them if they are the whole of a short video."""
        kept: list[NDArray[np.uint8]] = []
        for frame in frames:
            if (len(kept) + 1) * frame.nbytes <= _KEPT_BYTES:
                kept.append(frame)
                yield frame
                continue
            kept.clear()
            yield frame
            yield from frames
            return
        self._kept = kept


class _ForwardReader:
    """Reads ranges that follow one another or share a frame, decoding the video only once."""

    def __init__(self, source: VideoControls) -> None:
        self._source = source
        self._frames: Iterator[NDArray[np.uint8]] = iter(())
        self._next_frame = -1
        self._last: NDArray[np.uint8] | None = None

    def read(self, start_frame: int, num_frames: int) -> NDArray[np.uint8]:
        """Return frames [num_frames, H, W, 3] from `start_frame` on."""
        if self._last is not None and start_frame == self._next_frame - 1:
            frames = [self._last, *islice(self._frames, num_frames - 1)]
        elif self._last is not None and start_frame == self._next_frame:
            frames = list(islice(self._frames, num_frames))
        else:
            self._frames = self._source.frames(start_frame)
            frames = list(islice(self._frames, num_frames))
        self._next_frame = start_frame + len(frames)
        self._last = frames[-1]
        return np.stack(frames)
