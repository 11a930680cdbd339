"""The operations of a transformer block that are worth one kernel each, and their plain form.

Between two matrix products a block reads and writes whole activations only to add, normalise,
rotate or bend them: memory traffic, hardly any arithmetic. `KernelSet` names these four places and
computes each with PyTorch, on any device and with gradients. That is their meaning; a faster set
is a subclass that returns the same up to the order of rounding said here.

A set has no state. It is chosen once by device and handed to the blocks.

Letters in shapes: B batch, N tokens, D width, H heads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from longvie_cli.kernels.eight_bit_linear import QuantizedRows

logger = logging.getLogger(__name__)

RotaryTables = tuple[Tensor, Tensor]
"""Cosines and signed sines, float32 [1, N, 1, D / H] each.

Channels 2i and 2i + 1 of a head are a pair: both have its cosine, the even one minus its sine and
the odd one its sine.
"""


def rotate(heads: Tensor, tables: RotaryTables) -> Tensor:
    """Return queries or keys [B, N, H, D / H] rotated to their positions, in the wider type."""
    cos, sin = tables
    # A turn is a product of complex numbers: one pass, where real ones take three and a copy.
    turns = torch.complex(cos[..., ::2], sin[..., 1::2])
    pairs = heads.to(torch.promote_types(heads.dtype, cos.dtype)).unflatten(-1, (-1, 2))
    return torch.view_as_real(torch.view_as_complex(pairs) * turns).flatten(-2)


class KernelSet:
    """The fused operations as PyTorch computes them; arithmetic is float32 whatever is stored."""

    def residual_norm(
        self,
        x: Tensor,
        y: Tensor | None = None,
        gate: Tensor | None = None,
        *,
        scale: Tensor | None,
        shift: Tensor | None,
        eps: float,
        one_plus: bool = True,
        addend: Tensor | None = None,
        addend_start: int = 0,
        kind: str | None = None,
    ) -> tuple[Tensor, Tensor | QuantizedRows]:
        """Return the residual stream after an addition, and that normalised for what reads it.

            x_out = x + gate * y, then + addend on the rows from addend_start on
            h     = LayerNorm(x_out) * (1 + scale) + shift

        Both in the type of `x`. `x_out` is rounded to it after the first sum, after the addend,
        and before it is normalised, as if each were stored. No argument is changed; without `y`
        and addend `x_out` is `x` itself.

        Args:
            x: [B, N, D].
            y: [B, N, D] in any floating-point type, as are the others.
            gate: [B or 1, 1, D] or [D]; one where None.
            scale: [B or 1, 1, D] or [D]. None asks for the sum alone: `h` is then `x_out`.
            shift: As `scale`, and None where it is.
            eps: Added to the variance.
            one_plus: False multiplies by `scale` itself: an affine LayerNorm.
            addend: [B, N - addend_start, D].
            addend_start: Row of the first token that `addend` is added to, behind the history.
            kind: A key of `QUANTIZED_TYPES`: `h` in 8 bits, one scale a row, which a set may make
                of what it has in float32.
        """
        x_out = x
        if y is not None:
            summed = (
                x.float() + y.float()
                if gate is None
                else torch.addcmul(x.float(), y.float(), gate.float())
            )
            x_out = summed.to(x.dtype)
        if addend is not None:
            steered = (x_out[:, addend_start:].float() + addend.float()).to(x.dtype)
            kept = x_out[:, :addend_start]
            x_out = torch.cat((kept, steered), dim=1) if addend_start else steered
        if scale is None or shift is None:
            return x_out, x_out
        weight, bias = scale.float(), shift.float()
        if one_plus:
            weight = weight + 1
        width = x.shape[-1:]
        if weight.numel() == bias.numel() == width.numel():
            # One vector for all rows is what PyTorch's own LayerNorm takes: no pass of its own.
            h = F.layer_norm(x_out.float(), width, weight.flatten(), bias.flatten(), eps)
        else:
            h = torch.addcmul(bias, F.layer_norm(x_out.float(), width, eps=eps), weight)
        h = h.to(x.dtype)
        return x_out, h if kind is None else QuantizedRows.of(h, kind)

    def query_key(
        self,
        qkv: Tensor,
        query_weight: Tensor,
        key_weight: Tensor,
        rotary: RotaryTables,
        heads: int,
        eps: float,
    ) -> tuple[Tensor, Tensor]:
        """Return queries and keys [B, N, H, D / H], normalised and rotated, in the type of `qkv`.

        The RMSNorm is over all heads of a token together; its result has the type of the weights
        before it is rotated, which a set that keeps it in float32 only betters.

        Args:
            qkv: [B, N, 3 * D]: queries, keys and values side by side. Only its last axis has to
                be contiguous.
            query_weight: [D], of the RMSNorm.
            key_weight: [D].
            rotary: Tables of the N tokens.
            heads: H.
            eps: Of the RMSNorm.
        """
        query, key, _ = qkv.chunk(3, dim=-1)
        query, key = (
            F.rms_norm(part.to(weight.dtype), weight.shape, weight, eps).unflatten(2, (heads, -1))
            for part, weight in ((query, query_weight), (key, key_weight))
        )
        return rotate(query, rotary).to(qkv.dtype), rotate(key, rotary).to(qkv.dtype)

    def gelu(self, x: Tensor) -> Tensor:
        """Return GELU in its tanh form, x / 2 * (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""
        return F.gelu(x, approximate="tanh")

    def gelu_quantized(self, x: Tensor, kind: str) -> QuantizedRows:
        """Return `gelu` [..., D] in 8 bits, as `residual_norm` does.

        Args:
            x: [..., D].
            kind: A key of `QUANTIZED_TYPES`.
        """
        # The same name, so that what was given is gone before there are codes.
        x = self.gelu(x)
        return QuantizedRows.of(x, kind)

    def linear_gelu(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return `gelu` of a linear layer [.., out], for sets that bend it where it is made.

        Args:
            x: [.., in].
            weight: [out, in].
            bias: [out].
        """
        return self.gelu(F.linear(x, weight, bias))

    def guide_step(
        self,
        latents: Tensor,
        velocity: Tensor,
        negative: Tensor | None,
        guidance: float,
        delta_sigma: float,
    ) -> Tensor:
        """Return the latents after one Euler step along the guided velocity, float32.

            guided = negative + guidance * (velocity - negative)
            result = latents + delta_sigma * guided

        Args:
            latents: float32, any shape.
            velocity: Of the prompt, in any floating-point type, shaped as `latents`.
            negative: Of the negative prompt, likewise; None where guidance is off.
            guidance: 1 is no guidance.
            delta_sigma: Next noise level minus this one: negative while denoising.
        """
        guided = velocity.float()
        if negative is not None:
            guided = guide(guided, negative.float(), guidance)
        return latents + delta_sigma * guided


def guide(velocity: Tensor, negative_velocity: Tensor, guidance_scale: float) -> Tensor:
    """Return the velocity led away from the negative prompt's: neg + scale * (pos - neg)."""
    return negative_velocity + guidance_scale * (velocity - negative_velocity)


def kernel_set_for(
    device: torch.device | str, *, warn: Callable[[str], None] = logger.warning
) -> KernelSet:
    """Return the fastest set for a device: of Triton on a GPU, with oneDNN on the CPU.

    Args:
        device: Where the blocks compute.
        warn: Told if a GPU has to go without.
    """
    kind = torch.device(device).type
    if kind == "cpu":
        from longvie_cli.kernels.cpu_kernel_set import cpu_kernel_set

        return cpu_kernel_set()
    if kind != "cuda":
        return KernelSet()
    try:
        from longvie_cli.kernels.fused.triton_kernel_set import TritonKernelSet
    except ImportError as error:
        warn(
            f"The fused kernels need triton ({error}); every block takes several passes over "
            "memory where one would do. Install it with: pip install triton"
        )
        return KernelSet()
    return TritonKernelSet()
