"""Colours as a function of depth: haze on what was carried, and a guess at what comes into view.

Haze first. A hill that was far and comes near loses the haze that its pixels in the first frame
have; carried as they are, clip after clip, the world fades. How haze thickens with distance is
fitted on the first frame (`Haze`).

What the tracks do not carry has to be drawn: a ridge that rises behind another, ground that enters
at the border. The clip already says how its world looks at each distance, height and slope, and
the depth control says how far, high and steep the new places are. So colour is fitted as a smooth
function of the depth picture around a pixel, on the pixels that are known, and read where they are
not; what that leaves of the known pixels near by is spread over the gap, so that no seam stands.

Of 32 training flights' pixels that tracks do not carry, this brings the error from 24.2 to 26.0 dB
and the correlation of edges with the truth from .37 to .62; of carried pixels haze brings the error
from 35.6 to 38 dB in later frames, and in fog by up to 10 dB (docs/experiments.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

# Random Fourier features: Gaussian kernel regression in one small linear system. The kernel's
# width is 1 / _BANDWIDTH deviations of the features. Chosen on 32 training flights.
_FEATURES = 256
_BANDWIDTH = 0.25
_RIDGE = 1e-3
_SEED = 20261127
# Confidence from which on a pixel is an example for the fit, and the examples taken of a frame.
_EXAMPLE = 0.5
_EXAMPLES = 10_000
_EXAMPLE_FRAMES = 4
# Confidence up to which colours are blended, as of `carried_trust`'s limits.
_BLENDED = (0.1, 0.4)
# What the fit leaves is spread from every so many rows and columns, from confidences up to this on
# in full, and this share of it.
_STEP = 4
_SPREAD_FROM = 0.25
_SPREAD = 0.7
# Features beyond this share of the examples' are held there: the fit knows nothing of them.
_TAIL = 0.01
# Added to disparity (0..1) before ratios and logarithms: a depth byte is 1/255.
_FLOOR = 0.05
_ROWS = 4096

# A depth byte of 255 less this is sky: it has no distance, and its haze does not change.
_SKY = 3
# Haze lets through exp(-density / (disparity + 0.03)); densities tried, as shares of the depth
# range, and what a denser one has to explain better by, in shares of the colours' variance.
_DENSITIES = (0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5)
_FAR_END = 0.03
_DENSER = 0.1
# The share of the variance from which on distance is believed to explain colours, and the most
# that light may become stronger or weaker by it. Chosen on 32 training flights.
_BELIEVED = 0.25
_MOST = 1.3
# Fewer pixels of land than this say nothing of haze.
_LAND = 500


class Haze:
    """How colours of a picture turn into that of its haze with distance."""

    def __init__(self, picture: Tensor, depth: Tensor) -> None:
        """Fit the haze of a picture, float [H, W, C] in 0..255, with depth uint8 [H, W]."""
        self.density, self.belief = 0.0, 0.0
        self.colour = self.strength = torch.zeros(picture.shape[-1])
        land = depth < 255 - _SKY
        if int(land.sum()) < _LAND:
            return
        colours, places = picture[land], depth[land]
        variance = float((colours - colours.mean(dim=0)).square().mean()) + 1e-6
        least = math.inf
        for density in _DENSITIES:
            light = _light(places, density)
            basis = torch.stack((torch.ones_like(light), light), dim=1)
            ridge = 1e-2 * len(light) * torch.tensor([[0.0, 0.0], [0.0, 1.0]])
            line = torch.linalg.solve(basis.T @ basis + ridge, basis.T @ colours)
            left = float((basis @ line - colours).square().mean()) / variance
            if left + _DENSER * density < least:
                least = left + _DENSER * density
                self.density, self.belief = density, min(1.0, max(0.0, 1 - left) / _BELIEVED)
                self.colour, self.strength = line[0].clamp(0, 255), line[1]

    def moved(self, colours: Tensor, before: Tensor, now: Tensor) -> Tensor:
        """Return colours [..., C] as they look when their distance has changed.

        Half by more or less of what the place itself reflects, half by what the mean colour of
        such distances changes: each errs where the other is right.

        Args:
            colours: 0..255, as carried.
            before: Depth bytes [...] of the places in the picture they come from.
            now: Depth bytes [...] they have now.
        """
        land = (now < 255 - _SKY) & (before < 255 - _SKY)
        light_before, light_now = _light(before, self.density), _light(now, self.density)
        ratio = (light_now / light_before.clamp(min=1e-4)).clamp(1 / _MOST, _MOST)
        ratio = torch.where(land, ratio**self.belief, 1.0)[..., None]
        reflected = self.colour + (colours - self.colour) * ratio
        step = torch.where(land, self.belief * (light_now - light_before), 0.0)[..., None]
        return (0.5 * reflected + 0.5 * (colours + step * self.strength)).clamp(0, 255)


def _light(depth: Tensor, density: float) -> Tensor:
    """Return the share of light that comes through the haze from places of depth bytes [...]."""
    return torch.exp(-density / (1 - depth.float() / 255 + _FAR_END))


@dataclass(frozen=True)
class Look:
    """A frame that the whole video shall look like: the first of the video, or of its scene.

    A clip that learns colours only from its own first frame learns from what the clip before made;
    what each of them smooths adds up. From the video's first frame edges last
    (docs/experiments.md).

    Args:
        picture: uint8 [H, W, 3].
        depth: uint8 [H, W], near is black; on the scale of the clips' depth.
    """

    picture: NDArray[np.uint8]
    depth: NDArray[np.uint8]

    @classmethod
    def of(cls, picture: NDArray[np.uint8], dense: NDArray[np.uint8]) -> Look:
        """Return the look of a picture and the dense control of it, both uint8 [H, W, 3]."""
        return cls(picture, depth_bytes(dense))


def depth_bytes(dense: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the depth bytes [..] of a dense control's grey pictures [.., 3]."""
    return np.rint(dense.mean(axis=-1)).astype(np.uint8)


