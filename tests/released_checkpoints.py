"""Writes the published formats of LongVie 2 at toy sizes: names and file layout are exact.

    pipeline = random_pipeline()
    configs = write_configs(pipeline, folder / "configs")
    write_original_base(pipeline, folder / "Wan2.1-I2V-14B-480P")   # or write_diffusers_base
    write_longvie2(pipeline, folder / "LongVie2")

What is loaded from them is `pipeline`: the base holds other self-attention than the pipeline has,
which only `dit.safetensors` mends.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.models.weights.names import (
    CONTROL_NAMES,
    DIT_NAMES,
    IMAGE_ENCODER_NAMES,
    TEXT_ENCODER_NAMES,
    vae_names,
)
from small_models import small_pipeline, small_transformer

TEXT_FILE = "models_t5_umt5-xxl-enc-bf16.pth"
IMAGE_FILE = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
VAE_FILE = "Wan2.1_VAE.pth"


def random_pipeline(**transformer_sizes: object) -> LongViePipeline:
    """Return the small pipeline with random values in every parameter, norms and biases too.

    Args:
        transformer_sizes: Arguments of `LongVieTransformer3DModel` other than the small ones.
    """
    pipeline = small_pipeline()
    if transformer_sizes:
        pipeline.register_modules(transformer=small_transformer(**transformer_sizes))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name in ("transformer", "text_encoder", "image_encoder", "vae"):
            for parameter in getattr(pipeline, name).parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return pipeline


def write_configs(pipeline: LongViePipeline, folder: Path) -> Path:
    """Write the component configs in diffusers layout, no weights, and return the folder."""
    pipeline.save_config(folder)
    pipeline.transformer.save_config(folder / "transformer")
    pipeline.vae.save_config(folder / "vae")
    pipeline.scheduler.save_pretrained(folder / "scheduler")
    for name in ("text_encoder", "image_encoder"):
        getattr(pipeline, name).config.save_pretrained(folder / name)
    return folder


def base_tensors(pipeline: LongViePipeline) -> dict[str, Tensor]:
    """Return the base transformer, our names, its self-attention other than the pipeline's."""
    return {
        name: value + 1 if ".attn1." in name else value
        for name, value in pipeline.transformer.state_dict().items()
        if DIT_NAMES.owns(name)
    }


def write_shards(
    folder: Path, stem: str, tensors: Mapping[str, Tensor], num_shards: int, *, index: bool = True
) -> list[Path]:
    """Write the tensors as one file, or as numbered shards with or without their index."""
    folder.mkdir(parents=True, exist_ok=True)
    contiguous = {name: value.contiguous().clone() for name, value in tensors.items()}
    if num_shards == 1:
        save_file(contiguous, folder / f"{stem}.safetensors", {"format": "pt"})
        return [folder / f"{stem}.safetensors"]
    # The next tensor goes to the smallest shard, so that all grow to about one size.
    shards: list[dict[str, Tensor]] = [{} for _ in range(num_shards)]
    for name, value in sorted(contiguous.items(), key=lambda item: -item[1].nbytes):
        smallest = min(shards, key=lambda shard: sum(held.nbytes for held in shard.values()))
        smallest[name] = value
    where = {}
    for number, shard in enumerate(shards):
        file = f"{stem}-{number + 1:05d}-of-{num_shards:05d}.safetensors"
        save_file(shard, folder / file, {"format": "pt"})
        where |= dict.fromkeys(shard, file)
    if index:
        content = {"metadata": {"total_size": 0}, "weight_map": where}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(content))
    return sorted(folder / file for file in set(where.values()))


def write_diffusers_base(pipeline: LongViePipeline, folder: Path, *, num_shards: int = 3) -> Path:
    """Write `Wan-AI/Wan2.1-I2V-14B-480P-Diffusers` and return its folder.

    As on the hub: a transformer with unused `norm_added_q`, a text encoder that holds its token
    embedding twice, an image encoder with the prefix of older versions, a scheduler of no use.
    """
    transformer = base_tensors(pipeline)
    for name in list(transformer):
        if name.endswith(".norm_added_k.weight"):
            unused = name.replace("norm_added_k", "norm_added_q")
            transformer[unused] = torch.zeros_like(transformer[name])
    text = {name: value.clone() for name, value in pipeline.text_encoder.state_dict().items()}
    assert "encoder.embed_tokens.weight" in text
    image = {f"vision_model.{n}": v for n, v in pipeline.image_encoder.state_dict().items()}
    write_shards(folder / "transformer", "diffusion_pytorch_model", transformer, num_shards)
    write_shards(folder / "vae", "diffusion_pytorch_model", pipeline.vae.state_dict(), 1)
    write_shards(folder / "text_encoder", "model", text, min(2, num_shards))
    write_shards(folder / "image_encoder", "model", image, 1)
    pipeline.tokenizer.save_pretrained(folder / "tokenizer")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text('{"_class_name": "UniPC"}')
    (folder / "image_processor").mkdir()
    (folder / "model_index.json").write_text('{"_class_name": "WanImageToVideoPipeline"}')
    return folder


def write_original_base(
    pipeline: LongViePipeline, folder: Path, *, num_shards: int = 3, index: bool = True
) -> Path:
    """Write `Wan-AI/Wan2.1-I2V-14B-480P` and return its folder.

    The image encoder's file is a whole CLIP, of which only the picture half is used.
    """
    vae = pipeline.vae
    names = vae_names(len(vae.config.dim_mult), vae.config.num_res_blocks)
    text = dict(pipeline.text_encoder.state_dict())
    del text["encoder.embed_tokens.weight"]
    image = IMAGE_ENCODER_NAMES.release(pipeline.image_encoder.state_dict()) | {
        "visual.head": torch.zeros(16, 4),
        "textual.token_embedding.weight": torch.zeros(8, 4),
        "log_scale": torch.zeros(()),
    }
    write_shards(
        folder,
        "diffusion_pytorch_model",
        DIT_NAMES.release(base_tensors(pipeline)),
        num_shards,
        index=index,
    )
    torch.save(TEXT_ENCODER_NAMES.release(text), folder / TEXT_FILE)
    torch.save(names.release(vae.state_dict()), folder / VAE_FILE)
    torch.save(image, folder / IMAGE_FILE)
    pipeline.tokenizer.save_pretrained(folder / "google" / "umt5-xxl")
    (folder / "config.json").write_text("{}")
    return folder


def longvie2_tensors(pipeline: LongViePipeline) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return what `control.safetensors` and `dit.safetensors` hold, without prefixes."""
    own = pipeline.transformer.state_dict()
    control = {name: value for name, value in own.items() if CONTROL_NAMES.owns(name)}
    attention = {n: value for n, value in own.items() if n.startswith("blocks.") and "attn1" in n}
    return CONTROL_NAMES.release(control), DIT_NAMES.release(attention)


def write_longvie2(
    pipeline: LongViePipeline,
    folder: Path,
    *,
    control_prefix: str = "pipe.dual_controller.",
    attention_prefix: str = "",
) -> Path:
    """Write `Vchitect/LongVie2`, names with the prefixes given, and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    control, attention = longvie2_tensors(pipeline)
    for file, prefix, tensors in (
        ("control.safetensors", control_prefix, control),
        ("dit.safetensors", attention_prefix, attention),
    ):
        named = {f"{prefix}{name}": value.contiguous() for name, value in tensors.items()}
        save_file(named, folder / file, {"format": "pt"})
    return folder
