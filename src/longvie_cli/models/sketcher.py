"""A small network that sketches a frame from its depth and a prompt.

The transformer of the embedded model has four steps and a few million weights. A first frame that
is made of a prompt alone it would have to dream up in noise, token by token, and the colours of
neighbouring tokens fall apart. Depth and words determine most of a landscape: shape, light and
palette. A convolutional network that is told both draws that in one pass.

Letters in shapes: B frames, C channels, H and W pixels.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from numpy.typing import NDArray
from torch import Tensor, nn

from longvie_cli.models.depth_colours import DEPTH_MAPS, depth_maps

# The finest scale is half the picture's.
_SHUFFLE = 2
# Scale of the random weights of layers that end a residual.
_BEGINNING = 0.2


def _conv(channels: int, out: int, scale: float = 1.0) -> nn.Conv2d:
    """Return a convolution whose pictures go on beyond their border, with its weights scaled."""
    layer = nn.Conv2d(channels, out, 3, padding=1, padding_mode="replicate")
    with torch.no_grad():
        layer.weight.mul_(scale)
    return layer


class _Block(nn.Module):
    """Two convolutions beside the identity, the first scaled and shifted by what is asked for."""

    def __init__(self, width: int, asked: int) -> None:
        super().__init__()
        self.first = _conv(width, width)
        self.modulation = nn.Linear(asked, 2 * width)
        self.second = _conv(width, width, _BEGINNING)

    def forward(self, hidden: Tensor, asked: Tensor) -> Tensor:
        """Return hidden states of the shape given, [B, width, H, W]."""
        scale, shift = self.modulation(asked)[:, :, None, None].chunk(2, dim=1)
        inner = self.first(F.silu(_level(hidden)))
        changed: Tensor = hidden + self.second(F.silu(inner * (1 + scale) + shift))
        return changed


class Sketcher(ModelMixin, ConfigMixin):
    """Draws frames from depth and words, in one pass each.

    The words are first read as shares of classes (palette, time of day, weather: whatever
    `word_classes` counts), which is all that the network is told of them: a prompt asks for a few
    things, and a network that is told those learns in minutes what they look like.

    Args:
        text_dim: Width of the text embeddings.
        word_classes: Classes of each kind of thing that a prompt may ask for.
        widths: Channels at each scale, the finest first, which is half the picture's.
        blocks: At each scale, on the way down; there is one on the way up.
        asked_dim: Numbers that stand for all that is asked for.
    """

    @register_to_config
    def __init__(
        self,
        text_dim: int = 192,
        word_classes: tuple[int, ...] = (8, 5, 7),
        widths: tuple[int, ...] = (32, 96, 128, 160),
        blocks: tuple[int, ...] = (1, 1, 2, 2),
        asked_dim: int = 192,
    ) -> None:
        super().__init__()
        cells, num_classes = _SHUFFLE**2, sum(word_classes)
        self.words = nn.Linear(text_dim, num_classes)
        self.asked = nn.Sequential(
            nn.Linear(num_classes, asked_dim), nn.SiLU(), nn.Linear(asked_dim, asked_dim)
        )
        self.conv_in = _conv((DEPTH_MAPS + num_classes) * cells, widths[0])
        self.down = nn.ModuleList(
            nn.ModuleList(_Block(width, asked_dim) for _ in range(count))
            for width, count in zip(widths, blocks, strict=True)
        )
        self.shrink = nn.ModuleList(
            nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in pairwise(widths)
        )
        self.grow = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairwise(widths))
        self.up = nn.ModuleList(_Block(width, asked_dim) for width in widths[:-1])
        self.conv_out = _conv(widths[0], 3 * cells, _BEGINNING)

    @torch.no_grad()
    def sketch(self, depth: NDArray[np.uint8], words: Tensor) -> NDArray[np.uint8]:
        """Return a sketched frame, uint8 [H, W, 3].

        Args:
            depth: uint8 [H, W], near is black.
            words: Embeddings of one prompt [1, tokens, text_dim], zero past its end.
        """
        maps = depth_maps(torch.from_numpy(depth)[None]).to(self.device, self.dtype)
        shares = self.shares(mean_of_words(words).to(self.device, self.dtype))
        levels = ((self(maps, shares).float().cpu() + 1) * 127.5).round().clamp(0, 255)
        frame: NDArray[np.uint8] = levels[0].to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
        return frame

    def shares(self, words: Tensor) -> Tensor:
        """Return the shares [B, classes] that words [B, text_dim] give each class of a kind."""
        kinds = self.words(words).split(list(self.config.word_classes), dim=1)
        return torch.cat([kind.softmax(dim=1) for kind in kinds], dim=1)

    def forward(self, maps: Tensor, shares: Tensor) -> Tensor:
        """Return frames [B, 3, H, W], about [-1, 1].

        Args:
            maps: `depth_maps` [B, DEPTH_MAPS, H, W].
            shares: `shares` [B, classes].
        """
        height, width = maps.shape[-2:]
        asked = self.asked(shares)
        told = shares[:, :, None, None].expand(-1, -1, height, width)
        hidden = self.conv_in(_folded(torch.cat((maps, told), dim=1)))
        kept = []
        for index, layers in enumerate(self.down):
            assert isinstance(layers, nn.ModuleList)
            for block in layers:
                hidden = block(hidden, asked)
            if index < len(self.shrink):
                kept.append(hidden)
                hidden = self.shrink[index](hidden)
        for grow, block, fine in zip(
            reversed(self.grow), reversed(self.up), reversed(kept), strict=True
        ):
            larger = F.interpolate(grow(hidden), size=fine.shape[-2:], mode="nearest")
            hidden = block(fine + larger, asked)
        drawn = F.pixel_shuffle(self.conv_out(F.silu(_level(hidden))), _SHUFFLE)
        return drawn[..., :height, :width]


def mean_of_words(embeddings: Tensor) -> Tensor:
    """Return the mean [B, text_dim] of embeddings [B, tokens, text_dim], zero past the end."""
    used = embeddings.abs().amax(dim=-1, keepdim=True) > 0
    return embeddings.sum(dim=1) / used.sum(dim=1).clamp(min=1)


def _level(hidden: Tensor) -> Tensor:
    """Return each pixel's channels at one scale: of all pixels', a crop would have another."""
    return hidden * torch.rsqrt(hidden.square().mean(dim=1, keepdim=True) + 1e-5)


def _folded(pixels: Tensor) -> Tensor:
    """Return squares of pixels as channels; what is missing of the last is repeated."""
    height, width = pixels.shape[-2:]
    down, right = -height % _SHUFFLE, -width % _SHUFFLE
    if down or right:
        pixels = F.pad(pixels, (0, right, 0, down), mode="replicate")
    return F.pixel_unshuffle(pixels, _SHUFFLE)
