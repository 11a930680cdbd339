"""Whether a video follows its controls: depth estimated anew, points tracked anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longvie_cli.controls.depth import DepthEstimator
from longvie_cli.controls.files import ControlClips
from longvie_cli.controls.rendering import track_grid
from longvie_cli.controls.tracks import LucasKanadeTracker, inside_picture
from longvie_cli.evaluation.quality import sampling_step
from longvie_cli.media.frames import Fit, Frame
from longvie_cli.media.probe import SourceVideo
from longvie_cli.media.reader import read_every, read_frames
from longvie_cli.models.track_pictures import read_tracks

MOST_DEPTH_PICTURES = 48
"""Pictures whose depth is estimated, evenly spaced."""

MOST_TRACKED_FILES = 6
"""Control files whose points are tracked, evenly spaced; of each the first frames."""

_TRACKED_FRAMES = 33
_MOST_POINTS = 400
# Depth is compared on about so many pixels a picture: what the embedded network was trained on.
DEPTH_PIXELS = 192 * 112
_DEPTH_BATCH = 8
# Where the picture's edge cuts a box its middle is not known.
_EDGE_SHARE = 0.04
# Rounding gives what is flat a deviation of such a size.
_FLAT = 1e-9


@dataclass(frozen=True)
class PlacedControls:
    """Controls, and which of their frames each frame of a video was made for.

    Args:
        controls: The controls.
        first_frame: Frame of their timeline that belongs to `first_video_frame`.
        first_video_frame: Frames of the video before it have no controls.
        frames_per_frame: Control frames that one frame of the video lasts.
        pingpong: They are played back and forth without end.
        fit: How a picture of the video is brought to the size of the controls.
        grid: Points that were tracked, columns and rows; None where that is not known.
    """

    controls: ControlClips
    first_frame: int = 0
    first_video_frame: int = 0
    frames_per_frame: float = 1.0
    pingpong: bool = False
    fit: Fit = "stretch"
    grid: tuple[int, int] | None = None

    def control_frame(self, frame: int) -> int | None:
        """Return the control frame of a frame of the video, None if it has none."""
        if frame < self.first_video_frame:
            return None
        past = (frame - self.first_video_frame) * self.frames_per_frame
        played = self.first_frame + round(past)
        total = self.controls.num_frames
        if self.pingpong and total > 1:
            place = played % (2 * (total - 1))
            return min(place, 2 * (total - 1) - place)
        return played if played < total else None

    def video_frame(self, control_frame: int) -> int | None:
        """Return the first frame of the video made for a control frame, None if there is none."""
        past = (control_frame - self.first_frame) / self.frames_per_frame
        return self.first_video_frame + round(past) if past >= 0 else None


@dataclass(frozen=True)
class DepthFidelity:
    """How the depth of a video agrees with its control.

    Nearness is 1 less the control's grey (0 near, 255 far). One scale, not negative, and one shift
    are fitted to all pictures of the video at once, by least squares.

    Args:
        frames: Which were looked at.
        l1: Mean absolute difference of the nearness, as a share of the whole range.
        correlation: Pearson's, over all pixels of all pictures; None where the depth of the video
            or of its control is the same everywhere.
        correlation_elsewhere: The same with the control of another time: what pictures of this
            kind agree by chance (bottom near, top far). None of fewer than four pictures.
        correlations: Of each picture; NaN where there is none.
        model: Name and hash of the estimator.
    """

    frames: NDArray[np.int64]
    l1: float
    correlation: float | None
    correlation_elsewhere: float | None
    correlations: NDArray[np.float64]
    model: str


@dataclass(frozen=True)
class TrackFidelity:
    """How points of a video move against their control tracks.

    Args:
        error: Mean distance from where the control has them, in pixels of the video.
        error_if_still: The same of points that stay where they begin.
        points: Points that were compared in one picture or more.
        first_frames: First frames of the video of the stretches that were looked at.
        errors: Mean of each stretch.
        frames: Frames of the video that were looked at.
        model: Name of the tracker.
    """

    error: float
    error_if_still: float
    points: int
    first_frames: tuple[int, ...]
    errors: tuple[float, ...]
    frames: int
    model: str


def frames_with_controls(placed: PlacedControls, num_frames: int) -> int:
    """Return how many of the first `num_frames` frames of a video have controls."""
    if placed.pingpong:
        return max(0, num_frames - placed.first_video_frame)
    left = placed.controls.num_frames - placed.first_frame
    fitting = int(np.ceil(left / placed.frames_per_frame - 1e-9))
    return max(0, min(num_frames - placed.first_video_frame, fitting))


def measure_depth(
    source: SourceVideo,
    num_frames: int,
    placed: PlacedControls,
    estimator: DepthEstimator,
    *,
    tell: Callable[[int], None] = lambda _: None,
) -> DepthFidelity | None:
    """Return how the depth of evenly spaced pictures agrees with the control, None without any.

    Args:
        source: The video.
        num_frames: Frames it has.
        placed: Its controls.
        estimator: Estimates the depth.
        tell: Called with the number of pictures done since the last call.

    Raises:
        MediaError: A file cannot be read.
    """
    with_controls = [
        (frame, control)
        for frame in range(0, num_frames, sampling_step(num_frames, MOST_DEPTH_PICTURES))
        if (control := placed.control_frame(frame)) is not None
    ]
    if not with_controls:
        return None
    controls = placed.controls
    shrink = min(1.0, (DEPTH_PIXELS / (controls.height * controls.width)) ** 0.5)
    size = (max(16, round(controls.height * shrink)), max(16, round(controls.width * shrink)))
    frames = [frame for frame, _ in with_controls]
    wanted = _nearness(controls, sorted({control for _, control in with_controls}), size)
    nearness = np.stack([wanted[control] for _, control in with_controls])
    disparity = np.concatenate(
        list(_disparities(_chosen(source, frames, size, placed.fit), estimator, tell))
    )
    nearness = nearness[: len(disparity)]
    return _agreement(np.array(frames[: len(disparity)]), disparity, nearness, estimator.name)


def measure_tracks(
    source: SourceVideo,
    num_frames: int,
    placed: PlacedControls,
    *,
    tell: Callable[[int], None] = lambda _: None,
) -> TrackFidelity | None:
    """Return how points of a video move against the control, None where none can be compared.

    The first 33 frames of up to six control files are looked at: the points of a file begin on its
    grid, are tracked through the video's own frames and compared with where the boxes of the
    control are, which are known to about half a pixel of the control.

    Args:
        source: The video.
        num_frames: Frames it has.
        placed: Its controls; their grid has to be known.
        tell: Called with 1 after each stretch.

    Raises:
        MediaError: A file cannot be read.
    """
    if placed.grid is None:
        return None
    stretches = _stretches(placed, num_frames)
    tracker = LucasKanadeTracker()
    total = still = 0.0
    count, points, frames = 0, 0, 0
    first_frames, errors = [], []
    for index, numbers in zip(stretches, _numbers(placed, stretches, num_frames), strict=True):
        found = _stretch_errors(source, placed, index, numbers, tracker)
        tell(1)
        if found is None:
            continue
        off, moved, seen = found
        total, still, count = total + off.sum(), still + moved.sum(), count + len(off)
        points, frames = points + seen, frames + len(numbers)
        first_frames.append(numbers[0])
        errors.append(float(off.mean()))
    if count == 0:
        return None
    return TrackFidelity(
        error=float(total / count),
        error_if_still=float(still / count),
        points=points,
        first_frames=tuple(first_frames),
        errors=tuple(errors),
        frames=frames,
        model=tracker.name,
    )


def _chosen(
    source: SourceVideo, frames: Sequence[int], size: tuple[int, int], fit: Fit
) -> Iterator[Frame]:
    """Yield some frames of a video, ascending and evenly spaced."""
    height, width = size
    step = frames[1] - frames[0] if len(frames) > 1 else 1
    if fit == "stretch" and frames[0] % step == 0:
        skipped = frames[0] // step
        chosen = read_every(
            source, step=step, height=height, width=width, num_frames=skipped + len(frames)
        )
        for index, frame in enumerate(chosen):
            if index >= skipped:
                yield frame
        return
    wanted = set(frames)
    every = read_frames(source, fps=None, height=height, width=width, fit=fit)
    for index, frame in enumerate(every):
        if index in wanted:
            yield frame
        if index == frames[-1]:
            return


def _disparities(
    frames: Iterator[Frame], estimator: DepthEstimator, tell: Callable[[int], None]
) -> Iterator[NDArray[np.float32]]:
    batch: list[Frame] = []
    for frame in frames:
        batch.append(frame)
        if len(batch) == _DEPTH_BATCH:
            yield estimator.estimate(np.stack(batch))
            tell(len(batch))
            batch = []
    if batch:
        yield estimator.estimate(np.stack(batch))
        tell(len(batch))


def _nearness(
    controls: ControlClips, frames: Sequence[int], size: tuple[int, int]
) -> dict[int, NDArray[np.float32]]:
    """Return the nearness of control frames, 0 far to 1 near, each [height, width]."""
    height, width = size
    found: dict[int, NDArray[np.float32]] = {}
    for clip, shown in zip(controls.clips, controls.ranges, strict=True):
        wanted = [frame for frame in frames if shown.start <= frame < shown.end]
        if not wanted or set(wanted) <= set(found):
            continue
        last = wanted[-1] - shown.start
        pictures = read_every(
            controls.videos[clip.depth], height=height, width=width, num_frames=last + 1
        )
        for index, picture in enumerate(pictures):
            if shown.start + index in wanted:
                grey = picture.mean(axis=2, dtype=np.float32)
                found[shown.start + index] = 1 - grey / np.float32(255)
    return found


def _agreement(
    frames: NDArray[np.int64],
    disparity: NDArray[np.float32],
    nearness: NDArray[np.float32],
    model: str,
) -> DepthFidelity | None:
    if not np.isfinite(disparity).all() or len(disparity) == 0:
        return None
    scale, shift = _fitted(disparity, nearness)
    error = np.abs(np.clip(scale * disparity + shift, 0, 1) - nearness)
    each = [_correlation(one, other) for one, other in zip(disparity, nearness, strict=True)]
    elsewhere = None
    if len(disparity) >= 4:
        elsewhere = _correlation(disparity, np.roll(nearness, len(nearness) // 2, axis=0))
    return DepthFidelity(
        frames=frames,
        l1=float(error.mean()),
        correlation=_correlation(disparity, nearness),
        correlation_elsewhere=elsewhere,
        correlations=np.array(each, np.float64),
        model=model,
    )


def _fitted(disparity: NDArray[np.float32], nearness: NDArray[np.float32]) -> tuple[float, float]:
    """Return the scale, not negative, and the shift that make disparity most like nearness."""
    one, other = disparity.astype(np.float64).ravel(), nearness.astype(np.float64).ravel()
    spread = one.var()
    covariance = ((one - one.mean()) * (other - other.mean())).mean()
    scale = max(0.0, covariance / spread) if spread > 0 else 0.0
    return float(scale), float(other.mean() - scale * one.mean())


def _correlation(one: NDArray[np.floating], other: NDArray[np.floating]) -> float | None:
    """Return Pearson's correlation, None where one of the two is flat."""
    first, second = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    first, second = first - first.mean(), second - second.mean()
    size = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / size) if size > _FLAT else None


