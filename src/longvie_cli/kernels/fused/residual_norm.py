"""Residual, gate, control addend, LayerNorm and modulation in one pass over the tokens.

A block's memory traffic is what its rows are read and written for. Here each row of `x`, `y` and
the addend is read once and each result written once; the row stays in registers between its
statistics and its normalised form. The vectors of D (gate, scale, shift: 60 KB in float32) come
from the L2 cache, read once for `ROWS` rows of one video.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from longvie_cli.kernels.fused.rows import (
    EXACT,
    LARGEST,
    blocks_of,
    load_row,
    normalised,
    plus,
    rounded,
    store_quantized_row,
    store_row,
    times,
    warps_for,
)
from longvie_cli.kernels.quantized_linear import QUANTIZED_TYPES

# With one row a program the vectors alone take as long from L2 as the rows from memory.
ROWS = 4


@triton.jit
def _residual_norm_kernel(  # noqa: C901 - an `if` of what is given is decided by the compiler.
    x,
    y,
    gate,
    addend,
    scale,
    shift,
    x_out,
    h,
    h_scale,
    num_tokens,
    addend_start,
    x_batch,
    x_token,
    y_batch,
    y_token,
    addend_batch,
    addend_token,
    gate_batch,
    scale_batch,
    shift_batch,
    eps,
    WIDTH: tl.constexpr,
    BLOCKS: tl.constexpr,
    ROWS: tl.constexpr,
    ONE_PLUS: tl.constexpr,
    LARGEST: tl.constexpr,
):
    """Tensors that are not given are None, which is a constant to Triton: no code, no access."""
    tiles = tl.cdiv(num_tokens, ROWS)
    batch = (tl.program_id(0) // tiles).to(tl.int64)
    first = tl.program_id(0) % tiles * ROWS
    if gate is not None:
        gates = load_row(gate + batch * gate_batch, WIDTH, BLOCKS, "evict_last")
    if scale is not None:
        weights = load_row(scale + batch * scale_batch, WIDTH, BLOCKS, "evict_last")
        biases = load_row(shift + batch * shift_batch, WIDTH, BLOCKS, "evict_last")
        if ONE_PLUS:
            weights = plus(weights, (1.0,) * len(BLOCKS))
    for step in range(tl.minimum(ROWS, num_tokens - first)):
        token = first.to(tl.int64) + step
        row = load_row(x + batch * x_batch + token * x_token, WIDTH, BLOCKS, "evict_first")
        if y is not None:
            branch = load_row(y + batch * y_batch + token * y_token, WIDTH, BLOCKS, "evict_first")
            if gate is not None:
                branch = times(branch, gates)
            row = rounded(plus(row, branch), x.dtype.element_ty)
        if addend is not None:
            behind = token - addend_start
            if behind >= 0:
                place = addend + batch * addend_batch + behind * addend_token
                row = rounded(
                    plus(row, load_row(place, WIDTH, BLOCKS, "evict_first")), x.dtype.element_ty
                )
        out_row = batch * num_tokens + token
        if x_out is not None:
            store_row(x_out + out_row * WIDTH, row, WIDTH, BLOCKS)
        if h is not None:
            normed = plus(times(normalised(row, eps, WIDTH, BLOCKS), weights), biases)
            place = h + out_row * WIDTH
            if h_scale is None:
                store_row(place, normed, WIDTH, BLOCKS)
            else:
                store_quantized_row(place, h_scale + out_row, normed, LARGEST, WIDTH, BLOCKS)


@torch.library.custom_op("longvie::residual_norm", mutates_args=())
def residual_norm(
    x: Tensor,
    y: Tensor | None,
    gate: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
    one_plus: bool,
    addend: Tensor | None,
    addend_start: int,
    kind: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `KernelSet.residual_norm` does, and the scales of a quantized `h`.

    What is not asked for is empty: the sum where there is nothing to add, `h` where `scale` is
    None, its scales [B, N, 1] where `kind`, a key of `QUANTIZED_TYPES`, is None. `h` is quantized
    from float32.
    """
    x_out, h, h_scale = _outputs(x, y, scale, addend, kind)
    given = (x, y, addend, gate, scale, shift)
    x, y, addend, gate, scale, shift = map(_last_axis_dense, given)  # type: ignore[assignment]
    batch, num_tokens, width = x.shape
    blocks = blocks_of(width)
    with torch.cuda.device_of(x):
        _residual_norm_kernel[(batch * triton.cdiv(num_tokens, ROWS),)](
            x,
            y,
            gate,
            addend,
            scale,
            shift,
            *(result if result.numel() else None for result in (x_out, h, h_scale)),
            num_tokens,
            addend_start,
            *_strides(x),
            *_strides(y),
            *_strides(addend),
            *(_video_stride(vector) for vector in (gate, scale, shift)),
            eps,
            WIDTH=width,
            BLOCKS=blocks,
            ROWS=ROWS,
            ONE_PLUS=one_plus,
            LARGEST=0.0 if kind is None else LARGEST[kind],
            num_warps=warps_for(blocks[-1], x.device),
            **EXACT,
        )
    return x_out, h, h_scale


