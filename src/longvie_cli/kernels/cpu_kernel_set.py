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
    """As `KernelSet`; a float32 linear and its GELU are one operation where no gradient is."""

    def linear_gelu(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        usable = not (torch.is_grad_enabled() or torch.compiler.is_compiling())
        if usable and x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32:
            return _linear_gelu(x, weight, bias)
        return super().linear_gelu(x, weight, bias)


def _linear_gelu(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu", [], "tanh")


@cache
def cpu_kernel_set() -> KernelSet:
    """Return the fastest set that computes right on this machine's CPU."""
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(size, generator=generator) for size in ((1, 33, 24), (40, 24), (40,))
    )
    with torch.no_grad():
        expected = F.gelu(F.linear(x, weight, bias), approximate="tanh")
        try:
            found = _linear_gelu(x, weight, bias)
        except (AttributeError, RuntimeError, TypeError) as error:
            logger.debug("oneDNN's linear with GELU is not used: %s", error)
            return KernelSet()
    # 24 terms of float32, and a polynomial in place of tanh.
    if found.shape != expected.shape or (found - expected).abs().max() > 1e-5:
        logger.debug("oneDNN's linear with GELU is not used: it computes something else")
        return KernelSet()
    return CpuKernelSet()
