"""Counts what the glue of a block reads and writes, by PyTorch and by the fused kernels.

On the meta device, so at full size: 20,240 tokens of width 5120 in bfloat16, as in a clip of
LongVie 2 with its history. An operation reads what it is given and writes what it returns, once;
that the fused kernels do no more is held by `test_fused.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from longvie_cli.kernels.fused.triton_kernel_set import TritonKernelSet
from longvie_cli.kernels.kernel_set import KernelSet

TOKENS, WIDTH, WIDE, HEADS, EPS = 20_240, 5120, 13_824, 40, 1e-6


def _empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _steps() -> dict[str, Callable[[KernelSet], object]]:
    """Return the glue of a main block in its order, by what it does."""
    x, y, vector = _empty(1, TOKENS, WIDTH), _empty(1, TOKENS, WIDTH), _empty(WIDTH)
    modulation = _empty(1, 1, WIDTH, dtype=torch.float32)
    angles = _empty(1, TOKENS, 1, WIDTH // HEADS, dtype=torch.float32)
    qkv, wide = _empty(1, TOKENS, 3 * WIDTH), _empty(1, TOKENS, WIDE)
    modulated = {"scale": modulation, "shift": modulation, "eps": EPS}
    affine = {"scale": vector, "shift": vector, "eps": EPS, "one_plus": False}
    return {
        "norm, modulate": lambda kernels: kernels.residual_norm(x, **modulated),
        "q and k: norm, rotate": lambda kernels: kernels.query_key(
            qkv, vector, vector, (angles, angles), HEADS, EPS
        ),
        "gate, add, norm": lambda kernels: kernels.residual_norm(x, y, modulation, **affine),
        "add, norm, modulate": lambda kernels: kernels.residual_norm(x, y, **modulated),
        "GELU": lambda kernels: kernels.gelu(wide),
        "gate, add": lambda kernels: kernels.residual_norm(
            x, y, modulation, scale=None, shift=None, eps=EPS
        ),
    }


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.moved = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in func.name():
            leaves = tree_leaves((args, kwargs, result))
            self.moved += sum(leaf.nbytes for leaf in leaves if isinstance(leaf, Tensor))
        if func.name() == "longvie::query_key":
            self.moved -= args[0].nbytes // 3  # The values.
        return result


def _moved(step: Callable[[KernelSet], object], kernels: KernelSet) -> float:
    """Return what a step moves, in activations of the block's width."""

    def one_kernel(x: Tensor, *_: Any) -> Tensor:
        # On a GPU PyTorch's RMSNorm is one kernel; on the meta device it falls apart.
        counting.moved += 2 * x.nbytes
        return torch.empty_like(x)

    with torch.no_grad(), _Counting() as counting, mock.patch.object(F, "rms_norm", one_kernel):
        step(kernels)
    return counting.moved / (TOKENS * WIDTH * 2)


def traffic_picture() -> str:
    """Return both as bars: a character is an activation read or written."""
    lines, totals = [], [0.0, 0.0]
    for name, step in _steps().items():
        both = [_moved(step, kernels) for kernels in (KernelSet(), TritonKernelSet())]
        totals = [total + moved for total, moved in zip(totals, both, strict=True)]
        lines.append(_line(name, *(f"{'#' * round(moved)} {moved:.1f}" for moved in both)))
    gigabytes = [total * TOKENS * WIDTH * 2 / 1e9 for total in totals]
    sums = (f"{t:.0f} = {g:.1f} GB" for t, g in zip(totals, gigabytes, strict=True))
    return "\n".join((_line("", "PyTorch", "fused"), *lines, _line("a block", *sums)))


def _line(name: str, before: str, after: str) -> str:
    return f"{name:<22} {before:<37} {after}".rstrip()


if __name__ == "__main__":
    print(traffic_picture())
