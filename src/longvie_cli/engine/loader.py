"""Loads a preset's models onto a device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from longvie_cli.errors import MissingResourceError, UsageError
from longvie_cli.kernels.causal_conv3d import use_stacked_causal_convolutions
from longvie_cli.models.lora import add_loras
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.settings.presets import Preset, preset_folder

logger = logging.getLogger(__name__)

DTYPES = ("float32", "bfloat16", "float16")


def resolve_device(name: str) -> str:
    """Return the real device of a `--device` value; `auto` is CUDA where there is any, else cpu.

    Raises:
        UsageError: no such device on this machine.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(
            f"--device {name}: not a device.", hint="Pass auto, cpu, cuda or cuda:N."
        ) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices.",
            hint="Pass --device auto or cpu.",
        )
    return name


def resolve_dtype(name: str, device: str) -> str:
    """Return the real type of a `--dtype` value; `auto` is bfloat16 on CUDA, else float32.

    Raises:
        UsageError: no such floating-point type.
    """
    if name == "auto":
        return "bfloat16" if torch.device(device).type == "cuda" else "float32"
    if name not in DTYPES:
        raise UsageError(f"--dtype {name}: not a type.", hint=f"Pass auto, {', '.join(DTYPES)}.")
    return name


def load_pipeline(
    preset: Preset,
    *,
    folder: Path | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    loras: Sequence[tuple[Path, float]] = (),
    warn: Callable[[str], None] = logger.warning,
) -> LongViePipeline:
    """Return the pipeline of a preset, ready to make clips; nothing is fetched.

    Args:
        preset: Its numbers overrule those saved with the weights (flow shift, timestep type).
        folder: Weights in diffusers layout; the preset's own where not given.
        device: Where the models run, a real device.
        dtype: Of transformer and text encoder: `float32`, `bfloat16` or `float16`. VAE and image
            encoder stay float32: they take little time, and the VAE's rounding would be handed
            from clip to clip.
        loras: LoRA files and their scales, added up.
        warn: Told what of a LoRA could not be applied.

    Raises:
        MissingResourceError: files are missing, damaged or of another model; or peft is.
        InputError: a LoRA cannot be read, or is one for another model.
    """
    folder = preset_folder(preset.name) if folder is None else folder
    try:
        with _without_progress_bars():
            pipeline = LongViePipeline.from_pretrained(
                folder,
                dtype={
                    "default": getattr(torch, dtype),
                    "vae": torch.float32,
                    "image_encoder": torch.float32,
                },
                local_files_only=True,
                use_safetensors=True,
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise MissingResourceError(
            f"preset {preset.name}: {folder} holds no complete model ({error}).",
            hint="Install longvie again, or fetch the weights again.",
        ) from error
    text_tokens = pipeline.transformer.config.text_tokens
    if text_tokens != preset.max_text_tokens:
        raise MissingResourceError(
            f"preset {preset.name}: its model reads {text_tokens} text tokens, "
            f"preset.json says {preset.max_text_tokens}.",
            hint="These files belong to different models; fetch them again.",
        )
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler.from_config(
        pipeline.scheduler.config, shift=preset.flow_shift
    )
    pipeline.register_to_config(timestep_dtype=preset.timestep_dtype)
    # Before the move, so that the adapters are placed as the layers they belong to.
    add_loras(pipeline, loras, warn)
    if torch.device(device).type == "cpu":
        use_stacked_causal_convolutions(pipeline.vae)
    return pipeline.to(device)


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Keep diffusers and transformers from drawing bars of their own while they load."""
    libraries = (diffusers_logging, transformers_logging)
    shown = [library for library in libraries if library.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()
