"""Writes the embedded preset: diffusers layout in bfloat16, with the record of its training."""

from __future__ import annotations

import json
import platform
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from longvie_cli.models.block_autoencoder import CODE
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.training.tiny.adopt import RECORD_NAME, earlier_record
from longvie_cli.training.tiny.autoencoder import CODE_NAME, build_autoencoder, load_autoencoder
from longvie_cli.training.tiny.config import TinyTraining
from longvie_cli.training.tiny.depth import (
    IMAGE_MEAN,
    IMAGE_STD,
    PATCH,
    START_NAME,
    build_depth_estimator,
)
from longvie_cli.training.tiny.prompts import vocabulary
from longvie_cli.training.tiny.sketches import build_sketcher
from longvie_cli.training.tiny.stage import load_stage, stage_checkpoint, stage_losses
from longvie_cli.training.tiny.text import build_text_encoder, build_tokenizer
from longvie_cli.training.tiny.transformer import build_image_encoder, build_transformer


def export_preset(config: TinyTraining, folder: Path, out: Path) -> None:
    """Write the preset folder from the averaged weights of every stage.

    Stages that have not run leave random weights, which `TRAINING.json` says by their absence.
    """
    torch.manual_seed(config.seed)
    transformer, image_encoder = build_transformer(config), build_image_encoder(config)
    text_encoder, depth = build_text_encoder(config), build_depth_estimator()
    autoencoder, sketcher = build_autoencoder(config), build_sketcher(config)
    if (folder / CODE_NAME).exists():
        autoencoder = load_autoencoder(config, folder)
    # Of stages that make the same the first that ran counts.
    for stages, modules in (
        (("text",), {"encoder": text_encoder}),
        (("clip", "still"), {"transformer": transformer, "image_encoder": image_encoder}),
        (("depth", START_NAME), {"depth": depth}),
        (("sketch",), {"sketcher": sketcher}),
    ):
        ran = next((stage for stage in stages if stage_checkpoint(folder, stage)), None)
        if ran is not None:
            load_stage(folder, ran, modules)

    pipeline = LongViePipeline(
        tokenizer=build_tokenizer(),
        text_encoder=text_encoder.to(torch.bfloat16),
        image_encoder=image_encoder.to(torch.bfloat16),
        vae=autoencoder,
        transformer=transformer.to(torch.bfloat16),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=config.flow_shift),
        sketcher=sketcher.to(torch.bfloat16) if config.image_condition == "carried" else None,
        image_condition=config.image_condition,
        track_grid=(config.track_columns, config.track_rows),
    )
    # Its code stays in float32: rounded, it would no longer be a projection.
    for name, parameter in autoencoder.named_parameters():
        if name not in CODE:
            parameter.data = parameter.data.to(torch.bfloat16)
    if out.exists():
        shutil.rmtree(out)
    pipeline.save_pretrained(out)
    depth.to(torch.bfloat16).save_pretrained(out / "depth")
    processor = {
        "image_mean": IMAGE_MEAN,
        "image_std": IMAGE_STD,
        "ensure_multiple_of": PATCH,
    }
    _write_json(out / "depth" / "preprocessor_config.json", processor)
    _write_json(
        out / "preset.json",
        {
            "name": "tiny",
            "num_frames": config.num_frames,
            "fps": config.fps,
            "height": config.height,
            "width": config.width,
            "history_frames": config.history_frames,
            "num_inference_steps": config.num_inference_steps,
            "guidance_scale": config.guidance_scale,
            "flow_shift": config.flow_shift,
            "negative_prompt": "",
            "max_text_tokens": config.max_text_tokens,
            "makes_first_frame": True,
            "timestep_dtype": "float32",
            "image_condition": config.image_condition,
            "fit": "crop",
            "track_grid": {"columns": config.track_columns, "rows": config.track_rows},
            "vocabulary": {"subject": "landscapes", "words": vocabulary()},
        },
    )
    _write_json(
        out / RECORD_NAME,
        {
            "settings": config.model_dump(),
            "stages": stage_losses(folder),
            "data": "procedural landscapes of longvie_cli.worlds; no other weights or pictures",
            "flights": max(
                len(list((folder / name).glob("*.safetensors"))) for name in ("frames", "latents")
            ),
            "hardware": f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
            "torch": torch.__version__,
            "adopted": earlier_record(folder),
        },
    )


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
