"""Depth the user brings as a video: read as it is, once it is known which end is near."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from longvie_cli.controls.depth import DepthEstimator
from longvie_cli.errors import ControlError, MediaError
from longvie_cli.media.frames import Fit
from longvie_cli.media.probe import SourceVideo
from longvie_cli.media.reader import count_frames, read_frames, read_grey_frames

Polarity = Literal["near-white", "near-black"]

# Frames looked at to find the polarity: so many, so far apart.
_SAMPLES = 8
_SAMPLE_STEP = 16
_SAMPLE_HEIGHT, _SAMPLE_WIDTH = 112, 192
# Rank correlation with an estimate from which on it is believed.
_SURE = 0.3
# Grey levels of difference between the channels of a picture that is still called grey.
_GREY_LEVELS = 10.0


@dataclass(frozen=True)
class DepthVideo:
    """A depth video in grey, 8 or 16 bit, of any codec, size and rate.

    Args:
        video: As `probe_video` returns it.
        polarity: Whether white or black is near.
    """

    video: SourceVideo
    polarity: Polarity

    @cached_property
    def name(self) -> str:
        """What makes the depth: the file's hash and its polarity."""
        with self.video.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return f"video-{digest[:16]}-{self.polarity}"

    def disparity(
        self, *, fps: int, height: int, width: int, fit: Fit, start_frame: int
    ) -> Iterator[NDArray[np.float32]]:
        """Yield one picture [height, width] in [0, 1] a frame, 1 the nearest there is.

        Bars of `pad` are far.
        """
        return read_grey_frames(
            self.video,
            fps=fps,
            height=height,
            width=width,
            fit=fit,
            start_frame=start_frame,
            invert=self.polarity == "near-black",
        )


def check_length(depth: SourceVideo, num_frames: int, *, fps: int, needed_by: str) -> None:
    """Check that a depth video lasts for so many frames.

    Raises:
        MediaError: it does not, or the file cannot be read.
    """
    available = count_frames(depth, fps=fps)
    if available < num_frames:
        raise MediaError(
            f"{depth.path.name}: the depth has {available} frames ({available / fps:.2f} s at "
            f"{fps} fps), but {needed_by} needs {num_frames} ({num_frames / fps:.2f} s).",
            hint="Pass the depth of the whole video, or a shorter length.",
        )


@dataclass(frozen=True)
class FoundPolarity:
    """What a depth video's polarity seems to be.

    Args:
        polarity: The likelier one.
        sure: Whether estimates agree on it; if not, it is a guess.
        reason: In words, for people.
    """

    polarity: Polarity
    sure: bool
    reason: str


def find_polarity(
    depth: SourceVideo, video: SourceVideo, estimator: DepthEstimator, *, fps: int, fit: Fit
) -> FoundPolarity:
    """Return whether white or black is near in a depth video, by the look of the video itself.

    Compares ranks with an estimate on up to 8 frames. Where the two say nothing about each other,
    the lower third of a picture is taken to be nearer than the upper one.

    Raises:
        ControlError: the depth video is coloured.
        MediaError: one of the two cannot be read.
    """
    size = {"height": _SAMPLE_HEIGHT, "width": _SAMPLE_WIDTH}
    span = _SAMPLES * _SAMPLE_STEP
    seen = islice(read_frames(video, fps=fps, fit=fit, **size), 0, span, _SAMPLE_STEP)
    shown = islice(read_frames(depth, fps=fps, fit=fit, **size), 0, span, _SAMPLE_STEP)
    correlations, lower_is_brighter = [], []
    for frame, picture in zip(seen, shown, strict=False):
        spread = float(np.ptp(picture.astype(np.float32), axis=-1).mean())
        if spread > _GREY_LEVELS:
            raise ControlError(
                f"{depth.path.name}: it is coloured; depth is read from grey pictures.",
                hint="Pass depth in grey, or leave --depth out to have it estimated.",
            )
        grey = picture.mean(axis=-1)
        estimate = estimator.estimate(frame[None])[0]
        correlations.append(_rank_correlation(grey, estimate))
        third = _SAMPLE_HEIGHT // 3
        lower_is_brighter.append(float(grey[-third:].mean() - grey[:third].mean()))
    if not correlations:
        raise MediaError(f"{depth.path.name}: there is no frame of depth to look at.")
    mean = float(np.mean(correlations))
    agreed = all(np.sign(value) == np.sign(mean) for value in correlations)
    if abs(mean) >= _SURE and agreed:
        polarity: Polarity = "near-white" if mean > 0 else "near-black"
        reason = f"rank correlation with an estimate {mean:+.2f} on {len(correlations)} frames"
        return FoundPolarity(polarity, True, reason)
    polarity = "near-white" if np.mean(lower_is_brighter) >= 0 else "near-black"
    reason = (
        f"an estimate says nothing clear (rank correlation {mean:+.2f}), so the lower part of the "
        "picture is taken to be nearer"
    )
    return FoundPolarity(polarity, False, reason)


def _rank_correlation(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    x, y = (_ranks(values.reshape(-1)) for values in (first, second))
    if min(x.std(), y.std()) == 0:
        return 0.0
    return float(((x - x.mean()) * (y - y.mean())).mean() / (x.std() * y.std()))


def _ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the rank of every value; equal values share theirs."""
    ordered = np.sort(values)
    ranks: NDArray[np.float64] = (
        np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    ) / 2
    return ranks
