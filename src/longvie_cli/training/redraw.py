"""Frames through the autoencoder or through the model once more, with the pipeline that is trained.

One latent frame is a twenty-first of a clip's tokens, so the twelve steps of the worst case cost
less than one training step: nothing is made beforehand.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from longvie_cli.media.frames import Frames, frames_from_pixels, pixels_from_frames
from longvie_cli.models.flow_matching import unshifted_sigmas
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.training.prediction import predict_velocity

# The grid whose last steps count as mild degradations (spec 7.4 A).
GRID_STEPS = 50


class CountedRedraw:
    """Redraws nothing and counts how often the model would be evaluated.

    With sharded weights all processes take part in each evaluation, so they have to know before the
    first one how many there will be.
    """

    def __init__(self) -> None:
        self.evaluations = 0

    def reencode(self, frames: Frames) -> Frames:
        """Return the frames as they are."""
        return frames

    def regenerate(self, frames: Frames, num_steps: int, noise: torch.Generator) -> Frames:
        """Count the steps; return the frames as they are."""
        self.evaluations += num_steps
        return frames


class PipelineRedraw:
    """The redrawing of one sample.

    Args:
        pipeline: Its autoencoder, encoders and transformer, as they are now.
        prompt_embeds: [1, text_tokens, text_dim] of the sample.
        dense: First frames of the sample's depth control, uint8 [n, height, width, 3], for frames
            that it shows too; None regenerates without control.
        sparse: Likewise of its tracks.
        arithmetic: Of the transformer; the autoencoder keeps its own, as at inference.
    """

    def __init__(
        self,
        pipeline: LongViePipeline,
        prompt_embeds: Tensor,
        *,
        dense: Frames | None = None,
        sparse: Frames | None = None,
        arithmetic: torch.dtype = torch.float32,
    ) -> None:
        self.pipeline = pipeline
        self.prompt_embeds = prompt_embeds
        self.dense = dense
        self.sparse = sparse
        self.arithmetic = arithmetic

    @torch.no_grad()
    def reencode(self, frames: Frames) -> Frames:
        """Return frames [n, height, width, 3] encoded and decoded once, 8 bits again."""
        pixels = pixels_from_frames(self._padded(frames))[None]
        decoded = self.pipeline.decode_latents(self.pipeline.encode_video(pixels))
        return frames_from_pixels(decoded[0])[: len(frames)]

    @torch.no_grad()
    def regenerate(self, frames: Frames, num_steps: int, noise: torch.Generator) -> Frames:
        """Return frames noised and denoised over the last `num_steps` of 50 steps.

        As at inference, the model is shown the first of them as its picture; without guidance.
        """
        pipeline, padded = self.pipeline, self._padded(frames)
        shape = (len(padded), *padded.shape[1:3])
        conditioning = pipeline.prepare_conditioning(
            shape,
            image=padded[0],
            dense=None if self.dense is None else self.dense[: len(padded)],
            sparse=None if self.sparse is None else self.sparse[: len(padded)],
            prompt_embeds=self.prompt_embeds,
        )
        latents = pipeline.encode_video(pixels_from_frames(padded)[None])
        shift = pipeline.scheduler.config.shift
        # The end of the grid, and the zero it runs down to.
        unshifted = torch.tensor([*unshifted_sigmas(GRID_STEPS), 0.0])[-(num_steps + 1) :]
        sigmas = (shift * unshifted / (1 + (shift - 1) * unshifted)).tolist()
        drawn = torch.randn(latents.shape, generator=noise).to(latents)
        latents = (1 - sigmas[0]) * latents + sigmas[0] * drawn
        for sigma, following in itertools.pairwise(sigmas):
            velocity = predict_velocity(
                pipeline, latents, 1000 * sigma, conditioning, arithmetic=self.arithmetic
            )
            latents = latents + (following - sigma) * velocity
        return frames_from_pixels(pipeline.decode_latents(latents)[0])[: len(frames)]

    def evaluate(self, frames: Frames, times: int) -> None:
        """Evaluate the model so many times, for nothing; see `CountedRedraw`."""
        for first in range(0, times, GRID_STEPS):
            steps = min(GRID_STEPS, times - first)
            self.regenerate(frames[:1], steps, torch.Generator().manual_seed(0))

    def _padded(self, frames: Frames) -> Frames:
        """Return frames continued by the last one to a number that the autoencoder reads whole."""
        temporal = self.pipeline.vae.config.scale_factor_temporal
        missing = -(len(frames) - 1) % temporal
        return np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
