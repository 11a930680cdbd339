"""Pipelines and text encoders out of weight files, loaded strictly and tensor by tensor.

source = find_weights(load_preset("longvie2"))
pipeline = load_weights(source, dtype=torch.bfloat16, device="cuda")
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

from longvie_cli.models.longvie import LongVieTransformer3DModel
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.models.weights.components import (
    Components,
    config_errors,
    empty_modules,
    plan_component,
    plan_components,
    plan_transformer,
)
from longvie_cli.models.weights.names import CONTROL_NAMES
from longvie_cli.models.weights.plan import RandomPlan, fill_module, parameter_dtype
from longvie_cli.models.weights.sources import ReleasedFiles, components_of
from longvie_cli.progress import Progress

# Settings of the pipeline itself, saved in its model_index.json.
_OWN_SETTINGS = ("timestep_dtype", "image_condition", "track_grid")


def load_weights(
    source: ReleasedFiles | Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
    text_encoder: bool = True,
    progress: Progress | None = None,
) -> LongViePipeline:
    """Return the pipeline of published files, on the device, in evaluation mode.

    All files are checked before the first tensor is read. Host memory then holds what is loaded so
    far and one shard. (`LongViePipeline.from_pretrained` reads a folder in our layout too, but
    fills what is missing with random values.)

    Args:
        source: As `find_weights` returns it: published files, or a folder in our layout.
        dtype: Of transformer and text encoder, but for the parameters that `parameter_dtype`
            keeps in float32. VAE and image encoder are float32.
        device: Where the models are put.
        text_encoder: False leaves text encoder and tokenizer out.
        progress: Receives one unit a tensor, stage `weights`.

    Raises:
        MissingResourceError: a file is missing, damaged or of another model.
    """
    parts = [name for name in components_of(source) if text_encoder or name != "text_encoder"]
    components = plan_components(source, parts)
    if isinstance(source, ReleasedFiles) and source.control is None:
        _zero_branches(components.modules["transformer"], dtype, device)
    _fill(components, dtype, device, progress)
    return _pipeline(components.configs, components.modules, components.tokenizer)


def random_weights(
    configs: Path, *, dtype: torch.dtype, device: torch.device | str, seed: int = 0
) -> LongViePipeline:
    """Return a pipeline of the sizes that `configs` says, without text encoder, of random weights.

    To time a model whose weights are not here: each linear keeps the scale of what it reads.

    Args:
        configs: Folder of the configs of all models.
        dtype: As in `load_weights`.
        device: Where the weights are drawn and stay.
        seed: They are drawn from.

    Raises:
        MissingResourceError: a config is missing or damaged.
    """
    modules = empty_modules(
        configs, [name for name in components_of(configs) if name != "text_encoder"]
    )
    for name, module in modules.items():
        plan = RandomPlan(module, device, seed)
        fill_module(module, [plan], dtype=_stored_dtype(name, dtype), device=device)
    return _pipeline(configs, modules, None)


def _pipeline(
    configs: Path, modules: Mapping[str, nn.Module], tokenizer: PreTrainedTokenizerBase | None
) -> LongViePipeline:
    """Return the pipeline of filled models; its own settings are those of the configs."""
    with config_errors(configs):
        index = LongViePipeline.load_config(configs, local_files_only=True)
        scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(
            configs, subfolder="scheduler", local_files_only=True
        )
    models: dict[str, Any] = {"text_encoder": None} | dict(modules)
    return LongViePipeline(
        tokenizer=tokenizer,
        scheduler=scheduler,
        **{name: index[name] for name in _OWN_SETTINGS if name in index},
        **models,
    )


def load_text_encoder(
    source: ReleasedFiles | Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
) -> tuple[PreTrainedTokenizerBase, UMT5EncoderModel]:
    """Return tokenizer and text encoder alone; arguments and errors as in `load_weights`."""
    components = plan_components(source, ("text_encoder",))
    _fill(components, dtype, device, None)
    assert components.tokenizer is not None
    return components.tokenizer, components.modules["text_encoder"]


def load_released_transformer(
    transformer: LongVieTransformer3DModel,
    base: Mapping[str, Tensor],
    control: Mapping[str, Tensor],
    attention: Mapping[str, Tensor],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> None:
    """Fill a transformer from the tensors of base, control and self-attention files.

    Args:
        transformer: Filled in place.
        base: The whole Wan DiT, names of the original or of the diffusers repository. Its
            self-attention is checked but never copied.
        control: `control.safetensors`, with or without wrapper prefixes.
        attention: `dit.safetensors`, likewise: the self-attention of every block.
        dtype: As in `load_weights`.
        device: Where the parameters are put.

    Raises:
        MissingResourceError: a tensor is missing, unknown or of another shape.
    """
    plans = plan_transformer(transformer, base, control, attention)
    fill_module(transformer, plans, dtype=dtype, device=device)


def load_released_vae(vae: AutoencoderKLWan, released: Mapping[str, Tensor]) -> None:
    """Fill the VAE, in float32, from a file of the public Wan 2.1 checkpoint's names.

    Raises:
        MissingResourceError: a tensor is missing, unknown or of another shape.
    """
    plan = plan_component("vae", vae, released, is_original=True)
    fill_module(vae, [plan], dtype=torch.float32, device="cpu")


def _zero_branches(transformer: nn.Module, dtype: torch.dtype, device: torch.device | str) -> None:
    """Give the control branches of a base without any zeros: they then add nothing."""
    for name, parameter in list(transformer.named_parameters()):
        if CONTROL_NAMES.owns(name):
            path, _, leaf = name.rpartition(".")
            kept = parameter_dtype(transformer, name, dtype)
            zeros = torch.zeros(parameter.shape, dtype=kept, device=device)
            setattr(transformer.get_submodule(path), leaf, nn.Parameter(zeros))


def _fill(
    components: Components,
    dtype: torch.dtype,
    device: torch.device | str,
    progress: Progress | None,
) -> None:
    step = components.steps(progress, "weights")
    for name, module in components.modules.items():
        fill_module(
            module,
            components.plans[name],
            dtype=_stored_dtype(name, dtype),
            device=device,
            on_tensor=step,
        )
    if progress is not None:
        progress.finish("weights")


def _stored_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
    """Return the type of a model's weights where transformer and text encoder have `dtype`."""
    # All but these two take little time on a GPU, and the VAE's rounding would be handed from clip
    # to clip; for the CPU see `suit_cpu`.
    return dtype if name in ("transformer", "text_encoder") else torch.float32
