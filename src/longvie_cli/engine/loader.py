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
from longvie_cli.errors import MissingResourceError
from longvie_cli.kernels.causal_conv3d import use_stacked_causal_convolutions
from longvie_cli.models.lora import add_loras
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.models.weights.load import (
    ReleasedFiles,
    find_weights,
    load_converted_pipeline,
    load_released_pipeline,
    load_text_encoder,
)
from longvie_cli.settings.presets import Preset
from longvie_cli.settings.sampling import Attention, Offload, Quantize

logger = logging.getLogger(__name__)


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
    for notice in add_loras(pipeline, loras):
        warn(notice)
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
