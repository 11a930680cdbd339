"""LongVie 2 as a diffusers pipeline: prompt, first frame, controls and history in, one clip out.

    pipeline = LongViePipeline.from_pretrained(folder)
    first = pipeline("a valley at dawn", image, dense, sparse).frames
    second = pipeline("a valley at dawn", first[-1], dense2, sparse2, history=first[-8:]).frames
    for frames in pipeline.generate("a valley at dawn", image, [(dense, sparse), ...]):
        ...

Frames outside are uint8 [frames, height, width, 3]; pixels are float [-1, 1]; latents are the VAE's
posterior mean, normalised per channel. Behaviour: spec 1.2-1.4, 3 and 4.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import numpy as np
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from diffusers.utils import BaseOutput
from torch import Tensor
from transformers import CLIPVisionModel, PreTrainedTokenizerBase, UMT5EncoderModel

from longvie_cli.errors import InputError
from longvie_cli.media.frames import frames_from_pixels, pixels_from_frames
from longvie_cli.models.autoencoders import VideoAutoencoder
from longvie_cli.models.carrying import Carrying, carried_trust, confidence_mask
from longvie_cli.models.clip_shape import shared_shape
from longvie_cli.models.conditioning import (
    Conditioning,
    control_input,
    first_frame_mask,
)
from longvie_cli.models.denoising import DenoisingTask, StepCallback, denoise_clip
from longvie_cli.models.flow_matching import controlled_steps
from longvie_cli.models.image_embeds import encode_picture
from longvie_cli.models.known_frames import GivenFrames, known_frames
from longvie_cli.models.long_video import generate_clips
from longvie_cli.models.longvie import LongVieTransformer3DModel
from longvie_cli.models.lora import LongVieLoraMixin
from longvie_cli.models.prompt_embeds import encode_prompts
from longvie_cli.models.prompt_tokens import clean_prompt, cut_by
from longvie_cli.models.sketcher import Sketcher
from longvie_cli.models.whole_video import decode_videos, encode_videos
from longvie_cli.parallel.clip_parallel import ClipParallel
from longvie_cli.settings.sampling import Fast

logger = logging.getLogger(__name__)

Engine = Literal["fused", "reference"]
"""How a clip is made; `reference` evaluates the whole transformer every time, as a plain loop."""


@dataclass
class LongViePipelineOutput(BaseOutput):
    """One clip.

    Args:
        frames: uint8 [frames, height, width, 3], or a tensor for the other output types.
    """

    frames: np.ndarray | Tensor


class LongViePipeline(DiffusionPipeline, LongVieLoraMixin):
    """Makes one clip under dense and sparse control, continuing the history it is given.

    Args:
        tokenizer: Of the text encoder; None where the text encoder is.
        text_encoder: UMT5 encoder; without it every clip needs `prompt_embeds`.
        image_encoder: CLIP vision model; its last layer but one is read.
        vae: Causal video VAE; sizes and normalisation come from its config.
        transformer: The denoiser.
        scheduler: Euler flow matching; its `shift` is the flow shift.
        sketcher: Draws the first frame of a prompt alone; None where the transformer does so.
        timestep_dtype: The model reads timesteps rounded to this type: `bfloat16` as LongVie 2
            was trained and released (937.5 becomes 936), or `float32`.
        image_condition: What the transformer sees beside the noise: `first_frame`, then grey, as
            LongVie 2 was trained, or `carried`, the first frame carried along the controls.
        track_grid: Columns and rows of the points in the track pictures; read for `carried`.

    Attributes:
        engine: `fused` computes once what the evaluations of a clip have in common, `reference`
            every time; their frames differ by rounding.
        parallel: The processes that denoise together; as `announce` set by `use_parallel`.
        announce: Tells the others of each clip that is denoised.
    """

    engine: Engine = "fused"
    parallel: ClipParallel | None = None
    announce: Callable[[DenoisingTask], None] | None = None

    _optional_components: ClassVar[list[str]] = ["tokenizer", "text_encoder", "sketcher"]
    model_cpu_offload_seq = "text_encoder->image_encoder->transformer->vae"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | None,
        text_encoder: UMT5EncoderModel | None,
        image_encoder: CLIPVisionModel,
        vae: VideoAutoencoder,
        transformer: LongVieTransformer3DModel,
        scheduler: FlowMatchEulerDiscreteScheduler,
        sketcher: Sketcher | None = None,
        timestep_dtype: str = "float32",
        image_condition: str = "first_frame",
        track_grid: Sequence[int] = (50, 50),
    ) -> None:
        super().__init__()
        if timestep_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"timestep_dtype must be float32 or bfloat16, not {timestep_dtype}")
        if image_condition not in ("first_frame", "carried"):
            raise ValueError(f"image_condition must be first_frame or carried: {image_condition}")
        self.register_modules(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            image_encoder=image_encoder,
            vae=vae,
            transformer=transformer,
            scheduler=scheduler,
            sketcher=sketcher,
        )
        self.register_to_config(
            timestep_dtype=timestep_dtype,
            image_condition=image_condition,
            track_grid=list(track_grid),
        )

    def use_parallel(
        self,
        parallel: ClipParallel,
        announce: Callable[[DenoisingTask], None] | None = None,
    ) -> None:
        """Denoise together with other processes, whose pipelines have the same weights.

        Each returns the same latents. Encoding and decoding are done by the one that is asked.

        Args:
            parallel: Made in all of them at the same time.
            announce: Called with the arguments of each `denoise`, before it begins, so that the
                others call it alike; None where they do so by themselves.
        """
        self.parallel, self.announce = parallel, announce
        if parallel.sequence is not None:
            self.transformer.use_parallel(parallel.sequence)

    @property
    def size_multiple(self) -> tuple[int, int]:
        """What height and width must be multiples of: VAE factor times patch."""
        _, rows, columns = self.transformer.config.patch_size
        factor = self.vae.config.scale_factor_spatial
        return factor * rows, factor * columns

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | None = None,
        image: np.ndarray | None = None,
        dense: np.ndarray | None = None,
        sparse: np.ndarray | None = None,
        history: np.ndarray | None = None,
        *,
        carrying: Carrying | None = None,
        negative_prompt: str = "",
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 5.0,
        depth_strength: float = 1.0,
        track_strength: float = 1.0,
        control_start: float = 0.0,
        control_end: float = 1.0,
        fast: Fast = "none",
        noise: Tensor | None = None,
        seed: int = 0,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        image_embeds: Tensor | None = None,
        callback_on_step_end: StepCallback | None = None,
        output_type: Literal["uint8", "pt", "latent"] = "uint8",
        return_dict: bool = True,
    ) -> LongViePipelineOutput | tuple[np.ndarray | Tensor]:
        """Return one clip.

        Args:
            prompt: Text; or give `prompt_embeds`.
            image: First frame, uint8 [height, width, 3]. None lets the model make it, which only a
                model trained for it can; where it is then carried along both controls, it is made
                before the others, alone.
            dense: Depth control frames, uint8 [frames, height, width, 3].
            sparse: Track control frames, likewise.
            history: Last frames of the clip before, oldest first, uint8 [n, height, width, 3];
                the VAE reads the first 4k+1 of them (5 of 8).
            carrying: What else is known of the clip; read for a `carried` condition.
            negative_prompt: What to lead away from; read when `guidance_scale` is not 1.
            num_frames: Frames of the clip, 4k+1; needed only without controls.
            height: Rows; needed only without controls and image.
            width: Columns, likewise.
            num_inference_steps: Evaluations of the prompt.
            guidance_scale: 1 skips the evaluations of the negative prompt.
            depth_strength: Strength of the dense control; 0 skips its branch.
            track_strength: Strength of the sparse control, likewise.
            control_start: Fraction of the steps before which both branches are skipped.
            control_end: Fraction of the steps from which on they are skipped again; which steps
                that is says `controlled_steps`.
            fast: Which evaluations are foretold from those before, see `plan_steps`.
            noise: Starting noise as `prepare_noise` makes it; never changed. One noise for all
                clips of a video keeps their looks together (spec 4.5).
            seed: Draws the noise where none is given.
            prompt_embeds: [1, text_tokens, text_dim], instead of `prompt`.
            negative_prompt_embeds: Likewise.
            image_embeds: [1, image tokens, image_dim], instead of those of `image`.
            callback_on_step_end: Called after every step with this pipeline, the step index, the
                timestep and `{"latents": ...}`; what it raises ends the call, `latents` in a
                dict it returns replaces ours.
            output_type: `uint8` frames, `pt` pixels [1, 3, frames, height, width], or `latent`.
            return_dict: False returns a tuple.

        Raises:
            ControlError: a control has another length or size than the clip.
            InputError: sizes the model cannot make, no prompt, a prompt without a text encoder, or
                a wrong control schedule.
        """
        # 1. One shape for all inputs
        shape = self.clip_shape(image, dense, sparse, history, num_frames, height, width)

        noise = self.prepare_noise(seed, *shape) if noise is None else noise

        # 2. Everything the transformer is told; what no step uses is not encoded either
        steered = bool(controlled_steps(num_inference_steps, control_start, control_end))
        dense = dense if steered and depth_strength > 0 else None
        sparse = sparse if steered and track_strength > 0 else None
        has_to_carry = self.config.image_condition == "carried" and image is None and shape[0] > 1
        if has_to_carry and dense is not None and sparse is not None:
            (made,) = self(
                prompt,
                dense=dense[:1],
                sparse=sparse[:1],
                negative_prompt=negative_prompt,
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                depth_strength=depth_strength,
                track_strength=track_strength,
                control_start=control_start,
                control_end=control_end,
                fast=fast,
                noise=noise[:, :, :1],
                prompt_embeds=prompt_embeds,
                negative_prompt_embeds=negative_prompt_embeds,
                return_dict=False,
            )
            image, image_embeds = cast(np.ndarray, made)[0], None
        conditioning = self.prepare_conditioning(
            shape,
            prompt=prompt,
            image=image,
            dense=dense,
            sparse=sparse,
            history=history,
            carrying=carrying,
            negative_prompt=negative_prompt if guidance_scale != 1 else None,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            image_embeds=image_embeds,
        )

        # 3. Denoise and decode
        latents = self.denoise(
            noise,
            conditioning,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            depth_strength=depth_strength,
            track_strength=track_strength,
            control_start=control_start,
            control_end=control_end,
            fast=fast,
            callback_on_step_end=callback_on_step_end,
        )
        result: np.ndarray | Tensor = latents
        if output_type != "latent":
            pixels = self.decode_latents(latents)
            result = pixels if output_type == "pt" else frames_from_pixels(pixels[0])
        self.maybe_free_model_hooks()
        return LongViePipelineOutput(frames=result) if return_dict else (result,)

    # What all inputs of a clip agree on, noise to latents, and many clips, one after another.
    clip_shape = shared_shape
    denoise = denoise_clip
    generate = generate_clips

    @torch.no_grad()
    def prepare_conditioning(
        self,
        shape: tuple[int, int, int],
        *,
        prompt: str | None = None,
        image: np.ndarray | None = None,
        dense: np.ndarray | None = None,
        sparse: np.ndarray | None = None,
        history: np.ndarray | None = None,
        carrying: Carrying | None = None,
        negative_prompt: str | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        image_embeds: Tensor | None = None,
    ) -> Conditioning:
        """Return what the transformer is given for a clip of `shape` (frames, height, width).

        Arguments as in `__call__`; `negative_prompt` None leaves the negative embeds out unless
        they are given. A `carried` condition takes an image, and controls as far as there are some;
        without an image it is grey, but for a first frame that is sketched.
        """
        if prompt_embeds is None:
            if prompt is None:
                raise InputError("A clip needs a prompt or prompt_embeds.")
            prompt_embeds = self.encode_prompt([prompt])
        if negative_prompt_embeds is None and negative_prompt is not None:
            negative_prompt_embeds = self.encode_prompt([negative_prompt])
        if image_embeds is None and self.transformer.config.image_dim is not None:
            image_embeds = self.encode_image(image)

        # All videos of the clip's length, and after how many frames each of them is grey.
        grey = torch.zeros(3, *shape)
        carried = None
        if self.config.image_condition == "carried":
            given = GivenFrames(image, dense, sparse, history)
            carried = known_frames(
                shape,
                given,
                prompt_embeds,
                carrying or Carrying(),
                track_grid=self.config.track_grid,
                sketcher=self.sketcher,
            )
        if carried is not None:
            videos = [pixels_from_frames(carried.frames)]
        else:
            videos = [grey if image is None else _first_frame_then_grey(image, grey)]
        still_after = [1 if carried is None else None]
        for control in (dense, sparse):
            if control is not None:
                videos += [pixels_from_frames(control), _first_frame_then_grey(control[0], grey)]
                still_after += [None, 1]
        encoded = list(self.encode_video(torch.stack(videos), still_after=still_after).split(1))
        mask_channels = self.vae.config.scale_factor_temporal
        pictured = encoded.pop(0)
        mask = first_frame_mask(pictured, mask_channels=mask_channels, has_image=image is not None)
        if carried is not None:
            sure = torch.from_numpy(carried.confidence).to(pictured.device)
            mask = confidence_mask(sure, mask_channels, *pictured.shape[-2:])
        inputs = [
            None
            if control is None
            else control_input(encoded.pop(0), encoded.pop(0), mask_channels=mask_channels)
            for control in (dense, sparse)
        ]
        return Conditioning(
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            image_embeds=image_embeds,
            image_condition=torch.cat((mask, pictured), dim=1),
            trust=None if carried is None else carried_trust(mask),
            dense=inputs[0],
            sparse=inputs[1],
            history_latents=None
            if history is None
            else self.encode_video(pixels_from_frames(history)[None]),
        )

    def prepare_noise(self, seed: int, num_frames: int, height: int, width: int) -> Tensor:
        """Return the noise [1, channels, frames, height, width] of a seed, float32 on the CPU.

        Drawn on the CPU, so that a seed means the same video on every device (spec 4.4).
        """
        factor = self.vae.config.scale_factor_spatial
        shape = (
            1,
            self.vae.config.z_dim,
            (num_frames - 1) // self.vae.config.scale_factor_temporal + 1,
            height // factor,
            width // factor,
        )
        return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))

    def encode_prompt(self, prompts: Sequence[str]) -> Tensor:
        """Return [prompt, text_tokens, text_dim]; rows past a prompt's end are zero (spec 1.3).

        A prompt that is longer than what is read of it is logged as a warning.
        """
        if self.text_encoder is None or self.tokenizer is None:
            raise InputError(
                "This pipeline was loaded without its text encoder, so it cannot read a prompt; "
                "pass prompt_embeds."
            )
        text_tokens = self.transformer.config.text_tokens
        for prompt in prompts:
            if cut := cut_by(self.tokenizer, clean_prompt(prompt), text_tokens):
                logger.warning("%.40r: %s", prompt, cut.words)
        return encode_prompts(
            self.tokenizer,
            self.text_encoder,
            prompts,
            text_tokens=text_tokens,
            device=self._execution_device,
        )

    def encode_image(self, image: np.ndarray | None) -> Tensor:
        """Return the image tokens [1, tokens, image_dim] of a frame uint8 [height, width, 3].

        None stands for a mid-grey picture.
        """
        return encode_picture(self.image_encoder, image, self._execution_device)

    def encode_video(
        self, pixels: Tensor, *, still_after: Sequence[int | None] | None = None
    ) -> Tensor:
        """Return normalised latents [B, channels, frames, height, width], float32.

        Args:
            pixels: [B, 3, frames, height, width] in [-1, 1]. Of n frames the first
                1 + 4 * ((n - 1) // 4) are read.
            still_after: Of each video, after how many frames all others are equal; None where they
                are not.
        """
        pixels = pixels.to(self._execution_device, self.vae.dtype)
        if self.engine == "fused":
            latents = encode_videos(self.vae, pixels, still_after or [None] * len(pixels))
        else:
            latents = self.vae.encode(pixels).latent_dist.mean
        mean, std = self._latent_statistics()
        return (latents.float() - mean) / std

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Return float32 pixels [B, 3, frames, height, width] in [-1, 1] of normalised latents."""
        mean, std = self._latent_statistics()
        latents = latents.to(self._execution_device, torch.float32) * std + mean
        latents = latents.to(self.vae.dtype)
        if self.engine == "fused":
            return decode_videos(self.vae, latents).float()
        return self.vae.decode(latents, return_dict=False)[0].float()

    def _latent_statistics(self) -> tuple[Tensor, Tensor]:
        config, device = self.vae.config, self._execution_device
        mean, std = (
            torch.tensor(values, device=device).view(1, -1, 1, 1, 1)
            for values in (config.latents_mean, config.latents_std)
        )
        return mean, std


def _first_frame_then_grey(frame: np.ndarray, grey: Tensor) -> Tensor:
    pixels = grey.clone()
    pixels[:, :1] = pixels_from_frames(frame[None])
    return pixels
