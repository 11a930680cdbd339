"""RMSNorm over the full width and 3-D rotary positions of queries and keys, from packed QKV.

One program reads the query or the key of one token where the merged projection wrote it, and
writes it normalised and rotated. A row is seen as heads x channels of a head, so that a thread
holds the same channels of all its heads and reads the tables of the token once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from longvie_cli.kernels.fused.rows import EXACT, blocks_of, start_of, warps_for, with_block


@triton.jit
def _query_key_kernel(
    qkv,
    query_weight,
    key_weight,
    cos,
    sin,
    query,
    key,
    num_tokens,
    qkv_batch,
    qkv_token,
    cos_token,
    sin_token,
    eps,
    HEADS: tl.constexpr,
    HEAD_WIDTH: tl.constexpr,
    HEAD_BLOCK: tl.constexpr,
    BLOCKS: tl.constexpr,
    PARTLY: tl.constexpr,
):
    """PARTLY: whether a block reaches beyond the heads there are, or beyond their channels."""
    out_row = tl.program_id(0).to(tl.int64)
    batch, token = out_row // num_tokens, out_row % num_tokens
    is_key = tl.program_id(1)
    width: tl.constexpr = HEADS * HEAD_WIDTH
    source = qkv + batch * qkv_batch + token * qkv_token + is_key * width
    weight, out = query_weight, query
    if is_key:
        weight, out = key_weight, key
    channel = tl.arange(0, HEAD_BLOCK)[None, :]
    cosine = _pairs(_load(cos + token * cos_token + channel, channel < HEAD_WIDTH, PARTLY))
    sine = _pairs(_load(sin + token * sin_token + channel, channel < HEAD_WIDTH, PARTLY))

    rows = ()
    square = 0.0
    for i in tl.static_range(len(BLOCKS)):
        place, inside = _places(i, HEADS, HEAD_WIDTH, HEAD_BLOCK, BLOCKS)
        rows = with_block(rows, _load(source + place, inside, PARTLY))
        square += tl.sum(rows[i] * rows[i])
    inverse = tl.rsqrt(square / width + eps)
    for i in tl.static_range(len(BLOCKS)):
        place, inside = _places(i, HEADS, HEAD_WIDTH, HEAD_BLOCK, BLOCKS)
        even, odd = _pairs(rows[i] * inverse * _load(weight + place, inside, PARTLY))
        rotated = tl.join(
            even * cosine[0] + odd * sine[0],
            odd * cosine[1] + even * sine[1],
        )
        rotated = tl.reshape(rotated, [BLOCKS[i], HEAD_BLOCK]).to(out.dtype.element_ty)
        if PARTLY:
            tl.store(out + out_row * width + place, rotated, mask=inside)
        else:
            tl.store(out + out_row * width + place, rotated)


@triton.jit
def _pairs(heads):
    """Return the even and the odd channels [heads, HEAD_BLOCK / 2] of each head."""
    return tl.split(tl.reshape(heads, [heads.shape[0], heads.shape[1] // 2, 2]))


@triton.jit
def _load(pointer, inside, PARTLY: tl.constexpr):
    """Return values of memory in float32, with zeros for those outside if there can be any."""
    loaded = tl.load(pointer, mask=inside, other=0.0) if PARTLY else tl.load(pointer)
    return loaded.to(tl.float32)


@triton.jit
def _places(
    i: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD_WIDTH: tl.constexpr,
    HEAD_BLOCK: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """Return where the heads of a block lie in a row, and which of them there are."""
    head = start_of(BLOCKS, i) + tl.arange(0, BLOCKS[i])[:, None]
    channel = tl.arange(0, HEAD_BLOCK)[None, :]
    return head * HEAD_WIDTH + channel, (head < HEADS) & (channel < HEAD_WIDTH)


@torch.library.custom_op("longvie::query_key", mutates_args=())
def query_key(
    qkv: Tensor,
    query_weight: Tensor,
    key_weight: Tensor,
    cos: Tensor,
    sin: Tensor,
    heads: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Return `KernelSet.query_key`, kept in float32 between the norm and the rotation."""
    query, key = _outputs(qkv, heads)
    batch, num_tokens, heads, head_width = query.shape
    head_block = triton.next_power_of_2(head_width)
    blocks = blocks_of(heads, smallest=1)
    with torch.cuda.device_of(qkv):
        _query_key_kernel[(batch * num_tokens, 2)](
            qkv,
            query_weight,
            key_weight,
            cos,
            sin,
            query,
            key,
            num_tokens,
            qkv.stride(0),
            qkv.stride(1),
            cos.stride(1),
            sin.stride(1),
            eps,
            HEADS=heads,
            HEAD_WIDTH=head_width,
            HEAD_BLOCK=head_block,
            BLOCKS=blocks,
            PARTLY=head_block > head_width or sum(blocks) > heads,
            num_warps=warps_for(blocks[-1] * head_block, qkv.device),
            **EXACT,
        )
    return query, key


@query_key.register_fake
def _(qkv, query_weight, key_weight, cos, sin, heads, eps):
    return _outputs(qkv, heads)


def _outputs(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Return the results, not yet filled."""
    shape = (*qkv.shape[:2], heads, qkv.shape[2] // (3 * heads))
    return qkv.new_empty(shape), qkv.new_empty(shape)


def _keep_for_backward(ctx, inputs, output):
    *tensors, ctx.heads, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx, grad_query, grad_key):
    qkv, query_weight, key_weight, cos, sin = ctx.saved_tensors
    width = query_weight.shape[0]
    grads = []
    grad_qkv = []
    for place, (weight, grad) in enumerate(((query_weight, grad_query), (key_weight, grad_key))):
        row = qkv[..., place * width : (place + 1) * width].float()
        # What the partner was rotated by goes back to where it came from.
        back = (grad.float() * sin).unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
        grad = torch.addcmul(back, grad.float(), cos).flatten(2)
        inverse = torch.rsqrt(row.square().mean(-1, keepdim=True) + ctx.eps)
        normed = row * inverse
        grads.append((grad * normed).sum_to_size(weight.shape).to(weight.dtype))
        weighted = grad * weight.float()
        along = normed * (weighted * normed).mean(-1, keepdim=True)
        grad_qkv.append((inverse * (weighted - along)).to(qkv.dtype))
    # Nothing came back from the values, which pass by this kernel.
    packed = F.pad(torch.cat(grad_qkv, dim=-1), (0, width))
    return packed, *grads, None, None, None, None


query_key.register_autograd(_backward, setup_context=_keep_for_backward)
