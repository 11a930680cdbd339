"""The CPU's set: equal to the plain one, and not used where its private operator is another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from longvie_cli.kernels import cpu_kernel_set as module
from longvie_cli.kernels.cpu_kernel_set import CpuKernelSet, cpu_kernel_set
from longvie_cli.kernels.kernel_set import KernelSet


@pytest.fixture(autouse=True)
def tried_anew() -> Iterator[None]:
    cpu_kernel_set.cache_clear()
    yield
    cpu_kernel_set.cache_clear()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN"
)


@needs_onednn
@pytest.mark.parametrize("rows", [1, 7, 924])
@pytest.mark.parametrize("has_bias", [True, False])
def test_linear_and_gelu_are_those_of_pytorch(rows: int, has_bias: bool) -> None:
    kernels = cpu_kernel_set()
    assert type(kernels) is CpuKernelSet
    x, weight = drawn(2, rows, 48), drawn(80, 48, seed=1) / 7
    bias = drawn(80, seed=2) if has_bias else None
    with torch.no_grad():
        found = kernels.linear_gelu(x, weight, bias)
        wanted = F.gelu(F.linear(x, weight, bias), approximate="tanh")
        assert torch.equal(KernelSet().linear_gelu(x, weight, bias), wanted)
    assert (found - wanted).abs().max() <= 5e-6
    # A changed weight counts at once: nothing of it is kept.
    weight.mul_(2)
    with torch.no_grad():
        found = kernels.linear_gelu(x, weight, bias)
        wanted = F.gelu(F.linear(x, weight, bias), approximate="tanh")
    assert (found - wanted).abs().max() <= 1e-5


@needs_onednn
def test_bfloat16_is_rounded_once() -> None:
    kernels = cpu_kernel_set()
    assert isinstance(kernels, CpuKernelSet)
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor has no bfloat16")
    assert torch.bfloat16 in kernels.types
    x, weight = drawn(2, 37, 48).bfloat16(), (drawn(80, 48, seed=1) / 7).bfloat16()
    bias = drawn(80, seed=2).bfloat16()
    with torch.no_grad():
        found = kernels.linear_gelu(x, weight, bias)
        wanted = F.gelu(F.linear(x.float(), weight.float(), bias.float()), approximate="tanh")
        plain = KernelSet().linear_gelu(x, weight, bias)
    assert found.dtype == torch.bfloat16
    errors = [(each.float() - wanted).pow(2).mean().sqrt().item() for each in (found, plain)]
    assert errors[0] <= errors[1]


def test_gradients_and_other_types_take_the_plain_way() -> None:
    kernels, plain = CpuKernelSet(), KernelSet()
    x, weight, bias = drawn(1, 5, 12), drawn(8, 12, seed=1), drawn(8, seed=2)
    weight.requires_grad_()
    found, wanted = (
        torch.autograd.grad(each.linear_gelu(x, weight, bias).sum(), weight)[0]
        for each in (kernels, plain)
    )
    assert torch.equal(found, wanted)
    halves = [tensor.detach().bfloat16() for tensor in (x, weight, bias)]
    with torch.no_grad():
        assert torch.equal(kernels.linear_gelu(*halves), plain.linear_gelu(*halves))


def wrong(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x, weight, bias)


def missing(*_: Any) -> Tensor:
    return torch.ops.mkldnn._an_operator_that_no_version_has(1)


def changed(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias)


@pytest.mark.parametrize("operator", [wrong, missing, changed])
def test_an_operator_that_is_another_is_left(
    monkeypatch: pytest.MonkeyPatch, operator: Any
) -> None:
    monkeypatch.setattr(module, "_linear_gelu", operator)
    assert type(cpu_kernel_set()) is KernelSet
