"""Frames, seconds and clips: which frames of the video each clip makes and which it adds.

A clip has `num_frames` frames; neighbours share one, so N clips make `stride * N + 1` frames
(LongVie 2: 81, 80, 16 fps). Frame 0 of every clip but the first is a near-copy of the last frame
before it and is dropped when clips are joined. Where the source cuts to another scene, a clip
begins anew: it shares no frame with the clip before, which is cut short.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection
from dataclasses import dataclass

MAX_SECONDS = 24 * 3600
"""No video is longer; what asks for more, or claims to have more, is a mistake or an attack."""


@dataclass(frozen=True)
class ClipGeometry:
    """The shape of a clip in time.

    Args:
        num_frames: Frames the model makes at once; 4k+1 for the causal VAE.
        fps: Frames per second of the model and of the output, an integer.
    """

    num_frames: int = 81
    fps: int = 16

    def __post_init__(self) -> None:
        if self.num_frames < 5 or self.num_frames % 4 != 1:
            raise ValueError(f"num_frames must be 4k+1 and at least 5, not {self.num_frames}")
        if self.fps < 1:
            raise ValueError(f"fps must be at least 1, not {self.fps}")

    @property
    def stride(self) -> int:
        """Frames from the start of a clip to the start of the next: one frame is shared."""
        return self.num_frames - 1

    def num_clips(self, total_frames: int) -> int:
        """Return how many clips cover `total_frames` frames (at least one)."""
        if total_frames < 1:
            raise ValueError(f"a video needs at least one frame, not {total_frames}")
        return max(1, -(-(total_frames - 1) // self.stride))

    def frames_of_clips(self, num_clips: int) -> int:
        """Return how many frames `num_clips` whole clips make once joined."""
        return self.stride * num_clips + 1

    def frames_of_seconds(self, seconds: float) -> int:
        """Return the frames of a duration, rounded to the nearest, at least one."""
        return max(1, round(seconds * self.fps))


@dataclass(frozen=True)
class ClipSpec:
    """What one clip makes.

    Args:
        index: Number of the clip in its run, from 0.
        first_frame: Frame of the whole video that the clip's frame 0 shows.
        skip_frames: Frames at the clip's head that the video already has (0 or 1).
        added_frames: Frames the clip adds to the video, after those skipped.
        starts_scene: Frame 0 is the first of a new scene: no frame before it counts for the clip.
        ends_scene: The frame after those added is another scene, and nothing of it may be seen.
    """

    index: int
    first_frame: int
    skip_frames: int
    added_frames: int
    starts_scene: bool = False
    ends_scene: bool = False


def plan_clips(
    geometry: ClipGeometry,
    total_frames: int,
    *,
    continues: bool = False,
    cuts: Collection[int] = (),
) -> tuple[ClipSpec, ...]:
    """Return the clips that make `total_frames` frames, each frame exactly once.

    Args:
        geometry: Clip length and fps.
        total_frames: Frames to add, at least 1.
        continues: The video goes on from an earlier one: clip 0 too starts on a frame that exists
            already and adds only the frames after it.
        cuts: Frames, counted as `ClipSpec.first_frame`, with which the source's scenes begin. Each
            begins a clip; cuts at or before the first frame, or after the last, do not count.
    """
    if total_frames < 1:
        raise ValueError(f"a video needs at least one frame, not {total_frames}")
    # Frame 0 is there already if the video goes on.
    next_frame = 1 if continues else 0
    end_frame = next_frame + total_frames
    ordered = sorted(set(cuts))
    scenes = ordered[bisect_right(ordered, 0) : bisect_left(ordered, end_frame)]
    specs: list[ClipSpec] = []
    while next_frame < end_frame:
        starts_scene = bool(scenes) and next_frame == scenes[0]
        if starts_scene:
            scenes.pop(0)
        skip = 0 if starts_scene or next_frame == 0 else 1
        scene_end = scenes[0] if scenes else end_frame
        added = min(geometry.num_frames - skip, scene_end - next_frame)
        ends_scene = bool(scenes) and next_frame + added == scenes[0]
        specs.append(ClipSpec(len(specs), next_frame - skip, skip, added, starts_scene, ends_scene))
        next_frame += added
    return tuple(specs)


def timecode(seconds: float) -> str:
    """Return a time as minutes, seconds and hundredths, `1:02.50`."""
    hundredths = round(seconds * 100)
    return f"{hundredths // 6000}:{hundredths // 100 % 60:02d}.{hundredths % 100:02d}"
