"""The linear code of the embedded autoencoder, in closed form from second moments of cells.

A principal component analysis whose error is measured in pixels and in edges: what counts is
e' M e with M = 1 + weight * (differences after 2x2 averaging)' (the same). With R'R = M the code of
the components V of R C R' is E = V'R, D = R^-1 V: a projection, though no longer an orthogonal one.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from longvie_cli.models.block_autoencoder import cells_of

# Analysis [Z, values] and synthesis [values, Z].
Code = tuple[Tensor, Tensor]


def cell_moments(clips: Iterable[Tensor], side: int, frames: int) -> tuple[Tensor, Tensor]:
    """Return the mean outer products [values, values], float64, of both kinds of cells.

    Not centred: mid-grey (0.0) is coded as exactly zero.

    Args:
        clips: Pixels [B, 3, 1 + frames, H, W] in [-1, 1]; the first frames' cells come from the
            first frame, the others from those after it.
    """
    sums: list[Tensor | float] = [0.0, 0.0]
    counts = [0, 0]
    for pixels in clips:
        for which, part in enumerate((pixels[:, :, :1], pixels[:, :, 1:])):
            flat = cells_of(part, side, part.shape[2]).flatten(0, -2).double()
            sums[which] = sums[which] + flat.T @ flat
            counts[which] += len(flat)
    first, after = (torch.as_tensor(sums[which]) / counts[which] for which in (0, 1))
    return first, after


def edge_metric(side: int, frames: int, weight: float) -> Tensor:
    """Return M [values, values] of a cell, float64; its order is colour, frame, row, column."""
    average = torch.zeros(side - 1, side, dtype=torch.float64)
    for row in range(side - 1):
        average[row, row : row + 2] = 0.5
    difference = torch.zeros(side - 3, side - 1, dtype=torch.float64)
    for row in range(side - 3):
        difference[row, row], difference[row, row + 2] = -1, 1
    smooth = average.T @ average
    steep = (difference @ average).T @ (difference @ average)
    picture = torch.kron(steep, smooth) + torch.kron(smooth, steep)
    grey = torch.full((3, 3), 1 / 9, dtype=torch.float64)
    edges = torch.kron(grey, torch.kron(torch.eye(frames, dtype=torch.float64), picture))
    return torch.eye(len(edges), dtype=torch.float64) + weight * edges


def principal_code(moments: Tensor, metric: Tensor, num_channels: int) -> Code:
    """Return (analysis [Z, values], synthesis [values, Z]), channels by falling weight."""
    values, vectors = torch.linalg.eigh(metric)
    root = vectors * values.sqrt() @ vectors.T
    inverse = vectors / values.sqrt() @ vectors.T
    components = torch.linalg.eigh(root @ moments @ root).eigenvectors.flip(1)[:, :num_channels]
    return components.T @ root, inverse @ components


def aligned(first: Code, after: Code, moments: Tensor, frames: int) -> Code:
    """Return the first frames' code turned so that a still picture has one code in both.

    A cell of `frames` equal frames is what a first frame's cell is to the code of the others. A
    rotation of the channels spans the same pictures; the one taken brings the two codes of
    `moments` [values, values] (of first frames) nearest to each other.
    """
    pictures = len(moments) // 3
    # The same picture in every frame: colours are outermost in the order of values.
    analysis = after[0].unflatten(1, (3, frames, pictures)).sum(2).flatten(1)
    # Frames times as many values: sqrt(frames) times the amounts.
    scale = frames**0.5
    left, _, right = torch.linalg.svd(analysis @ moments @ first[0].T)
    turn = scale * left @ right
    return turn @ first[0], first[1] @ torch.linalg.inv(turn)


def fit_code(
    moments_first: Tensor,
    moments_after: Tensor,
    *,
    num_channels: int,
    side: int,
    frames: int,
    edge_weight: float,
) -> tuple[Code, Code]:
    """Return the codes of first frames' cells and of the others, float32."""
    after = principal_code(moments_after, edge_metric(side, frames, edge_weight), num_channels)
    first = principal_code(moments_first, edge_metric(side, 1, edge_weight), num_channels)
    first = aligned(first, after, moments_first, frames)
    return _float(first), _float(after)


def _float(code: Code) -> Code:
    return code[0].float(), code[1].float()
