"""The engine `reference` is a plain diffusers loop of the same model, written out here."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from torch import Tensor, nn

from longvie_cli.engine.loader import load_pipeline
from longvie_cli.kernels.kernel_set import KernelSet
from longvie_cli.media.frames import frames_from_pixels, pixels_from_frames
from longvie_cli.models.conditioning import (
    control_input,
    first_frame_mask,
    history_input,
    mix_first_latent,
)
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.settings.presets import Preset, TrackGrid
from small_models import small_pipeline

PRESET = Preset(
    name="small",
    num_frames=9,
    fps=16,
    height=32,
    width=48,
    num_inference_steps=4,
    guidance_scale=3.0,
    flow_shift=5.0,
    timestep_dtype="float32",
    max_text_tokens=20,
    track_grid=TrackGrid(columns=4, rows=3),
)
SIZE = (PRESET.num_frames, PRESET.height, PRESET.width)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> LongViePipeline:
    folder = tmp_path_factory.mktemp("small")
    small_pipeline().save_pretrained(folder)
    return load_pipeline(PRESET, weights=folder, engine="reference")


def video(num_frames: int, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed)
    return drawn.integers(0, 256, (num_frames, *SIZE[1:], 3), dtype=np.uint8)


def plain_loop(
    pipeline: LongViePipeline, dense: np.ndarray, sparse: np.ndarray, history: np.ndarray | None
) -> tuple[Tensor, np.ndarray]:
    """Return latents and frames of a clip from the models alone, as diffusers' pipelines do it."""
    vae, transformer = pipeline.vae, pipeline.transformer
    mean, std = (
        torch.tensor(values).view(1, -1, 1, 1, 1)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )

    def encode(frames: np.ndarray) -> Tensor:
        moments = vae.encode(pixels_from_frames(frames)[None])
        return (moments.latent_dist.mean - mean) / std

    def encode_first(frame: np.ndarray) -> Tensor:
        pixels = torch.zeros(1, 3, *SIZE)
        pixels[:, :, :1] = pixels_from_frames(frame[None])
        return (vae.encode(pixels).latent_dist.mean - mean) / std

    image = video(1, 3)[0] if history is None else history[-1]
    pictured = encode_first(image)
    condition = torch.cat((first_frame_mask(pictured), pictured), dim=1)
    controls = {
        name: control_input(encode(control), encode_first(control[0]))
        for name, control in (("dense", dense), ("sparse", sparse))
    }
    prompt, negative = (pipeline.encode_prompt([text]) for text in ("a hill", "grey"))
    image_embeds = pipeline.encode_image(image)
    latents = torch.randn(1, 6, 3, 4, 6, generator=torch.Generator().manual_seed(7))
    past = None
    if history is not None:
        # The encoder reads 4k + 1 frames of them.
        past = encode(history)
        latents = mix_first_latent(latents, past)
        past = history_input(past)

    scheduler = FlowMatchEulerDiscreteScheduler(shift=PRESET.flow_shift)
    steps = PRESET.num_inference_steps
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps))
    for timestep in scheduler.timesteps:
        given = torch.cat((latents, condition), dim=1)
        options = {"history": past, **controls, "return_dict": False}
        (velocity,) = transformer(given, timestep[None], prompt, image_embeds, **options)
        (unguided,) = transformer(given, timestep[None], negative, image_embeds, **options)
        guided = unguided + PRESET.guidance_scale * (velocity - unguided)
        (latents,) = scheduler.step(guided, timestep, latents, return_dict=False)
    pixels = vae.decode(latents * std + mean, return_dict=False)[0]
    return latents, frames_from_pixels(pixels[0])


def calls_of(pipeline: LongViePipeline, work: Any) -> tuple[Any, Counter[str]]:
    """Return what some work returns, and how often it called each layer of the models."""
    calls: Counter[str] = Counter()

    def count(name: str) -> Any:
        return lambda *_: calls.update([name])

    hooks = [
        module.register_forward_pre_hook(count(f"{part}.{name}"))
        for part in ("transformer", "vae")
        for name, module in getattr(pipeline, part).named_modules()
    ]
    try:
        return work(), calls
    finally:
        for hook in hooks:
            hook.remove()


def test_its_models_are_as_diffusers_has_them(pipeline: LongViePipeline) -> None:
    convolutions = [m for m in pipeline.vae.modules() if isinstance(m, nn.Conv3d)]
    assert convolutions and {type(conv) for conv in convolutions} == {WanCausalConv3d}
    blocks = [*pipeline.transformer.blocks, *pipeline.transformer.dense_blocks]
    assert {type(block.kernels) for block in blocks} == {KernelSet}
    assert all(block.packed is None for block in blocks)


@pytest.mark.parametrize("is_later", [False, True], ids=["first clip", "with history"])
@torch.no_grad()
def test_a_plain_loop_gives_the_same_clip(pipeline: LongViePipeline, is_later: bool) -> None:
    dense, sparse = video(PRESET.num_frames, 1), video(PRESET.num_frames, 2)
    history = video(5, 4) if is_later else None

    def ours(output_type: str) -> Any:
        return pipeline(
            "a hill",
            video(1, 3)[0] if history is None else history[-1],
            dense,
            sparse,
            history,
            negative_prompt="grey",
            num_inference_steps=PRESET.num_inference_steps,
            guidance_scale=PRESET.guidance_scale,
            seed=7,
            output_type=output_type,
        ).frames

    (latents, frames), calls = calls_of(
        pipeline, lambda: plain_loop(pipeline, dense, sparse, history)
    )
    made, our_calls = calls_of(pipeline, lambda: ours("uint8"))
    # Encodings of one size are one batch, and their sums are rounded otherwise.
    assert (ours("latent") - latents).abs().max() <= 1e-5
    assert np.abs(made.astype(int) - frames).max() <= 1

    # Nothing is kept: every layer of the transformer runs at every evaluation, as in the loop.
    def of_transformer(counted: Counter[str]) -> dict[str, int]:
        return {name: n for name, n in counted.items() if name.startswith("transformer.")}

    assert of_transformer(our_calls) == of_transformer(calls)
    assert calls["transformer."] == 2 * PRESET.num_inference_steps
    # Of the autoencoder what the loop calls, for a batch of videos at once.
    assert our_calls.keys() == calls.keys()
