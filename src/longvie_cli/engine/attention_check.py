"""Whether an attention backend computes attention: compared once, at the start of a run.

A wrong backend gives frames that look almost right. FlashAttention 4 in float8, for one, clipped
what float8 cannot hold without a word (Dao-AILab/flash-attention pull request 2694), and a library
built for another GPU may return anything.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn

from longvie_cli.disk.documents import one_line

# 8-bit backends are a few percent off, 16-bit ones a few thousandths; what is clipped, cut off or
# out of place is off by tens of percent.
LIMIT = 0.1

# Queries, keys and values are scaled by these. The logits are the same in all, but some values are
# beyond the 448 of float8.
_SCALES = {
    "ordinary": (1.0, 1.0, 1.0),
    "large-value": (1.0, 1.0, 1000.0),
    "large-query": (500.0, 1 / 500.0, 1.0),
    "large-key": (1 / 500.0, 500.0, 1.0),
}
# Neither is a multiple of a tile of any backend.
_QUERIES, _KEYS = 200, 333


def attention_fault(
    backend: AttentionBackendName,
    *,
    heads: int,
    head_width: int,
    device: torch.device,
    dtype: torch.dtype,
) -> str | None:
    """Return what is wrong with a backend, as a sentence; None if nothing is.

    Arguments as in `attention_errors`.
    """
    try:
        errors = attention_errors(
            backend, heads=heads, head_width=head_width, device=device, dtype=dtype
        )
    # Whatever a library of others raises that was not built for this GPU, type or head.
    except Exception as error:
        return f"it does not run on {device} in {dtype} ({one_line(str(error), 200)})."
    # NaN counts as the worst.
    kind, worst = max(errors.items(), key=lambda item: (item[1] != item[1], item[1]))
    if worst <= LIMIT:
        return None
    return (
        f"on {kind} numbers it is {worst:.1%} off (PyTorch's attention in float32 is right, and "
        f"{LIMIT:.0%} is the limit)."
    )


@torch.no_grad()
def attention_errors(
    backend: AttentionBackendName,
    *,
    heads: int,
    head_width: int,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, float]:
    """Return the relative error of a backend on random inputs, by the kind of the inputs.

    It is the root mean square of the difference from PyTorch's attention in float32, over that of
    the result; NaN if the backend returns any. The inputs are the same every time.

    Args:
        backend: A backend of diffusers that is installed.
        heads: Of the model.
        head_width: Channels of a head of the model.
        device: Where to compute.
        dtype: Type of queries, keys and values.
    """
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, tokens, heads, head_width) for tokens in (_QUERIES, _KEYS, _KEYS)]
    drawn = [torch.randn(shape, generator=generator) for shape in shapes]
    errors = {}
    for kind, scales in _SCALES.items():
        query, key, value = (
            (tensor * scale).to(device, dtype) for tensor, scale in zip(drawn, scales, strict=True)
        )
        attended = dispatch_attention_fn(query, key, value, backend=backend)
        query, key, value = (t.float().transpose(1, 2) for t in (query, key, value))
        wanted = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        errors[kind] = ((attended.float() - wanted).norm() / wanted.norm()).item()
    return errors
