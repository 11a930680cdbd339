"""A linear layer that multiplies in 8 bits, and the choice of the layers that stand it.

`QuantizedLinear` stores 8 bits and multiplies in the model's type; here the activations are in
8 bits, too, one scale a row, and the product is that of the tensor cores for 8 bits:
`torch._scaled_mm` for float8 (sm_89 and later), `torch._int_mm` for int8 (sm_80 and later). On the
CPU both compute the same, which is what the tests hold on to; it is no faster there.

float8 has three bits of mantissa: a Gaussian layer is off by 3.7 %, and no finer scales help. What
helps is to leave out the layers that are off by more, which depends on what reaches them; so the
error of each is measured where the model runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from longvie_cli.kernels.quantized_linear import (
    QUANTIZED_TYPES,
    QuantizedLinear,
    plain_linears,
    quantize_rows,
)

# What the 8-bit products of CUDA need: sizes of whole 16-byte accesses, and more than 16 rows.
_SIZE_STEP = 16
_FEWEST_ROWS = 17
# Rows that are quantized at once: at LongVie 2's 13,824 columns 0.2 GiB in float32.
_ROWS_AT_ONCE = 4096


class QuantizedRows(NamedTuple):
    """Activations in 8 bits, as the fused kernels write them."""

    codes: Tensor
    """[..., D], int8 or float8."""
    scales: Tensor
    """float32 [..., 1]: codes times scales are the activations."""

    @classmethod
    def of(cls, rows: Tensor, kind: str) -> QuantizedRows:
        """Return activations [..., D] of any floating-point type in 8 bits.

        Args:
            rows: The activations.
            kind: A key of `QUANTIZED_TYPES`.
        """
        flat = rows.reshape(-1, rows.shape[-1])
        if len(flat) <= _ROWS_AT_ONCE:
            return cls(*quantize_rows(rows.float(), kind))
        # Some at a time: in float32 all rows of a feed-forward layer would be a gigabyte, twice.
        codes = flat.new_empty(flat.shape, dtype=QUANTIZED_TYPES[kind])
        scales = flat.new_empty((len(flat), 1), dtype=torch.float32)
        for start in range(0, len(flat), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            codes[part], scales[part] = quantize_rows(flat[part].float(), kind)
        return cls(codes.view(rows.shape), scales.view(*rows.shape[:-1], 1))


class EightBitLinear(QuantizedLinear):
    """Multiplies rows in 8 bits by a weight in 8 bits; the result has the model's type.

    Takes activations as they are, and quantizes them, or the codes and scales of a fused kernel.
    """

    @property
    def kind(self) -> str:
        """The key of its type in `QUANTIZED_TYPES`."""
        return "int8" if self.weight.dtype is torch.int8 else "fp8"

    def forward(self, input: Tensor | QuantizedRows) -> Tensor:
        if isinstance(input, Tensor):
            input = QuantizedRows.of(input, self.kind)
        codes, scales = input.codes.reshape(-1, self.in_features), input.scales.reshape(-1, 1)
        multiply = self._multiply_fp8
        if len(codes) < _FEWEST_ROWS:
            multiply = self._multiply_few
        elif self.weight.dtype is torch.int8:
            multiply = self._multiply_int8
        return multiply(codes, scales).view(*input.codes.shape[:-1], self.out_features)

    def _multiply_fp8(self, codes: Tensor, scales: Tensor) -> Tensor:
        dtype = self.scale.dtype
        # With a scale a row CUDA has this result only.
        computed = torch.bfloat16 if codes.is_cuda else dtype
        return torch._scaled_mm(
            codes,
            self.weight.t(),
            scale_a=scales,
            scale_b=self.scale.float().t(),
            bias=None if self.bias is None else self.bias.to(computed),
            out_dtype=computed,
        ).to(dtype)

    def _multiply_int8(self, codes: Tensor, scales: Tensor) -> Tensor:
        product = torch._int_mm(codes, self.weight.t())
        result = product.float().mul_(scales).mul_(self.scale.float().t())
        if self.bias is not None:
            result += self.bias
        return result.to(self.scale.dtype)

    def _multiply_few(self, codes: Tensor, scales: Tensor) -> Tensor:
        return super().forward((codes.float() * scales).to(self.scale.dtype))


def shared_kind(*layers: nn.Module) -> str | None:
    """Return the 8 bits that all of these layers multiply in; None where one of them does not."""
    kinds = {layer.kind if type(layer) is EightBitLinear else None for layer in layers}
    return kinds.pop() if len(kinds) == 1 else None


def is_multiplied(linear: nn.Linear) -> bool:
    """Return whether the 8-bit products of a GPU take a layer of this size."""
    return linear.in_features % _SIZE_STEP == linear.out_features % _SIZE_STEP == 0


class _MeasuredLinear(nn.Linear):
    """Computes a `Linear` and notes how far it would be off in 8 bits."""

    kind: str
    # Sums of squares.
    differences: float = 0.0
    results: float = 0.0

    @classmethod
    def of(cls, linear: nn.Linear, kind: str) -> _MeasuredLinear:
        with torch.device("meta"):
            layer = cls(linear.in_features, linear.out_features, bias=False)
        layer.weight, layer.bias = linear.weight, linear.bias
        layer.kind = kind
        return layer

    def forward(self, input: Tensor) -> Tensor:
        result = super().forward(input)
        # Made for each call: those of all layers would be half as much memory again.
        quantized = EightBitLinear.of(self, self.kind)
        difference = quantized(input).float() - result.float()
        self.differences += difference.square().sum().item()
        self.results += result.float().square().sum().item()
        return result


@torch.no_grad()
def linear_errors(
    module: nn.Module, kind: str, *, within: tuple[str, ...], run: Callable[[], object]
) -> dict[str, float]:
    """Return how far each linear layer would be off in 8 bits, on what reaches it in a run.

    Args:
        module: The model, with projections not yet packed; its layers are replaced for the run.
        kind: A key of `QUANTIZED_TYPES`.
        within: Names of its children that hold the layers.
        run: Computes with the model, as it will be used.

    Returns:
        By the path of a layer, the root mean square of the difference over that of the layer's
        result. What `run` does not call, or what no GPU multiplies in 8 bits, is not in it.
    """
    replaced = [
        (path, parent, name, linear, _MeasuredLinear.of(linear, kind))
        for path, parent, name, linear in plain_linears(module, within)
        if is_multiplied(linear)
    ]
    try:
        for _, parent, name, _, measured in replaced:
            setattr(parent, name, measured)
        run()
    finally:
        for _, parent, name, linear, _ in replaced:
            setattr(parent, name, linear)
    return {
        path: (measured.differences / measured.results) ** 0.5
        for path, _, _, _, measured in replaced
        if measured.results
    }


def multiply_in_8_bits(
    module: nn.Module,
    kind: str,
    *,
    within: tuple[str, ...],
    errors: Mapping[str, float],
    limit: float,
    device: torch.device | None = None,
) -> list[str]:
    """Make the layers that stand it multiply in 8 bits, in place; return the paths of the others.

    Args:
        module: The model.
        kind: A key of `QUANTIZED_TYPES`.
        within: Names of its children that hold the layers: of LongVie's transformer `blocks`, which
            keeps its embeddings, its head and its control branches out.
        errors: Of `linear_errors`; a layer without one stays as it is.
        limit: The largest error that a layer may have.
        device: As in `QuantizedLinear.of`.
    """
    kept = []
    for path, parent, name, linear in plain_linears(module, within):
        if errors.get(path, float("inf")) <= limit:
            setattr(parent, name, EightBitLinear.of(linear, kind, device))
        else:
            kept.append(path)
    return kept
