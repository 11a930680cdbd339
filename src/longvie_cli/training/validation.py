"""What a run is watched by: the loss on samples kept aside, and clips to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from longvie_cli.disk.durable import make_folder
from longvie_cli.media.frames import Frames
from longvie_cli.media.writer import VideoWriter
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.settings.training import Stage, TrainingSettings
from longvie_cli.training.dataset import Samples
from longvie_cli.training.stage_loss import StageLoss

# A step at which nothing is degraded yet: validation measures the same thing all along.
_BEFORE_DEGRADATION = -1


class Validation:
    """Judges the model as it is now, always on the same samples at the same noise.

    Args:
        pipeline: The model in training.
        samples: Kept aside; their first ones are used.
        stage: As in training.
        settings: Of the run; nothing is degraded here.
        fps: Frames a second of the clips.
    """

    def __init__(
        self,
        pipeline: LongViePipeline,
        samples: Samples,
        stage: Stage,
        settings: TrainingSettings,
        *,
        fps: int,
    ) -> None:
        self.pipeline = pipeline
        self.samples = samples
        self.stage = stage
        self.settings = settings
        self.fps = fps
        undegraded = settings.degradation.model_copy(update={"off_steps": 0})
        self._loss = StageLoss(
            pipeline, samples, stage, settings.model_copy(update={"degradation": undegraded})
        )

    @torch.no_grad()
    def loss(self) -> float:
        """Return the mean loss over the first samples."""
        count = self.settings.validation_samples
        losses = [
            self._loss.at(position, step=_BEFORE_DEGRADATION).total.item()
            for position in range(count)
        ]
        return sum(losses) / count

    def clip(self) -> Frames:
        """Return what the model makes of the first sample's picture, controls and prompt."""
        sample = self.samples.sample(0)
        controlled = self.stage != "base"
        (frames,) = self.pipeline(
            sample.prompt,
            sample.video[0],
            sample.dense if controlled else None,
            sample.sparse if controlled else None,
            num_frames=len(sample.video),
            num_inference_steps=self.settings.validation_steps,
            guidance_scale=1.0,
            seed=self.settings.seed,
            return_dict=False,
        )
        assert isinstance(frames, np.ndarray), "asked for frames, not latents"
        return frames

    def write_clip(self, path: Path, frames: Frames) -> None:
        """Write a clip.

        Raises:
            ResumableError: The disk is full.
            OutputConflictError: The folder cannot be written.
        """
        make_folder(path.parent)
        height, width = frames.shape[1:3]
        with VideoWriter(path, height=height, width=width, fps=self.fps) as writer:
            for frame in frames:
                writer.write(frame)
