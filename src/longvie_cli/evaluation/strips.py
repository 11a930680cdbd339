"""Pictures of a report: what a video, its controls and its reference show at the same moments."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from longvie_cli.controls.files import ControlClips
from longvie_cli.evaluation.controllability import PlacedControls
from longvie_cli.evaluation.evaluation import Evaluation
from longvie_cli.media.frames import Frame
from longvie_cli.media.probe import SourceVideo
from longvie_cli.media.reader import read_every

MOMENTS = 8
_LONGEST_SIDE = 224
_QUALITY = 72


@dataclass(frozen=True)
class Moment:
    """What is shown of one moment.

    Args:
        frame: Of the video.
        seconds: When it is shown.
        pictures: By what they show, as `data:` URIs.
    """

    frame: int
    seconds: float
    pictures: dict[str, str]


@dataclass(frozen=True)
class ShownSource:
    """The video that another one was made from.

    Args:
        video: The file.
        fps: Rate at which it was read.
        first_frame: Its frame, at this rate, that belongs to `first_video_frame`.
        first_video_frame: Frames of the video before it were not made from it.
    """

    video: SourceVideo
    fps: int
    first_frame: int
    first_video_frame: int


def moments_of(found: Evaluation, source: ShownSource | None = None) -> list[Moment]:
    """Return evenly spaced moments of a video: its picture, and what it was to follow there.

    Memory holds the pictures of some moments, each at most 224 pixels long.

    Args:
        found: What was measured.
        source: What it was made from; None where that is not known.

    Raises:
        MediaError: A file cannot be read.
    """
    step = max(1, found.num_frames // MOMENTS)
    frames = list(range(0, found.num_frames, step))[:MOMENTS]
    video = found.inputs.video
    rows: dict[str, dict[int, str]] = {}
    if isinstance(found.inputs.reference, SourceVideo) and found.alignment is not None:
        rows["reference"] = _of_reference(found, frames)
    if source is not None:
        shift = source.first_frame - source.first_video_frame
        wanted = {frame + shift: frame for frame in frames if frame >= source.first_video_frame}
        rows["source"] = _picked(source.video, source.fps, wanted)
    if isinstance(found.inputs.controls, PlacedControls):
        rows |= _of_controls(found.inputs.controls, frames)
    shown = read_every(video, step=step, **_size(video.height, video.width), num_frames=len(frames))
    rows["output"] = dict(zip(frames, map(_uri, shown), strict=False))
    return [
        Moment(
            frame,
            found.seconds_at(frame),
            {name: row[frame] for name, row in rows.items() if frame in row},
        )
        for frame in frames
    ]


def _of_reference(found: Evaluation, frames: Sequence[int]) -> dict[int, str]:
    """Return the pictures of the reference at the moments of these frames, by frame."""
    alignment = found.alignment
    assert alignment is not None, "asked before"
    wanted = {round(found.seconds_at(frame) * alignment.rate): frame for frame in frames}
    return _picked(alignment.reference, alignment.fps, wanted)


def _picked(video: SourceVideo, fps: int | None, wanted: Mapping[int, int]) -> dict[int, str]:
    """Return some pictures of a video: keys are its frames at a rate, values what they go by."""
    pictures: dict[int, str] = {}
    if not wanted:
        return pictures
    size = _size(video.height, video.width)
    every = read_every(video, fps=fps, num_frames=max(wanted) + 1, **size)
    for index, picture in enumerate(every):
        if index in wanted:
            pictures[wanted[index]] = _uri(picture)
    return pictures


def _of_controls(placed: PlacedControls, frames: Sequence[int]) -> dict[str, dict[int, str]]:
    controls = placed.controls
    wanted: dict[int, list[int]] = {}
    for frame in frames:
        control = placed.control_frame(frame)
        if control is not None:
            wanted.setdefault(control, []).append(frame)
    rows: dict[str, dict[int, str]] = {"depth": {}, "tracks": {}}
    for name, row in rows.items():
        for control, picture in _control_pictures(controls, name, sorted(wanted)):
            uri = _uri(picture)
            row.update((frame, uri) for frame in wanted[control])
    return rows


def _control_pictures(
    controls: ControlClips, name: str, wanted: Sequence[int]
) -> Iterator[tuple[int, Frame]]:
    size = _size(controls.height, controls.width)
    done: set[int] = set()
    for clip, shown in zip(controls.clips, controls.ranges, strict=True):
        own = [frame for frame in wanted if shown.start <= frame < shown.end and frame not in done]
        if not own:
            continue
        done.update(own)
        file = clip.depth if name == "depth" else clip.track
        pictures = read_every(controls.videos[file], num_frames=own[-1] - shown.start + 1, **size)
        for index, picture in enumerate(pictures, start=shown.start):
            if index in own:
                yield index, picture


def _size(height: int, width: int) -> dict[str, int]:
    scale = min(1.0, _LONGEST_SIDE / max(height, width))
    return {"height": max(1, round(height * scale)), "width": max(1, round(width * scale))}


def _uri(picture: Frame) -> str:
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(picture).save(data, format="JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
