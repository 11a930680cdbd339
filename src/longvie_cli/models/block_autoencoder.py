"""An autoencoder whose latents are a linear code of blocks and whose decoder adds what they omit.

A clip of 4k+1 frames is cut into cells: the first frame into 8x8 pixels, the frames after it into
8x8 pixels of four frames. Each cell is projected on a few basis pictures; their amounts are the
latents. The decoder puts the basis pictures together again and adds detail that a network guesses
from the latents around, less whatever of that detail the projection would see:

    encode(x) = E x        decode(z) = D z + (1 - D E) network(z)        E D = 1

Hence encode(decode(z)) = z for any network, but for the clamp to [-1, 1] and the rounding to bytes:
a picture that is handed from clip to clip loses what its first pass omits, and after that only what
motion takes.

Letters in shapes: B batch, Z latent channels, T frames, t latent frames, h and w cells.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import (
    AutoencoderMixin,
    DecoderOutput,
    DiagonalGaussianDistribution,
)
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import Tensor, nn

CODE = ("analysis_first", "analysis_after", "synthesis_first", "synthesis_after", "spread")


# Of 255 levels over [-1, 1].
HALF_LEVEL = 1 / 255


def _fixed(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=False)


class _Block(nn.Module):
    """Mixes cells with their neighbours in the frame, then with those before and after."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.space = nn.Conv2d(width, width, 3, padding=1)
        self.time = nn.Linear(3 * width, width)
        nn.init.zeros_(self.time.weight)
        nn.init.zeros_(self.time.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return hidden states of the shape given, [B, t, width, h, w]."""
        inner = F.silu(self.space(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2]))
        around = F.pad(inner, (0, 0, 0, 0, 0, 0, 1, 1))
        stacked = torch.cat((around[:, :-2], inner, around[:, 2:]), dim=2)
        # A linear layer over channels as a 1x1 convolution: no transposes.
        weight = self.time.weight[:, :, None, None]
        mixed = F.conv2d(stacked.flatten(0, 1), weight, self.time.bias)
        return hidden + mixed.unflatten(0, hidden.shape[:2])


class BlockAutoencoder(ModelMixin, AutoencoderMixin, ConfigMixin):
    """A linear block code with a network for what it omits; the door of `AutoencoderKLWan`.

    As fresh from the constructor the code is zero: `set_code` gives it its basis.

    Args:
        z_dim: Latent channels, i.e. basis pictures of a cell.
        scale_factor_spatial: Side of a cell in pixels.
        scale_factor_temporal: Frames of a cell; the first frame's cells have one.
        width: Channels of the network.
        num_layers: Blocks of the network; 0 leaves the linear code alone.
        latents_mean: What the pipeline takes off each latent channel.
        latents_std: What it then divides by.
    """

    @register_to_config
    def __init__(
        self,
        z_dim: int = 48,
        scale_factor_spatial: int = 8,
        scale_factor_temporal: int = 4,
        width: int = 192,
        num_layers: int = 4,
        latents_mean: list[float] | None = None,
        latents_std: list[float] | None = None,
    ) -> None:
        super().__init__()
        first = 3 * scale_factor_spatial**2
        after = first * scale_factor_temporal
        self.use_slicing = False
        # The code stands still: the transformer is tied to what the latents mean.
        self.analysis_first = _fixed(torch.zeros(z_dim, first))
        self.analysis_after = _fixed(torch.zeros(z_dim, after))
        self.synthesis_first = _fixed(torch.zeros(first, z_dim))
        self.synthesis_after = _fixed(torch.zeros(after, z_dim))
        # Spread of each latent channel, for a network that sees them all at one scale.
        self.spread = _fixed(torch.ones(z_dim))
        self.conv_in = nn.Conv2d(z_dim, width, 3, padding=1)
        # The first frame is coded by other pictures.
        self.first_bias = nn.Parameter(torch.zeros(width, 1, 1))
        self.blocks = nn.ModuleList(_Block(width) for _ in range(num_layers))
        self.proj_out_first = nn.Linear(width, first)
        self.proj_out_after = nn.Linear(width, after)
        for head in (self.proj_out_first, self.proj_out_after):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    @torch.no_grad()
    def set_code(
        self, first: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor], spread: Tensor
    ) -> None:
        """Take a code over: analysis [Z, values] and synthesis [values, Z] of each kind of cell.

        The values of a cell are in the order colour, frame, row, column. `spread` [Z] is the
        standard deviation of each latent channel.

        Raises:
            ValueError: analysis of synthesis is not the identity.
        """
        for name, (analysis, synthesis) in (("first", first), ("after", after)):
            both = analysis @ synthesis
            if not torch.allclose(both, torch.eye(len(both)), atol=1e-3):
                raise ValueError(f"code of cells {name}: analysis of synthesis is not the identity")
        for parameter, values in zip(
            (getattr(self, name) for name in CODE),
            (first[0], after[0], first[1], after[1], spread),
            strict=True,
        ):
            parameter.copy_(values)

    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput:
        """Return the latents [B, Z, t, h, w] of pixels [B, 3, T, H, W] in [-1, 1] as a posterior.

        Its mode and mean are the code, its variance is zero. Of T frames the first 4k+1 are read.
        Without `return_dict` it comes in a tuple.
        """
        frames = self.config.scale_factor_temporal
        first = cells_of(x[:, :, :1], self.config.scale_factor_spatial, 1)
        parts = [first @ self.analysis_first.T]
        num_blocks = (x.shape[2] - 1) // frames
        if num_blocks:
            rest = x[:, :, 1 : 1 + num_blocks * frames]
            cells = cells_of(rest, self.config.scale_factor_spatial, frames)
            parts.append(cells @ self.analysis_after.T)
        latents = torch.cat(parts, dim=1).movedim(-1, 1)
        posterior = DiagonalGaussianDistribution(
            torch.cat((latents, latents.new_zeros(latents.shape)), dim=1), deterministic=True
        )
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode(self, z: Tensor, return_dict: bool = True) -> DecoderOutput:
        """Return the pixels [B, 3, T, H, W] in [-1, 1] of latents [B, Z, t, h, w].

        They lie half a level above what the code says, since bytes are cut off and not rounded
        (`media.frames.frames_from_pixels`): without that half every pass would be darker by it.
        Without `return_dict` they come in a tuple.
        """
        if self.use_slicing and len(z) > 1:
            pixels = torch.cat([self.decode_unclamped(one) for one in z.split(1)])
        else:
            pixels = self.decode_unclamped(z)
        pixels = (pixels + HALF_LEVEL).clamp(-1, 1)
        return DecoderOutput(sample=pixels) if return_dict else (pixels,)

    def decode_unclamped(
        self, latents: Tensor, details: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Return decoded pixels before the clamp to [-1, 1], whose gradient vanishes outside.

        Args:
            details: What `self.details` returns of these latents, where it is known. Training
                computes it in half precision, which the code must not be: rounded to bfloat16,
                the brightness of a cell would drown its finer pictures.
        """
        side, frames = self.config.scale_factor_spatial, self.config.scale_factor_temporal
        codes = latents.movedim(1, -1)
        first = codes[:, :1] @ self.synthesis_first.T
        after = codes[:, 1:] @ self.synthesis_after.T
        if len(self.blocks):
            of_first, of_after = details or self.details(latents)
            first = first + _unseen(of_first, self.analysis_first, self.synthesis_first)
            after = after + _unseen(of_after, self.analysis_after, self.synthesis_after)
        return torch.cat((pixels_of(first, side, 1), pixels_of(after, side, frames)), dim=2)

    def details(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cells of the first frame and of the others that the network adds.

        They hold what the code sees as well, which decoding takes off.
        """
        scaled = (latents / self.spread.view(-1, 1, 1, 1)).transpose(1, 2)
        hidden = self.conv_in(scaled.flatten(0, 1)).unflatten(0, scaled.shape[:2])
        hidden = torch.cat((hidden[:, :1] + self.first_bias, hidden[:, 1:]), dim=1)
        for block in self.blocks:
            hidden = block(hidden)
        hidden = F.silu(hidden.movedim(2, -1))
        return self.proj_out_first(hidden[:, :1]), self.proj_out_after(hidden[:, 1:])

    def forward(self, sample: Tensor, return_dict: bool = True) -> DecoderOutput:
        """Return the pixels encoded and decoded."""
        return self.decode(self.encode(sample).latent_dist.mode(), return_dict=return_dict)


def cells_of(pixels: Tensor, side: int, frames: int) -> Tensor:
    """Return cells [B, T / frames, h, w, 3 * frames * side * side] of pixels [B, 3, T, H, W]."""
    batch, colours, num_frames, height, width = pixels.shape
    cut = pixels.reshape(
        batch, colours, num_frames // frames, frames, height // side, side, width // side, side
    )
    return cut.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)


def pixels_of(cells: Tensor, side: int, frames: int) -> Tensor:
    """Return the pixels [B, 3, T, H, W] that `cells_of` cuts into these cells."""
    cut = cells.unflatten(-1, (3, frames, side, side)).permute(0, 4, 1, 5, 2, 6, 3, 7)
    return cut.flatten(6, 7).flatten(4, 5).flatten(2, 3)


def _unseen(cells: Tensor, analysis: Tensor, synthesis: Tensor) -> Tensor:
    """Return cells less their projection: what the code does not see."""
    return cells - (cells @ analysis.T) @ synthesis.T
