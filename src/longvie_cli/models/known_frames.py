"""What is known of the frames of a clip before any is made: the condition of a `carried` preset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longvie_cli.models.carrying import CarriedFrames, Carrying, carry, likely, no_tracks
from longvie_cli.models.continued_motion import continued_tracks
from longvie_cli.models.depth_colours import Look, depth_bytes
from longvie_cli.models.sketcher import Sketcher
from longvie_cli.models.track_pictures import read_tracks

# Depth byte of a clip without depth, whose places all move alike.
_NO_DEPTH = 128


@dataclass(frozen=True)
class GivenFrames:
    """Pictures that a clip is given, each uint8 [frames, H, W, 3] or None.

    Args:
        image: Its first frame, [H, W, 3].
        dense: Its depth control.
        sparse: Its track control.
        history: The last frames before it, oldest first.
    """

    image: NDArray[np.uint8] | None
    dense: NDArray[np.uint8] | None
    sparse: NDArray[np.uint8] | None
    history: NDArray[np.uint8] | None


def known_frames(
    shape: tuple[int, int, int],
    given: GivenFrames,
    words: Tensor,
    known: Carrying,
    *,
    track_grid: Sequence[int],
    sketcher: Sketcher | None,
) -> CarriedFrames | None:
    """Return what is known of the frames of a clip; None where nothing is.

    Of an image: it, carried along the controls; without tracks coloured by depth alone, and without
    controls moved on as the history moved. Where the prompt has changed, the colours change with it
    over the clip. Of a single frame without image: what depth and words make likely.

    Args:
        shape: Frames, height and width of the clip.
        given: Its pictures, of that size.
        words: Embeddings of its prompt [1, tokens, text_dim].
        known: What else there is to know.
        track_grid: Columns and rows of the points in the track pictures.
        sketcher: Of the preset, if it has one; without it no words count.
    """
    depth = None if given.dense is None else depth_bytes(given.dense)
    if given.image is None:
        if sketcher is None or depth is None or len(depth) > 1:
            return None
        return likely(sketcher.sketch(depth[0], words))
    columns, rows = track_grid
    if given.sparse is not None:
        frames = known.tracked_frames
        tracks = read_tracks(given.sparse, columns=columns, rows=rows, tracked_frames=frames)
    elif depth is not None:
        tracks = no_tracks(len(depth))
    else:
        seen = given.image[None] if given.history is None else given.history
        tracks = continued_tracks(seen, shape[0], columns, rows)
    if depth is None:
        depth = np.full(shape, _NO_DEPTH, np.uint8)
    before = words if known.words_before is None else known.words_before
    look = known.look
    if sketcher is not None and look is not None and known.look_words is not None:
        # The clip begins in the colours of the words before: so does all that it is to look like.
        (picture,) = recoloured(
            look.picture[None], look.depth[None], sketcher, known.look_words, before
        )
        look = Look(picture, look.depth)
    carried = carry(given.image, depth, tracks, look)
    if sketcher is None:
        return carried
    shares = np.linspace(0, 1, len(depth), dtype=np.float32)
    turned = recoloured(carried.frames, depth, sketcher, before, words, shares)
    return CarriedFrames(turned, carried.confidence)


def recoloured(
    frames: NDArray[np.uint8],
    depth: NDArray[np.uint8],
    sketcher: Sketcher,
    before: Tensor,
    now: Tensor,
    shares: NDArray[np.float32] | None = None,
) -> NDArray[np.uint8]:
    """Return frames [T, H, W, 3] whose colours have changed as those do that are sketched.

    Args:
        frames: As some words asked for them.
        depth: uint8 [T, H, W].
        sketcher: Draws the depth under both.
        before: Embeddings of those words.
        now: Of others; where they are the same, nothing changes.
        shares: float32 [T] in 0..1, how far each frame changes; None: wholly.
    """
    if torch.equal(before, now):
        return frames
    turned = np.empty_like(frames)
    for index, (frame, places) in enumerate(zip(frames, depth, strict=True)):
        share = 1.0 if shares is None else float(shares[index])
        change = sketcher.sketch(places, now).astype(np.float32) - sketcher.sketch(places, before)
        turned[index] = (frame + share * change).round().clip(0, 255)
    return turned
