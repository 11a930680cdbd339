"""One engine, loaded, and clips made by it with a clock at every stage."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from longvie_cli.benchmarking.stages import Clock, timed_stages
from longvie_cli.controls.control_folder import ControlLayout, make_control_folder
from longvie_cli.controls.files import ControlClips, load_control_clips
from longvie_cli.controls.procedural import FlightControls
from longvie_cli.engine.loader import load_pipeline, load_preset_text_encoder
from longvie_cli.engine.machine import peak_host_bytes
from longvie_cli.engine.memory import models_of_preset
from longvie_cli.media.frames import frames_from_pixels
from longvie_cli.media.writer import VideoWriter
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.models.prompt_embeds import encode_prompts
from longvie_cli.progress import SilentProgress
from longvie_cli.settings.presets import Preset
from longvie_cli.settings.sampling import Sampling
from longvie_cli.worlds import EVALUATION_SEED_START, Flight

# A landscape that nothing was trained on, from where it has frames before the first.
_SEED = EVALUATION_SEED_START
_FIRST_FRAME = 16
# Without a text encoder a prompt is this many random tokens: a caption of some length.
_PROMPT_TOKENS = 100


@dataclass(frozen=True)
class Engine:
    """A way of running a preset's models that `bench` knows by a name.

    Args:
        name: As it is typed.
        fused: Whether what the evaluations of a clip share is computed once, by fused kernels;
            else it is a plain diffusers loop, which computes everything each time.
        changed: Fields of `Sampling` that it sets.
    """

    name: str
    fused: bool = True
    changed: Mapping[str, str] = field(default_factory=dict)

    def applied_to(self, sampling: Sampling) -> Sampling:
        """Return how a model is run by this engine."""
        return replace(sampling, **self.changed)  # type: ignore[arg-type]


ENGINES = {
    engine.name: engine
    for engine in (
        Engine("reference", fused=False),
        Engine("fused"),
        Engine("bf16", changed={"dtype": "bfloat16"}),
        Engine("fp8", changed={"quantize": "fp8-w8a8"}),
        Engine("int8", changed={"quantize": "int8-w8a8"}),
    )
}


class Task(BaseModel):
    """What an engine is measured on.

    Args:
        engine: One of `ENGINES`.
        preset: The model and the length and size of a clip.
        sampling: How it is run; the engine changes type and quantization.
        from_random: Whether its weights are random.
        memory_limit: Bytes that may be taken on a GPU; None for all.
        controls: Control folder of one clip, made where it is empty.
        latents: File that the latents of the last clip are written to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str
    preset: Preset
    sampling: Sampling
    from_random: bool
    memory_limit: int | None
    controls: Path
    latents: Path


