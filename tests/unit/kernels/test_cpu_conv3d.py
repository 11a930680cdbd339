"""The 3-D convolution of the CPU: PyTorch's, by its private operator only where that is right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from longvie_cli.kernels import cpu_conv3d as module
from longvie_cli.kernels.cpu_conv3d import conv3d


@pytest.fixture(autouse=True)
def tried_anew() -> Iterator[None]:
    module._has_onednn.cache_clear()
    yield
    module._has_onednn.cache_clear()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize(("stride", "padding"), [((1, 1, 1), (0, 1, 1)), ((2, 1, 1), (0, 0, 0))])
@pytest.mark.parametrize("has_bias", [True, False])
def test_it_is_that_of_pytorch(
    layout: torch.memory_format,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    has_bias: bool,
) -> None:
    video = drawn(1, 12, 7, 9, 11).contiguous(memory_format=layout)
    weight = (drawn(5, 12, 3, 3, 3, seed=1) / 18).contiguous(memory_format=layout)
    bias = drawn(5, seed=2) if has_bias else None
    with torch.no_grad():
        found = conv3d(video, weight, bias, stride, padding)
    assert (found - F.conv3d(video, weight, bias, stride, padding)).abs().max() <= 5e-6


def test_a_gradient_is_taken_through_it() -> None:
    video, weight = drawn(1, 2, 4, 5, 5), drawn(3, 2, 3, 3, 3, seed=1).requires_grad_()
    conv3d(video, weight, None).sum().backward()
    assert weight.grad is not None and weight.grad.abs().max() > 0


def _missing(*_: Any) -> Tensor:
    raise AttributeError("no such operator")


def _other(*arguments: Any) -> Tensor:
    raise TypeError("other arguments")


def _wrong(video: Tensor, weight: Tensor, bias: Any, padding: Any, stride: Any, *_: Any) -> Tensor:
    return F.conv3d(video, weight, bias, stride, padding) * 1.01


@pytest.mark.parametrize("operator", [_missing, _other, _wrong])
def test_an_operator_that_is_not_what_it_was_is_left_alone(
    operator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "mkldnn_convolution", operator)
    video, weight = drawn(1, 2, 4, 5, 5), drawn(3, 2, 3, 3, 3, seed=1)
    with torch.no_grad():
        assert torch.equal(conv3d(video, weight, None), F.conv3d(video, weight))
