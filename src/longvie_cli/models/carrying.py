"""The first frame of a clip carried along its controls to every other frame.

LongVie 2 shows its transformer the first frame followed by grey (spec 3.2). The tracks already say
where each point of that frame is later, and the depth which points move together: what they
determine need not be drawn anew. Arrays only, no model; the caller encodes the result.

Every pixel looks up where it was in the first frame. A camera moving through a still scene moves
points by a smooth function of place and disparity; that is fitted first, robustly, and what is
left of the motion of each point is interpolated between those near by and of like depth. Colours
change with the distance on the way, and what comes into view has those of places like it
(`depth_colours`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from longvie_cli.models.depth_colours import Haze, Look, fill_by_depth

# Motion is found for every second pixel and scaled up; every pixel would be four times the work.
_STEP = 2
# Points a pixel listens to, looked for once for every 8x8 pixels.
_NEIGHBOURS = 10
_BLOCK = 8
# Fewer visible points than this say nothing of the frame.
_FEWEST_POINTS = 8
# Unknowns of the fit are nine; fewer points than three times that would be matched by chance.
_FEWEST_FOR_FIT = 27
_FIT_ROUNDS = 4
# Grey levels of depth by which two places still pass as one surface.
_LIKE_DEPTH = 14.0
# Squared pixels added to squared distances: a point is not known better than to two pixels.
_NEAR = 4.0
# What confidence falls to 1/e at: distance to the next point over the grid's spacing, pixels by
# which neighbours disagree, and levels by which the depth seen is not the carried point's. First
# guesses, not tuned: with them the error rises as confidence falls (docs/experiments.md).
_FAR = 1.5
_DISAGREE = 1.0
_OTHER_DEPTH = 12.0
# Pixels of motion from which on the distance to the next point counts.
_STILL = 1.0


# Confidence from which on carried latents are kept a little, and wholly. Their error, of which a
# latent's variance is 0.65, is 0.39 below a confidence of 0.1, 0.17 up to 0.3, 0.02 up to 0.6 and
# 0.003 above (80 training clips, docs/experiments.md).
_TRUSTED = (0.1, 0.4)
# So far are carried latents kept where nothing is sure: there the carried frames are coloured by
# depth, and what the transformer, as far as it is trained, makes of noise is worse alone. Last of
# five clips of three worlds: 16.8, 25.3, 28.8 dB without, 16.5, 25.3, 30.6 with it, edges .30, .69,
# .41 and .33, .74, .47; on extracted controls its tokens show without (docs/experiments.md).
_LEAST_TRUST = 0.6
# Confidence of a frame that was drawn from depth and words.
_LIKELY = 0.3


@dataclass(frozen=True)
class ClipTracks:
    """Where points of a clip's first frame are in all its frames.

    Args:
        points: [T, N, 2] float32 as (x, y) pixels, pixel centres whole.
        visible: [T, N] bool.
    """

    points: NDArray[np.float32]
    visible: NDArray[np.bool_]


@dataclass(frozen=True)
class Carrying:
    """What carrying has to know of a clip beside its first frame and its controls.

    Args:
        tracked_frames: Frames from the first on whose tracks began at one grid; later ones are of
            another control file. All where None.
        look: The frame that all clips of a video or scene shall look like; None for the first of
            them, which begins with it.
        look_words: Embeddings [1, tokens, text_dim] of the prompt of that frame; None: it is still
            the clip's.
        words_before: Of the prompt before the clip, which its first frame is of; None likewise.
    """

    tracked_frames: int | None = None
    look: Look | None = None
    look_words: Tensor | None = None
    words_before: Tensor | None = None


@dataclass(frozen=True)
class CarriedFrames:
    """What the first frame says of every other.

    Args:
        frames: uint8 [T, H, W, C]; frame 0 is the first frame itself.
        confidence: float32 [T, H, W] in 0..1; 1 in frame 0, 0 where nothing is known.
    """

    frames: NDArray[np.uint8]
    confidence: NDArray[np.float32]


def carry(
    first_frame: NDArray[np.uint8],
    depth: NDArray[np.uint8],
    tracks: ClipTracks,
    look: Look | None = None,
) -> CarriedFrames:
    """Return the first frame as the controls carry it through the clip.

    Where the points of a frame are too few, all of it is coloured by its depth, with confidence 0.

    Args:
        first_frame: [H, W, C]; of one motion several pictures may be carried as one.
        depth: [T, H, W], near is black; the clip's dense control.
        tracks: The clip's points in pixels of the same size.
        look: What comes into view shall look like, of the same size and channels.

    Raises:
        ValueError: the shapes do not belong together.
    """
    num_frames, height, width = depth.shape
    if first_frame.shape[:2] != (height, width) or len(tracks.points) != num_frames:
        raise ValueError(
            f"first frame {list(first_frame.shape)}, depth {list(depth.shape)} and points "
            f"{list(tracks.points.shape)} do not belong together"
        )
    grey = torch.from_numpy(depth.astype(np.float32))
    points = torch.from_numpy(tracks.points)
    shown = torch.from_numpy(tracks.visible) & _inside(points, height, width)
    still = _pixels(height, width, 1)
    lookup, confidence = [still], [torch.ones(height, width)]
    for frame in range(1, num_frames):
        seen = shown[0] & shown[frame]
        if int(seen.sum()) < _FEWEST_POINTS:
            lookup.append(still)
            confidence.append(torch.zeros(height, width))
            continue
        where, sure = _look_up(points[0, seen], points[frame, seen], grey[0], grey[frame])
        lookup.append(where)
        confidence.append(sure)
    where = torch.stack(lookup)
    # A copy: frames that were read are not writable.
    picture = torch.from_numpy(first_frame.copy()).permute(2, 0, 1).float()
    carried = _sample(picture.expand(num_frames, -1, -1, -1), where).permute(0, 2, 3, 1)
    before = _sample(grey[:1].expand(num_frames, 1, -1, -1), where)[:, 0]
    # Several pictures carried as one have a haze each.
    hazed = [Haze(look[0], grey[0]).moved(look, before, grey) for look in carried.split(3, dim=-1)]
    frames = torch.cat(hazed, dim=-1).round().to(torch.uint8)
    frames[0] = torch.from_numpy(first_frame.copy())
    sure = torch.stack(confidence)
    filled = fill_by_depth(frames, torch.from_numpy(depth.copy()), sure, look)
    return CarriedFrames(filled.numpy(), sure.numpy())


def no_tracks(num_frames: int) -> ClipTracks:
    """Return tracks of no point through so many frames."""
    return ClipTracks(np.zeros((num_frames, 0, 2), np.float32), np.zeros((num_frames, 0), bool))


def likely(frame: NDArray[np.uint8]) -> CarriedFrames:
    """Return a frame [H, W, C] of which all is likely and nothing sure, as if it were carried."""
    return CarriedFrames(frame[None], np.full((1, *frame.shape[:2]), _LIKELY, np.float32))


def confidence_mask(confidence: Tensor, temporal: int, height: int, width: int) -> Tensor:
    """Return the mask channels [1, temporal, frames, height, width] of a carried condition.

    One channel a video frame of each latent frame, averaged over the pixels of a latent; those of
    the first latent frame, which holds one video frame, are all that frame's.

    Args:
        confidence: [T, H, W], T being a multiple of `temporal` plus 1.
        temporal: Video frames of a latent frame.
        height: Latent rows.
        width: Latent columns.
    """
    small = F.adaptive_avg_pool2d(confidence[:, None], (height, width))[:, 0]
    held = torch.cat((small[:1].expand(temporal, -1, -1), small[1:]))
    return held.unflatten(0, (-1, temporal)).transpose(0, 1)[None]


def carried_trust(mask: Tensor) -> Tensor:
    """Return how far carried latents are kept as they are, [1, 1, frames, height, width] in 0.6..1.

    Args:
        mask: `confidence_mask`.
    """
    low, high = _TRUSTED
    sure = ((mask.mean(dim=1, keepdim=True) - low) / (high - low)).clamp(0, 1)
    return _LEAST_TRUST + (1 - _LEAST_TRUST) * sure


def _look_up(
    before: Tensor, now: Tensor, depth_before: Tensor, depth_now: Tensor
) -> tuple[Tensor, Tensor]:
    """Return for each pixel its place in the first frame [H, W, 2], and the confidence [H, W]."""
    height, width = depth_now.shape
    grey_before, grey_now = _read(depth_before, before), _read(depth_now, now)
    fit, trust = _fit(now, grey_now, before - now, height, width)
    # What the fit leaves of each point's motion, and how its depth has changed on the way.
    rest = torch.cat(
        (before - now - _predict(fit, now, grey_now, height, width),
         (grey_before - grey_now)[:, None]), dim=1
    )  # fmt: skip
    places = _pixels(height, width, _STEP)
    grey = depth_now[::_STEP, ::_STEP]
    near = _neighbours(now, height, width)[: places.shape[0], : places.shape[1]]
    squared = (places[..., None, :] - now[near]).square().sum(-1)
    like = torch.exp(-(grey_now[near] - grey[..., None]).abs() / _LIKE_DEPTH) + 1e-4
    weight = like * trust[near] / (squared + _NEAR)
    share = weight / weight.sum(-1, keepdim=True)
    mean = (share[..., None] * rest[near]).sum(-2)
    moved = places + mean[..., :2] + _predict(fit, places, grey, height, width)
    spread = (share * (rest[near][..., :2] - mean[..., None, :2]).square().sum(-1)).sum(-1).sqrt()
    spacing = (height * width / max(1, len(now))) ** 0.5
    # How far off the next point of like depth is matters as far as things move at all.
    far = -(like * trust[near] * torch.exp(-squared.sqrt() / (_FAR * spacing))).amax(-1).log()
    motion = 1 - torch.exp(-(moved - places).norm(dim=-1) / _STILL)
    expected = grey + mean[..., 2]
    other = (_read(depth_before, moved.flatten(0, 1)).view_as(grey) - expected).abs()
    sure = torch.exp(-far * motion - spread / _DISAGREE - other / _OTHER_DEPTH)
    sure = sure * _inside(moved, height, width)
    both = torch.cat(((moved - places).permute(2, 0, 1), sure[None]))[None]
    # Corners of the coarse grid are pixels of the fine one: its last row and column lie outside.
    full = F.interpolate(
        F.pad(both, (0, 1, 0, 1), mode="replicate"),
        size=(both.shape[2] * _STEP + 1, both.shape[3] * _STEP + 1),
        mode="bilinear",
        align_corners=True,
    )[0, :, :height, :width]
    return _pixels(height, width, 1) + full[:2].permute(1, 2, 0), full[2].clamp(0, 1)


def _fit(
    now: Tensor, grey: Tensor, motion: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Return the coefficients [9, 2] of a moving camera, and how each point agrees [N] in 0..1.

    A point that hangs on something else than the depth shows at its place, because it is hidden
    or the track has slipped, does not agree.
    """
    trust = torch.ones(len(now))
    basis = _basis(now, grey, height, width)
    if len(now) < _FEWEST_FOR_FIT:
        return torch.zeros(basis.shape[1], 2), trust
    ridge = 1e-4 * torch.eye(basis.shape[1])
    fit = torch.zeros(basis.shape[1], 2)
    for _ in range(_FIT_ROUNDS):
        weighted = basis * trust[:, None]
        fit = torch.linalg.solve(weighted.T @ basis + ridge, weighted.T @ motion)
        error = (motion - basis @ fit).norm(dim=1)
        scale = (2 * error.median()).clamp(min=0.5)
        trust = 1 / (1 + (error / scale).square())
    return fit, trust


