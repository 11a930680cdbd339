"""Weights in 8 bits: how near they come back, and that nothing else changes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from longvie_cli.kernels.quantized_linear import QuantizedLinear, quantize_linears, quantize_rows


# Relative error of Gaussian rows: int8 has a step of max/127 (4.2 sigma / 127 / sqrt(12) = 0.95 %),
# float8 with 3 bits of mantissa at most 2^-4 of each value, 2.6 % in the mean square.
@pytest.mark.parametrize(("kind", "bound"), [("int8", 0.011), ("fp8", 0.03)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_come_back(kind: str, bound: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    # Rows of very different sizes: each has a scale of its own.
    weight = (torch.randn(40, 600) * torch.logspace(-6, 1, 40)[:, None]).to(dtype)
    stored, scale = quantize_rows(weight, kind)
    assert stored.element_size() == 1 and scale.shape == (40, 1) and scale.dtype == dtype
    error = (stored.float() * scale.float() - weight.float()).norm(dim=1)
    assert (error / weight.float().norm(dim=1)).max() < bound


@pytest.mark.parametrize("kind", ["int8", "fp8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_row_of_zeros_stays_zero(kind: str, dtype: torch.dtype) -> None:
    stored, scale = quantize_rows(torch.zeros(2, 8, dtype=dtype), kind)
    assert torch.equal(stored.float() * scale.float(), torch.zeros(2, 8))


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_computes_the_linear_of_its_dequantized_weight(kind: str) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(24, 12).requires_grad_(False)
    quantized = QuantizedLinear.of(linear, kind)
    reference = nn.Linear(24, 12).requires_grad_(False)
    reference.weight.copy_(quantized.weight.float() * quantized.scale)
    reference.bias.copy_(linear.bias)
    tokens = torch.randn(2, 5, 24)
    assert torch.equal(quantized(tokens), reference(tokens))
    assert torch.equal(quantized(tokens), quantized(tokens)), "the stored weight is not changed"


def test_only_the_named_children_are_quantized_and_state_survives() -> None:
    model = nn.ModuleDict({"inside": nn.Sequential(nn.Linear(4, 4)), "outside": nn.Linear(4, 4)})
    quantize_linears(model, "int8", within=("inside",))
    assert type(model["inside"][0]) is QuantizedLinear and type(model["outside"]) is nn.Linear
    again = QuantizedLinear.of(nn.Linear(4, 4), "int8")
    again.load_state_dict(model["inside"][0].state_dict())
    tokens = torch.randn(3, 4)
    assert torch.equal(again(tokens), model["inside"][0](tokens))


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_an_adapter_adds_the_same_to_a_quantized_layer(kind: str) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(0)
    model = nn.ModuleDict({"blocks": nn.Sequential(nn.Linear(64, 64))})
    config = LoraConfig(r=4, target_modules=["blocks.0"], init_lora_weights=False)
    inject_adapter_in_model(config, model)
    layer = model["blocks"][0]
    pixels = torch.randn(8, 64)
    expected = layer(pixels) - layer.base_layer(pixels)
    quantize_linears(model, kind, within=("blocks",))
    assert isinstance(layer.base_layer, QuantizedLinear)
    added = layer(pixels) - layer.base_layer(pixels)
    # The adapter itself is not quantized, so float32 sums are all that differs.
    torch.testing.assert_close(added, expected, atol=1e-5, rtol=1e-5)
