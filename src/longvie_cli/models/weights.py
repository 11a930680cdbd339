"""Loads released LongVie and Wan weights into our modules; nothing missing, nothing left over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from diffusers import AutoencoderKLWan
from torch import Tensor, nn

from longvie_cli.errors import MissingResourceError
from longvie_cli.models.longvie import LongVieTransformer3DModel
from longvie_cli.models.weight_names import (
    CONTROL_NAMES,
    DIT_NAMES,
    NameMap,
    WeightNameError,
    vae_names,
)


def load_released_transformer(
    transformer: LongVieTransformer3DModel,
    base: Mapping[str, Tensor],
    control: Mapping[str, Tensor],
    *,
    attention: Mapping[str, Tensor] | None = None,
) -> None:
    """Fill the transformer from the released base, control and self-attention overlay files.

    Args:
        transformer: Filled in place; values are cast to the types of its parameters.
        base: The whole Wan DiT, released names.
        control: `control.safetensors`, with or without wrapper prefixes.
        attention: `dit.safetensors`: the self-attention of every block, laid over `base`.

    Raises:
        MissingResourceError: a tensor is missing, unknown or of another shape.
    """
    own = transformer.state_dict()
    _load(transformer, base, DIT_NAMES, _dit(own), "base DiT weights")
    _load(transformer, control, CONTROL_NAMES, set(own) - _dit(own), "control weights")
    if attention is not None:
        overlay = {name for name in _dit(own) if ".attn1." in name}
        _load(transformer, attention, DIT_NAMES, overlay, "self-attention weights")


def load_released_vae(vae: AutoencoderKLWan, released: Mapping[str, Tensor]) -> None:
    """Fill the VAE from a file of the public Wan 2.1 checkpoint's names.

    Raises:
        MissingResourceError: a tensor is missing, unknown or of another shape.
    """
    names = vae_names(len(vae.config.dim_mult), vae.config.num_res_blocks)
    _load(vae, released, names, set(vae.state_dict()), "VAE weights")


def _dit(names: Iterable[str]) -> set[str]:
    return {name for name in names if DIT_NAMES.owns(name)}


def _load(
    module: nn.Module,
    released: Mapping[str, Tensor],
    names: NameMap,
    expected: set[str],
    what: str,
) -> None:
    """Copy `released` into exactly the parameters `expected` of the module."""
    translated: dict[str, Tensor] = {}
    unknown: list[str] = []
    for name, tensor in released.items():
        try:
            ours = names.to_ours(name)
        except WeightNameError:
            unknown.append(name)
            continue
        if ours in expected:
            translated[ours] = tensor
        else:
            unknown.append(name)
    missing = [names.to_released(name) for name in sorted(expected - translated.keys())]
    own = module.state_dict()
    reshaped = [
        f"{names.to_released(name)} {list(tensor.shape)} instead of {list(own[name].shape)}"
        for name, tensor in translated.items()
        if tensor.shape != own[name].shape
    ]
    problems = [
        f"{len(found)} {kind} ({', '.join(found[:3])}{', ...' if len(found) > 3 else ''})"
        for kind, found in (("missing", missing), ("unknown", unknown), ("misshapen", reshaped))
        if found
    ]
    if problems:
        raise MissingResourceError(
            f"{what}: {'; '.join(problems)}, of {len(expected)} tensors expected.",
            hint="These files belong to another model; fetch the released ones again.",
        )
    module.load_state_dict(translated, strict=False)