class ClipTimes(BaseModel):
    """What one clip took.

    Args:
        seconds: Of the whole clip.
        stages: Of each of `STAGES`.
        peak_memory_bytes: On a GPU what PyTorch had allocated at most; else of the process.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float
    stages: dict[str, float]
    peak_memory_bytes: int


def make_controls(preset: Preset, folder: Path) -> None:
    """Write the controls of the clip that engines are measured on."""
    layout = ControlLayout(
        preset.geometry,
        preset.height,
        preset.width,
        track_columns=preset.track_grid.columns,
        track_rows=preset.track_grid.rows,
    )
    source = FlightControls(_flight(preset), layout, preset.num_frames, start_frame=_FIRST_FRAME)
    make_control_folder(source, folder, progress=SilentProgress())


def _flight(preset: Preset) -> Flight:
    return Flight(_SEED, fps=preset.fps, height=preset.height, width=preset.width)


class EngineRun:
    """An engine and the clip it makes again and again: a second one, with history.

    The models are loaded when the first clip is asked for, and may be released in between.

    Args:
        task: What is measured.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.engine = ENGINES[task.engine]
        self.sampling = self.engine.applied_to(task.sampling)
        self.device = torch.device(self.sampling.device)
        self._clock = Clock(self.device)
        if task.memory_limit is not None and self.device.type == "cuda":
            total = torch.cuda.get_device_properties(self.device).total_memory
            torch.cuda.set_per_process_memory_fraction(
                min(1.0, task.memory_limit / total), self.device
            )
        self._controls: ControlClips = load_control_clips(task.controls, task.preset.geometry)
        flight, history = _flight(task.preset), task.preset.history_frames
        frames = range(_FIRST_FRAME - history + 1, _FIRST_FRAME + 1)
        self._history = np.stack([flight.frame(index).rgb for index in frames])
        self._embeds = self._prompt_embeds(self._controls.text(0))
        self._pipeline: LongViePipeline | None = None

    def release(self) -> None:
        """Give the memory of the models back."""
        self._pipeline = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def warm_up(self) -> None:
        """Load the models if they are not, and take one step with them, not measured."""
        if self._pipeline is None:
            self._pipeline = load_pipeline(
                self.task.preset,
                self.sampling,
                text_encoder=False,
                from_random=self.task.from_random,
                engine="fused" if self.engine.fused else "reference",
            )
        self._make(self._pipeline, replace(self.sampling, num_inference_steps=1), {})

    def measure(self) -> ClipTimes:
        """Make the clip and return what it took."""
        self.warm_up()
        assert self._pipeline is not None
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        spans: dict[str, list[tuple[Any, Any]]] = {}
        with timed_stages(self._pipeline.transformer, self._clock) as of_the_transformer:
            latents = self._make(self._pipeline, self.sampling, spans)
            stages = of_the_transformer()
        seconds = {
            name: sum(self._clock.seconds(*span) for span in pairs) for name, pairs in spans.items()
        }
        # What of denoising is outside the transformer: the sampler.
        whole = sum(seconds.values())
        stages["glue"] += seconds.pop("denoise") - sum(stages.values())
        torch.save(latents.float().cpu(), self.task.latents)
        peak = (
            torch.cuda.max_memory_allocated(self.device)
            if self.device.type == "cuda"
            else peak_host_bytes()
        )
        return ClipTimes(seconds=whole, stages=stages | seconds, peak_memory_bytes=peak)

    @torch.no_grad()
    def _make(
        self,
        pipeline: LongViePipeline,
        sampling: Sampling,
        spans: dict[str, list[tuple[Any, Any]]],
    ) -> Tensor:
        """Make the clip, note when its parts began and ended, and return its latents."""
        preset = self.task.preset

        def timed(name: str, work: Callable[[], Any]) -> Any:
            self._clock.finish()
            began = self._clock.now()
            made = work()
            ended = self._clock.now()
            self._clock.finish()
            spans.setdefault(name, []).append((began, ended))
            return made

        size = preset.height, preset.width
        clip = timed("io", lambda: self._controls.read(0, *size, "native"))
        noise = pipeline.prepare_noise(sampling.seed, preset.num_frames, *size)
        prompt, negative = self._embeds
        conditioning = timed(
            "encode",
            lambda: pipeline.prepare_conditioning(
                (preset.num_frames, *size),
                image=self._history[-1],
                dense=clip.dense,
                sparse=clip.sparse,
                history=self._history,
                prompt_embeds=prompt,
                negative_prompt_embeds=None if sampling.guidance_scale == 1 else negative,
            ),
        )
        latents: Tensor = timed(
            "denoise",
            lambda: pipeline.denoise(noise, conditioning, **sampling.clip_arguments),
        )
        frames = timed("decode", lambda: frames_from_pixels(pipeline.decode_latents(latents)[0]))
        timed("io", lambda: _write(frames, preset.fps))
        return latents

    def _prompt_embeds(self, caption: str) -> tuple[Tensor, Tensor]:
        """Return the embeddings [1, text tokens, width] of a prompt and of a negative one."""
        preset, sampling = self.task.preset, self.sampling
        if self.task.from_random:
            config = models_of_preset(preset).transformer.config
            embeds = torch.zeros(2, config.text_tokens, config.text_dim)
            tokens = min(_PROMPT_TOKENS, config.text_tokens)
            drawn = torch.Generator().manual_seed(_SEED)
            embeds[:, :tokens] = torch.randn(2, tokens, config.text_dim, generator=drawn)
        else:
            tokenizer, text_encoder = load_preset_text_encoder(preset, sampling)
            embeds = encode_prompts(
                tokenizer,
                text_encoder,
                [caption, sampling.negative_prompt],
                text_tokens=preset.max_text_tokens,
                device=self.device,
            )
        return embeds[:1], embeds[1:]


def _write(frames: np.ndarray, fps: int) -> None:
    height, width = frames.shape[1:3]
    with (
        tempfile.TemporaryDirectory() as folder,
        VideoWriter(Path(folder) / "clip.mp4", height=height, width=width, fps=fps) as writer,
    ):
        for frame in frames:
            writer.write(frame)
