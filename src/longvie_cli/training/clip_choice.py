"""Which clips of a video are trained on: scenes cut into clips, and what is left out and why."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from longvie_cli.media.frames import Frame
from longvie_cli.media.scenes import SceneScan
from longvie_cli.timeline import ClipGeometry
from longvie_cli.training.captions import Caption

Reason = Literal[
    "unreadable", "damaged", "duplicate", "bad_caption", "too_short", "flat", "static",
    "no_caption", "no_depth",
]  # fmt: skip
"""Why something is left out: a video (the first four), a scene (`too_short`), or a clip."""

WHY: dict[Reason, str] = {
    "unreadable": "videos that cannot be read",
    "damaged": "videos of which only what comes before a damage is used",
    "duplicate": "videos that were given before",
    "bad_caption": "videos whose caption cannot be read",
    "too_short": "scenes shorter than a clip",
    "flat": "clips more than half of which is black or of one colour",
    "static": "clips in which nothing moves",
    "no_caption": "clips without a caption",
    "no_depth": "clips in which no depth was found",
}
"""The same in words."""

# Small frames of 48x32, in grey levels. Of one colour as `evaluation/clip_checks.py` has it.
_FLAT_SPREAD = 2.0
# Nothing moves where not even a hundredth of the picture changes by so much within a second: noise
# of a camera on a tripod, averaged over a small pixel, stays below one level.
_STILL_LEVELS = 3.0
_MOVING_SHARE = 0.01

# Clips of a scene that are extracted together: two minutes of longvie2. Bounds what lies on disk
# at a time, whatever the length of a scene.
MOST_CLIPS_TOGETHER = 24


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PlannedClip(_Stored):
    """A clip to make a sample of.

    Args:
        scene: Number of its scene in the video, from 0.
        first_frame: Frame of the video, at the preset's fps, that its frame 0 shows.
        history_frames: Frames of the same scene just before it that go along.
        caption: What it shows; may be empty.
    """

    scene: Annotated[int, Field(ge=0)]
    first_frame: Annotated[int, Field(ge=0)]
    history_frames: Annotated[int, Field(ge=0)]
    caption: str


class Dropped(_Stored):
    """What of a video is left out for one reason.

    Args:
        reason: See `WHY`.
        count: Of videos, scenes or clips, as the reason has it.
        detail: What happened, where the reason alone does not say it.
    """

    reason: Reason
    count: Annotated[int, Field(ge=1)]
    detail: str = ""


@dataclass(frozen=True)
class Stretch:
    """Clips of one scene that follow one another and are extracted together."""

    clips: tuple[PlannedClip, ...]

    @property
    def first_frame(self) -> int:
        """First frame needed, that of the history of the first clip."""
        return self.clips[0].first_frame - self.clips[0].history_frames


class Motion:
    """How flat and how still each frame of a video is, eight bytes a frame; shown small frames."""

    def __init__(self, lag: int) -> None:
        self._lag = lag
        self._before: list[NDArray[np.int16]] = []
        self._spread = array("f")
        self._change = array("f")

    def __call__(self, frame: Frame) -> None:
        """Take the next frame, [height, width, 3]."""
        values = frame.astype(np.int16)
        self._spread.append(float(values.mean(axis=2).std()))
        change = 0.0
        if len(self._before) == self._lag:
            differences = np.abs(values - self._before.pop(0)).max(axis=2).ravel()
            most = max(1, int(differences.size * _MOVING_SHARE))
            change = float(np.partition(differences, -most)[-most:].mean())
        self._before.append(values)
        self._change.append(change)

    def trouble(self, first: int, end: int) -> Literal["flat", "static"] | None:
        """Return what speaks against a clip of these frames, if anything does."""
        spread = np.array(self._spread[first:end])
        if (spread < _FLAT_SPREAD).mean() > 0.5:
            return "flat"
        # What a frame is compared with must be of the clip too.
        change = np.array(self._change[first + self._lag : end])
        return "static" if change.max() < _STILL_LEVELS else None


def motion_lag(geometry: ClipGeometry) -> int:
    """Return over how many frames motion is judged: a second, or half a clip."""
    return min(geometry.fps, geometry.stride // 2)


def choose_clips(
    scan: SceneScan,
    motion: Motion,
    geometry: ClipGeometry,
    caption: Caption,
    *,
    history_frames: int,
    uncaptioned: Literal["drop", "empty"],
) -> tuple[tuple[PlannedClip, ...], tuple[Dropped, ...]]:
    """Return the clips of a video in order, and what is left out.

    From the first frame of a scene on, clips follow one another as in a generated video: neighbours
    share one frame. The first clip of a scene has no history; the others have the frames before
    them, at most `history_frames`, and never a frame of another scene or of a dissolve. What is
    left at the end of a scene, shorter than a clip, is not used.

    Args:
        scan: Its scenes, and its frames as they were counted by decoding.
        motion: Was shown all frames.
        geometry: Of the clips.
        caption: Of the video; a clip gets what is said at its middle.
        history_frames: Most frames before a clip.
        uncaptioned: Whether clips without a caption are kept.
    """
    clips: list[PlannedClip] = []
    counts: dict[Reason, int] = {}
    begins = [0, *(change.frame for change in scan.changes)]
    ends = [*(change.start for change in scan.changes), scan.num_frames]
    for scene, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        if begin >= scan.num_frames:
            continue  # The scene that a dissolve at the end leads to is never seen alone.
        if end - begin < geometry.num_frames:
            counts["too_short"] = counts.get("too_short", 0) + 1
            continue
        for first in range(begin, end - geometry.num_frames + 1, geometry.stride):
            text = caption.at((first + geometry.num_frames / 2) / geometry.fps)
            reason: Reason | None = motion.trouble(first, first + geometry.num_frames)
            if reason is None and not text and uncaptioned == "drop":
                reason = "no_caption"
            if reason is not None:
                counts[reason] = counts.get(reason, 0) + 1
                continue
            clips.append(
                PlannedClip(
                    scene=scene,
                    first_frame=first,
                    history_frames=min(history_frames, first - begin),
                    caption=text,
                )
            )
    dropped = [Dropped(reason=reason, count=count) for reason, count in counts.items()]
    return tuple(clips), tuple(dropped)


def stretches(clips: Sequence[PlannedClip], geometry: ClipGeometry) -> list[Stretch]:
    """Return the clips in rows that follow one another in a scene, none longer than the limit."""
    rows: list[list[PlannedClip]] = []
    for clip in clips:
        last = rows[-1][-1] if rows else None
        follows = (
            last is not None
            and last.scene == clip.scene
            and last.first_frame + geometry.stride == clip.first_frame
            and len(rows[-1]) < MOST_CLIPS_TOGETHER
        )
        if follows:
            rows[-1].append(clip)
        else:
            rows.append([clip])
    return [Stretch(tuple(row)) for row in rows]