def _basis(places: Tensor, grey: Tensor, height: int, width: int) -> Tensor:
    """Return what small camera motions are linear in, [..., 9].

    Turning moves a pixel by a quadratic function of its place, going by its disparity times a
    linear one; depth pictures are linear in disparity.
    """
    x = 2 * places[..., 0] / width - 1
    y = 2 * places[..., 1] / height - 1
    near = 1 - grey / 255
    one = torch.ones_like(x)
    return torch.stack((one, x, y, x * x, x * y, y * y, near, near * x, near * y), dim=-1)


def _predict(fit: Tensor, places: Tensor, grey: Tensor, height: int, width: int) -> Tensor:
    return _basis(places, grey, height, width) @ fit


def _neighbours(now: Tensor, height: int, width: int) -> Tensor:
    """Return the numbers of the points around each place of the coarse grid, [h, w, K]."""
    middle = _pixels(height, width, _BLOCK) + (_BLOCK - 1) / 2
    nearest = torch.cdist(middle, now[None].expand(len(middle), -1, -1))
    indices = nearest.topk(min(_NEIGHBOURS, len(now)), dim=-1, largest=False, sorted=False).indices
    times = _BLOCK // _STEP
    return indices.repeat_interleave(times, 0).repeat_interleave(times, 1)


