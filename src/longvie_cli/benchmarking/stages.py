"""Where the time of an evaluation goes: a clock on the layers of the transformer."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from longvie_cli.models.longvie import LongVieTransformer3DModel

# What a main block is made of, by the stage its time counts to. What is between them is glue:
# norms, modulation, gates, embeddings and the output layer.
_OF_A_BLOCK = {
    "self_attention": ("attn1",),
    "cross_attention": ("attn2",),
    "ffn": ("ffn",),
}
IN_THE_TRANSFORMER = (*_OF_A_BLOCK, "control_branches", "glue")
STAGES = ("encode", *IN_THE_TRANSFORMER, "decode", "io")


class Clock:
    """Measures seconds on the CPU or, by events, on a CUDA device.

    Args:
        device: Where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._device = device

    def now(self) -> Any:
        """Return an instant; on a GPU that at which the work queued so far is done."""
        if not self._on_gpu:
            return time.perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def finish(self) -> None:
        """Wait for the device."""
        if self._on_gpu:
            torch.cuda.synchronize(self._device)

    def seconds(self, began: Any, ended: Any) -> float:
        """Return the time between two instants; on a GPU both have to be over (`finish`)."""
        if not self._on_gpu:
            return float(ended - began)
        return float(began.elapsed_time(ended) / 1000)


@contextmanager
def timed_stages(
    transformer: LongVieTransformer3DModel, clock: Clock
) -> Iterator[Callable[[], dict[str, float]]]:
    """Time the layers of a transformer while the block lasts.

    Yields:
        What returns the seconds by stage of all evaluations so far, `IN_THE_TRANSFORMER`.
    """
    spans: dict[str, list[tuple[Any, Any]]] = defaultdict(list)
    begun: dict[nn.Module, Any] = {}

    def begin(module: nn.Module, *_: Any) -> None:
        begun[module] = clock.now()

    def end(stage: str) -> Callable[..., None]:
        def note(module: nn.Module, *_: Any) -> None:
            spans[stage].append((begun.pop(module), clock.now()))

        return note

    def read() -> dict[str, float]:
        clock.finish()
        seconds = {
            stage: sum(clock.seconds(*span) for span in spans[stage])
            for stage in (*_OF_A_BLOCK, "control_branches", "all")
        }
        seconds["glue"] = seconds.pop("all") - sum(seconds.values())
        return seconds

    hooks = []
    for stage, layers in _timed_layers(transformer):
        for layer in layers:
            hooks.append(layer.register_forward_pre_hook(begin))
            hooks.append(layer.register_forward_hook(end(stage)))
    try:
        yield read
    finally:
        for hook in hooks:
            hook.remove()


def _timed_layers(
    transformer: LongVieTransformer3DModel,
) -> Iterator[tuple[str, list[nn.Module]]]:
    yield "all", [transformer]
    for block in transformer.blocks:
        for stage, names in _OF_A_BLOCK.items():
            yield stage, [block.get_submodule(name) for name in names]
    branches = (
        *(transformer.dense_proj_in, transformer.sparse_proj_in),
        *(transformer.control_text_proj, transformer.control_time_proj),
        *(*transformer.dense_blocks, *transformer.sparse_blocks, *transformer.control_proj_out),
    )
    yield "control_branches", list(branches)
