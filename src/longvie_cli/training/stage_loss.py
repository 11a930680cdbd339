"""From a place in the run to the loss of its sample."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor

from longvie_cli.media.frames import Frames, pixels_from_frames
from longvie_cli.models.flow_matching import TrainingNoise
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.settings.training import Stage, TrainingSettings
from longvie_cli.training.dataset import Sample, Samples, sample_number
from longvie_cli.training.degradation import Degraded, Degrader, Redraw, scaled_dense_tokens
from longvie_cli.training.losses import LossTerms, degraded_loss, plain_loss
from longvie_cli.training.prediction import predict_velocity
from longvie_cli.training.redraw import CountedRedraw, PipelineRedraw
from longvie_cli.training.sharding import most_of_all
from longvie_cli.worlds.seeding import scalar_stream, tensor_stream

# The autoencoder reads history in groups of four frames (spec 7.4 C).
_HISTORY_GROUP = 4


class StageLoss:
    """The loss of a stage, a function of a place in the run and of the weights.

    Args:
        pipeline: The model in training with its autoencoder and encoders, which stay as they are.
        samples: What is trained on.
        stage: Decides controls, history and degradations.
        settings: All numbers.
    """

    def __init__(
        self, pipeline: LongViePipeline, samples: Samples, stage: Stage, settings: TrainingSettings
    ) -> None:
        self.pipeline = pipeline
        self.samples = samples
        self.stage = stage
        self.settings = settings
        self.noise = TrainingNoise(pipeline.scheduler.config.shift)
        self.degrader = Degrader(settings.degradation, settings.seed)
        self.arithmetic: torch.dtype = getattr(torch, settings.dtype)

    def at(self, position: int, *, step: int) -> LossTerms:
        """Return the loss of the sample at a position of the run, with a gradient.

        Args:
            position: Counts samples over the whole run; all that is drawn depends on it alone.
            step: Optimizer step, for the phasing in of degradations.
        """
        number = sample_number(self.samples, position, self.settings.seed)
        sample = self.samples.sample(number)
        amount = self.degrader.amount(step)
        pipeline, controlled = self.pipeline, self.stage != "base"
        with torch.no_grad():
            prompt_embeds = pipeline.encode_prompt([sample.prompt])
            dense = self.degrader.depth(sample.dense, position, amount).frames
            history = self._history(sample, position)
            picture, history, degraded = self._degraded(
                sample, history, prompt_embeds, position, amount
            )
            conditioning = pipeline.prepare_conditioning(
                sample.video.shape[:3],
                image=picture[0],
                dense=dense if controlled else None,
                sparse=sample.sparse if controlled else None,
                history=history,
                prompt_embeds=prompt_embeds,
            )
            clean = self._encode(sample.video)
        noisy, noise, entry = self._noised(clean, position)
        factor = self.degrader.dense_factor(position, amount) if controlled else 1.0
        at_output = self.settings.degradation.dense_scale.at == "output"
        scaling = scaled_dense_tokens(pipeline.transformer, factor)
        with nullcontext() if at_output else scaling:
            velocity = predict_velocity(
                pipeline,
                noisy,
                float(self.noise.timesteps[entry]),
                conditioning,
                depth_strength=factor if at_output else 1.0,
                arithmetic=self.arithmetic,
            )
        if degraded or (self.stage == "history" and self.settings.terms == "always"):
            loss = degraded_loss(
                velocity,
                clean,
                noise,
                image_latent=self._encode(picture),
                history_latent=None if history is None else self._encode(history[-1:]),
            )
        else:
            loss = plain_loss(velocity, clean, noise)
        weight = float(self.noise.weights[entry]) if self.settings.weigh_timesteps else 1.0
        return LossTerms(loss.total * weight, loss.terms)

    def _history(self, sample: Sample, position: int) -> Frames | None:
        """Return the frames before the clip that are told, as many as drawn; None: none."""
        groups = len(sample.history) // _HISTORY_GROUP
        if self.stage != "history" or not groups or self.degrader.drops_history(position):
            return None
        draws = scalar_stream(self.settings.seed, "history length", position)
        return sample.history[-_HISTORY_GROUP * draws.randint(1, groups) :]

    def _degraded(
        self,
        sample: Sample,
        history: Frames | None,
        prompt_embeds: Tensor,
        position: int,
        amount: float,
    ) -> tuple[Frames, Frames | None, bool]:
        """Return conditioning picture [1, height, width, 3], history, and whether one is worse."""
        own = sample.video[:1]
        if self.stage not in ("degradation", "history"):
            return own, history, False
        # The controls show the clip's frames, not those before it.
        uncontrolled = PipelineRedraw(self.pipeline, prompt_embeds, arithmetic=self.arithmetic)
        redraw = PipelineRedraw(
            self.pipeline,
            prompt_embeds,
            dense=sample.dense[:1],
            sparse=sample.sparse[:1],
            arithmetic=self.arithmetic,
        )

        def degraded_picture(redraw: Redraw) -> Degraded:
            return self.degrader.frame(own, position, redraw, amount)

        def degraded_history(redraw: Redraw) -> Degraded | None:
            if history is None:
                return None
            return self.degrader.history(history, position, redraw, amount)

        fewer = self._fewer_evaluations(degraded_picture)
        picture = degraded_picture(redraw)
        redraw.evaluate(own, fewer)
        fewer = self._fewer_evaluations(degraded_history)
        worse = degraded_history(uncontrolled)
        uncontrolled.evaluate(own, fewer)
        if worse is None:
            return picture.frames, None, bool(picture.applied)
        chosen = picture.frames
        if not picture.applied and self.settings.picture == "last_history":
            chosen = worse.frames[-1:]
        return chosen, worse.frames, bool(picture.applied or worse.applied)

    def _fewer_evaluations(self, degrade: Callable[[Redraw], object]) -> int:
        """Return how often less this process evaluates the model than the one that does so most.

        Always 0 where each has a model of its own.
        """
        if not self.settings.sharded:
            return 0
        counted = CountedRedraw()
        degrade(counted)
        device = next(self.pipeline.transformer.parameters()).device
        return most_of_all(counted.evaluations, device) - counted.evaluations

    def _noised(self, clean: Tensor, position: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return noisy latents, the noise in them, and the entry [1] of the noise table."""
        draws = tensor_stream(self.settings.seed, "noise", position)
        index = torch.randint(len(self.noise.sigmas), (1,), generator=draws)
        entry = self.noise.entries(index, getattr(torch, self.pipeline.config.timestep_dtype))
        noise = torch.randn(clean.shape, generator=draws).to(clean)
        return self.noise.add_noise(clean, noise, entry), noise, entry

    @torch.no_grad()
    def _encode(self, frames: Frames) -> Tensor:
        return self.pipeline.encode_video(pixels_from_frames(frames)[None])
