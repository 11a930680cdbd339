"""Products in 8 bits are those of what is stored; layers that do not stand them are left out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from longvie_cli.kernels import eight_bit_linear
from longvie_cli.kernels.eight_bit_linear import (
    EightBitLinear,
    QuantizedRows,
    linear_errors,
    multiply_in_8_bits,
    shared_kind,
)
from longvie_cli.kernels.kernel_set import KernelSet
from longvie_cli.kernels.quantized_linear import QUANTIZED_TYPES
from longvie_cli.models.longvie import LongVieTransformer3DModel
from small_models import small_transformer

KINDS = ["int8", "fp8"]


def relative(result: Tensor, exact: Tensor) -> float:
    return ((result.float() - exact.float()).norm() / exact.float().norm()).item()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 20, 48), (1, 5, 48), (48,)])
def test_multiplies_what_is_stored(kind: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(48, 32).to(dtype).requires_grad_(False)
    layer = EightBitLinear.of(linear, kind)
    # Rows of very different sizes: each has a scale of its own.
    tokens = torch.randn(shape) * 10.0 ** torch.randn(*shape[:-1], 1)
    rows = QuantizedRows.of(tokens.to(dtype), kind)
    assert rows.codes.dtype == QUANTIZED_TYPES[kind] and rows.scales.shape == (*shape[:-1], 1)
    stored = rows.codes.double() * rows.scales
    exact = stored @ (layer.weight.double() * layer.scale).t() + linear.bias.double()
    result = layer(rows)
    assert result.dtype == dtype
    # In bfloat16 the result is rounded, and for few rows activations and weights, too.
    allowed = 1e-6 if dtype is torch.float32 else 3 * torch.finfo(dtype).eps / 2
    assert relative(result, exact) < allowed
    assert torch.equal(layer(tokens.to(dtype)), result)


@pytest.mark.parametrize("kind", KINDS)
def test_many_rows_are_quantized_some_at_a_time(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = torch.randn(3, 9, 32, dtype=torch.bfloat16)
    whole = QuantizedRows.of(tokens, kind)
    monkeypatch.setattr(eight_bit_linear, "_ROWS_AT_ONCE", 10)
    parts = QuantizedRows.of(tokens, kind)
    for ours, theirs in zip(parts, whole, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        assert torch.equal(ours.float(), theirs.float())


# The errors of rows and weights add as squares do: 0.74 % each (a step is the largest of 512 values
# over 127) and 2.6 % (three bits of mantissa).
@pytest.mark.parametrize(("kind", "error"), [("int8", 0.0105), ("fp8", 0.037)])
def test_a_gaussian_layer_is_off_by_what_is_said(kind: str, error: float) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(512, 256, bias=False).requires_grad_(False)
    linear.weight.normal_()
    tokens = torch.randn(200, 512)
    assert relative(EightBitLinear.of(linear, kind)(tokens), linear(tokens)) == pytest.approx(
        error, rel=0.1
    )


@pytest.fixture
def transformer() -> LongVieTransformer3DModel:
    return small_transformer(
        attention_head_dim=16, ffn_dim=64, added_kv_proj_dim=32, control_ffn_dim=32
    ).requires_grad_(False)


def velocity(transformer: LongVieTransformer3DModel) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    latents, text, image = (
        torch.randn(shape, generator=generator)
        for shape in ((1, 16, 2, 4, 4), (1, 20, 16), (1, 5, 16))
    )
    timestep = torch.tensor([500.0])
    return transformer(latents, timestep, text, image, dense=latents).sample


@pytest.mark.parametrize("kind", KINDS)
def test_layers_that_do_not_stand_it_are_left_out(
    transformer: LongVieTransformer3DModel, kind: str
) -> None:
    # Two inputs of a layer are always alike, and their weights large and opposite: they cancel, but
    # the scale that is made for them leaves nothing of the others.
    spoiled, block = "blocks.1.attn2.to_q", transformer.blocks[1]
    block.norm2.weight[:2], block.norm2.bias[:2] = 0.0, 4.0
    block.attn2.to_q.weight[:, 0] += 1000.0
    block.attn2.to_q.weight[:, 1] -= 1000.0
    exact = velocity(transformer)

    errors = linear_errors(transformer, kind, within=("blocks",), run=lambda: velocity(transformer))
    assert torch.equal(velocity(transformer), exact), "measuring changes nothing"
    linears = [
        f"blocks.{path}"
        for path, layer in transformer.blocks.named_modules()
        if type(layer) is nn.Linear
    ]
    assert errors.keys() == set(linears)
    assert max(errors, key=errors.__getitem__) == spoiled and errors[spoiled] > 0.2
    others = max(error for path, error in errors.items() if path != spoiled)
    assert 0.001 < others < 0.06

    every, chosen = copy.deepcopy(transformer), transformer
    assert not multiply_in_8_bits(
        every, kind, within=("blocks",), errors=errors, limit=float("inf")
    )
    kept = multiply_in_8_bits(chosen, kind, within=("blocks",), errors=errors, limit=0.1)
    assert kept == [spoiled]
    assert type(chosen.blocks[0].attn1.to_q) is EightBitLinear
    for outside in (chosen.proj_out, chosen.dense_blocks[0].attn1.to_q, chosen.control_proj_out[0]):
        assert type(outside) is nn.Linear
    assert relative(velocity(chosen), exact) < 0.6 * relative(velocity(every), exact)


class Whole(KernelSet):
    """Gives activations, whatever is asked for, and notes what that is."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []

    def residual_norm(
        self, *rows: Any, kind: str | None = None, **further: Any
    ) -> tuple[Tensor, Tensor | QuantizedRows]:
        self.asked.append(kind)
        return super().residual_norm(*rows, **further)

    def gelu_quantized(self, x: Tensor, kind: str) -> Any:
        self.asked.append(kind)
        return self.gelu(x)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_rows_are_brought_to_8_bits_once_by_what_makes_them(
    transformer: LongVieTransformer3DModel, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [f"blocks.{name}" for name, _ in transformer.blocks.named_modules()]
    errors = dict.fromkeys(paths, 0.0)
    multiply_in_8_bits(transformer, kind, within=("blocks",), errors=errors, limit=0.0)
    calls: list[int] = []
    quantize = QuantizedRows.of

    def counted(rows: Tensor, kind: str) -> QuantizedRows:
        calls.append(1)
        return quantize(rows, kind)

    monkeypatch.setattr(QuantizedRows, "of", counted)
    by_kernels, num_by_kernels = velocity(transformer), len(calls)
    whole = Whole()
    transformer.use_kernels(whole)
    assert torch.equal(velocity(transformer), by_kernels)
    # A block: self-attention, cross-attention, feed-forward and its GELU, then the sum alone.
    in_8_bits = [kind, kind, kind, kind, None]
    assert [kind for kind in whole.asked if kind] == [kind] * 4 * len(transformer.blocks)
    assert whole.asked[:5] == in_8_bits
    # Queries, keys and values would each do it, the others once either way.
    assert len(calls) - num_by_kernels == num_by_kernels + 2 * len(transformer.blocks)


def test_layers_of_another_kind_are_given_activations() -> None:
    layers = {kind: EightBitLinear.of(nn.Linear(16, 16), kind) for kind in KINDS}
    assert shared_kind(layers["int8"], layers["int8"]) == "int8"
    assert shared_kind(layers["fp8"]) == "fp8"
    assert shared_kind(layers["int8"], layers["fp8"]) is None
    assert shared_kind(layers["int8"], nn.Linear(16, 16)) is None


def test_what_was_not_measured_stays(transformer: LongVieTransformer3DModel) -> None:
    kept = multiply_in_8_bits(
        transformer, "int8", within=("blocks",), errors={"blocks.0.attn1.to_v": 0.01}, limit=0.1
    )
    assert type(transformer.blocks[0].attn1.to_v) is EightBitLinear
    assert type(transformer.blocks[0].attn1.to_q) is nn.Linear
    assert "blocks.0.attn1.to_q" in kept and "blocks.0.attn1.to_v" not in kept


def test_sizes_that_no_gpu_multiplies_are_not_measured() -> None:
    model = nn.ModuleDict({"blocks": nn.Sequential(nn.Linear(16, 24), nn.Linear(24, 16))})
    model["blocks"].append(nn.Linear(16, 32))
    errors = linear_errors(
        model, "fp8", within=("blocks",), run=lambda: model["blocks"](torch.randn(20, 16))
    )
    assert errors.keys() == {"blocks.2"}
