"""The kernel set of the CPU: a linear layer and its GELU in one pass of oneDNN.

Alone, PyTorch's tanh GELU takes half as long as the linear layer before it; oneDNN bends each tile
of the product while it is in the cache. PyTorch reaches that by an operator of its compiler alone,
`mkldnn::_linear_pointwise`, which is private: it is tried once, against the public operators, and
left where it is missing, wants other arguments or computes something else.
"""

from __future__ import annotations

import logging
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from longvie_cli.kernels.kernel_set import KernelSet

logger = logging.getLogger(__name__)


class CpuKernelSet(KernelSet):
    """As `KernelSet`; a linear and its GELU are one operation where no gradient is.

    Args:
        types: Of input and weight, for which that operation was seen to be right.
    """

    def __init__(self, types: frozenset[torch.dtype] = frozenset({torch.float32})) -> None:
        self.types = types

    def linear_gelu(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        usable = not (torch.is_grad_enabled() or torch.compiler.is_compiling())
        if usable and x.device.type == "cpu" and x.dtype == weight.dtype and x.dtype in self.types:
            return _linear_gelu(x, weight, bias)
        return super().linear_gelu(x, weight, bias)


def _linear_gelu(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu", [], "tanh")


@cache
def cpu_kernel_set() -> KernelSet:
    """Return the fastest set that computes right on this machine's CPU."""
    types = frozenset(dtype for dtype in (torch.float32, torch.bfloat16) if _is_right(dtype))
    return CpuKernelSet(types) if types else KernelSet()


def _is_right(dtype: torch.dtype) -> bool:
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(size, generator=generator).to(dtype) for size in ((1, 33, 24), (40, 24), (40,))
    )
    with torch.no_grad():
        product = F.linear(x.float(), weight.float(), bias.float())
        expected = F.gelu(product, approximate="tanh")
        try:
            found = _linear_gelu(x, weight, bias).float()
        except (AttributeError, RuntimeError, TypeError) as error:
            logger.debug("oneDNN's linear with GELU in %s is not used: %s", dtype, error)
            return False
    # 24 terms of float32, and a polynomial in place of tanh; then one rounding to the type.
    allowed = 1e-5 + expected.abs() * torch.finfo(dtype).eps
    if found.shape != expected.shape or ((found - expected).abs() > allowed).any():
        logger.debug("oneDNN's linear with GELU in %s is not used: it computes otherwise", dtype)
        return False
    return True
