"""The denoising loop: the noise of a clip becomes its latents, step by step (spec 4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from longvie_cli.errors import InputError
from longvie_cli.kernels.kernel_set import guide
from longvie_cli.models.clip_context import ClipContext
from longvie_cli.models.conditioning import Conditioning, history_input, mix_first_latent
from longvie_cli.models.flow_matching import controlled_steps, unshifted_sigmas
from longvie_cli.models.step_cache import StepCache, plan_steps
from longvie_cli.settings.sampling import Fast

if TYPE_CHECKING:
    from longvie_cli.models.pipeline import LongViePipeline

StepCallback = Callable[["LongViePipeline", int, Tensor, dict[str, Any]], dict[str, Any] | None]


@dataclass(frozen=True)
class DenoisingTask:
    """The arguments of `denoise_clip`, for another process to call it alike.

    Args:
        noise: Of the clip.
        conditioning: What the transformer is given.
        numbers: The others by name; no callback.
    """

    noise: Tensor
    conditioning: Conditioning
    numbers: Mapping[str, Any]


@torch.no_grad()
def denoise_clip(
    pipeline: LongViePipeline,
    noise: Tensor,
    conditioning: Conditioning,
    *,
    num_inference_steps: int,
    guidance_scale: float,
    depth_strength: float = 1.0,
    track_strength: float = 1.0,
    control_start: float = 0.0,
    control_end: float = 1.0,
    fast: Fast = "none",
    callback_on_step_end: StepCallback | None = None,
) -> Tensor:
    """Return the latents [1, channels, frames, height, width] that the noise becomes.

    With history the first latent frame starts from a blend of history and noise (spec 4.5).
    This is the pipeline's method `denoise`, its arguments are those of `__call__`; `noise` is not
    changed. Where the pipeline announces its clips to other processes, the callback only watches.
    """
    _announce(
        pipeline,
        noise,
        conditioning,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        depth_strength=depth_strength,
        track_strength=track_strength,
        control_start=control_start,
        control_end=control_end,
        fast=fast,
    )
    steered = controlled_steps(num_inference_steps, control_start, control_end)
    device = pipeline._execution_device
    latents = noise.to(device, torch.float32)
    history = None
    if conditioning.history_latents is not None:
        latents = mix_first_latent(latents, conditioning.history_latents)
        history = history_input(
            conditioning.history_latents, mask_channels=pipeline.vae.config.scale_factor_temporal
        )
    negative_prompt_embeds = conditioning.negative_prompt_embeds
    if guidance_scale == 1:
        negative_prompt_embeds = None
    elif negative_prompt_embeds is None:
        raise InputError(
            f"guidance_scale {guidance_scale} needs a negative prompt; 1 goes without."
        )
    dtype = pipeline.transformer.dtype
    pipeline.scheduler.set_timesteps(sigmas=unshifted_sigmas(num_inference_steps), device=device)
    timesteps = pipeline.scheduler.timesteps
    delta_sigmas = pipeline.scheduler.sigmas.diff().tolist()
    rounded = timesteps.to(getattr(torch, pipeline.config.timestep_dtype)).split(1)
    prompts = [
        embeds.to(device, dtype)
        for embeds in (conditioning.prompt_embeds, negative_prompt_embeds)
        if embeds is not None
    ]
    # The same tensors at every step: a clip's context knows them by that.
    image_embeds = _to(conditioning.image_embeds, device, dtype)
    history = _to(history, device, dtype)
    controls = {
        "dense": _to(conditioning.dense, device, dtype),
        "sparse": _to(conditioning.sparse, device, dtype),
    }
    uncontrolled = dict.fromkeys(controls)
    clip = _clip_context(pipeline, len(prompts))
    adapters = pipeline.adapters_revision
    plan = plan_steps(num_inference_steps, fast, guided=len(prompts) > 1, controlled=steered)
    cache = StepCache(plan, pipeline.scheduler.sigmas.tolist(), steered)

    trust, mask_channels = conditioning.trust, pipeline.vae.config.scale_factor_temporal
    drawn = noise.to(device, torch.float32)

    def evaluate(step_index: int, latents: Tensor, num_prompts: int) -> list[Tensor]:
        given = torch.cat((latents, conditioning.image_condition), dim=1).to(dtype)
        return _velocities(
            pipeline,
            prompts[:num_prompts],
            (given, rounded[step_index], image_embeds),
            **(controls if step_index in steered else uncontrolled),
            history=history,
            depth_strength=depth_strength,
            track_strength=track_strength,
            clip=clip,
        )

    for step_index, timestep in enumerate(timesteps):
        velocities = cache.velocities(
            step_index, len(prompts), partial(evaluate, step_index, latents)
        )
        latents = _stepped(
            pipeline, latents, velocities, guidance_scale, timestep, delta_sigmas[step_index]
        )
        if trust is not None:
            level = pipeline.scheduler.sigmas[step_index + 1]
            carried = conditioning.image_condition[:, mask_channels:]
            known = (1 - level) * carried + level * drawn
            latents = torch.lerp(latents, known, trust)
        if callback_on_step_end is not None:
            changed = callback_on_step_end(pipeline, step_index, timestep, {"latents": latents})
            assert pipeline.announce is None or not changed, "others do not know of it"
            latents = (changed or {}).get("latents", latents)
            if pipeline.adapters_revision != adapters:
                adapters = pipeline.adapters_revision
                cache.forget()
                if clip is not None:
                    clip.forget()
    return latents


def _announce(
    pipeline: LongViePipeline, noise: Tensor, conditioning: Conditioning, **numbers: Any
) -> None:
    if pipeline.announce is not None:
        pipeline.announce(DenoisingTask(noise, conditioning, numbers))


def _clip_context(pipeline: LongViePipeline, num_prompts: int) -> ClipContext | None:
    if pipeline.engine == "reference":
        return None
    if pipeline.parallel is not None:
        # One without a prompt of its own waits for the velocities of others.
        num_prompts = max(1, pipeline.parallel.evaluations(num_prompts))
    return ClipContext(evaluations=num_prompts)


def _velocities(
    pipeline: LongViePipeline,
    prompts: Sequence[Tensor],
    given: tuple[Tensor, Tensor, Tensor | None],
    **options: Any,
) -> list[Tensor]:
    """Return the velocity of each prompt, given latents with their condition, timestep, image."""
    latents, timestep, image_embeds = given
    transformer = pipeline.transformer

    def velocity_of(embeds: Tensor) -> Tensor:
        return transformer(latents, timestep, embeds, image_embeds, return_dict=False, **options)[0]

    if pipeline.parallel is None:
        return list(map(velocity_of, prompts))
    like = latents[:, : transformer.config.out_channels]
    return pipeline.parallel.velocities(prompts, velocity_of, like)


def _stepped(
    pipeline: LongViePipeline,
    latents: Tensor,
    velocities: Sequence[Tensor],
    guidance_scale: float,
    timestep: Tensor,
    delta_sigma: float,
) -> Tensor:
    """Return the latents after a step along the velocities of prompt and negative prompt."""
    velocity, negative = velocities[0], velocities[1] if len(velocities) > 1 else None
    scheduler = pipeline.scheduler
    is_euler = type(scheduler) is FlowMatchEulerDiscreteScheduler
    if is_euler and not scheduler.config.stochastic_sampling:
        return pipeline.transformer.kernels.guide_step(
            latents, velocity, negative, guidance_scale, delta_sigma
        )
    guided = velocity.float()
    if negative is not None:
        guided = guide(guided, negative.float(), guidance_scale)
    return scheduler.step(guided, timestep, latents, return_dict=False)[0]


def _to(tensor: Tensor | None, device: torch.device, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(device, dtype)
