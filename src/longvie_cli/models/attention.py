"""The attention processor that all blocks of the LongVie transformer share.

Differs from diffusers' `WanAttnProcessor` in three points: text and image tokens are given apart
(there the text has 512), normalising and rotating is one operation of the block's `KernelSet`, and
what does not change while a clip is denoised can be kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from diffusers.models.transformers.transformer_wan import WanAttention
from torch import Tensor, nn

from longvie_cli.kernels.eight_bit_linear import QuantizedRows
from longvie_cli.kernels.kernel_set import KernelSet, RotaryTables
from longvie_cli.models.clip_context import ClipContext
from longvie_cli.parallel.ulysses import TokenShares


@dataclass(frozen=True, eq=False)
class CrossContext:
    """What cross-attention reads: text and image are attended apart and the results added.

    Args:
        text: [B, text tokens, D].
        image: [B, image tokens, D]; None where the model has no projections of its own for them.
        text_bias: float32 [text tokens], added to the scores of the text; None is zero.
    """

    text: Tensor
    image: Tensor | None = None
    text_bias: Tensor | None = None


@dataclass(frozen=True, eq=False)
class CrossKeys:
    """Keys and values that one layer makes of a `CrossContext`, [B, tokens, heads, head width].

    Args:
        text: Of the text.
        image: Of the image; None where there are none.
        text_bias: As there.
    """

    text: tuple[Tensor, Tensor]
    image: tuple[Tensor, Tensor] | None = None
    text_bias: Tensor | None = None


def cross_keys(attn: WanAttention, context: CrossContext, clip: ClipContext | None) -> CrossKeys:
    """Return a cross-attention layer's keys and values, which `clip` keeps for each context."""

    def of_text() -> tuple[Tensor, Tensor]:
        return _key_value(attn, context.text, attn.to_k, attn.norm_k, attn.to_v)

    def of_image(image: Tensor) -> tuple[Tensor, Tensor]:
        return _key_value(attn, image, attn.add_k_proj, attn.norm_added_k, attn.add_v_proj)

    image = context.image
    if clip is None:
        return CrossKeys(of_text(), None if image is None else of_image(image), context.text_bias)
    text = clip.keep((attn, "text"), (context.text,), of_text, versions=clip.evaluations)
    if image is None:
        return CrossKeys(text, None, context.text_bias)
    return CrossKeys(
        text, clip.keep((attn, "image"), (image,), lambda: of_image(image)), context.text_bias
    )


class LongVieAttnProcessor:
    """Self- and cross-attention of a `WanAttention` layer."""

    # diffusers sets it when a backend is chosen.
    _attention_backend = None

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Tensor | QuantizedRows,
        encoder_hidden_states: CrossContext | CrossKeys | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: RotaryTables | None = None,
        *,
        kernels: KernelSet | None = None,
        packed: PackedProjections | None = None,
        query_start: int = 0,
        clip: ClipContext | None = None,
        as_one: bool = False,
        shares: TokenShares | None = None,
    ) -> Tensor:
        """Return the layer's output [B, rows, D].

        Args:
            attn: The layer.
            hidden_states: [B, N, D]; codes where what reads them multiplies in 8 bits.
            encoder_hidden_states: What is attended, or what this layer made of it; None for
                self-attention.
            attention_mask: As PyTorch's own attention takes it; of text or self-attention.
            rotary_emb: Positions of the N tokens, for self-attention.
            kernels: For self-attention.
            packed: The layer's projections in one memory, if they are.
            query_start: Self-attention: rows before it are keys alone and not returned.
            clip: Keeps keys and values of cross-attention.
            as_one: Self-attention: queries, keys and values may be one matrix product.
            shares: Where self-attention finds the tokens that other processes hold; rows are this
                one's.
        """
        if encoder_hidden_states is None:
            assert kernels is not None and rotary_emb is not None
            qkv = _query_key_value(attn, hidden_states, packed, as_one=as_one)
            query, key = kernels.query_key(
                qkv,
                attn.norm_q.weight,
                attn.norm_k.weight,
                rotary_emb,
                attn.heads,
                attn.norm_q.eps,
            )
            value = qkv[..., 2 * attn.inner_dim :].unflatten(2, (attn.heads, -1))
            query = query[:, query_start:]
            if shares is not None:
                query, key, value = map(shares.to_heads, (query, key, value))
            attended = self._attend(query, key, value, attention_mask)
            if shares is not None:
                attended = shares.to_tokens(attended)
        else:
            attended = self._cross(attn, hidden_states, encoder_hidden_states, attention_mask, clip)
        return attn.to_out[1](attn.to_out[0](attended))

    def _cross(
        self,
        attn: WanAttention,
        hidden_states: Tensor | QuantizedRows,
        context: CrossContext | CrossKeys,
        mask: Tensor | None,
        clip: ClipContext | None,
    ) -> Tensor:
        query = _normed_heads(attn, attn.norm_q, attn.to_q(hidden_states))
        keys = cross_keys(attn, context, clip) if isinstance(context, CrossContext) else context
        key, value = keys.text
        query = query.to(value.dtype)
        if keys.text_bias is not None:
            # Its own backends alone know a bias; this is the smallest part of all attention.
            mask = keys.text_bias.to(value.dtype)[None, None, None]
        attended = self._attend(query, key, value, mask)
        if keys.image is not None:
            key, value = keys.image
            attended = attended + self._attend(query, key, value, None)
        return attended

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        attended = dispatch_attention_fn(
            query,
            key,
            value,
            attn_mask=mask,
            # The backends of other packages take no mask.
            backend=self._attention_backend if mask is None else AttentionBackendName.NATIVE,
        )
        return attended.flatten(2, 3).to(query.dtype)


