"""Floating-point operations of a clip, from the configs of its models.

Counted as PyTorch's `FlopCounterMode` counts: a multiply-add is two operations, and only products
of matrices, convolutions and attention are counted. They are those of the reference path: what an
engine leaves out because it would be computed twice shows as a higher effective rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from longvie_cli.engine.memory import Models
from longvie_cli.settings.presets import Preset

# Whole videos that a clip with both controls encodes: the image condition, and each control with
# its first frame.
ENCODED_VIDEOS = 5


@dataclass(frozen=True)
class Tokens:
    """How many tokens an evaluation of the transformer reads.

    Args:
        clip: Of the clip.
        history: Of the history in front of them.
        text: Of the prompt, padding included.
        image: Of the image encoder; 0 for a model without.
    """

    clip: int
    history: int
    text: int
    image: int

    @property
    def context(self) -> int:
        """What cross-attention reads."""
        return self.text + self.image


def tokens_of(config: Mapping[str, Any], models: Models, preset: Preset, history: int) -> Tokens:
    """Return the tokens of a clip of a preset.

    Args:
        config: Of the transformer.
        models: Of the preset, on the meta device.
        preset: Length and size of a clip.
        history: Frames of the clip before that are read; 0 for a first clip.
    """
    vae, image = models.vae.config, models.image_encoder.config
    _, patch_rows, patch_columns = config["patch_size"]
    rows: int = preset.height // vae.scale_factor_spatial // patch_rows
    columns: int = preset.width // vae.scale_factor_spatial // patch_columns

    def of_frames(num_frames: int) -> int:
        if num_frames == 0:
            return 0
        latent_frames: int = (num_frames - 1) // vae.scale_factor_temporal + 1
        return latent_frames * rows * columns

    image_tokens = (image.image_size // image.patch_size) ** 2 + 1
    return Tokens(
        of_frames(preset.num_frames),
        of_frames(history),
        config["text_tokens"],
        0 if config["image_dim"] is None else image_tokens,
    )


def evaluation_flops(config: Mapping[str, Any], tokens: Tokens) -> dict[str, int]:
    """Return the operations of one evaluation with both controls, by stage.

    Args:
        config: Of a `LongVieTransformer3DModel`.
        tokens: What it reads.
    """
    width = config["num_attention_heads"] * config["attention_head_dim"]
    control_width = config["control_num_attention_heads"] * config["attention_head_dim"]
    all_tokens = tokens.clip + tokens.history
    main = _block_flops(width, config["ffn_dim"], all_tokens, tokens)
    control = _block_flops(control_width, config["control_ffn_dim"], tokens.clip, tokens)
    patch = prod(config["patch_size"])
    # Clip, history and both controls are made tokens by one embedding.
    embedded = all_tokens + 2 * tokens.clip
    around = 2 * embedded * config["in_channels"] * patch * width
    around += 2 * tokens.clip * width * config["out_channels"] * patch
    around += 2 * (config["freq_dim"] + width + 6 * width) * width
    around += 2 * tokens.text * (config["text_dim"] + width) * width
    if tokens.image:
        around += 2 * tokens.image * config["image_dim"] * (config["image_dim"] + width)
    layers = config["num_control_layers"]
    steered = sum(control.values()) * 2 * layers
    steered += 2 * 2 * tokens.clip * width * control_width
    steered += 2 * (tokens.context + 6) * width * control_width
    steered += 2 * layers * tokens.clip * control_width * width
    flops = {stage: config["num_layers"] * count for stage, count in main.items()}
    return flops | {"control_branches": steered, "glue": around}


def _block_flops(width: int, ffn_dim: int, num_tokens: int, read: Tokens) -> dict[str, int]:
    square = 2 * width * width
    return {
        "self_attention": 4 * num_tokens * square + 4 * num_tokens * num_tokens * width,
        "cross_attention": 2 * (num_tokens + read.context) * square
        + 4 * num_tokens * read.context * width,
        "ffn": 4 * num_tokens * width * ffn_dim,
    }


def vae_flops(models: Models, preset: Preset, history: int) -> dict[str, int]:
    """Return the operations of the VAE in a clip, `encode` and `decode`, counted on meta."""
    vae = models.vae

    def pixels(videos: int, frames: int) -> torch.Tensor:
        return torch.empty((videos, 3, frames, preset.height, preset.width), device="meta")

    frames = (preset.num_frames - 1) // vae.config.scale_factor_temporal + 1
    side = vae.config.scale_factor_spatial
    latents = torch.empty(
        (1, vae.config.z_dim, frames, preset.height // side, preset.width // side), device="meta"
    )
    with torch.no_grad():
        with FlopCounterMode(display=False) as encoding:
            vae.encode(pixels(1, preset.num_frames))
        with FlopCounterMode(display=False) as going_on:
            if history:
                vae.encode(pixels(1, history))
        with FlopCounterMode(display=False) as decoding:
            vae.decode(latents)
    encode = ENCODED_VIDEOS * encoding.get_total_flops() + going_on.get_total_flops()
    return {"encode": encode, "decode": decoding.get_total_flops()}


def clip_flops(models: Models, preset: Preset, *, evaluations: int, history: int) -> dict[str, int]:
    """Return the operations of a clip with both controls, by stage.

    Args:
        models: Of the preset, on the meta device.
        preset: Length and size of a clip.
        evaluations: How often the transformer runs.
        history: Frames of the clip before that are read.
    """
    config = models.transformer.config
    once = evaluation_flops(config, tokens_of(config, models, preset, history))
    flops = {stage: evaluations * count for stage, count in once.items()}
    return flops | vae_flops(models, preset, history)


def evaluation_bytes(config: Mapping[str, Any], tokens: Tokens, value_bytes: int) -> dict[str, int]:
    """Return the fewest bytes an evaluation moves, by stage: weights, what it reads and writes.

    Each is moved once, as if all between were fused; glue reads and writes the tokens once for
    each norm. What a stage is above this line of the roofline is what its engine wastes.

    Args:
        config: Of a `LongVieTransformer3DModel`.
        tokens: What it reads.
        value_bytes: Of one value, weight or token.
    """
    width = config["num_attention_heads"] * config["attention_head_dim"]
    control_width = config["control_num_attention_heads"] * config["attention_head_dim"]
    layers, control_layers = config["num_layers"], config["num_control_layers"]
    all_tokens = tokens.clip + tokens.history
    main = _block_values(width, config["ffn_dim"], all_tokens, tokens)
    control = _block_values(control_width, config["control_ffn_dim"], tokens.clip, tokens)
    values = {stage: layers * count for stage, count in main.items()}
    values["control_branches"] = control_layers * (
        2 * sum(control.values())
        + control_width * width
        + tokens.clip * (2 * control_width + width)
    )
    values["glue"] = 2 * (3 * layers + 1) * all_tokens * width
    return {stage: value_bytes * count for stage, count in values.items()}


def _block_values(width: int, ffn_dim: int, num_tokens: int, read: Tokens) -> dict[str, int]:
    in_and_out = 2 * num_tokens * width
    image_weights = 2 if read.image else 0
    return {
        "self_attention": 4 * width * width + in_and_out,
        "cross_attention": (4 + image_weights) * width * width + in_and_out + read.context * width,
        "ffn": 2 * width * ffn_dim + in_and_out,
    }
