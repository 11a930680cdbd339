"""The clips of a video: where each begins, and what it was made with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from longvie_cli.timeline import ClipSpec


@dataclass(frozen=True)
class VideoClip:
    """A clip of a finished video; of a video whose clips are not known, the whole of it.

    Args:
        index: Its number in the run, from 0; -1 of what an extended video goes on from.
        first_frame: First frame that it adds to the video.
        frames: Frames that it adds.
        prompt: It was made with; empty where that is not known.
        seed: Likewise; None where that is not known.
        starts_scene: It begins another scene on purpose: the step into it is a cut.
    """

    index: int
    first_frame: int
    frames: int
    prompt: str = ""
    seed: int | None = None
    starts_scene: bool = False

    @property
    def end(self) -> int:
        """The frame after its last one."""
        return self.first_frame + self.frames


def whole_video(num_frames: int) -> tuple[VideoClip, ...]:
    """Return the one clip of a video whose clips are not known."""
    return (VideoClip(0, 0, num_frames),)


def clips_of_plan(
    plan: Sequence[ClipSpec],
    *,
    num_frames: int,
    earlier_frames: int = 0,
    prompts: Sequence[str] = (),
    seeds: Sequence[int] = (),
) -> tuple[VideoClip, ...]:
    """Return the clips of a video of `num_frames` frames that was made by a plan.

    Clips that the video does not reach are left out; what it has beyond the plan is counted to the
    last clip.

    Args:
        plan: The clips, in order.
        num_frames: Frames of the video.
        earlier_frames: Frames that lie before the first clip.
        prompts: One a clip, or none.
        seeds: Likewise.
    """
    clips = []
    if earlier_frames > 0:
        clips.append(VideoClip(-1, 0, min(earlier_frames, num_frames)))
    next_frame = earlier_frames
    for spec in plan:
        if next_frame >= num_frames:
            break
        clips.append(
            VideoClip(
                index=spec.index,
                first_frame=next_frame,
                frames=min(spec.added_frames, num_frames - next_frame),
                prompt=prompts[spec.index] if prompts else "",
                seed=seeds[spec.index] if seeds else None,
                starts_scene=spec.starts_scene and spec.index > 0,
            )
        )
        next_frame += spec.added_frames
    if clips and next_frame < num_frames:
        clips[-1] = replace(clips[-1], frames=num_frames - clips[-1].first_frame)
    return tuple(clips)
