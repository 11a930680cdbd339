"""Consecutive clips through our pipeline's own call against the released pipeline's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from longvie_cli.models.pipeline import LongViePipeline
from recorded import GOLDEN

from .golden import (
    Golden,
    difference,
    golden_context,
    golden_image_embeds,
    golden_transformer,
    golden_vae,
    numbered,
    read_golden,
    under,
)

# golden/README.md: guidance multiplies the rounding of every step.
STEP_LIMIT = 2e-4
FINAL_LIMIT = 1e-3
VAE_LIMIT = 1e-5


@cache
def cases() -> Golden:
    return read_golden("loop_cases")


@cache
def pipeline() -> LongViePipeline:
    """Our pipeline on the golden weights; text and image encoders are replaced by their outputs."""
    vae_cases = read_golden("vae_cases")
    return LongViePipeline(
        tokenizer=None,
        text_encoder=None,
        image_encoder=None,
        vae=golden_vae(vae_cases["latent_mean"], vae_cases["latent_std"]),
        transformer=golden_transformer(),
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=read_golden("scheduler_cases").config["shift"]
        ),
    )


@dataclass
class ClipRun:
    """What one call of our pipeline did.

    Args:
        recorded: The golden tensors of the clip.
        frames: What it returned.
        noise: The caller's noise after the call.
        evaluations: Inputs and outputs of every transformer call, in order.
        latents: After every step.
        timesteps: Of every step.
    """

    recorded: dict[str, Tensor]
    frames: np.ndarray
    noise: Tensor
    evaluations: list[tuple[dict[str, Any], Tensor]]
    latents: list[Tensor]
    timesteps: list[Tensor]


@cache
def run_clip(name: str) -> ClipRun:
    """Run one clip from its recorded inputs."""
    config = cases().config
    recorded = under(cases(), f"{name}.")
    index = int(name.removeprefix("clip"))

    def frames(key: str) -> np.ndarray | None:
        return recorded[key].numpy() if key in recorded else None

    noise = recorded.get("noise_argument_before_call")
    if noise is None:
        noise = pipeline().prepare_noise(
            config["seed"], config["num_frames"], config["height"], config["width"]
        )
    noise = noise.clone()
    run = ClipRun(recorded, np.empty(0), noise, [], [], [])

    def evaluated(
        _module: object, args: tuple[Any, ...], kwargs: dict[str, Any], output: tuple[Tensor]
    ) -> None:
        names = ("hidden_states", "timestep", "text", "image")
        run.evaluations.append((dict(zip(names, args, strict=True)) | kwargs, output[0]))

    def stepped(
        _pipeline: LongViePipeline, step_index: int, timestep: Tensor, values: dict[str, Any]
    ) -> None:
        assert step_index == len(run.latents)
        run.latents.append(values["latents"])
        run.timesteps.append(timestep)

    hook = pipeline().transformer.register_forward_hook(evaluated, with_kwargs=True)
    try:
        run.frames = (
            pipeline()(
                image=frames("image_uint8"),
                dense=np.repeat(recorded["dense_gray_uint8"].numpy()[..., None], 3, axis=-1),
                sparse=frames("sparse_uint8"),
                history=frames("history_uint8"),
                num_inference_steps=config["steps"],
                guidance_scale=config["cfg_scale"],
                noise=noise,
                prompt_embeds=golden_context("posi"),
                negative_prompt_embeds=golden_context("nega"),
                image_embeds=golden_image_embeds(config["clip_feature_index_per_clip"][index]),
                callback_on_step_end=stepped,
            )
        ).frames
    finally:
        hook.remove()
    return run


def clip_names() -> list[str]:
    """Return the recorded clips; one placeholder where there are none, so that the tests skip."""
    if not (GOLDEN / "loop_cases.safetensors").is_file():
        return ["clip0"]
    return numbered(cases(), r"clip\d+")


@pytest.fixture(params=clip_names())
def run(request: pytest.FixtureRequest) -> ClipRun:
    return run_clip(request.param)


def test_every_clip_is_recorded() -> None:
    assert len(numbered(cases(), r"clip\d+")) == cases().config["clips"]


def test_conditions(run: ClipRun) -> None:
    given, _ = run.evaluations[0]
    channels = run.recorded["start_latents"].shape[1]
    assert difference(given["hidden_states"][:, channels:], run.recorded["y"]) <= VAE_LIMIT
    assert difference(given["dense"], run.recorded["dense"]) <= VAE_LIMIT
    assert difference(given["sparse"], run.recorded["sparse"]) <= VAE_LIMIT
    if "history_latents" in run.recorded:
        history = given["history"]
        assert difference(history[:, -channels:], run.recorded["history_latents"]) <= VAE_LIMIT
        assert torch.all(history[:, :-channels] == 1)
    else:
        assert given["history"] is None


def test_noise_is_shared_and_kept(run: ClipRun) -> None:
    config = cases().config
    fresh = pipeline().prepare_noise(
        config["seed"], config["num_frames"], config["height"], config["width"]
    )
    assert torch.equal(fresh, run.recorded["noise_returned"])
    assert torch.equal(run.noise, run.recorded.get("noise_argument_before_call", fresh))


def test_start(run: ClipRun) -> None:
    given, _ = run.evaluations[0]
    start = given["hidden_states"][:, : run.recorded["start_latents"].shape[1]]
    assert difference(start, run.recorded["start_latents"]) <= VAE_LIMIT


def test_every_step(run: ClipRun) -> None:
    steps = cases().config["steps"]
    assert len(run.latents) == steps
    guided = cases().config["cfg_scale"] != 1
    positives, negatives = run.evaluations, []
    if guided:
        positives, negatives = run.evaluations[::2], run.evaluations[1::2]
    assert len(positives) == steps and len(negatives) == steps * guided
    assert difference(torch.stack(run.timesteps), run.recorded["timesteps"]) <= 3e-4
    before = run.recorded["latents_before_step"]
    for step_index in range(steps):
        for name, evaluations in (("pred_posi", positives), ("pred_nega", negatives)):
            if evaluations:
                _, velocity = evaluations[step_index]
                assert difference(velocity, run.recorded[name][step_index]) <= STEP_LIMIT
        if step_index + 1 < steps:
            assert difference(run.latents[step_index], before[step_index + 1]) <= STEP_LIMIT


def test_final_latents(run: ClipRun) -> None:
    assert difference(run.latents[-1], run.recorded["final_latents"]) <= FINAL_LIMIT


def test_frames(run: ClipRun) -> None:
    theirs = run.recorded["video_uint8"].numpy().astype(int)
    assert run.frames.shape == theirs.shape
    moved = np.abs(run.frames.astype(int) - theirs)
    # A value within rounding of a whole byte may be truncated to its neighbour.
    assert moved.max() <= 1
    assert (moved > 0).mean() <= 1e-3
