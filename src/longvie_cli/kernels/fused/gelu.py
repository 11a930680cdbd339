"""GELU in its tanh form; a row at a time where the next product wants it in 8 bits."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from longvie_cli.kernels.fused.rows import (
    EXACT,
    LARGEST,
    blocks_of,
    flat_block,
    load_row,
    store_quantized_row,
    warps_for,
    with_block,
)
from longvie_cli.kernels.quantized_linear import QUANTIZED_TYPES


@triton.jit
def _bent(x):
    # x / 2 * (1 + tanh(z)) = x * sigmoid(2 z), with one exponential; 2 sqrt(2 / pi) = 1.5957691.
    return x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))


@triton.jit
def _gelu_kernel(x, out, size, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    bent = _bent(tl.load(x + place, mask=place < size).to(tl.float32))
    tl.store(out + place, bent.to(out.dtype.element_ty), mask=place < size)


@triton.jit
def _gelu_quantized_kernel(
    x, codes, code_scale, WIDTH: tl.constexpr, BLOCKS: tl.constexpr, LARGEST: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    values = load_row(x + row * WIDTH, WIDTH, BLOCKS, "evict_first")
    result = ()
    for i in tl.static_range(len(BLOCKS)):
        result = with_block(result, _bent(values[i]))
    store_quantized_row(codes + row * WIDTH, code_scale + row, result, LARGEST, WIDTH, BLOCKS)


@torch.library.custom_op("longvie::gelu", mutates_args=())
def gelu(x: Tensor) -> Tensor:
    """Return `KernelSet.gelu`."""
    x = x.contiguous()
    out = torch.empty_like(x)
    # Two accesses a thread: one alone keeps too little under way.
    block = 2 * flat_block(x.device)
    with torch.cuda.device_of(x):
        _gelu_kernel[(triton.cdiv(x.numel(), block),)](x, out, x.numel(), BLOCK=block, **EXACT)
    return out


@gelu.register_fake
def _(x):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _keep_for_backward(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad):
    return torch.ops.aten.gelu_backward(grad, *ctx.saved_tensors, approximate="tanh")


gelu.register_autograd(_backward, setup_context=_keep_for_backward)


@torch.library.custom_op("longvie::gelu_quantized", mutates_args=())
def gelu_quantized(x: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Return GELU as codes of the shape of `x` and float32 scales [..., 1], one a row.

    Args:
        x: [..., D].
        kind: A key of `QUANTIZED_TYPES`.
    """
    x = x.contiguous()
    codes, scales = _quantized_outputs(x, kind)
    width = x.shape[-1]
    blocks = blocks_of(width)
    with torch.cuda.device_of(x):
        _gelu_quantized_kernel[(x.numel() // width,)](
            x,
            codes,
            scales,
            WIDTH=width,
            BLOCKS=blocks,
            LARGEST=LARGEST[kind],
            num_warps=warps_for(blocks[-1], x.device),
            **EXACT,
        )
    return codes, scales


@gelu_quantized.register_fake
def _(x, kind):
    return _quantized_outputs(x, kind)


def _quantized_outputs(x: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Return the results, not yet filled."""
    return (
        x.new_empty(x.shape, dtype=QUANTIZED_TYPES[kind]),
        x.new_empty((*x.shape[:-1], 1), dtype=torch.float32),
    )
