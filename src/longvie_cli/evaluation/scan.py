"""Every frame of a video looked at once, small: the numbers that most measures are made of.

The video is decoded once. A frame is averaged down to `scan_size` and gives a few numbers; pictures
are not kept. Memory grows by some fifty bytes a frame, and by half a kilobyte for each frame that
is described for `consistency`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from longvie_cli.evaluation.consistency import describe_picture
from longvie_cli.evaluation.motion import Freeze, FreezeFinder
from longvie_cli.media.frames import Frame
from longvie_cli.media.probe import SourceVideo
from longvie_cli.media.reader import read_every

if TYPE_CHECKING:
    from cv2.typing import MatLike

Values = NDArray[np.float32]

_LONGEST_SIDE, _SHORTEST_SIDE = 192, 48
# Of longer videos the motion is measured at clip borders and around them, and between every
# n-th pair of frames, so that there are about so many pairs.
MOTION_PAIRS = 6000
# Pairs on each side of a border whose motion is always measured.
_AROUND_BORDERS = 24
# Descriptions a second; of videos of more than 20 minutes one.
_DESCRIBED_A_SECOND, _LONG_SECONDS = 4.0, 1200.0
# Cells, down and across, whose mean colours are compared from frame to frame.
_COLOUR_CELLS = (4, 6)
# ITU-R BT.709.
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)


@dataclass(frozen=True)
class VideoScan:
    """What the frames of a video say, one value a frame unless said otherwise.

    Args:
        height: Rows of the small pictures.
        width: Columns of them.
        times: Seconds from the first frame.
        luma: Mean BT.709 luma, 0 to 255.
        contrast: Standard deviation of the luma over the picture.
        saturation: Mean of largest minus smallest channel, 0 to 255.
        lab: Mean CIELAB colour (D65), [frames, 3].
        difference: Mean absolute difference to the frame before, in levels of 255; NaN of frame 0.
        colour_step: Mean CIELAB distance of its 4 x 6 cells from those of the frame before.
        warped: As `difference`, after the optical flow is taken out; NaN where not measured.
        flow: Mean length of the optical flow from the frame before, in pixels of the video as it
            is shown; NaN where not measured.
        freezes: Stretches in which the picture stands still.
        described: Frames that were described, ascending.
        descriptions: Of these frames, [described, values], float16, unit length.
    """

    height: int
    width: int
    times: NDArray[np.float64]
    luma: Values
    contrast: Values
    saturation: Values
    lab: Values
    difference: Values
    colour_step: Values
    warped: Values
    flow: Values
    freezes: tuple[Freeze, ...]
    described: NDArray[np.int64]
    descriptions: NDArray[np.float16]

    @property
    def num_frames(self) -> int:
        """Frames that were read."""
        return len(self.times)

    @cached_property
    def num_pairs_with_motion(self) -> int:
        """Pairs of frames between which the motion was measured."""
        return int(np.isfinite(self.flow).sum())


def scan_size(source: SourceVideo) -> tuple[int, int]:
    """Return height and width of the pictures that are looked at: the longer side at most 192."""
    scale = min(1.0, _LONGEST_SIDE / max(source.height, source.width))
    return (
        max(_SHORTEST_SIDE, round(source.height * scale)),
        max(_SHORTEST_SIDE, round(source.width * scale)),
    )


def frame_times(source: SourceVideo) -> NDArray[np.float64]:
    """Return the second at which each stored frame is shown, from the first one on."""
    packets = source.packets
    if packets is None:
        return np.arange(source.num_frames) / source.fps
    times = np.array(packets.timestamps, np.float64) * float(packets.time_base)
    return times - times[:1]


def scan_video(
    source: SourceVideo,
    borders: Iterable[int] = (),
    *,
    tell: Callable[[int], None] = lambda _: None,
) -> VideoScan:
    """Decode a video once and return what its frames say.

    Args:
        source: The video.
        borders: First frames of its clips: their motion is measured whatever its length.
        tell: Called with the number of frames read since the last call.

    Raises:
        DamagedVideoError: A frame is damaged; says which can be read.
        MediaError: The file cannot be read.
    """
    times = frame_times(source)
    look = _Look(source, _with_motion(len(times), borders), _described(times))
    height, width = look.height, look.width
    waiting = 0
    # A damaged end may give a frame more than is stored, which has no time of its own.
    for frame in read_every(source, height=height, width=width, num_frames=len(times)):
        look.add(frame)
        waiting += 1
        if waiting == 64:
            tell(waiting)
            waiting = 0
    tell(waiting)
    return look.finish(times)


class _Look:
    """Takes the small frames one by one and keeps their numbers."""

    def __init__(
        self, source: SourceVideo, with_motion: NDArray[np.bool_], described: NDArray[np.bool_]
    ) -> None:
        import cv2

        self.height, self.width = scan_size(source)
        self._scale = (source.width / self.width, source.height / self.height)
        self._with_motion, self._described = with_motion, described
        self._motion = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        rows, columns = np.mgrid[: self.height, : self.width].astype(np.float32)
        self._grid = np.stack([columns, rows], axis=-1)
        self._freezes = FreezeFinder(source.fps)
        self._values = np.full((len(with_motion), 10), np.nan, np.float32)
        self._frames: list[int] = []
        self._descriptions: list[NDArray[np.float16]] = []
        self._count = 0
        self._before: Frame | None = None
        self._grey_before: MatLike | None = None
        self._cells_before: Values | None = None

    def add(self, frame: Frame) -> None:
        """Take the next frame."""
        import cv2

        index = self._count
        values = self._values[index]
        grey = frame @ _LUMA
        unit = frame.astype(np.float32) / np.float32(255)
        lab = cv2.cvtColor(unit, cv2.COLOR_RGB2Lab)
        values[0], values[1] = grey.mean(), grey.std()
        values[2] = (frame.max(axis=2) - frame.min(axis=2)).mean()
        values[3:6] = lab.mean(axis=(0, 1))
        cells = cv2.resize(lab, _COLOUR_CELLS[::-1], interpolation=cv2.INTER_AREA)
        rounded = np.rint(grey).astype(np.uint8)
        if self._before is not None:
            assert self._cells_before is not None and self._grey_before is not None
            values[6] = cv2.absdiff(frame, self._before).mean()
            values[7] = np.linalg.norm(cells - self._cells_before, axis=2).mean()
            if self._with_motion[index]:
                values[8], values[9] = self._moved(frame, rounded)
        if self._described[index]:
            self._frames.append(index)
            self._descriptions.append(describe_picture(lab))
        self._freezes.add(frame)
        self._before, self._grey_before, self._cells_before = frame, rounded, cells
        self._count += 1

    def finish(self, times: NDArray[np.float64]) -> VideoScan:
        """Return what was found."""
        values = self._values[: self._count]
        return VideoScan(
            height=self.height,
            width=self.width,
            times=times[: self._count],
            luma=values[:, 0],
            contrast=values[:, 1],
            saturation=values[:, 2],
            lab=values[:, 3:6],
            difference=values[:, 6],
            colour_step=values[:, 7],
            warped=values[:, 8],
            flow=values[:, 9],
            freezes=self._freezes.finish(),
            described=np.array(self._frames, np.int64),
            descriptions=np.array(self._descriptions, np.float16),
        )

    def _moved(self, frame: Frame, grey: MatLike) -> tuple[float, float]:
        """Return what differs from the frame before once the motion is taken out, and its length.

        What the motion brings in from outside the picture does not count.
        """
        import cv2

        assert self._before is not None and self._grey_before is not None
        flow = self._motion.calc(self._grey_before, grey, None)
        places = self._grid + flow
        there = cv2.remap(frame, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        inside = ((places >= 0) & (places <= (self.width - 1, self.height - 1))).all(axis=2)
        error = cv2.absdiff(there, self._before).mean(axis=2)
        length = np.hypot(flow[..., 0] * self._scale[0], flow[..., 1] * self._scale[1]).mean()
        return float(error[inside].mean()) if inside.any() else float("nan"), float(length)


def _with_motion(num_frames: int, borders: Iterable[int]) -> NDArray[np.bool_]:
    """Return for each frame whether the motion from the one before is measured."""
    chosen = np.zeros(num_frames, np.bool_)
    chosen[:: max(1, -(-num_frames // MOTION_PAIRS))] = True
    for border in borders:
        chosen[max(0, border - _AROUND_BORDERS) : border + _AROUND_BORDERS + 1] = True
    return chosen


def _described(times: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return for each frame whether it is described: the first one of each quarter second."""
    long = len(times) > 0 and times[-1] > _LONG_SECONDS
    cells = np.floor(times * (1.0 if long else _DESCRIBED_A_SECOND) + 1e-6)
    return np.concatenate([np.ones(len(cells[:1]), np.bool_), np.diff(cells) > 0])
