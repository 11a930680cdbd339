"""3-D convolution of one video, by oneDNN on the CPU.

PyTorch gives a small convolution of a single video to `slow_conv3d`, which takes three times as
long as oneDNN with channels last. `torch.mkldnn_convolution` is oneDNN's without that choice; it is
in no documentation, so it is tried once against the public function, and left where it is missing
or computes something else.
"""

from __future__ import annotations

import logging
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

logger = logging.getLogger(__name__)


def conv3d(
    video: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...] = (1, 1, 1),
    padding: tuple[int, ...] = (0, 0, 0),
) -> Tensor:
    """Return `torch.nn.functional.conv3d` of these; no gradient is computed through it on the CPU.

    Args:
        video: [B, C, T, H, W].
        weight: [O, C, k_t, k_h, k_w].
        bias: [O] or None.
        stride: Of frames, rows and columns.
        padding: Zeros on both sides, likewise.
    """
    if video.device.type == "cpu" and not torch.is_grad_enabled() and _has_onednn(video.dtype):
        return _onednn(video, weight, bias, stride, padding)
    return F.conv3d(video, weight, bias, stride, padding)


def _onednn(
    video: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
) -> Tensor:
    return torch.mkldnn_convolution(video, weight, bias, padding, stride, (1, 1, 1), 1)


@cache
def _has_onednn(dtype: torch.dtype) -> bool:
    generator = torch.Generator().manual_seed(0)
    video, weight, bias = (
        torch.randn(size, generator=generator).to(dtype)
        for size in ((1, 8, 5, 9, 7), (6, 8, 3, 3, 3), (6,))
    )
    video = video.contiguous(memory_format=torch.channels_last_3d)
    stride, padding = (2, 1, 1), (0, 1, 1)
    with torch.no_grad():
        expected = F.conv3d(video.float(), weight.float(), bias.float(), stride, padding)
        try:
            found = _onednn(video, weight, bias, stride, padding).float()
        except (AttributeError, RuntimeError, TypeError) as error:
            logger.debug("oneDNN's 3-D convolution of %s is not used: %s", dtype, error)
            return False
    # 216 terms: float32, or a type that keeps eight bits.
    allowed = 1e-4 if dtype == torch.float32 else 0.5
    if found.shape != expected.shape or (found - expected).abs().max() > allowed:
        logger.debug("oneDNN's 3-D convolution of %s is not used: it computes otherwise", dtype)
        return False
    return True
