"""A video against its reference: PSNR and SSIM of pictures shown at the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from longvie_cli.evaluation.quality import sampling_step
from longvie_cli.media.frames import Frame
from longvie_cli.media.probe import SourceVideo
from longvie_cli.media.reader import read_every, read_frames

if TYPE_CHECKING:
    from longvie_cli.media.frames import Fit

MOST_PICTURES = 256
"""Pictures that are compared, fewer of large ones: every n-th, n the smallest whole number."""

# Pixels that are compared in all: 256 pictures of 640x352, 27 of 1920x1080.
_PIXEL_BUDGET = 58_000_000
_FEWEST_PICTURES = 16
# Gaussian window of Wang et al. 2004.
_SSIM_WINDOW = 11
_MOST_PIXELS = 1920 * 1088

# Rates that differ by less are one.
_SAME_RATE = 0.002
_SAME_ASPECT = 0.02

# Offsets are looked for up to so many frames both ways, on grey pictures of this size.
_MOST_OFFSET = 16
_OFFSET_SIZE = (36, 64)
_OFFSET_FRAMES = 4800
# Another offset fits better where its mean squared error is below this share of that without.
_CLEARLY_BETTER = 0.7
# Mean squared error (levels) that encoding makes; below it no offset fits better than another.
_ENCODING_ERROR = 0.5


@dataclass(frozen=True)
class Alignment:
    """How two videos are laid beside each other.

    Args:
        video: The one that is judged.
        reference: The other.
        fps: Both are read at this rate; None: both as stored, frame by frame.
        num_frames: Frames that both have.
        height: Rows at which they are compared.
        width: Columns.
        fit: How the reference is brought to this size.
        rate: Frames a second, for times.
    """

    video: SourceVideo
    reference: SourceVideo
    fps: int | None
    num_frames: int
    height: int
    width: int
    fit: Fit
    rate: float

    @property
    def step(self) -> int:
        """Every so many-th frame is compared."""
        affordable = _PIXEL_BUDGET // (self.height * self.width)
        most = min(MOST_PICTURES, max(_FEWEST_PICTURES, affordable))
        return sampling_step(self.num_frames, most)


@dataclass(frozen=True)
class ReferenceScores:
    """How close a video is to its reference.

    Args:
        frames: Which frames were compared, counted at the rate of the alignment.
        squared_errors: Mean squared error of each, RGB in levels of 255.
        ssim: Structural similarity of each, mean of R, G and B.
        detail: Standard deviation of the reference within a picture, levels of 255, at most.
    """

    frames: NDArray[np.int64]
    squared_errors: NDArray[np.float64]
    ssim: NDArray[np.float64]
    detail: float

    @property
    def psnr(self) -> float | None:
        """Of the mean squared error over all pictures, in dB; None where they are identical."""
        return psnr_of(float(self.squared_errors.mean()))


def psnr_of(squared_error: float) -> float | None:
    """Return the PSNR in dB of a mean squared error in levels of 255, None of 0."""
    return None if squared_error == 0 else float(10 * np.log10(255**2 / squared_error))


def align(video: SourceVideo, reference: SourceVideo) -> tuple[Alignment, list[str]]:
    """Return how a video and its reference are compared, and what is done for it, in words.

    Both begin at their first frames. At one constant rate they are compared frame by frame as
    stored, otherwise both at the lower rate, rounded to a whole one.
    """
    said = []
    name = reference.path.name
    constant = video.variable_fps is None and reference.variable_fps is None
    if constant and abs(video.fps / reference.fps - 1) < _SAME_RATE:
        fps, rate = None, video.fps
        lengths = (video.num_frames, reference.num_frames)
    else:
        fps = max(1, round(min(video.fps, reference.fps)))
        rate = float(fps)
        lengths = (
            max(1, round(video.duration_seconds * fps)),
            max(1, round(reference.duration_seconds * fps)),
        )
        said.append(
            f"{name}: {reference.fps:.4g} frames a second, the video {video.fps:.4g}; both are "
            f"compared at {fps}."
        )
    if lengths[0] != lengths[1]:
        shared = min(lengths)
        said.append(
            f"{name}: {lengths[1] / rate:.2f} s long, the video {lengths[0] / rate:.2f} s; the "
            f"first {shared / rate:.2f} s ({shared} frames) are compared."
        )
    shrink = min(1.0, (_MOST_PIXELS / (video.height * video.width)) ** 0.5)
    height, width = max(1, round(video.height * shrink)), max(1, round(video.width * shrink))
    aspect = reference.width * video.height / (reference.height * video.width)
    fit: Fit = "stretch" if abs(aspect - 1) < _SAME_ASPECT else "crop"
    if (reference.height, reference.width) != (height, width):
        how = "cropped and scaled" if fit == "crop" else "scaled"
        said.append(
            f"{name}: {reference.width}x{reference.height} is {how} to {width}x{height} to be "
            "compared."
        )
    return Alignment(video, reference, fps, min(lengths), height, width, fit, rate), said


def compare(
    alignment: Alignment, *, tell: Callable[[int], None] = lambda _: None
) -> ReferenceScores:
    """Return PSNR and SSIM of evenly spaced pictures; holds two at a time.

    SSIM as in Wang et al. 2004 (Gaussian window 11 x 11 of deviation 1.5, no padding), by kornia,
    of each RGB channel.

    Raises:
        MediaError: A file cannot be read.
    """
    errors, similarities = [], []
    detail = 0.0
    for one, other in _sampled_pairs(alignment):
        difference = one.astype(np.float32) - other.astype(np.float32)
        errors.append(float(np.mean(np.square(difference), dtype=np.float64)))
        similarities.append(structural_similarity(one, other))
        detail = max(detail, float(other.std(axis=(0, 1)).max()))
        tell(1)
    frames = np.arange(len(errors)) * alignment.step
    return ReferenceScores(frames, np.array(errors), np.array(similarities), detail)


def structural_similarity(one: Frame, other: Frame) -> float:
    """Return the mean SSIM of two pictures [height, width, 3]; NaN below 11 pixels a side."""
    import torch
    from kornia.metrics import ssim

    if min(one.shape[:2]) < _SSIM_WINDOW:
        return float("nan")
    if np.array_equal(one, other):
        return 1.0
    first, second = (
        torch.from_numpy(np.array(frame)).permute(2, 0, 1)[None].float() / 255
        for frame in (one, other)
    )
    with torch.inference_mode():
        return float(ssim(first, second, _SSIM_WINDOW, padding="valid").mean())


def better_offset(alignment: Alignment) -> tuple[int, float] | None:
    """Return by how many frames the video is late, where that fits clearly better than 0, and how.

    Small grey pictures of the first 4800 frames are compared at offsets of up to 16 frames; how is
    the mean squared error of the best over that of none. Negative: the video is early.

    Raises:
        MediaError: A file cannot be read.
    """
    reach = min(_MOST_OFFSET, alignment.num_frames // 4)
    if reach < 1:
        return None
    errors = np.zeros(2 * reach + 1)
    counts = np.zeros(2 * reach + 1)
    videos: deque[NDArray[np.float32]] = deque(maxlen=2 * reach + 1)
    references: deque[NDArray[np.float32]] = deque(maxlen=2 * reach + 1)
    height, width = _OFFSET_SIZE
    streams = zip(
        _small(alignment, alignment.video, height, width),
        _small(alignment, alignment.reference, height, width),
        strict=False,
    )
    for one, other in islice(streams, min(_OFFSET_FRAMES, alignment.num_frames)):
        videos.append(one)
        references.append(other)
        if len(videos) <= 2 * reach:
            continue
        middle = videos[reach]
        for place, candidate in enumerate(references):
            # The frame `reach` back in the video against reference frames around it.
            errors[place] += float(np.mean(np.square(middle - candidate)))
            counts[place] += 1
    if not counts.all():
        return None
    errors = errors / counts + _ENCODING_ERROR
    best = int(np.argmin(errors))
    ratio = float(errors[best] / errors[reach])
    if best == reach or ratio > _CLEARLY_BETTER:
        return None
    return reach - best, ratio


def _small(
    alignment: Alignment, source: SourceVideo, height: int, width: int
) -> Iterator[NDArray[np.float32]]:
    if source is alignment.reference and alignment.fit == "crop":
        frames = read_frames(source, fps=alignment.fps, height=height, width=width, fit="crop")
    else:
        frames = read_every(source, fps=alignment.fps, height=height, width=width)
    return (frame.mean(axis=2, dtype=np.float32) for frame in frames)


def _sampled_pairs(alignment: Alignment) -> Iterator[tuple[Frame, Frame]]:
    size = {"height": alignment.height, "width": alignment.width}
    step, reference = alignment.step, alignment.reference
    count = -(-alignment.num_frames // step)
    videos = read_every(alignment.video, step=step, fps=alignment.fps, num_frames=count, **size)
    if alignment.fit == "crop":
        every = read_frames(reference, fps=alignment.fps, fit="crop", **size)
        references: Iterator[Frame] = islice(every, 0, None, step)
    else:
        references = read_every(reference, step=step, fps=alignment.fps, num_frames=count, **size)
    return zip(videos, references, strict=False)