def fill_by_depth(
    frames: Tensor, depth: Tensor, confidence: Tensor, look: Look | None = None
) -> Tensor:
    """Return frames in which pixels of low confidence have the colours of places like them.

    Frame 0 has to be known. Pixels of confidence 0.4 and more stay as they are.

    Args:
        frames: uint8 [T, H, W, C], as they were carried.
        depth: uint8 [T, H, W], near is black.
        confidence: float32 [T, H, W] in 0..1; 1 in frame 0.
        look: Where colours are learnt as well, of the same size; None: only from the frames.
    """
    num_frames, height, width, channels = frames.shape
    known = _Known(frames, depth, confidence)
    if look is not None:
        # Copies: frames that were read are not writable.
        seen, places = (torch.from_numpy(each.copy())[None] for each in (look.picture, look.depth))
        known = _Known(seen, places, torch.ones(places.shape)).before(known)
    features = DepthFeatures(known.depth[:1])
    fit = _Fit(features, known)
    filled = frames.clone()
    for index in range(1, num_frames):
        unknown = confidence[index] < _BLENDED[1]
        if not bool(unknown.any()):
            continue
        places = features(depth[index : index + 1])[0]
        carried = frames[index].float()
        grid = places[::_STEP, ::_STEP]
        rest = carried[::_STEP, ::_STEP] - fit(grid.flatten(0, 1)).view(*grid.shape[:2], channels)
        sure = (confidence[index, ::_STEP, ::_STEP] / _SPREAD_FROM).clamp(0, 1).square()
        spread = _spread(rest.permute(2, 0, 1)[None], sure[None, None])
        spread = F.interpolate(spread, scale_factor=_STEP, mode="bilinear", align_corners=False)[
            0, :, :height, :width
        ]
        guess = fit(places[unknown]) + _SPREAD * spread.permute(1, 2, 0)[unknown]
        low, high = _BLENDED
        share = ((confidence[index][unknown] - low) / (high - low)).clamp(0, 1)[:, None]
        mixed = share * carried[unknown] + (1 - share) * guess
        filled[index][unknown] = mixed.round().clamp(0, 255).to(torch.uint8)
    return filled


DEPTH_MAPS = 10


def depth_maps(depth: Tensor) -> Tensor:
    """Return what each pixel's surroundings say of its place, [T, DEPTH_MAPS, H, W].

    Numbers of the size of 1: distance, its logarithm, place in the picture, slopes, standing out,
    height.

    Args:
        depth: uint8 [T, H, W], near is black.
    """
    near = 1 - depth[:, None].float() / 255
    y = torch.linspace(-1, 1, near.shape[2]).view(1, 1, -1, 1).expand_as(near)
    x = torch.linspace(-1, 1, near.shape[3]).view(1, 1, 1, -1).expand_as(near)
    # Distance, and the place in the picture: sky and haze hang on these. Left and right matter
    # less than up and down.
    maps = [near, (near + _FLOOR / 2).log(), y, 0.3 * x]
    # Slopes, near and far alike: light falls on them.
    for reach in (1, 3):
        smooth = _mean_around(near, reach)
        for slope in _slopes(smooth, reach):
            maps.append(torch.asinh(40 * slope / (smooth + _FLOOR)))
    # What stands out before what is behind it.
    around = _mean_around(near, 5)
    maps.append(torch.asinh(8 * (near - around) / (around + _FLOOR)))
    # Height above a level ground: rows below the horizon over disparity.
    maps.append(torch.asinh(0.3 * (y + 0.3) / (near + _FLOOR)))
    return torch.cat(maps, dim=1)


