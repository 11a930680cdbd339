"""Loads a preset's models onto a device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.utils import logging as diffusers_logging
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel
from transformers.utils import logging as transformers_logging

from longvie_cli.engine.placement import (
    place,
    place_text_encoder,
    quantize_transformer,
    use_attention,
)
from longvie_cli.errors import MissingResourceError, UsageError
from longvie_cli.kernels.causal_conv3d import use_stacked_causal_convolutions
from longvie_cli.hub.installed import locate_weights
from longvie_cli.models.lora import add_loras
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.models.weights.load import (
    ReleasedFiles,
    find_released_files,
    is_converted,
    load_converted_pipeline,
    load_released_pipeline,
    load_text_encoder,
)
from longvie_cli.settings.presets import Preset, preset_folder
from longvie_cli.settings.requests import Attention, Offload, Quantize

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
    weights: Path | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    offload: Offload = "none",
    quantize: Quantize = "none",
    attention: Attention = "native",
    text_encoder: bool = True,
    loras: Sequence[tuple[Path, float]] = (),
    warn: Callable[[str], None] = logger.warning,
) -> LongViePipeline:
    """Return the pipeline of a preset, ready to make clips; nothing is fetched.

    Args:
        preset: Its numbers overrule those saved with the weights (flow shift, timestep type).
        weights: Folder in our layout (`longvie models convert`) or, for a preset that names its
            `models`, one that holds their published files. Where not given: the folders that
            `longvie models pull` filled, or the embedded weights.
        device: Where the models run, a real device.
        dtype: Of transformer and text encoder: `float32`, `bfloat16` or `float16`. VAE and image
            encoder stay float32: they take little time, and the VAE's rounding would be handed
            from clip to clip.
        offload: Where weights wait, see `placement.place`; frames are the same.
        quantize: Stores the transformer's blocks in 8 bits.
        attention: A backend that `placement.resolve_attention` returned.
        text_encoder: False leaves it out; then every clip needs `prompt_embeds`.
        loras: LoRA files and their scales, added up.
        warn: Told what of a LoRA could not be applied.

    Raises:
        MissingResourceError: files are missing, damaged or of another model; or peft is.
        InputError: a LoRA cannot be read, or is one for another model.
    """
    # What is quantized or offloaded next starts in host memory; anything else goes where it stays.
    target = device if offload == "none" and quantize == "none" else "cpu"
    with without_progress_bars():
        source = find_weights(preset, weights)
        if isinstance(source, ReleasedFiles):
            pipeline = load_released_pipeline(
                source, dtype=getattr(torch, dtype), device=target, text_encoder=text_encoder
            )
        else:
            pipeline = load_converted_pipeline(
                source, dtype=getattr(torch, dtype), device=target, text_encoder=text_encoder
            )
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
    quantize_transformer(pipeline, quantize, device)
    use_attention(pipeline, attention)
    return place(pipeline, device, offload)


def load_preset_text_encoder(
    preset: Preset,
    *,
    weights: Path | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    offload: Offload = "none",
) -> tuple[PreTrainedTokenizerBase, UMT5EncoderModel]:
    """Return the tokenizer and the text encoder of a preset, and nothing else of it.

    Arguments as in `load_pipeline`.

    Raises:
        MissingResourceError: files are missing, damaged or of another model.
    """
    with without_progress_bars():
        tokenizer, text_encoder = load_text_encoder(
            find_weights(preset, weights),
            dtype=getattr(torch, dtype),
            device=device if offload == "none" else "cpu",
        )
    place_text_encoder(text_encoder, device, offload)
    return tokenizer, text_encoder.eval()


def find_weights(preset: Preset, weights: Path | None = None) -> Path | ReleasedFiles:
    """Return a folder in our layout, or where the preset's published files are.

    Args:
        preset: Its own `weights` count where the next is not given.
        weights: As for `load_pipeline`.

    Raises:
        MissingResourceError: they have not been fetched, or are not in the folder named.
    """
    if weights is None and not preset.models and preset.weights is None:
        return preset_folder(preset.name)
    folders = locate_weights(preset) if weights is None else [weights]
    # An embedded preset has no published files: its folder is one of ours or wrong.
    if len(folders) == 1 and (is_converted(folders[0]) or not preset.models):
        return folders[0]
    return find_released_files(folders, configs=preset_folder(preset.name))


@contextmanager
def without_progress_bars() -> Iterator[None]:
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
