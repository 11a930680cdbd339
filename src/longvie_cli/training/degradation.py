"""Training inputs made worse on purpose, so that the model holds out against its own mistakes.

The paper degrades the depth control in stage 1 (features and data) and the conditioning picture in
stage 2 (arXiv 2512.13604, sections on adaptive control and degradation-aware training; the numbers
of the release beside them are in `settings/training.py`). What is drawn depends on nothing but the
seed and the number of the sample: every process and every resumed run degrades a sample alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from longvie_cli.models.longvie import LongVieTransformer3DModel


@contextmanager
def scaled_dense_tokens(transformer: LongVieTransformer3DModel, factor: float) -> Iterator[None]:
    """Multiply the dense branch's tokens by `factor` before its input linear, while this runs.

    Feature-level degradation as the release does it. From outside, because inference must never
    draw such a factor; the release's second pipeline left it on there.
    """

    def scale(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
        (tokens,) = inputs
        return (tokens * factor,)

    handle = transformer.dense_proj_in.register_forward_pre_hook(scale)
    try:
        yield
    finally:
        handle.remove()
