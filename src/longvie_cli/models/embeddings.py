"""Sinusoidal timesteps and rotary positions, both evaluated in float64."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from longvie_cli.kernels.kernel_set import RotaryTables


class RotaryPositions(nn.Module):
    """Cosines and signed sines of the rotary embedding of a grid of tokens.

    A head's channels are split, in order, into time, row and column; row and column get a third
    each, rounded down to whole pairs. Neighbouring channels rotate together. Angles are
    evaluated in float64 (spec 1.1); no buffers, so casting the model never rounds them.
    """

    def __init__(self, head_dim: int, theta: float = 10000.0) -> None:
        super().__init__()
        if head_dim % 2:
            raise ValueError(f"attention_head_dim must be even, not {head_dim}")
        row_dim = 2 * (head_dim // 6)
        self.axis_dims = (head_dim - 2 * row_dim, row_dim, row_dim)
        self.theta = theta

    def forward(
        self, grid: tuple[int, int, int], device: torch.device, frames: Tensor | None = None
    ) -> RotaryTables:
        """Return two float32 tables [1, frames * rows * columns, 1, head_dim].

        Args:
            grid: Frames, rows and columns of the tokens, positions from 0 on each axis.
            device: Where the tables are wanted.
            frames: Positions of the frames, where they are not from 0 on in a row.
        """
        cosines, sines = [], []
        for axis, (size, dim) in enumerate(zip(grid, self.axis_dims, strict=True)):
            pair = torch.arange(0, dim, 2, dtype=torch.float64, device=device)
            position = torch.arange(size, dtype=torch.float64, device=device)
            if axis == 0 and frames is not None:
                position = frames.to(position)
            angle = torch.outer(position, self.theta ** (-pair / dim))
            shape = [size if other == axis else 1 for other in range(3)]
            cosine, sine = angle.cos(), angle.sin()
            # Neighbours share a cosine; the even channel of a pair takes minus its partner's sine.
            cosines.append(torch.stack((cosine, cosine), -1).view(*shape, dim).expand(*grid, dim))
            sines.append(torch.stack((-sine, sine), -1).view(*shape, dim).expand(*grid, dim))
        cos = torch.cat(cosines, dim=-1).float()
        sin = torch.cat(sines, dim=-1).float()
        return cos.flatten(0, 2)[None, :, None], sin.flatten(0, 2)[None, :, None]


class SinusoidalTimesteps(nn.Module):
    """Cosines, then sines, of a timestep, evaluated in float64 and cast to its own type.

    diffusers evaluates them in float32, which alone costs 2e-5 of agreement with the release.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.num_channels = num_channels

    def forward(self, timestep: Tensor) -> Tensor:
        half = self.num_channels // 2
        index = torch.arange(half, dtype=torch.float64, device=timestep.device)
        angle = torch.outer(timestep.double(), 10000.0 ** (-index / half))
        dtype = timestep.dtype if timestep.is_floating_point() else torch.float32
        return torch.cat((angle.cos(), angle.sin()), dim=-1).to(dtype)