def _pixels(height: int, width: int, step: int) -> Tensor:
    """Return the places (x, y) of every `step`-th pixel, [rows, columns, 2]."""
    y, x = torch.meshgrid(
        torch.arange(0, height, step), torch.arange(0, width, step), indexing="ij"
    )
    return torch.stack((x, y), dim=-1).float()


def _inside(places: Tensor, height: int, width: int) -> Tensor:
    x, y = places[..., 0], places[..., 1]
    return (x > -1) & (x < width) & (y > -1) & (y < height)


def _read(picture: Tensor, places: Tensor) -> Tensor:
    """Return the values [N] of the pixels next to places [N, 2], held at the border."""
    height, width = picture.shape
    x = places[..., 0].round().long().clamp(0, width - 1)
    y = places[..., 1].round().long().clamp(0, height - 1)
    return picture[y, x]


def _sample(pictures: Tensor, places: Tensor) -> Tensor:
    """Return pictures [B, C, H, W] read at places [B, H, W, 2], bicubic, held at the border."""
    height, width = pictures.shape[-2:]
    scale = places.new_tensor((2 / max(1, width - 1), 2 / max(1, height - 1)))
    sampled = F.grid_sample(
        pictures, places * scale - 1, mode="bicubic", padding_mode="border", align_corners=True
    )
    return sampled.clamp(0, 255)
