"""LoRA files of any common naming, applied to a LongVie transformer; nothing is dropped unsaid.

    pipeline.load_lora_weights("style.safetensors", adapter_name="style")
    pipeline.set_adapters(["style"], [0.8])

Understood are the names of diffusers and peft (`transformer.blocks.0.attn1.to_q.lora_A.weight`), of
the original Wan code (`diffusion_model.blocks.0.self_attn.q.lora_down.weight`) and of musubi
(`lora_unet_blocks_0_self_attn_q.lora_down.weight`), for main blocks and control branches alike.
Low-rank pairs go to peft through diffusers. What distillation files hold besides (`.diff` of norms
and of the output layer, `.diff_b` of biases, `.diff_m` of modulations), and low-rank pairs of
convolutions, is added to the weights themselves with the adapter's scale; the weights from before
are kept and come back exactly.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders import WanLoraLoaderMixin
from torch import Tensor, nn

from longvie_cli.models.lora_files import located, read_tensors, require_peft
from longvie_cli.models.lora_layers import LoraTensors, named_parameter, translate_lora

logger = logging.getLogger(__name__)


class LongVieLoraMixin(WanLoraLoaderMixin):
    """diffusers' LoRA methods for a pipeline with a LongVie transformer."""

    transformer: Any

    def load_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: str | Path | Mapping[str, Tensor],
        adapter_name: str | None = None,
        hotswap: bool = False,
        *,
        weight_name: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Load a LoRA and make it the active one, at scale 1; see `set_adapters` for several.

        What could not be applied is logged as a warning.

        Args:
            pretrained_model_name_or_path_or_dict: A safetensors file, a folder or a repository of
                the hub (with `weight_name`), or tensors by name.
            adapter_name: What `set_adapters` calls it.
            hotswap: Not supported.
            weight_name: The file in the folder or repository.
            kwargs: Of `huggingface_hub.hf_hub_download`.

        Raises:
            InputError: no LoRA, or one for a model of other sizes.
            MissingResourceError: peft is not installed.
        """
        if hotswap:
            raise ValueError("hotswap is not supported; delete the adapter and load the new one")
        source = pretrained_model_name_or_path_or_dict
        if isinstance(source, Mapping):
            name, tensors, metadata = "LoRA", dict(source), dict[str, Any]()
        else:
            path = located(source, weight_name, kwargs)
            name, (tensors, metadata) = path.name, read_tensors(path)
        for notice in self.add_lora(tensors, metadata, name=name, adapter_name=adapter_name):
            logger.warning("%s", notice)

    def add_lora(
        self,
        tensors: Mapping[str, Tensor],
        metadata: Mapping[str, Any],
        *,
        name: str,
        adapter_name: str | None = None,
    ) -> tuple[str, ...]:
        """Add an adapter, make it the active one, and return what the user should know.

        Args:
            tensors: By their names in the file.
            metadata: Of a peft adapter config: `lora_alpha`, `r` and so on; may be empty.
            name: What messages call the file.
            adapter_name: What `set_adapters` calls it; a free name where not given.

        Raises:
            InputError, MissingResourceError: see `load_lora_weights`.
        """
        require_peft()
        lora = translate_lora(tensors, metadata, self.transformer, name=name)
        state = self._lora_state
        adapter_name = adapter_name or f"lora_{len(state.adapters)}"
        if adapter_name in state.adapters:
            raise ValueError(f"there is an adapter {adapter_name!r} already")
        if lora.pairs:
            named: dict[str, Tensor] = {}
            for layer, (down, up) in lora.pairs.items():
                named[f"transformer.{layer}.lora_A.weight"] = down
                named[f"transformer.{layer}.lora_B.weight"] = up
            with warnings.catch_warnings():
                # That a second adapter is meant to be added needs no warning.
                warnings.filterwarnings("ignore", "Already found a `peft_config`")
                super().load_lora_weights(named, adapter_name=adapter_name)
        state.adapters[adapter_name] = lora
        self.set_adapters([adapter_name], [1.0])
        return lora.notices

    def set_adapters(
        self,
        adapter_names: list[str] | str,
        adapter_weights: float | list[float] | None = None,
    ) -> None:
        """Make these adapters the active ones, at these scales; their effects add up.

        Args:
            adapter_names: One name or several.
            adapter_weights: One scale for all or one each; 1 where None.
        """
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        if isinstance(adapter_weights, list):
            scales = adapter_weights
        else:
            scales = [1.0 if adapter_weights is None else adapter_weights] * len(names)
        state = self._lora_state
        if len(scales) != len(names) or any(name not in state.adapters for name in names):
            raise ValueError(f"adapters {names} with weights {scales}; loaded: {[*state.adapters]}")
        low_rank = [
            (name, float(scale))
            for name, scale in zip(names, scales, strict=True)
            if state.adapters[name].pairs
        ]
        if low_rank:
            super().enable_lora()
            super().set_adapters([name for name, _ in low_rank], [scale for _, scale in low_rank])
        elif any(lora.pairs for lora in state.adapters.values()):
            super().disable_lora()
        state.scales = dict(zip(names, map(float, scales), strict=True))
        state.merge(self.transformer)

    def delete_adapters(self, adapter_names: list[str] | str) -> None:
        """Remove adapters; what they changed is as it was before them."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        state = self._lora_state
        if low_rank := [name for name in names if state.adapters[name].pairs]:
            super().delete_adapters(low_rank)
        for name in names:
            state.scales.pop(name, None)
            state.merge(self.transformer)
            del state.adapters[name]

    def unload_lora_weights(self) -> None:
        """Remove all adapters; the transformer is as it was loaded."""
        super().unload_lora_weights()
        state = self._lora_state
        state.scales = {}
        state.merge(self.transformer)
        state.adapters.clear()

    def disable_lora(self) -> None:
        """Switch all adapters off, keeping them loaded."""
        state = self._lora_state
        if any(lora.pairs for lora in state.adapters.values()):
            super().disable_lora()
        state.merge(self.transformer, active=False)

    def enable_lora(self) -> None:
        """Switch the active adapters on again."""
        state = self._lora_state
        if any(lora.pairs for lora in state.adapters.values()):
            super().enable_lora()
        state.merge(self.transformer)

    @property
    def adapters_revision(self) -> int:
        """A number that is another one after every change of what adapters do to the model."""
        return self._lora_state.revision

    @property
    def _lora_state(self) -> _LoraState:
        # Kept out of __init__, where every attribute of a diffusers pipeline is a component.
        if "_loras" not in self.__dict__:
            self.__dict__["_loras"] = _LoraState()
        state: _LoraState = self.__dict__["_loras"]
        return state


