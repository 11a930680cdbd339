"""The embedded transformer: base, control, history and both encoders, trained together on latents.

Two stages. `still` trains single frames without an image: what a prompt looks like and what depth
means, at a tenth of the cost of a clip. `clip` adds time, the first frame, tracks and history, and
keeps a share of stills so that a first frame can still be made from prompt and depth alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5EncoderModel

from longvie_cli.models.block_autoencoder import BlockAutoencoder
from longvie_cli.models.carrying import carried_trust
from longvie_cli.models.conditioning import control_input, first_frame_mask, history_input
from longvie_cli.models.longvie import LongVieTransformer3DModel
from longvie_cli.training.loop import process_place
from longvie_cli.training.tiny.config import TinyTraining
from longvie_cli.training.tiny.latents import (
    CARRIED_FLIGHT_KEY,
    CARRIED_LOOK_KEY,
    LatentLibrary,
    encode,
)
from longvie_cli.training.tiny.prompts import paraphrase
from longvie_cli.training.tiny.stage import (
    StageSettings,
    load_stage,
    run_stage,
    stage_checkpoint,
)
from longvie_cli.training.tiny.text import build_tokenizer, tokenize

# CLIP's own statistics; the pipeline normalises with the same (spec 1.4).
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def build_image_encoder(config: TinyTraining) -> CLIPVisionModel:
    """Return the image encoder with random weights."""
    return CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=config.image_width,
            intermediate_size=2 * config.image_width,
            num_hidden_layers=config.image_layers,
            num_attention_heads=config.image_width // 64,
            image_size=config.image_size,
            patch_size=config.image_patch,
            hidden_act="gelu",
        )
    )


def build_transformer(config: TinyTraining) -> LongVieTransformer3DModel:
    """Return the transformer with the initialisation that training starts from.

    The patch embedding carries the noise channels through unchanged (orthonormal columns) and the
    output layer reads them back: at high noise the velocity is nearly the input, and learning that
    takes a random initialisation hundreds of steps (measured: loss 0.65 against 0.89 at step 100).
    Where the first frame is carried, it is taken off the noise on the same way: the velocity is
    noise minus clip, and the carried frames are nearly the clip already.
    The control branches' input linears are random instead of zero, their output linears stay zero:
    the first step equals the base model, and the second already has a gradient through both.
    """
    channels = config.latent_channels
    dim = config.num_attention_heads * config.attention_head_dim
    transformer = LongVieTransformer3DModel(
        patch_size=(1, config.token_patch, config.token_patch),
        num_attention_heads=config.num_attention_heads,
        attention_head_dim=config.attention_head_dim,
        in_channels=2 * channels + 4,
        out_channels=channels,
        text_dim=config.text_width,
        freq_dim=256,
        ffn_dim=config.ffn_dim,
        num_layers=config.num_layers,
        image_dim=config.image_width,
        added_kv_proj_dim=dim,
        num_control_layers=config.num_control_layers,
        control_num_attention_heads=config.control_num_attention_heads,
        control_ffn_dim=config.control_ffn_dim,
        text_tokens=config.max_text_tokens,
    )
    with torch.no_grad():
        patch = transformer.patch_embedding.kernel_size
        width = channels * math.prod(patch)
        basis = torch.linalg.qr(torch.randn(dim, dim)).Q
        carried = basis[:, :width].unflatten(1, (channels, *patch))
        embedding = transformer.patch_embedding.weight
        embedding.normal_(std=0.02)
        embedding[:, :channels] = carried
        # As many condition channels as there are directions left.
        condition = torch.zeros(dim, width)
        left = basis[:, width : 2 * width]
        condition[:, : left.shape[1]] = 0.5 * left
        embedding[:, channels + 4 :] += condition.unflatten(1, (channels, *patch))
        if config.image_condition == "carried":
            embedding[:, channels + 4 :] -= carried
        transformer.patch_embedding.bias.zero_()
        # The output layer writes the channels of a token last (spec 1.1); a kernel has them first.
        read_back = carried.permute(2, 3, 4, 1, 0).flatten(0, 3)
        transformer.proj_out.weight.copy_(read_back * (width / dim) ** 0.5)
        transformer.proj_out.bias.zero_()
        for linear in (transformer.dense_proj_in, transformer.sparse_proj_in):
            nn.init.xavier_uniform_(linear.weight)
    return transformer


def channel_weights(latents_std: Sequence[float], picture_weight: float) -> Tensor:
    """Return the weights [channels, 1, 1, 1] of latent channels in the loss; their mean is 1.

    Args:
        latents_std: What the pipeline divides each channel by. The code is near to orthogonal, so
            an error of a channel shows in the picture by the square of it.
        picture_weight: 0..1: 0 weighs all channels alike, 1 as the picture does.
    """
    shown = torch.tensor(latents_std).square()
    return (1 - picture_weight + picture_weight * shown / shown.mean()).view(-1, 1, 1, 1)


def weighted_error(
    velocity: Tensor, target: Tensor, channels: Tensor, trust: Tensor, known_weight: float
) -> Tensor:
    """Return the mean squared error, in which what is known anyway counts less.

    Args:
        velocity: [batch, channels, frames, height, width].
        target: Likewise.
        channels: `channel_weights`.
        trust: `carried_trust`, of a shape that fits: what the sampler keeps of the carried frames.
        known_weight: Weight of what it keeps wholly, 0..1; the rest has 1.
    """
    weight = (channels * (1 - (1 - known_weight) * trust)).expand_as(velocity)
    return (weight * (velocity - target).square()).sum() / weight.sum()


class TransformerTraining:
    """Draws training examples from the latents and computes the flow-matching loss."""

    def __init__(
        self,
        config: TinyTraining,
        library: LatentLibrary,
        autoencoder: BlockAutoencoder,
        text_encoder: UMT5EncoderModel,
    ) -> None:
        torch.manual_seed(config.seed + 20)
        self.config = config
        self.library = library
        self.tokenizer = build_tokenizer()
        # Its own stage taught it to tell looks apart; training it on here would double the cost of
        # a still for words that it knows already.
        self.text_encoder = text_encoder.requires_grad_(False)
        self.image_encoder = build_image_encoder(config)
        self.transformer = build_transformer(config)
        if config.compiled:
            for block in self.transformer.blocks:
                block.compile(dynamic=False)
        if config.image_condition == "carried" and CARRIED_LOOK_KEY not in library.looks:
            raise ValueError(
                "the latents hold no carried frames; remove the folder latents and encode again"
            )
        self.channel_weights = channel_weights(
            autoencoder.config.latents_std, config.picture_weight
        )
        grey = torch.zeros(1, 3, config.num_frames, config.height, config.width)
        self.grey_latents = encode(autoencoder, grey)

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What is trained, by the name of its folder in the preset."""
        return {"transformer": self.transformer, "image_encoder": self.image_encoder}

    def _draw(self, tensor: Tensor, rows: Tensor, frames: Tensor) -> Tensor:
        return tensor[rows][:, :, frames].float()

    def _noise_levels(self, batch: int, generator: torch.Generator) -> Tensor:
        """Return sigmas [batch]: uniform, then shifted as at inference, or levels of the sampler.

        Both agree with inference on what matters; a sampler of few steps meets few levels.
        """
        config = self.config
        shift = config.flow_shift
        uniform = torch.rand(batch, generator=generator)
        if config.level_share > 0:
            steps = len(config.level_weights)
            weights = torch.tensor(config.level_weights)
            drawn = torch.multinomial(weights, batch, replacement=True, generator=generator)
            is_level = torch.rand(batch, generator=generator) < config.level_share
            uniform = torch.where(is_level, 1 - drawn / steps, uniform)
        return shift * uniform / (1 + (shift - 1) * uniform)

    def _prompts(self, rows: Tensor, rng: np.random.Generator) -> list[str]:
        prompts = []
        for row in rows.tolist():
            kind = rng.random()
            if kind < 0.1:
                prompts.append("")
            elif kind < 0.6:
                prompts.append(self.library.captions[row])
            else:
                prompts.append(paraphrase(self.library.look_of[row], rng)[0])
        return prompts

    def encode_prompts(self, prompts: list[str]) -> Tensor:
        """Return embeddings [prompts, max_text_tokens, width], zero past each prompt's end."""
        ids, mask = tokenize(self.tokenizer, prompts, self.config.max_text_tokens)
        embeddings = self.text_encoder(ids, attention_mask=mask).last_hidden_state.float()
        embeddings = embeddings * mask.unsqueeze(-1)
        return F.pad(embeddings, (0, 0, 0, self.config.max_text_tokens - ids.shape[1]))

    def encode_images(self, frames: Tensor) -> Tensor:
        """Return image embeddings [images, tokens, width] of uint8 frames [images, H, W, 3]."""
        size = self.config.image_size
        pixels = frames.permute(0, 3, 1, 2).float() / 255
        pixels = F.interpolate(pixels, (size, size), mode="bicubic", align_corners=False)
        mean, std = torch.tensor(CLIP_MEAN), torch.tensor(CLIP_STD)
        pixels = (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)
        return self.image_encoder(pixels, output_hidden_states=True).hidden_states[-2].float()

    def compute_loss(
        self, generator: torch.Generator, *, frames: Tensor, batch: int
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the mean squared velocity error of a random batch.

        Args:
            generator: Draws everything.
            frames: Which latent frames of each clip are trained on, [n] ascending, 0 first; the
                first alone is a still.
            batch: Examples.
        """
        library = self.library
        rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        still = len(frames) == 1
        rows = torch.randint(len(library.captions), (batch,), generator=generator)
        flights = library.flight_of[rows]
        clean = self._draw(library.looks["video"], rows, frames)

        sigma = self._noise_levels(batch, generator)
        noise = torch.randn(clean.shape, generator=generator)
        level = sigma.view(-1, 1, 1, 1, 1)
        noisy = (1 - level) * clean + level * noise

        # Conditions. History comes with an image; a first frame from the prompt has neither.
        with_history = not still and rng.random() < 0.65
        has_image = torch.full((batch,), with_history)
        if not still and not with_history:
            has_image = torch.from_numpy(rng.random(batch) < 0.7)
        flag = has_image.view(-1, 1, 1, 1, 1).float()
        kind = rng.random()
        with_dense, with_sparse = kind < 0.92, 0.05 < kind < 0.92
        # Nothing can be carried without both controls; without them the pipeline falls back too.
        is_carried = with_sparse and not still and self.config.image_condition == "carried"
        is_carried = is_carried and rng.random() < self.config.carried_share
        shown = library.looks[CARRIED_LOOK_KEY if is_carried else "image"]
        image = self._draw(shown, rows, frames)
        grey = self.grey_latents[:, :, frames].expand_as(image)
        image = flag * self._disturbed(image, generator) + (1 - flag) * grey
        mask = first_frame_mask(image)
        if is_carried:
            mask = self._draw(library.flights[CARRIED_FLIGHT_KEY], flights, frames)
        condition = torch.cat((mask * flag, image), dim=1)
        history = None
        if with_history:
            latents = library.looks["history"][rows].float()
            history = history_input(self._disturbed(latents, generator))
        pictures = library.first_frames[rows].clone()
        # What the pipeline shows the image encoder when there is no image: mid-grey.
        pictures[~has_image] = 127
        if still:
            pictures = pictures[:1]

        dense = sparse = None
        if with_dense:
            dense = control_input(
                self._draw(library.flights["dense"], flights, frames),
                self._draw(library.flights["dense_first"], flights, frames),
            )
        if with_sparse:
            sparse = control_input(
                self._draw(library.flights["sparse"], flights, frames),
                self._draw(library.flights["sparse_first"], flights, frames),
            )

        # On the CPU the fused attention's gradient takes a third of a step; that of plain matrix
        # products takes a tenth (docs/experiments.md).
        with (
            torch.autocast("cpu", torch.bfloat16, enabled=self.config.autocast),
            sdpa_kernel(SDPBackend.MATH),
        ):
            velocity = self.transformer(
                torch.cat((noisy, condition), dim=1),
                1000 * sigma,
                self.encode_prompts(self._prompts(rows, rng)),
                self.encode_images(pictures).expand(batch, -1, -1),
                dense=dense,
                sparse=sparse,
                history=history,
                clip_frames=frames,
                return_dict=False,
            )[0]
        trust = flag * carried_trust(mask) if is_carried else torch.zeros(1)
        loss = weighted_error(
            velocity.float(),
            noise - clean,
            self.channel_weights,
            trust,
            self.config.known_weight,
        )
        name = "still" if still else "history" if with_history else "image"
        return loss, {f"loss_{name}": loss.item()}

    def _disturbed(self, latents: Tensor, generator: torch.Generator) -> Tensor:
        """Return latents with a little noise and a little colour drift for half of the examples.

        At inference image and history are the model's own output, a bit worse each clip; a model
        that only ever saw clean ones drifts (paper section 3.3 does this with VAE round trips and
        regenerated frames; latents allow a cheaper version of the same idea).
        """
        batch, channels = latents.shape[:2]
        amount = 0.25 * torch.rand(batch, 1, 1, 1, 1, generator=generator)
        amount = amount * (torch.rand(batch, 1, 1, 1, 1, generator=generator) < 0.5)
        offset = torch.randn(batch, channels, 1, 1, 1, generator=generator)
        return latents + amount * (torch.randn(latents.shape, generator=generator) + 0.5 * offset)


def train_transformer(
    config: TinyTraining,
    training: TransformerTraining,
    folder: Path,
    *,
    stage: str,
    stop_after_seconds: float | None = None,
) -> None:
    """Run stage `still` or `clip`; a new `clip` starts from the averaged weights of `still`."""
    if stage == "clip" and stage_checkpoint(folder, "clip") is None:
        load_stage(folder, "still", training.modules)
    latent_frames = (config.num_frames - 1) // 4 + 1
    world_size = process_place()[1]

    def compute_loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        # With an image the prompt hardly matters: one still in six let the model forget its words.
        if stage == "still" or step % 5 in (0, 2):
            batch = config.still_batch // world_size
            return training.compute_loss(generator, frames=torch.arange(1), batch=batch)
        frames = _clip_frames(config, step, latent_frames, generator)
        # Of parts there are twice as many: they take no more time than whole clips.
        times = 2 if len(frames) < latent_frames else 1
        batch = config.clip_batch // world_size * times
        return training.compute_loss(generator, frames=frames, batch=batch)

    run_stage(
        stage,
        folder,
        training.modules,
        compute_loss,
        StageSettings(
            config.still_steps if stage == "still" else config.clip_steps,
            config.transformer_learning_rate,
            config.seed + (30 if stage == "still" else 31),
            muon=True,
            ema_decay=config.ema_decay,
        ),
        stop_after_seconds=stop_after_seconds,
    )


def _clip_frames(
    config: TinyTraining, step: int, latent_frames: int, generator: torch.Generator
) -> Tensor:
    """Return which latent frames of a clip a step trains on: all, or the first and some more."""
    if config.partial_frames == 0:
        # The first quarter trains on half clips, every second time.
        short = step < config.clip_steps // 4 and step % 5 == 1
        return torch.arange(latent_frames // 2 + 1 if short else latent_frames)
    if step >= config.partial_until * config.clip_steps:
        return torch.arange(latent_frames)
    latest = latent_frames - config.partial_frames
    begin = int(torch.randint(1, latest + 1, (1,), generator=generator))
    return torch.cat(
        (torch.zeros(1, dtype=torch.long), begin + torch.arange(config.partial_frames))
    )
