"""Guidance and the Euler step in one pass over the latents."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from longvie_cli.kernels.fused.rows import EXACT, flat_block


@triton.jit
def _guide_step_kernel(
    latents, velocity, negative, out, size, guidance, delta_sigma, BLOCK: tl.constexpr
):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < size
    guided = tl.load(velocity + place, mask=inside).to(tl.float32)
    if negative is not None:
        unguided = tl.load(negative + place, mask=inside).to(tl.float32)
        guided = unguided + guidance * (guided - unguided)
    result = tl.load(latents + place, mask=inside) + delta_sigma * guided
    tl.store(out + place, result, mask=inside)


@torch.library.custom_op("longvie::guide_step", mutates_args=())
def guide_step(
    latents: Tensor,
    velocity: Tensor,
    negative: Tensor | None,
    guidance: float,
    delta_sigma: float,
) -> Tensor:
    """Return `KernelSet.guide_step`; it has no gradient."""
    latents, velocity = latents.contiguous(), velocity.contiguous()
    negative = None if negative is None else negative.contiguous()
    out = torch.empty_like(latents)
    size, block = latents.numel(), flat_block(latents.device)
    with torch.cuda.device_of(latents):
        _guide_step_kernel[(triton.cdiv(size, block),)](
            latents, velocity, negative, out, size, guidance, delta_sigma, BLOCK=block, **EXACT
        )
    return out


@guide_step.register_fake
def _(latents, velocity, negative, guidance, delta_sigma):
    return torch.empty_like(latents, memory_format=torch.contiguous_format)
