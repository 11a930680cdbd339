"""Loads a preset's models onto a device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.utils import logging as diffusers_logging
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel
from transformers.utils import logging as transformers_logging

from longvie_cli.engine.compilation import compile_blocks
from longvie_cli.engine.memory import config_folder
from longvie_cli.engine.placement import (
    place,
    place_text_encoder,
    quantize_transformer,
    stays_where_loaded,
    use_attention,
)
from longvie_cli.errors import MissingResourceError
from longvie_cli.kernels.kernel_set import kernel_set_for
from longvie_cli.models.lora import add_loras
from longvie_cli.models.pipeline import Engine, LongViePipeline
from longvie_cli.models.weights.load import load_text_encoder, load_weights, random_weights
from longvie_cli.models.weights.sources import find_weights
from longvie_cli.models.whole_video import suit_cpu
from longvie_cli.settings.presets import Preset
from longvie_cli.settings.sampling import Sampling

logger = logging.getLogger(__name__)


def load_pipeline(
    preset: Preset,
    sampling: Sampling | None = None,
    *,
    weights: Path | None = None,
    text_encoder: bool = True,
    from_random: bool = False,
    engine: Engine = "fused",
    warn: Callable[[str], None] = logger.warning,
    fell_back: Callable[[str], None] = logger.warning,
    **chosen: Any,
) -> LongViePipeline:
    """Return the pipeline of a preset, ready to make clips; nothing is fetched.

    Args:
        preset: Its numbers overrule those saved with the weights (flow shift, timestep type).
        sampling: Of it count the LoRAs, and where and in which types the models run; where not
            given, what `Sampling.of` the preset says.
        weights: Folder in our layout (`longvie models convert`) or, for a preset that names its
            `models`, one that holds their published files. Where not given: the folders that
            `longvie models pull` filled, or the embedded weights.
        text_encoder: False leaves it out; then every clip needs `prompt_embeds`.
        from_random: Random weights in place of those of files, without text encoder, to time what
            is not here.
        engine: `reference` is a plain loop over the model and diffusers' autoencoder, to compare
            with: everything is computed every time.
        warn: Told what of a LoRA could not be applied.
        fell_back: Told what would be used, but cannot be on this machine.
        chosen: Fields of `Sampling` in place of those of `sampling`: `device`, `dtype`, ...

    Raises:
        MissingResourceError: files are missing, damaged or of another model; or peft is.
        InputError: a LoRA cannot be read, or is one for another model.
    """
    sampling = replace(sampling or Sampling.of(preset), **chosen)
    device, offload = sampling.device, sampling.offload
    assert offload != "auto", "decided by placement.choose_plan"
    dtype = getattr(torch, sampling.dtype)
    # What is quantized or offloaded next starts in host memory; anything else goes where it stays.
    target = device if stays_where_loaded(sampling) else "cpu"
    with without_progress_bars():
        if from_random:
            pipeline = random_weights(config_folder(preset), dtype=dtype, device=target)
        else:
            source = find_weights(preset, weights)
            pipeline = load_weights(source, dtype=dtype, device=target, text_encoder=text_encoder)
    text_tokens = pipeline.transformer.config.text_tokens
    if text_tokens != preset.max_text_tokens:
        raise MissingResourceError(
            f"preset {preset.name}: its model reads {text_tokens} text tokens, "
            f"preset.json says {preset.max_text_tokens}.",
            hint="These files belong to different models; fetch them again.",
        )
    give_numbers_of(preset, pipeline)
    # Before the move, so that the adapters are placed as the layers they belong to.
    loras = [(lora.path, lora.scale) for lora in sampling.loras]
    for notice in add_loras(pipeline, loras):
        warn(notice)
    if engine == "fused" and torch.device(device).type == "cpu":
        suit_cpu(pipeline.vae, dtype)
    quantize_transformer(pipeline, sampling)
    use_attention(pipeline, sampling, warn=fell_back)
    place(pipeline, device, offload)
    pipeline.engine = engine
    if engine == "fused":
        pipeline.transformer.use_kernels(kernel_set_for(device, warn=fell_back))
        if offload in ("none", "once"):
            # Weights that move would be parted again.
            pipeline.transformer.pack_projections()
    if sampling.compile != "none":
        compile_blocks(pipeline.transformer, sampling.compile)
    return pipeline


def give_numbers_of(preset: Preset, pipeline: LongViePipeline) -> None:
    """Put a preset's numbers in place of those saved with the weights."""
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler.from_config(
        pipeline.scheduler.config, shift=preset.flow_shift
    )
    pipeline.register_to_config(
        timestep_dtype=preset.timestep_dtype,
        image_condition=preset.image_condition,
        track_grid=[preset.track_grid.columns, preset.track_grid.rows],
    )


def load_preset_text_encoder(
    preset: Preset, sampling: Sampling, *, weights: Path | None = None
) -> tuple[PreTrainedTokenizerBase, UMT5EncoderModel]:
    """Return the tokenizer and the text encoder of a preset, and nothing else of it.

    Arguments as in `load_pipeline`.

    Raises:
        MissingResourceError: files are missing, damaged or of another model.
    """
    with without_progress_bars():
        tokenizer, text_encoder = load_text_encoder(
            find_weights(preset, weights),
            dtype=getattr(torch, sampling.dtype),
            device=sampling.device if sampling.offload == "none" else "cpu",
        )
    assert sampling.offload != "auto", "decided by placement.choose_plan"
    place_text_encoder(text_encoder, sampling.device, sampling.offload)
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
