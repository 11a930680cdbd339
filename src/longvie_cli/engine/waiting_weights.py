"""Weights that are used once a clip and wait in host memory in between.

In every block of the transformer those that make keys and values of prompt and image, a quarter of
LongVie 2: what they make is kept for the clip (`models.clip_context`). And the layers of the image
encoder, which reads one picture a clip.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from longvie_cli.models.longvie import LongVieTransformer3DModel
from longvie_cli.models.pipeline import LongViePipeline

# Of a cross-attention layer; the two norms beside them are small.
_KEYS_AND_VALUES = ("to_k", "to_v", "add_k_proj", "add_v_proj")


def used_once(
    transformer: LongVieTransformer3DModel, image_encoder: nn.Module
) -> Iterator[nn.Module]:
    """Yield the layers that compute once for a clip and its prompts."""
    for blocks in (transformer.blocks, transformer.dense_blocks, transformer.sparse_blocks):
        for block in blocks:
            for name in _KEYS_AND_VALUES:
                if (layer := getattr(block.attn2, name, None)) is not None:
                    yield layer
    for module in image_encoder.modules():
        if isinstance(module, nn.ModuleList):
            yield from module


def keep_waiting(pipeline: LongViePipeline, device: torch.device) -> None:
    """Move a pipeline to a device, all but the layers that are `used_once`.

    Each of these comes when it is called and goes when it has computed; frames are the same.

    Args:
        pipeline: In host memory, quantized already if at all.
        device: Where it computes.
    """
    waiting = list(used_once(pipeline.transformer, pipeline.image_encoder))
    left_out = {id(tensor) for layer in waiting for tensor in _tensors(layer)}
    for model in pipeline.components.values():
        for tensor in _tensors(model) if isinstance(model, nn.Module) else ():
            if id(tensor) not in left_out:
                tensor.data = tensor.data.to(device)
    for layer in waiting:
        WaitingWeights(layer, device)


class WaitingWeights:
    """The hooks of one module, and its weights in host memory until it is called.

    Args:
        module: Its weights wait in host memory, pinned where the device is a GPU.
        device: Where it computes.
        pin: False leaves them unpinned, for a few calls: PyTorch keeps what it pinned, rounded up
            to powers of two, until the process ends.
    """

    def __init__(self, module: nn.Module, device: torch.device, *, pin: bool = True) -> None:
        self._device = device
        self._tensors = _tensors(module)
        if pin and device.type == "cuda":
            for tensor in self._tensors:
                tensor.data = tensor.data.pin_memory()
        self._in_host_memory = [tensor.data for tensor in self._tensors]
        self._hooks = (
            module.register_forward_pre_hook(self._bring, prepend=True),
            module.register_forward_hook(self._take_away, always_call=True),
        )

    def end(self) -> None:
        """Leave the module as it was, its weights in host memory."""
        for hook in self._hooks:
            hook.remove()

    def _bring(self, *_: Any) -> None:
        for tensor, waiting in zip(self._tensors, self._in_host_memory, strict=True):
            tensor.data = waiting.to(self._device, non_blocking=True, copy=True)

    def _take_away(self, *_: Any) -> None:
        for tensor, waiting in zip(self._tensors, self._in_host_memory, strict=True):
            tensor.data = waiting


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
