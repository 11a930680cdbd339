"""The attention processor that all blocks of the LongVie transformer share.

Differs from diffusers' `WanAttnProcessor` in two points: the number of text tokens is given (there
it is 512), and the rotation takes three passes over the queries instead of eight.
"""

from __future__ import annotations

from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_wan import WanAttention
from torch import Tensor, nn

from longvie_cli.kernels.kernel_set import RotaryTables, rotate


class LongVieAttnProcessor:
    """Self- and cross-attention of a `WanAttention` layer.

    Cross-attention reads a context of image tokens followed by exactly `text_tokens` text tokens;
    both are attended separately with the same queries and the results added (spec 1.1).

    Args:
        text_tokens: Text tokens at the end of every context.
    """

    # diffusers sets these two when a backend or context parallelism is chosen.
    _attention_backend = None
    _parallel_config = None

    def __init__(self, text_tokens: int) -> None:
        self.text_tokens = text_tokens

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: RotaryTables | None = None,
    ) -> Tensor:
        image_context = None
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if attn.add_k_proj is not None:
            image_context = context[:, : -self.text_tokens]
            context = context[:, -self.text_tokens :]

        query = _normed_heads(attn, attn.norm_q, attn.to_q(hidden_states))
        key = _normed_heads(attn, attn.norm_k, attn.to_k(context))
        value = attn.to_v(context).unflatten(2, (attn.heads, -1))
        if rotary_emb is not None:
            query, key = rotate(query, rotary_emb), rotate(key, rotary_emb)
        query, key = query.to(value.dtype), key.to(value.dtype)

        attended = self._attend(
            query, key, value, attention_mask, sharded=encoder_hidden_states is None
        )
        if image_context is not None:
            key = _normed_heads(attn, attn.norm_added_k, attn.add_k_proj(image_context))
            value = attn.add_v_proj(image_context).unflatten(2, (attn.heads, -1))
            attended = attended + self._attend(query, key.to(value.dtype), value, None)
        return attn.to_out[1](attn.to_out[0](attended))

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        *,
        sharded: bool = False,
    ) -> Tensor:
        attended = dispatch_attention_fn(
            query,
            key,
            value,
            attn_mask=mask,
            backend=self._attention_backend,
            # Only self-attention has its keys spread over the ranks; the context is whole on each.
            parallel_config=self._parallel_config if sharded else None,
        )
        return attended.flatten(2, 3).to(query.dtype)


def _normed_heads(attn: WanAttention, norm: nn.RMSNorm, projected: Tensor) -> Tensor:
    # Under autocast the projection is bfloat16 and the norm float32: cast here, or PyTorch leaves
    # its fused norm.
    return norm(projected.to(norm.weight.dtype)).unflatten(2, (attn.heads, -1))
