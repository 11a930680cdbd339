"""Reads the golden vectors of the released code; every size comes from their metadata."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from safetensors import safe_open
from torch import Tensor

from longvie_cli.models.longvie import LongVieTransformer3DModel
from longvie_cli.models.weights.load import load_released_transformer, load_released_vae
from recorded import golden_file


class Golden(dict[str, Tensor]):
    """The tensors of one golden file; `config` is its metadata."""

    config: dict[str, Any]


def read_golden(name: str) -> Golden:
    """Return one golden file, float16 and float8 tensors as float32."""
    with safe_open(golden_file(name), "pt") as file:
        golden = Golden({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
        golden.config = json.loads(file.metadata()["config"])
    for key, tensor in golden.items():
        if tensor.is_floating_point() and tensor.dtype != torch.float64:
            golden[key] = tensor.float()
    return golden


def under(golden: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose name begins with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}


def numbered(golden: Mapping[str, Tensor], pattern: str) -> list[str]:
    """Return the distinct whole matches of `pattern` at the head of names, in numeric order."""
    found = {match.group() for key in golden if (match := re.match(pattern, key))}
    return sorted(found, key=lambda text: [int(digits) for digits in re.findall(r"\d+", text)])


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest absolute difference of two tensors of one shape."""
    assert ours.shape == theirs.shape, f"{tuple(ours.shape)} instead of {tuple(theirs.shape)}"
    return (ours.double() - theirs.double()).abs().max().item()


def golden_transformer() -> LongVieTransformer3DModel:
    """Return the golden DiT with its control branches, evaluation mode."""
    weights = read_golden("dit_weights")
    base, control = under(weights, "dit."), under(weights, "control.")
    sizes = weights.config["dit"]
    head_dim = sizes["dim"] // sizes["num_heads"]
    control_dim, _ = control["control_text_linear.weight"].shape
    image = sizes["has_image_input"]
    transformer = LongVieTransformer3DModel(
        patch_size=tuple(sizes["patch_size"]),
        num_attention_heads=sizes["num_heads"],
        attention_head_dim=head_dim,
        in_channels=sizes["in_dim"],
        out_channels=sizes["out_dim"],
        text_dim=sizes["text_dim"],
        freq_dim=sizes["freq_dim"],
        ffn_dim=sizes["ffn_dim"],
        num_layers=sizes["num_layers"],
        eps=sizes["eps"],
        image_dim=base["img_emb.proj.0.weight"].shape[0] if image else None,
        added_kv_proj_dim=sizes["dim"] if image else None,
        num_control_layers=weights.config["control_layers"],
        control_num_attention_heads=control_dim // head_dim,
        control_ffn_dim=control["control_blocks_dense.0.ffn.0.weight"].shape[0],
        text_tokens=512,
    )
    # The golden base is whole; the release takes its self-attention from a file of its own.
    attention = {name: value for name, value in base.items() if ".self_attn." in name}
    load_released_transformer(transformer, base, control, attention)
    return transformer.eval()


def golden_context(name: str) -> Tensor:
    """Return the text context `posi` or `nega`, padded with zero rows to 512."""
    context = read_golden("text_image_features")[f"context_{name}"]
    return torch.nn.functional.pad(context, (0, 0, 0, 512 - context.shape[1]))


def golden_image_embeds(index: int) -> Tensor:
    """Return image encoder output `index`."""
    return read_golden("text_image_features")[f"clip_feature_{index}"]


def golden_vae(latent_mean: Tensor, latent_std: Tensor) -> AutoencoderKLWan:
    """Return the golden VAE, evaluation mode."""
    weights = read_golden("vae_weights")
    sizes = weights.config["vae"]
    vae = AutoencoderKLWan(
        base_dim=sizes["dim"],
        z_dim=sizes["z_dim"],
        dim_mult=weights.config["dim_mult"],
        num_res_blocks=sizes["num_res_blocks"],
        temperal_downsample=weights.config["temporal_downsample"],
        scale_factor_spatial=2 ** (len(weights.config["dim_mult"]) - 1),
        scale_factor_temporal=2 ** sum(weights.config["temporal_downsample"]),
        latents_mean=latent_mean.flatten().tolist(),
        latents_std=latent_std.flatten().tolist(),
    )
    load_released_vae(vae, weights)
    return vae.eval()
