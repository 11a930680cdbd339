"""A linear layer whose weight is stored in 8 bits, one scale a row, and computed in its own type.

The reference is `torch.nn.Linear` on the dequantized weight, which is what this computes: weights
take half the memory of bfloat16, activations and products stay as they are. Gaussian rows come back
with a relative error of 0.9 % from int8 and 2.6 % from float8 (a float8 cast without scales: 3.3 %,
bfloat16 itself: 0.17 %). Dequantizing reads and writes a weight twice a forward, about 3 % of the
time of LongVie 2 on an H100 (estimated from bytes, not measured).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

QUANTIZED_TYPES = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}


# Where peft keeps the two factors of an adapter, beside the layer itself.
_ADAPTER_PARTS = {"lora_A", "lora_B"}


class QuantizedLinear(nn.Linear):
    """Computes a `Linear` from an 8-bit weight [out, in] and one scale a row [out, 1].

    A `Linear` still, so that adapters find it; its weight cannot be trained.
    """

    scale: Tensor

    @classmethod
    def of(cls, linear: nn.Linear, kind: str, device: torch.device | None = None) -> Self:
        """Return the quantized form of a layer.

        Args:
            linear: The layer; its bias is shared.
            kind: A key of `QUANTIZED_TYPES`.
            device: Where to quantize and leave the weight; its own where None.
        """
        with torch.device("meta"):
            layer = cls(linear.in_features, linear.out_features, bias=False)
        weight, scale = quantize_rows(linear.weight.detach().to(device), kind)
        layer.weight = nn.Parameter(weight, requires_grad=False)
        layer.bias = linear.bias
        layer.register_buffer("scale", scale)
        return layer.train(linear.training)

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight.to(input.dtype).mul_(self.scale.to(input.dtype))
        return F.linear(input, weight, self.bias)


def quantize_rows(weight: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Return a weight [..., out, in] in 8 bits and the scales [..., out, 1] that undo it.

    The largest value of each row becomes the largest of the 8-bit type; a row of zeros stays zero.
    Scales are of the type of the weight.
    """
    dtype = QUANTIZED_TYPES[kind]
    if weight.is_meta:
        # PyTorch works such shapes out in Python, which takes seconds for all rows of LongVie 2.
        # What is alive at most, for memory plans: the rows in float32, before and after scaling.
        _ = [torch.empty_like(weight, dtype=torch.float32) for _ in range(2)]
        return torch.empty_like(weight, dtype=dtype), weight.new_empty((*weight.shape[:-1], 1))
    largest = 127.0 if dtype is torch.int8 else torch.finfo(dtype).max
    rows = weight.float()
    scale = rows.abs().amax(dim=-1, keepdim=True) / largest
    # Rounded before it is used, so that its rounding is no error that a whole row shares.
    scale = scale.to(weight.dtype).clamp_min(torch.finfo(weight.dtype).tiny)
    rows = rows / scale.float()
    rows = rows.round() if dtype is torch.int8 else rows
    return rows.clamp(-largest, largest).to(dtype), scale


def plain_linears(
    module: nn.Module, within: tuple[str, ...]
) -> Iterator[tuple[str, nn.Module, str, nn.Linear]]:
    """Yield the plain `Linear` layers below the named children of a module, to be replaced.

    The small ones of low-rank adapters are left out: peft brings their input to the type of their
    weight.

    Args:
        module: The model.
        within: Names of its children that hold the layers.

    Yields:
        The path of a layer in the module, its parent, its name there, and itself.
    """
    for name in within:
        # Lists: layers are replaced while they are walked.
        for path, parent in list(module.get_submodule(name).named_modules(prefix=name)):
            if _ADAPTER_PARTS & {*path.split(".")}:
                continue
            for child_name, child in list(parent.named_children()):
                if type(child) is nn.Linear:
                    yield f"{path}.{child_name}", parent, child_name, child


def quantize_linears(
    module: nn.Module, kind: str, *, within: tuple[str, ...], device: torch.device | None = None
) -> None:
    """Quantize the `plain_linears` of a module, in place.

    Args:
        module: The model.
        kind: A key of `QUANTIZED_TYPES`.
        within: Names of its children that hold the layers.
        device: As in `QuantizedLinear.of`.
    """
    for _, parent, name, linear in plain_linears(module, within):
        setattr(parent, name, QuantizedLinear.of(linear, kind, device))
