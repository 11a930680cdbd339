"""The eager kernels compute their formulas, and what a block of diffusers computes there."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from longvie_cli.kernels.kernel_set import KernelSet
from longvie_cli.models.embeddings import RotaryPositions

KERNELS = KernelSet()
# Sums of 36 terms in float32 differ by their order alone.
ROUNDING = 2e-6


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def layer_norm(x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()


@pytest.mark.parametrize("batch_of_vectors", [1, 2])
@pytest.mark.parametrize("start", [0, 3])
def test_residual_norm_is_its_formula(batch_of_vectors: int, start: int) -> None:
    x, y = drawn(2, 7, 36), drawn(2, 7, 36, seed=1)
    gate, scale, shift = (drawn(batch_of_vectors, 1, 36, seed=seed) for seed in (2, 3, 4))
    addend = drawn(2, 7 - start, 36, seed=5)
    x_before = x.clone()
    x_out, h = KERNELS.residual_norm(
        x, y, gate, scale=scale, shift=shift, eps=1e-6, addend=addend, addend_start=start
    )
    expected = x.double() + gate.double() * y.double()
    expected[:, start:] += addend.double()
    torch.testing.assert_close(x_out, expected.float(), atol=ROUNDING, rtol=0)
    normed = layer_norm(expected, 1e-6) * (1 + scale.double()) + shift.double()
    torch.testing.assert_close(h, normed.float(), atol=8 * ROUNDING, rtol=0)
    assert torch.equal(x, x_before)


def test_residual_norm_without_sum_or_without_norm() -> None:
    x, y = drawn(2, 5, 12), drawn(2, 5, 12, seed=1)
    weight, bias = drawn(12, seed=2), drawn(12, seed=3)
    x_out, h = KERNELS.residual_norm(x, scale=weight, shift=bias, eps=1e-6, one_plus=False)
    assert x_out is x
    torch.testing.assert_close(h, F.layer_norm(x, (12,), weight, bias, 1e-6), atol=0, rtol=0)
    x_out, h = KERNELS.residual_norm(x, y, scale=None, shift=None, eps=1e-6)
    assert torch.equal(x_out, x + y)
    assert torch.equal(h, x_out)


def test_bfloat16_rounds_where_a_block_of_diffusers_stores() -> None:
    x, y = (drawn(1, 6, 24, seed=seed, dtype=torch.bfloat16) for seed in range(2))
    addend = drawn(1, 4, 24, seed=2, dtype=torch.bfloat16)
    gate, scale, shift = (drawn(1, 1, 24, seed=seed) for seed in (3, 4, 5))
    x_out, h = KERNELS.residual_norm(
        x, y, gate, scale=scale, shift=shift, eps=1e-6, addend=addend, addend_start=2
    )
    stored = (x.float() + y * gate).type_as(x)
    stored = stored + F.pad(addend, (0, 0, 2, 0))
    assert torch.equal(x_out, stored)
    wanted = F.layer_norm(stored.float(), (24,), eps=1e-6) * (1 + scale) + shift
    assert h.dtype == torch.bfloat16
    # Half a unit in the last place of bfloat16, and float32's own.
    torch.testing.assert_close(h.float(), wanted, atol=1e-5, rtol=2**-8)


def test_query_key_is_norm_then_rotation_of_packed_thirds() -> None:
    heads, head_dim = 3, 12
    width, grid = heads * head_dim, (2, 3, 2)
    qkv = drawn(2, 12, 3 * width)
    weights = [drawn(width, seed=seed) for seed in (1, 2)]
    tables = RotaryPositions(head_dim)(grid, qkv.device)
    pair = KERNELS.query_key(qkv, *weights, tables, heads, 1e-6)
    angle = torch.atan2(tables[1][..., 1::2], tables[0][..., 1::2]).double()
    turn = torch.polar(torch.ones_like(angle), angle)
    for index, (rotated, weight) in enumerate(zip(pair, weights, strict=True)):
        part = qkv[..., index * width : (index + 1) * width].double()
        normed = part / (part.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight.double()
        complex_heads = torch.view_as_complex(normed.view(2, 12, heads, head_dim // 2, 2))
        expected = torch.view_as_real(complex_heads * turn).flatten(-2)
        torch.testing.assert_close(rotated, expected.float(), atol=8 * ROUNDING, rtol=0)


@pytest.mark.parametrize("guided", [False, True])
def test_guide_step_follows_the_guided_velocity(guided: bool) -> None:
    latents, velocity = drawn(1, 4, 2, 3, 3), drawn(1, 4, 2, 3, 3, seed=1)
    negative = drawn(1, 4, 2, 3, 3, seed=2) if guided else None
    stepped = KERNELS.guide_step(latents, velocity.bfloat16(), negative, 3.0, -0.25)
    along = velocity.bfloat16().double()
    if negative is not None:
        along = negative.double() + 3.0 * (along - negative.double())
    expected = latents.double() - 0.25 * along
    torch.testing.assert_close(stepped, expected.float(), atol=ROUNDING, rtol=0)


def test_residual_norm_has_the_gradients_of_its_formula() -> None:
    shapes = [(2, 4, 12), (2, 4, 12), (1, 1, 12), (1, 1, 12), (1, 1, 12), (2, 3, 12)]
    inputs = [drawn(*shape, seed=seed).requires_grad_() for seed, shape in enumerate(shapes)]
    x, y, gate, scale, shift, addend = inputs
    outputs = KERNELS.residual_norm(
        x, y, gate, scale=scale, shift=shift, eps=1e-6, addend=addend, addend_start=1
    )
    into = [drawn(2, 4, 12, seed=seed) for seed in (6, 7)]
    found = torch.autograd.grad(outputs, inputs, into)

    doubles = [tensor.detach().double().requires_grad_() for tensor in inputs]
    x, y, gate, scale, shift, addend = doubles
    summed = x + gate * y + F.pad(addend, (0, 0, 1, 0))
    normed = layer_norm(summed, 1e-6) * (1 + scale) + shift
    wanted = torch.autograd.grad((summed, normed), doubles, [part.double() for part in into])
    for gradient, expected in zip(found, wanted, strict=True):
        torch.testing.assert_close(gradient, expected.float(), atol=2e-5, rtol=1e-5)