class _LoraState:
    """The adapters of a pipeline, and what their deltas have changed."""

    def __init__(self) -> None:
        self.adapters: dict[str, LoraTensors] = {}
        self.scales: dict[str, float] = {}
        self.revision = 0
        self._originals: dict[str, Tensor] = {}

    @torch.no_grad()
    def merge(self, transformer: nn.Module, *, active: bool = True) -> None:
        """Make every parameter that a delta changes its original plus the active deltas."""
        self.revision += 1
        scales = self.scales if active else {}
        wanted = {name for adapter in scales for name in self.adapters[adapter].deltas}
        for name in sorted(wanted | set(self._originals)):
            parameter = named_parameter(transformer, name)
            if name not in self._originals:
                self._originals[name] = parameter.detach().clone()
            value = self._originals[name].to(parameter.device, torch.float32, copy=True)
            for adapter, scale in scales.items():
                delta = self.adapters[adapter].deltas.get(name)
                if delta is not None and scale != 0:
                    value += scale * delta.to(parameter.device, torch.float32)
            if name in wanted:
                parameter.copy_(value)
            else:
                parameter.copy_(self._originals.pop(name))


def add_loras(pipeline: LongVieLoraMixin, loras: Sequence[tuple[Path, float]]) -> list[str]:
    """Add LoRA files to a pipeline, all active at their scales; return what the user should know.

    Args:
        pipeline: What they are added to.
        loras: File and scale of each.

    Raises:
        InputError, MissingResourceError: see `LongVieLoraMixin.load_lora_weights`.
    """
    names = [f"lora_{index}" for index in range(len(loras))]
    notices: list[str] = []
    for adapter_name, (path, _) in zip(names, loras, strict=True):
        tensors, metadata = read_tensors(path)
        notices += pipeline.add_lora(tensors, metadata, name=path.name, adapter_name=adapter_name)
    if loras:
        pipeline.set_adapters(names, [scale for _, scale in loras])
    return notices
