"""What training minimises: velocity errors, and the terms that mend a degraded start.

Latents are [batch, channels, frames, height, width], normalised VAE posterior means. As the model
predicts noise - clean, a term on velocities is the paper's term on clean latents (arXiv 2512.13604,
stage 3; numbers and filters as in the release).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from longvie_cli.models.flow_matching import velocity_target


@dataclass(frozen=True)
class TermWeights:
    """How much each term of the degraded loss counts.

    Args:
        first_latents: Weights of the first latent frames in the main term, 1 after them. A
            degraded start and the clean target disagree there most. The mean is not renormalised.
        low_pass: Of the term that holds the first frame's large shapes to the given picture.
        high_pass: Of the term that holds its detail to the clean target.
        consistency: Of the term that holds it to the last history frame.
    """

    first_latents: tuple[float, ...] = (0.05, 0.325, 0.757)
    low_pass: float = 0.2
    high_pass: float = 0.15
    consistency: float = 0.5


@dataclass(frozen=True)
class LossTerms:
    """A loss and what it is made of.

    Args:
        total: Scalar, with a gradient.
        terms: Scalars by name, not weighted.
    """

    total: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)


def low_pass(latents: Tensor) -> Tensor:
    """Return latents without fine detail: height and width halved linearly, and back."""
    frames, height, width = latents.shape[2:]
    small = F.interpolate(
        latents, (frames, height // 2, width // 2), mode="trilinear", align_corners=False
    )
    return F.interpolate(small, (frames, height, width), mode="trilinear", align_corners=False)


def high_pass(latents: Tensor) -> Tensor:
    """Return the fine detail alone: latents minus their `low_pass`."""
    return latents - low_pass(latents)


def plain_loss(velocity: Tensor, clean: Tensor, noise: Tensor) -> LossTerms:
    """Return the mean squared velocity error: the whole loss of a clean example."""
    error = F.mse_loss(velocity.float(), velocity_target(clean, noise).float())
    return LossTerms(error, {"plain_mse": error})


def degraded_loss(
    velocity: Tensor,
    clean: Tensor,
    noise: Tensor,
    *,
    image_latent: Tensor,
    history_latent: Tensor | None = None,
    weights: TermWeights | None = None,
) -> LossTerms:
    """Return the loss of an example whose first frame or history was degraded (stages 2 and 3).

    Everything is float32; the release computes all but the main term in bfloat16.

    Args:
        velocity: The model's output.
        clean: Latents of the clip.
        noise: What was mixed into them.
        image_latent: [batch, channels, 1, height, width]: the conditioning picture alone.
        history_latent: The last history frame alone, likewise; None without history.
        weights: Those of the paper where not given.
    """
    weights = weights or TermWeights()
    velocity, clean, noise = velocity.float(), clean.float(), noise.float()
    target = velocity_target(clean, noise)
    frame_weights = torch.ones(velocity.shape[2], device=velocity.device)
    given = torch.tensor(weights.first_latents[: len(frame_weights)], device=velocity.device)
    frame_weights[: len(given)] = given
    first, first_noise = velocity[:, :, :1], noise[:, :, :1]
    terms = {
        "weighted_main": ((velocity - target).square() * frame_weights.view(-1, 1, 1)).mean(),
        "lowpass_deg": F.mse_loss(
            low_pass(first), low_pass(velocity_target(image_latent.float(), first_noise))
        ),
        "highpass_gt": F.mse_loss(high_pass(first), high_pass(target[:, :, :1])),
    }
    total = (
        terms["weighted_main"]
        + weights.low_pass * terms["lowpass_deg"]
        + weights.high_pass * terms["highpass_gt"]
    )
    if history_latent is not None:
        terms["consistency_history"] = F.mse_loss(
            first, velocity_target(history_latent.float(), first_noise)
        )
        total = total + weights.consistency * terms["consistency_history"]
    return LossTerms(total, terms)
