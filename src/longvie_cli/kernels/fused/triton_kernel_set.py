"""The kernel set of GPUs: every operation of a block is one pass over memory."""

from __future__ import annotations

from torch import Tensor

from longvie_cli.kernels.eight_bit_linear import QuantizedRows
from longvie_cli.kernels.fused import gelu, guide_step, query_key, residual_norm
from longvie_cli.kernels.kernel_set import KernelSet, RotaryTables


class TritonKernelSet(KernelSet):
    """Computes what `KernelSet` does by Triton kernels, on a CUDA or ROCm device.

    The residual stream comes out bit-equal wherever PyTorch rounds a product before it adds it;
    sums over a row are taken in another order, and queries and keys are rounded once, not twice.
    All but `guide_step` have gradients.
    """

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
        if y is None and addend is None and scale is None:
            return x, x
        x_out, h, h_scale = residual_norm.residual_norm(
            x, y, gate, scale, shift, eps, one_plus, addend, addend_start, kind
        )
        x_out = x if y is None and addend is None else x_out
        if scale is None:
            return x_out, x_out
        return x_out, h if kind is None else QuantizedRows(h, h_scale)

    def query_key(
        self,
        qkv: Tensor,
        query_weight: Tensor,
        key_weight: Tensor,
        rotary: RotaryTables,
        heads: int,
        eps: float,
    ) -> tuple[Tensor, Tensor]:
        return query_key.query_key(qkv, query_weight, key_weight, *rotary, heads, eps)

    def gelu(self, x: Tensor) -> Tensor:
        return gelu.gelu(x)

    def gelu_quantized(self, x: Tensor, kind: str) -> QuantizedRows:
        return QuantizedRows(*gelu.gelu_quantized(x, kind))

    def guide_step(
        self,
        latents: Tensor,
        velocity: Tensor,
        negative: Tensor | None,
        guidance: float,
        delta_sigma: float,
    ) -> Tensor:
        return guide_step.guide_step(latents, velocity, negative, guidance, delta_sigma)
