"""What the transformer is given besides noise: masks, condition latents, history.

Pure functions on latents [batch, channel, frame, height, width], normalised VAE posterior means.
Layouts as in spec 3.2-3.8 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Released inference blends history into the first latent frame at this sigma
# (LongVie:diffsynth/pipelines/wan_video_new_longvie.py). The release gives no reason; the value
# equals flow_shift 5 applied to 35/49, step 14 of a 50-point schedule.
FIRST_LATENT_SIGMA = 0.925926


@dataclass(frozen=True)
class Conditioning:
    """All that the transformer is given for one clip besides noise and timestep.

    Args:
        prompt_embeds: [1, text_tokens, text_dim], zero rows past the prompt's end.
        negative_prompt_embeds: Likewise; None where guidance is off.
        image_embeds: [1, image tokens, image_dim], or None for a model without image tokens.
        image_condition: [1, mask and latent channels, frames, height, width].
        dense: [1, in_channels, frames, height, width] or None.
        sparse: Likewise.
        history_latents: [1, latent channels, history frames, height, width] or None.
        trust: [1, 1, frames, height, width], how far the latents of `image_condition` are kept at
            each step; None: not at all, as LongVie 2 does it.
    """

    prompt_embeds: Tensor
    negative_prompt_embeds: Tensor | None
    image_embeds: Tensor | None
    image_condition: Tensor
    dense: Tensor | None = None
    sparse: Tensor | None = None
    history_latents: Tensor | None = None
    trust: Tensor | None = None


def first_frame_mask(latents: Tensor, *, mask_channels: int = 4, has_image: bool = True) -> Tensor:
    """Return the mask [batch, mask_channels, frame, height, width] that says what is given.

    1 in the first latent frame, 0 elsewhere; 0 everywhere when no image is given.

    Args:
        latents: Gives batch, frames, height, width, type and device.
        mask_channels: Video frames of one latent frame, i.e. the VAE's temporal factor.
        has_image: Whether the first frame is given.
    """
    batch, _, frames, height, width = latents.shape
    mask = latents.new_zeros(batch, mask_channels, frames, height, width)
    if has_image:
        mask[:, :, 0] = 1
    return mask


def control_input(
    video_latents: Tensor, first_frame_latents: Tensor, *, mask_channels: int = 4
) -> Tensor:
    """Return a control branch's input: the control video where the noisy latents would be.

    Args:
        video_latents: The VAE of the control video.
        first_frame_latents: The VAE of its first frame followed by mid-grey frames.
        mask_channels: The VAE's temporal factor.
    """
    mask = first_frame_mask(first_frame_latents, mask_channels=mask_channels)
    return torch.cat((video_latents, mask, first_frame_latents), dim=1)


def history_input(history_latents: Tensor, *, mask_channels: int = 4) -> Tensor:
    """Return the history's input: ones for noise and mask, then the history latents."""
    batch, channels, *rest = history_latents.shape
    ones = history_latents.new_ones(batch, channels + mask_channels, *rest)
    return torch.cat((ones, history_latents), dim=1)


def mix_first_latent(noise: Tensor, history_latents: Tensor) -> Tensor:
    """Return new noise: its first frame is blended with the last history latent (spec 4.5)."""
    latents = noise.clone()
    latents[:, :, 0] = (1 - FIRST_LATENT_SIGMA) * history_latents[:, :, -1] + (
        FIRST_LATENT_SIGMA * noise[:, :, 0]
    )
    return latents
