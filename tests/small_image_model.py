"""A text-to-image pipeline with a depth ControlNet at the smallest sizes, random weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionControlNetPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer


def image_model_parts(folder: Path) -> dict[str, object]:
    """Return the components of a plain text-to-image pipeline; `folder` takes its vocabulary."""
    torch.manual_seed(0)
    words = ["<|startoftext|>", "<|endoftext|>", *(f"{c}</w>" for c in "abcdefghijklmnop"), "snow"]
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return {
        "vae": AutoencoderKL(
            block_out_channels=(8, 8),
            norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
        ),
        "text_encoder": CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(words),
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=77,
                bos_token_id=0,
                eos_token_id=1,
                pad_token_id=1,
            )
        ),
        "tokenizer": CLIPTokenizer(
            str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77
        ),
        "unet": UNet2DConditionModel(
            block_out_channels=(8, 16),
            norm_num_groups=4,
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=16,
            attention_head_dim=2,
        ),
        "scheduler": DDIMScheduler(clip_sample=False, steps_offset=1),
        "safety_checker": None,
        "feature_extractor": None,
    }


def save_depth_controlnet(folder: Path) -> Path:
    """Write a pipeline that is conditioned on a control picture; return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = image_model_parts(folder)
    controlnet = ControlNetModel.from_unet(
        parts["unet"], conditioning_embedding_out_channels=(8, 8)
    )
    # Its output layers start at zero; a control without effect would prove nothing.
    for parameter in controlnet.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    StableDiffusionControlNetPipeline(
        **parts, controlnet=controlnet, requires_safety_checker=False
    ).save_pretrained(folder)
    return folder