@residual_norm.register_fake
def _(x, y, gate, scale, shift, eps, one_plus, addend, addend_start, kind=None):
    return _outputs(x, y, scale, addend, kind)


def _outputs(
    x: Tensor, y: Tensor | None, scale: Tensor | None, addend: Tensor | None, kind: str | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the results, not yet filled."""
    stored = x.dtype if kind is None else QUANTIZED_TYPES[kind]
    return (
        x.new_empty(0 if y is None and addend is None else x.shape),
        x.new_empty(0 if scale is None else x.shape, dtype=stored),
        x.new_empty(0 if kind is None else (*x.shape[:2], 1), dtype=torch.float32),
    )


def _last_axis_dense(tensor: Tensor | None) -> Tensor | None:
    return tensor if tensor is None or tensor.stride(-1) == 1 else tensor.contiguous()


def _strides(rows: Tensor | None) -> tuple[int, int]:
    return (0, 0) if rows is None else (rows.stride(0), rows.stride(1))


def _video_stride(vector: Tensor | None) -> int:
    """Return the distance between the vectors of two videos; 0 where they share one."""
    return 0 if vector is None or vector.ndim == 1 or vector.shape[0] == 1 else vector.stride(0)


def _keep_for_backward(ctx, inputs, output):
    x, y, gate, scale, shift, ctx.eps, ctx.one_plus, addend, ctx.addend_start, ctx.kind = inputs
    summed = x if y is None and addend is None else output[0]
    ctx.save_for_backward(
        None if scale is None else summed, None if gate is None else y, gate, scale
    )
    ctx.dtypes = [None if t is None else t.dtype for t in (x, y, addend, shift)]
    ctx.shift_shape = None if shift is None else shift.shape


def _backward(ctx, grad_sum, grad_h, grad_h_scale):
    if ctx.kind is not None:
        raise NotImplementedError(f"residual_norm: no gradient through {ctx.kind} codes")
    summed, y, gate, scale = ctx.saved_tensors
    x_dtype, y_dtype, addend_dtype, shift_dtype = ctx.dtypes
    grad: Any = grad_sum.float() if grad_sum.numel() else 0.0
    grad_y = grad_gate = grad_scale = grad_shift = grad_addend = None
    if scale is not None:
        grad_h, row = grad_h.float(), summed.float()
        centred = row - row.mean(-1, keepdim=True)
        inverse = torch.rsqrt(centred.square().mean(-1, keepdim=True) + ctx.eps)
        normed = centred * inverse
        grad_scale = (grad_h * normed).sum_to_size(scale.shape).to(scale.dtype)
        grad_shift = grad_h.sum_to_size(ctx.shift_shape).to(shift_dtype)
        weighted = grad_h * (scale.float() + 1 if ctx.one_plus else scale.float())
        along = normed * (weighted * normed).mean(-1, keepdim=True)
        grad = grad + inverse * (weighted - weighted.mean(-1, keepdim=True) - along)
    if addend_dtype is not None:
        grad_addend = grad[:, ctx.addend_start :].to(addend_dtype)
    if gate is not None and y is not None:
        grad_y = (grad * gate.float()).to(y_dtype)
        grad_gate = (grad * y.float()).sum_to_size(gate.shape).to(gate.dtype)
    elif y_dtype is not None:
        grad_y = grad.to(y_dtype)
    grads = (grad.to(x_dtype), grad_y, grad_gate, grad_scale, grad_shift)
    return *grads, None, None, grad_addend, None, None


residual_norm.register_autograd(_backward, setup_context=_keep_for_backward)
