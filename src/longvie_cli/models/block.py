"""A block of the LongVie transformer: diffusers' Wan block, computed by a `KernelSet`.

x, h = norm of x (+ control addition)      h -> self-attention -> a
x, h = norm of x + gate * a                h -> cross-attention -> a
x, h = norm of x + a                       h -> feed-forward -> f
x    = x + gate * f
"""

from __future__ import annotations

from typing import Any, Self

from diffusers.models.attention import FeedForward
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from torch import Tensor, nn

from longvie_cli.kernels.eight_bit_linear import QuantizedRows, shared_kind
from longvie_cli.kernels.kernel_set import KernelSet, RotaryTables
from longvie_cli.models.attention import CrossContext, CrossKeys, PackedProjections
from longvie_cli.models.clip_context import ClipContext
from longvie_cli.parallel.ulysses import TokenShares


class LongVieFeedForward(FeedForward):
    """A `FeedForward` of the same layers and names whose GELU is that of a `KernelSet`."""

    @classmethod
    def of(cls, stock: FeedForward) -> Self:
        """Return one of ours on the very layers of a stock one."""
        ours = cls.__new__(cls)
        nn.Module.__init__(ours)
        ours.net = stock.net
        return ours.train(stock.training)

    @property
    def kind(self) -> str | None:
        """The 8 bits that it takes its input in, where it does."""
        return shared_kind(self.net[0].proj)

    def forward(self, hidden_states: Tensor | QuantizedRows, kernels: KernelSet) -> Tensor:
        """Return [B, N, D] from [B, N, D]."""
        activation, _, narrow = self.net
        widen = activation.proj
        if (kind := shared_kind(narrow)) is not None:
            return narrow(kernels.gelu_quantized(widen(hidden_states), kind))
        if type(widen) is nn.Linear:
            assert isinstance(hidden_states, Tensor), "plain layers take no codes"
            return narrow(kernels.linear_gelu(hidden_states, widen.weight, widen.bias))
        # An adapter around the layer, or 8 bits.
        return narrow(kernels.gelu(widen(hidden_states)))


class LongVieBlock(WanTransformerBlock):
    """A `WanTransformerBlock` of the same layers and names whose forward is ours.

    Attributes:
        kernels: Computes what lies between the matrix products.
        packed: The self-attention's projections in one memory, see `pack`.
    """

    kernels: KernelSet = KernelSet()
    packed: PackedProjections | None = None

    def __init__(self, *sizes: Any, **further: Any) -> None:
        super().__init__(*sizes, **further)
        self.ffn: LongVieFeedForward = LongVieFeedForward.of(self.ffn)

    @classmethod
    def of(cls, block: WanTransformerBlock) -> Self:
        """Return a block of ours on the very layers of a stock one."""
        ours = cls.__new__(cls)
        nn.Module.__init__(ours)
        ours.scale_shift_table = block.scale_shift_table
        for name, layer in block.named_children():
            ours.add_module(name, layer)
        ours.ffn = LongVieFeedForward.of(block.ffn)
        return ours.train(block.training)

    def pack(self) -> None:
        """Put the weights of queries, keys and values into one memory; adapters keep them apart."""
        if PackedProjections.are_plain(self.attn1):
            self.packed = PackedProjections(self.attn1)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: CrossContext | CrossKeys,
        temb: Tensor,
        rotary_emb: RotaryTables,
        *,
        addend: Tensor | None = None,
        addend_start: int = 0,
        query_start: int = 0,
        clip: ClipContext | None = None,
        is_first: bool = False,
        as_one: bool = False,
        shares: TokenShares | None = None,
        attended: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Return the tokens [B, N - query_start, D] after this block.

        Args:
            hidden_states: [B, N, D].
            encoder_hidden_states: Text and image, or the keys and values this block made of them.
            temb: [B or 1, 6, D], shifts, scales and gates before this block's own.
            rotary_emb: Positions of the N tokens.
            addend: [B, N - addend_start, D], added to the tokens from `addend_start` on before
                anything else.
            addend_start: Tokens of history, which nothing is added to.
            query_start: Tokens before it are attended to but not returned.
            clip: Keeps what the evaluations of a clip have in common.
            is_first: Whether these tokens are the same for every prompt, so that `clip` can share
                the self-attention.
            as_one: Whether queries, keys and values may be one matrix product.
            shares: Where the self-attention finds the tokens that other processes hold.
            attended: What `attend` returned, where it has been called.
        """

        def attend() -> tuple[Tensor, Tensor]:
            return self.attend(
                hidden_states,
                temb,
                rotary_emb,
                addend=addend,
                addend_start=addend_start,
                query_start=query_start,
                as_one=as_one,
                shares=shares,
            )

        if attended is not None:
            tokens, update = attended
        elif clip is not None and is_first:
            inputs = hidden_states, temb, addend
            tokens, update = clip.share((self, "self-attention"), inputs, attend)
        else:
            tokens, update = attend()

        _, _, gate, ffn_shift, ffn_scale, ffn_gate = self._modulations(temb)
        # The norm before cross-attention has weights of its own, or is none at all.
        tokens, normed = self.kernels.residual_norm(
            tokens,
            update,
            gate,
            scale=getattr(self.norm2, "weight", None),
            shift=getattr(self.norm2, "bias", None),
            eps=self.norm1.eps,
            one_plus=False,
            kind=shared_kind(self.attn2.to_q),
        )
        update = self.attn2(normed, encoder_hidden_states, clip=clip)

        tokens, normed = self.kernels.residual_norm(
            tokens,
            update,
            scale=ffn_scale,
            shift=ffn_shift,
            eps=self.norm3.eps,
            kind=self.ffn.kind,
        )
        update = self.ffn(normed, self.kernels)
        tokens, _ = self.kernels.residual_norm(
            tokens, update, ffn_gate, scale=None, shift=None, eps=self.norm3.eps
        )
        return tokens

    def attend(
        self,
        hidden_states: Tensor,
        temb: Tensor,
        rotary_emb: RotaryTables,
        *,
        addend: Tensor | None = None,
        addend_start: int = 0,
        query_start: int = 0,
        as_one: bool = False,
        shares: TokenShares | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the tokens [B, N - query_start, D] and their self-attention, not added up yet.

        Arguments as in `forward`.
        """
        shift, scale, *_ = self._modulations(temb)
        tokens, normed = self.kernels.residual_norm(
            hidden_states,
            scale=scale,
            shift=shift,
            eps=self.norm1.eps,
            addend=addend,
            addend_start=addend_start,
            kind=shared_kind(self.attn1.to_q, self.attn1.to_k, self.attn1.to_v),
        )
        update = self.attn1(
            normed,
            rotary_emb=rotary_emb,
            kernels=self.kernels,
            packed=self.packed,
            query_start=query_start,
            as_one=as_one,
            shares=shares,
        )
        return tokens[:, query_start:], update

    def _modulations(self, temb: Tensor) -> tuple[Tensor, ...]:
        """Return shift, scale and gate of the self-attention, then of the feed-forward."""
        return (self.scale_shift_table + temb.float()).chunk(6, dim=1)
