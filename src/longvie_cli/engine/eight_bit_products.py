"""Which layers of a transformer multiply in 8 bits: those that are off by little where it matters.

What a layer is off by depends on what reaches it, so it is measured in the model itself, once when
it is loaded. That has to come out alike each time a run goes on, so it is measured on noise of one
seed, at two noise levels, with a prompt of random embeddings, never on the clip at hand.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from longvie_cli.engine.waiting_weights import WaitingWeights
from longvie_cli.kernels.eight_bit_linear import linear_errors
from longvie_cli.models.longvie import LongVieTransformer3DModel

# The control branches and all around the blocks are left as they are: 16 % of the products, and
# what the video follows.
MULTIPLIED_CHILDREN = ("blocks",)
# A Gaussian layer is off by 3.7 % in float8 and by 1.05 % in int8.
LIMITS: Mapping[str, float] = {"fp8": 0.05, "int8": 0.02}
_TIMESTEPS = (900.0, 400.0)
_SEED = 20_26
# Latent frames, rows and columns: enough rows for a measurement, whatever the size of a clip.
_FRAMES, _SIDE = 3, 32
_PROMPT_TOKENS, _IMAGE_TOKENS = 100, 257


@torch.no_grad()
def product_errors(
    transformer: LongVieTransformer3DModel, kind: str, device: torch.device
) -> dict[str, float]:
    """Return how far each layer of the main blocks would be off if it multiplied in 8 bits.

    Args:
        transformer: In host memory, its linears plain. On a GPU block after block comes and goes.
        kind: `fp8` or `int8`.
        device: Where it will compute.

    Returns:
        As `linear_errors`.
    """
    config, dtype = transformer.config, transformer.dtype
    drawn = torch.Generator().manual_seed(_SEED)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=drawn).to(device, dtype)

    def run() -> None:
        latents = noise(1, config.in_channels, _FRAMES, _SIDE, _SIDE)
        embeds = torch.zeros(1, config.text_tokens, config.text_dim, device=device, dtype=dtype)
        length = min(_PROMPT_TOKENS, config.text_tokens)
        embeds[:, :length] = noise(1, length, config.text_dim)
        image = None
        if config.image_dim is not None:
            image = noise(1, _IMAGE_TOKENS, config.image_dim)
        blocks = [block for name in MULTIPLIED_CHILDREN for block in getattr(transformer, name)]
        with _brought(transformer, blocks, device):
            for timestep in _TIMESTEPS:
                transformer(latents, torch.tensor([timestep], device=device), embeds, image)

    return linear_errors(transformer, kind, within=MULTIPLIED_CHILDREN, run=run)


class _brought:
    """A transformer on a device for a while, its blocks one after another."""

    def __init__(
        self, transformer: nn.Module, blocks: list[nn.Module], device: torch.device
    ) -> None:
        self._blocks, self._device = blocks, device
        in_blocks = {id(tensor) for block in blocks for tensor in block.parameters()}
        self._around = [
            tensor for tensor in transformer.parameters() if id(tensor) not in in_blocks
        ]
        self._waiting: list[WaitingWeights] = []

    def __enter__(self) -> None:
        for tensor in self._around:
            tensor.data = tensor.data.to(self._device)
        self._waiting = [WaitingWeights(block, self._device, pin=False) for block in self._blocks]

    def __exit__(self, *failure: object) -> None:
        for waiting in self._waiting:
            waiting.end()
        for tensor in self._around:
            tensor.data = tensor.data.to("cpu")