def _stretches(placed: PlacedControls, num_frames: int) -> list[int]:
    """Return the control files that are looked at, evenly spaced among those the video shows."""
    shown = []
    for index, stretch in enumerate(placed.controls.ranges):
        first = placed.video_frame(stretch.start)
        if first is None or first >= num_frames - 1:
            continue
        if placed.control_frame(first) is not None and stretch.end - stretch.start >= 2:
            shown.append(index)
    if len(shown) <= MOST_TRACKED_FILES:
        return shown
    places = np.linspace(0, len(shown) - 1, MOST_TRACKED_FILES).round().astype(int)
    return [shown[place] for place in places]


def _numbers(
    placed: PlacedControls, stretches: Sequence[int], num_frames: int
) -> Iterator[list[int]]:
    """Yield for each file the frames of the video that go with its first frames, one by one."""
    for index in stretches:
        stretch = placed.controls.ranges[index]
        count = min(_TRACKED_FRAMES, stretch.end - stretch.start)
        numbers = []
        for offset in range(count):
            frame = placed.video_frame(stretch.start + offset)
            if frame is None or frame >= num_frames:
                break
            numbers.append(frame)
        yield numbers


def _stretch_errors(
    source: SourceVideo,
    placed: PlacedControls,
    index: int,
    numbers: Sequence[int],
    tracker: LucasKanadeTracker,
) -> tuple[NDArray[np.float64], NDArray[np.float64], int] | None:
    """Return the errors of one stretch in pixels of the video, those of points that stay, and how
    many points there are."""
    controls, grid = placed.controls, placed.grid
    assert grid is not None, "asked before"
    if len(numbers) < 2:
        return None
    height, width = controls.height, controls.width
    file = controls.clips[index].track
    sparse = np.stack(
        list(read_every(controls.videos[file], height=height, width=width, num_frames=len(numbers)))
    )
    columns, rows = grid
    wanted = read_tracks(sparse, columns=columns, rows=rows)
    begin = track_grid(height, width, columns, rows)
    every = np.arange(len(begin))[:: max(1, -(-len(begin) // _MOST_POINTS))]
    frames = np.stack(list(_picked(source, numbers, (height, width), placed.fit)))
    if len(frames) < len(numbers):
        return None
    found = tracker.track(frames, begin[every])
    places, seen = wanted.points[: len(frames), every], wanted.visible[: len(frames), every]
    inner = _EDGE_SHARE * min(height, width)
    compared = seen & found.visible
    for points in (places, found.points):
        compared &= inside_picture(
            points - inner, round(height - 2 * inner), round(width - 2 * inner)
        )
    compared[0] = False
    if not compared.any():
        return None
    scale = _scale(source, placed)
    off = np.linalg.norm((found.points - places) * scale, axis=-1)[compared]
    moved = np.linalg.norm((begin[every][None] - places) * scale, axis=-1)[compared]
    return off.astype(np.float64), moved.astype(np.float64), int(compared.any(axis=0).sum())


def _picked(
    source: SourceVideo, numbers: Sequence[int], size: tuple[int, int], fit: Fit
) -> Iterator[Frame]:
    """Yield frames of a video by number, ascending; one may be asked for twice."""
    height, width = size
    frames = read_frames(
        source, fps=None, height=height, width=width, fit=fit, start_frame=numbers[0]
    )
    waiting = list(numbers)
    for index, frame in enumerate(frames, start=numbers[0]):
        while waiting and waiting[0] == index:
            waiting.pop(0)
            yield frame
        if not waiting:
            return


def _scale(source: SourceVideo, placed: PlacedControls) -> NDArray[np.float64]:
    """Return the pixels of the video, across and down, in one of the controls."""
    across = source.width / placed.controls.width
    down = source.height / placed.controls.height
    if placed.fit == "stretch":
        return np.array([across, down])
    return np.full(2, min(across, down))
