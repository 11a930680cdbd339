"""What the model in training predicts for noisy latents; unlike the pipeline's, with gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from longvie_cli.models.conditioning import Conditioning, history_input
from longvie_cli.models.pipeline import LongViePipeline


def predict_velocity(
    pipeline: LongViePipeline,
    noisy: Tensor,
    timestep: float,
    conditioning: Conditioning,
    *,
    depth_strength: float = 1.0,
    arithmetic: torch.dtype = torch.float32,
) -> Tensor:
    """Return the velocity of a clip's latents, float32, shaped as `noisy`.

    Args:
        pipeline: Its transformer predicts, in the transformer's own type.
        noisy: [1, channels, frames, height, width].
        timestep: 0..1000, rounded as the pipeline rounds it.
        conditioning: All else that the transformer is told.
        depth_strength: As for the pipeline.
        arithmetic: bfloat16 runs the transformer alone under autocast.
    """
    transformer = pipeline.transformer
    device, dtype = noisy.device, transformer.dtype

    def cast(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(device, dtype)

    history = conditioning.history_latents
    if history is not None:
        history = history_input(history, mask_channels=pipeline.vae.config.scale_factor_temporal)
    condition = conditioning.image_condition.to(noisy)
    rounded = torch.tensor([timestep], device=device)
    with torch.autocast(device.type, torch.bfloat16, enabled=arithmetic == torch.bfloat16):
        output: tuple[Tensor] = transformer(
            torch.cat((noisy, condition), dim=1).to(dtype),
            rounded.to(getattr(torch, pipeline.config.timestep_dtype)),
            cast(conditioning.prompt_embeds),
            cast(conditioning.image_embeds),
            dense=cast(conditioning.dense),
            sparse=cast(conditioning.sparse),
            history=cast(history),
            depth_strength=depth_strength,
            return_dict=False,
        )
    return output[0].float()
