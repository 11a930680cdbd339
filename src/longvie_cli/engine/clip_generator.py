"""Makes the clips of a run, one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from longvie_cli.errors import ResumableError
from longvie_cli.models.carrying import Carrying
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.settings.presets import Preset
from longvie_cli.settings.sampling import Sampling


@dataclass(frozen=True)
class ClipTimings:
    """Where a clip's time went.

    Args:
        total_seconds: Encoding, denoising and decoding.
        decode_seconds: From the last step to the frames.
        step_seconds: Of a denoising step after the first, in the mean; None where there is one.
    """

    total_seconds: float
    decode_seconds: float
    step_seconds: float | None = None


@dataclass(frozen=True)
class Clip:
    """A clip as made.

    Args:
        index: Number of the clip in its run.
        frames: uint8 [frames, height, width, 3].
        timings: How long it took.
        finite: Whether all its latents are numbers.
    """

    index: int
    frames: np.ndarray
    timings: ClipTimings
    finite: bool = True

    def tail(self, num_frames: int) -> np.ndarray:
        """Return the last frames: all that the next clip needs of this one."""
        return self.frames[-num_frames:].copy()


class ClipGenerator:
    """Makes clips from one pipeline and one set of sampling numbers.

    Holds nothing of the clips it made: what one hands to the next is its tail, so a run that
    stopped continues from a stored tail with the same frames.

    Args:
        pipeline: As `load_pipeline` returns it.
        preset: Length and size of a clip.
        sampling: Its seed counts for clips that are given none of their own.
        prompt_embeds: Embeddings [1, text_tokens, text_dim] by text; other texts are encoded by the
            pipeline, if it has a text encoder.
        progress: Told of every denoising step, as stage `steps`, begun anew for each clip.

    Attributes:
        words: Returns the embeddings [1, text_tokens, text_dim] of a text.
    """

    def __init__(
        self,
        pipeline: LongViePipeline,
        preset: Preset,
        sampling: Sampling,
        *,
        prompt_embeds: Mapping[str, Tensor] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.preset = preset
        self.sampling = sampling
        self._progress = progress or SilentProgress()
        # One noise for all clips keeps their looks together (arXiv 2512.13604, unified noise).
        self._noise = lru_cache(maxsize=1)(
            lambda seed: pipeline.prepare_noise(
                seed, preset.num_frames, preset.height, preset.width
            )
        )
        self._known_embeds = dict(prompt_embeds or {})
        # Neighbouring clips mostly share a prompt, and all share the negative one.
        self.words = lru_cache(maxsize=4)(self._encode_prompt)

    def generate(
        self,
        clip_index: int,
        prompt: str,
        *,
        image: np.ndarray | None = None,
        history: np.ndarray | None = None,
        dense: np.ndarray | None = None,
        sparse: np.ndarray | None = None,
        carrying: Carrying | None = None,
        seed: int | None = None,
    ) -> Clip:
        """Return one clip of the preset's length.

        Args:
            clip_index: Number of the clip, kept in the result.
            prompt: Text.
            image: First frame, uint8 [height, width, 3]; where None it is the last frame of the
                history, and without history the model makes it.
            history: Tail of the clip before, uint8 [n, height, width, 3], oldest first.
            dense: Depth control, uint8 [frames, height, width, 3], or None.
            sparse: Track control, likewise.
            carrying: What else is known of the clip; read for a `carried` condition.
            seed: Of this clip's noise; None for the noise that all clips share.

        Raises:
            ControlError: a control has another length or size than the preset's clips.
            ResumableError: the machine is out of memory.
        """
        if image is None and history is not None:
            image = history[-1]
        started = time.perf_counter()
        noise = self._noise(self.sampling.seed if seed is None else seed)
        frames, steps_ended, finite = self._make(
            prompt,
            self.preset.num_frames,
            noise,
            image,
            history,
            dense,
            sparse,
            carrying=carrying,
        )
        ended, count = time.perf_counter(), len(steps_ended)
        timings = ClipTimings(
            ended - started,
            ended - steps_ended[-1],
            (steps_ended[-1] - steps_ended[0]) / (count - 1) if count > 1 else None,
        )
        return Clip(clip_index, frames, timings, finite)

    def first_frame(
        self,
        prompt: str,
        *,
        dense: np.ndarray | None = None,
        sparse: np.ndarray | None = None,
        seed: int | None = None,
    ) -> np.ndarray:
        """Return a first frame uint8 [height, width, 3] made from prompt and first controls alone.

        It is a clip of one frame without image condition, which only models trained for it make.

        Args:
            prompt: Text.
            dense: First depth frame, uint8 [height, width, 3].
            sparse: First track frame, likewise.
            seed: As in `generate`.
        """
        frames, _, _ = self._make(
            prompt,
            1,
            self._noise(self.sampling.seed if seed is None else seed)[:, :, :1],
            None,
            None,
            None if dense is None else dense[None],
            None if sparse is None else sparse[None],
        )
        return frames[0]

    def _make(
        self,
        prompt: str,
        num_frames: int,
        noise: Tensor,
        image: np.ndarray | None,
        history: np.ndarray | None,
        dense: np.ndarray | None,
        sparse: np.ndarray | None,
        carrying: Carrying | None = None,
    ) -> tuple[np.ndarray, list[float], bool]:
        """Return the frames, the instants steps ended at, and whether all latents are numbers."""
        steps_ended: list[float] = []
        latents: Tensor | None = None

        def stepped(*of_step: Any) -> None:
            nonlocal latents
            latents = of_step[-1]["latents"]
            steps_ended.append(time.perf_counter())
            self._progress.advance("steps")

        self._progress.start("steps", self.sampling.num_inference_steps)
        with _out_of_memory_is_resumable():
            (frames,) = self.pipeline(
                image=image,
                dense=dense,
                sparse=sparse,
                history=history,
                carrying=carrying,
                num_frames=num_frames,
                height=self.preset.height,
                width=self.preset.width,
                **self.sampling.clip_arguments,
                noise=noise,
                prompt_embeds=self.words(prompt),
                negative_prompt_embeds=None
                if self.sampling.guidance_scale == 1
                else self.words(self.sampling.negative_prompt),
                callback_on_step_end=stepped,
                return_dict=False,
            )
        self._progress.finish("steps")
        assert isinstance(frames, np.ndarray)
        finite = latents is None or bool(torch.isfinite(latents).all())
        return frames, steps_ended, finite

    @torch.no_grad()
    def _encode_prompt(self, prompt: str) -> Tensor:
        if (known := self._known_embeds.get(prompt)) is not None:
            return known
        return self.pipeline.encode_prompt([prompt])


@contextmanager
def _out_of_memory_is_resumable() -> Iterator[None]:
    """Turn a failed allocation into the error that says the same command continues."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        # On the CPU PyTorch raises a plain RuntimeError.
        if type(error) is RuntimeError and "can't allocate memory" not in str(error):
            raise
        raise ResumableError(
            f"Out of memory: {str(error).splitlines()[0] if str(error) else 'allocation failed'}",
            hint="Free memory and run the same command again; finished clips are kept.",
        ) from error