class DepthFeatures:
    """What a pixel's surroundings in a depth picture say of its place, as numbers of like size."""

    def __init__(self, depth: Tensor) -> None:
        """Take the scale of the features from the depth [1, H, W] of the clip's first frame."""
        raw = _last(depth_maps(depth)).flatten(0, 2)
        # A constant feature (flat depth) has no deviation to be divided by.
        self.mean, self.deviation = raw.mean(dim=0), raw.std(dim=0) + 0.05
        few = ((raw - self.mean) / self.deviation)[:: max(1, len(raw) // 16_384)]
        self.low, self.high = (torch.quantile(few, q, dim=0) for q in (_TAIL, 1 - _TAIL))

    def __call__(self, depth: Tensor) -> Tensor:
        """Return the features [T, H, W, K] of depth uint8 [T, H, W]."""
        scaled = (_last(depth_maps(depth)) - self.mean) / self.deviation
        return torch.minimum(torch.maximum(scaled, self.low), self.high)


class _Known:
    """Frames of which colours are learnt, first of all those that stand first."""

    def __init__(self, frames: Tensor, depth: Tensor, confidence: Tensor) -> None:
        """Choose some of frames [T, H, W, C], with depth and confidence [T, H, W]."""
        count = min(len(frames), _EXAMPLE_FRAMES + 1)
        chosen = torch.linspace(0, len(frames) - 1, count).round().long()
        self.frames, self.depth, self.confidence = (
            each[chosen] for each in (frames, depth, confidence)
        )

    def before(self, others: _Known) -> _Known:
        """Return these and some others after them."""
        return _Known(
            *(
                torch.cat((getattr(self, name), getattr(others, name)))
                for name in ("frames", "depth", "confidence")
            )
        )


class _Fit:
    """Colours as a function of features, by ridge regression on random Fourier features."""

    def __init__(self, features: DepthFeatures, known_frames: _Known) -> None:
        examples, colours = [], []
        for frame, depth, confidence in zip(
            known_frames.frames, known_frames.depth, known_frames.confidence, strict=True
        ):
            known = (confidence > _EXAMPLE).flatten().nonzero()[:, 0]
            known = known[:: max(1, len(known) // _EXAMPLES)]
            examples.append(features(depth[None]).flatten(0, 2)[known])
            colours.append(frame.flatten(0, 1)[known].float())
        known, target = torch.cat(examples), torch.cat(colours)
        draws = torch.Generator().manual_seed(_SEED)
        size = known.shape[1]
        self.waves = _BANDWIDTH * torch.randn(size, _FEATURES, generator=draws)
        self.phases = 2 * math.pi * torch.rand(_FEATURES, generator=draws)
        self.middle = target.mean(dim=0)
        self.low, self.high = target.amin(dim=0), target.amax(dim=0)
        basis = self._basis(known)
        system = basis.T @ basis + _RIDGE * len(known) * torch.eye(basis.shape[1])
        self.weights = torch.linalg.solve(system, basis.T @ (target - self.middle))

    def __call__(self, features: Tensor) -> Tensor:
        """Return colours [N, C] in 0..255 of features [N, K], within those of the examples."""
        rows = [self._basis(part) @ self.weights for part in features.split(_ROWS)]
        found = torch.cat(rows) + self.middle
        return torch.minimum(torch.maximum(found, self.low), self.high)

    def _basis(self, features: Tensor) -> Tensor:
        waves = torch.addmm(self.phases, features, self.waves).cos_()
        return torch.cat((waves, features, torch.ones(len(features), 1)), dim=1)


def _spread(values: Tensor, weight: Tensor) -> Tensor:
    """Return values [1, C, H, W] where they weigh, elsewhere the mean of those around.

    Pull and push over a pyramid: means of ever larger squares, and back, each place taking of the
    finer picture what that knows of it.
    """
    total, known = values * weight, weight
    if min(values.shape[-2:]) > 1:
        half = [
            F.avg_pool2d(each, 2, ceil_mode=True, count_include_pad=False)
            for each in (total, known)
        ]
        coarse = F.interpolate(
            _spread(half[0] / (half[1] + 1e-6), half[1]),
            size=values.shape[-2:], mode="bilinear", align_corners=False,
        )  # fmt: skip
    else:
        coarse = torch.zeros_like(values)
    share = (2 * known).clamp(0, 1)
    return share * values + (1 - share) * coarse


def _last(maps: Tensor) -> Tensor:
    return maps.permute(0, 2, 3, 1)


def _mean_around(picture: Tensor, reach: int) -> Tensor:
    padded = F.pad(picture, (reach,) * 4, mode="replicate")
    return F.avg_pool2d(padded, 2 * reach + 1, 1)


def _slopes(picture: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Return the differences a pixel to the right and downwards, over `reach` to both sides."""
    padded = F.pad(picture, (reach,) * 4, mode="replicate")
    inner, twice = slice(reach, -reach), 2 * reach
    return (
        (padded[..., inner, twice:] - padded[..., inner, :-twice]) / twice,
        (padded[..., twice:, inner] - padded[..., :-twice, inner]) / twice,
    )