class PackedProjections:
    """The weights of a self-attention layer's queries, keys and values as one, in one memory.

    The layer keeps its three linears, which become parts of the whole: no memory is added, what is
    written into their weights is in the whole, and they are saved as before. Once they have been
    moved apart, `of` joins them anew at every call.

    Args:
        attn: A self-attention layer whose three projections `are_plain`.
    """

    @torch.no_grad()
    def __init__(self, attn: WanAttention) -> None:
        weight, bias = _joined(attn)
        self._whole: tuple[Tensor, Tensor] | None = (weight, bias)
        parts = zip(_linears(attn), weight.chunk(3), bias.chunk(3), strict=True)
        for linear, part, part_of_bias in parts:
            linear.weight.data, linear.bias.data = part, part_of_bias

    @staticmethod
    def are_plain(attn: WanAttention) -> bool:
        """Whether queries, keys and values are plain linears: no adapter around one, no 8 bits."""
        return all(
            type(linear) is nn.Linear and linear.bias is not None for linear in _linears(attn)
        )

    def of(self, attn: WanAttention) -> tuple[Tensor, Tensor]:
        """Return the layer's weight [3 * D, D] and bias [3 * D] as they are now."""
        # While a graph is traced addresses cannot be asked for; it is traced once they are right.
        if self._whole is not None and not torch.compiler.is_compiling():
            parts = zip(_linears(attn), self._whole[0].chunk(3), strict=True)
            if any(linear.weight.data_ptr() != part.data_ptr() for linear, part in parts):
                self._whole = None
        return _joined(attn) if self._whole is None else self._whole


def padding_as_few_tokens(embeds: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return prompt embeddings with fewer rows of padding, and the bias that makes up for them.

    A model that was never told where its prompt ends attends to all padding, and all padding is
    one row: n equal keys weigh as much as one whose score has ln(n) added. In 16 bits ln(n) alone
    would be off by a percent, so there two or three keys share it.

    Args:
        embeds: [B, text tokens, text_dim], zero rows past each prompt's end.

    Returns:
        [B, fewer text tokens, text_dim] and float32 [fewer text tokens] whose values `embeds`'
        type holds exactly; or all rows and None where there are none to spare. On the meta device
        nothing is known of them.
    """
    total = embeds.shape[1]
    if embeds.is_meta:
        return embeds, None
    used = embeds.ne(0).any(dim=-1).any(dim=0).nonzero()
    prompt = int(used[-1]) + 1 if len(used) else 0
    biases = _logarithms(total - prompt, embeds.dtype)
    if len(biases) >= total - prompt:
        return embeds, None
    bias = torch.tensor([0.0] * prompt + biases, device=embeds.device)
    return embeds[:, : len(bias)], bias


def _logarithms(count: int, dtype: torch.dtype) -> list[float]:
    """Return the fewest values of a type whose exponentials add up to `count`, to one in 10^6."""
    found: list[float] = []
    left = float(count)
    while left > 1e-6 * count:
        value = torch.tensor(math.log(left), dtype=dtype)
        if math.exp(value.item()) > left:
            value = torch.nextafter(value, torch.tensor(-math.inf, dtype=dtype))
        found.append(value.item())
        left -= math.exp(value.item())
    return found


def _linears(attn: WanAttention) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
    return attn.to_q, attn.to_k, attn.to_v


def _joined(attn: WanAttention) -> tuple[Tensor, Tensor]:
    weights, biases = zip(*((one.weight, one.bias) for one in _linears(attn)), strict=True)
    return torch.cat(weights), torch.cat(biases)


def _query_key_value(
    attn: WanAttention,
    hidden_states: Tensor | QuantizedRows,
    packed: PackedProjections | None,
    *,
    as_one: bool,
) -> Tensor:
    """Return queries, keys and values [B, N, 3 * D] side by side.

    Args:
        attn: The layer.
        hidden_states: [B, N, D]; codes where all three multiply in 8 bits.
        packed: Its weights in one memory, if they are.
        as_one: Whether they may be one matrix product; rounding is another then, wherever the
            weights lie.
    """
    if as_one and PackedProjections.are_plain(attn):
        assert isinstance(hidden_states, Tensor), "plain layers take no codes"
        weight, bias = _joined(attn) if packed is None else packed.of(attn)
        return F.linear(hidden_states, weight, bias)
    return torch.cat([linear(hidden_states) for linear in _linears(attn)], dim=-1)


def _key_value(
    attn: WanAttention, tokens: Tensor, to_key: nn.Module, norm: nn.RMSNorm, to_value: nn.Module
) -> tuple[Tensor, Tensor]:
    value = to_value(tokens).unflatten(2, (attn.heads, -1))
    return _normed_heads(attn, norm, to_key(tokens)).to(value.dtype), value


def _normed_heads(attn: WanAttention, norm: nn.RMSNorm, projected: Tensor) -> Tensor:
    # Under autocast the projection is bfloat16 and the norm float32: cast here, or PyTorch leaves
    # its fused norm.
    return norm(projected.to(norm.weight.dtype)).unflatten(2, (attn.heads, -1))
