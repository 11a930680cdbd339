"""A first frame from a prompt and a depth picture, by a text-to-image pipeline of diffusers.

LongVie 2 continues pictures and makes none. Any depth-conditioned pipeline that diffusers loads
from a folder will do: a ControlNet for depth (Stable Diffusion 1.5, XL, 3, Flux), or FLUX.1 Depth.
"""

from __future__ import annotations

import gc
import inspect
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from longvie_cli.engine.loader import without_progress_bars
from longvie_cli.errors import MissingResourceError, SettingsError
from longvie_cli.media.frames import resize_frame

# The argument that takes the depth picture, in the order in which pipelines are asked for it.
_DEPTH_ARGUMENTS = ("control_image", "image")


def make_first_frame(
    model: Path,
    prompt: str,
    dense: np.ndarray,
    *,
    seed: int,
    device: str,
    dtype: str,
    negative_prompt: str = "",
) -> np.ndarray:
    """Return a first frame, uint8 [height, width, 3], of a prompt over a depth picture.

    The pipeline is loaded, used once at its own number of steps and let go, before the video
    model needs the memory.

    Args:
        model: Folder of the pipeline in diffusers layout; nothing is fetched.
        prompt: Text.
        dense: First depth control, uint8 [height, width, 3], near is black as in all our controls.
            The pipeline is shown its inverse: depth models of the field paint near white.
        seed: Draws the pipeline's noise, on the CPU.
        device: Where it runs.
        dtype: `float32`, `bfloat16` or `float16`.
        negative_prompt: Given to pipelines that take one.

    Raises:
        MissingResourceError: the folder holds no complete pipeline.
        SettingsError: the pipeline is not conditioned on a depth picture.
    """
    try:
        with without_progress_bars():
            pipeline = DiffusionPipeline.from_pretrained(
                model, dtype=getattr(torch, dtype), local_files_only=True, use_safetensors=True
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise MissingResourceError(
            f"--first-frame-model {model}: no complete pipeline in diffusers layout "
            f"({' '.join(str(error).split())}).",
            hint="Fetch one, for instance: hf download NAME --local-dir FOLDER",
        ) from error
    accepted = inspect.signature(pipeline.__call__).parameters
    argument = next((name for name in _DEPTH_ARGUMENTS if name in accepted), None)
    if argument is None or "Control" not in type(pipeline).__name__:
        raise SettingsError(
            f"--first-frame-model {model}: {type(pipeline).__name__} is not conditioned on depth.",
            hint="Name a ControlNet pipeline for depth, or FLUX.1 Depth.",
        )
    height, width = dense.shape[:2]
    # Such pipelines make multiples of their latent grid only.
    multiple = 16
    inner_height, inner_width = (-(-side // multiple) * multiple for side in (height, width))
    depth = resize_frame(255 - dense, inner_height, inner_width, "stretch")
    options = {"negative_prompt": negative_prompt} if "negative_prompt" in accepted else {}
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline.to(device)(
        prompt=prompt,
        height=inner_height,
        width=inner_width,
        generator=torch.Generator().manual_seed(seed),
        **{argument: Image.fromarray(depth)},
        **options,
    ).images[0]
    del pipeline
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
    return resize_frame(np.asarray(picture.convert("RGB")), height, width, "stretch")
