"""The embedded autoencoder: a small AutoencoderKLWan trained on flights and on control pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import (
    WanAttentionBlock,
    WanResidualBlock,
    unpatchify,
)
from torch import nn

from longvie_cli.kernels.causal_conv3d import use_stacked_causal_convolutions
from longvie_cli.training.tiny.config import TinyTraining
from longvie_cli.training.tiny.flights import FlightLibrary
from longvie_cli.training.trainer import load_average, process_place, run_stage

LATENT_STATISTICS_NAME = "latent_statistics.json"


def build_autoencoder(config: TinyTraining) -> AutoencoderKLWan:
    """Return the autoencoder with random weights: 8x8x4 compression through 2x2 patches."""
    channels = 3 * config.autoencoder_patch**2
    autoencoder = AutoencoderKLWan(
        base_dim=config.autoencoder_base_dim,
        z_dim=config.latent_channels,
        dim_mult=list(config.autoencoder_dim_mult),
        num_res_blocks=1,
        temperal_downsample=[True, True],
        in_channels=channels,
        out_channels=channels,
        patch_size=config.autoencoder_patch,
        scale_factor_temporal=4,
        scale_factor_spatial=config.autoencoder_patch * 2 ** (len(config.autoencoder_dim_mult) - 1),
        latents_mean=[0.0] * config.latent_channels,
        latents_std=[1.0] * config.latent_channels,
        # Shortcuts around the down- and upsampling, as in Wan 2.2's 16x16x4 autoencoder: without
        # them 300 steps gave a grey blur (docs/experiments.md).
        is_residual=True,
    )
    _start_near_linear(autoencoder)
    return autoencoder


@torch.no_grad()
def _start_near_linear(autoencoder: AutoencoderKLWan) -> None:
    """Initialise every kernel as an orthogonal map of one tap, every residual branch as zero.

    Signals then pass both ways at full strength from the first step, and training begins as that of
    a linear autoencoder.
    """
    for module in autoencoder.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            weight = module.weight
            tap = nn.init.orthogonal_(torch.empty(weight.shape[:2]))
            rows, columns = weight.shape[-2] // 2, weight.shape[-1] // 2
            weight.mul_(0.3)
            # The newest frame of a causal kernel is its last.
            frame = (-1,) if weight.ndim == 5 else ()
            weight[(slice(None), slice(None), *frame, rows, columns)] += tap
            if module.bias is not None:
                module.bias.zero_()
    for module in autoencoder.modules():
        if isinstance(module, WanResidualBlock):
            module.conv2.weight.zero_()
        elif isinstance(module, WanAttentionBlock):
            module.proj.weight.zero_()


def decode_unclamped(autoencoder: AutoencoderKLWan, latents: torch.Tensor) -> torch.Tensor:
    """Return the decoded pixels before the clamp to [-1, 1], whose gradient vanishes outside."""
    autoencoder.clear_cache()
    hidden = autoencoder.post_quant_conv(latents)
    chunks = []
    for frame in range(latents.shape[2]):
        autoencoder._conv_idx = [0]
        chunks.append(
            autoencoder.decoder(
                hidden[:, :, frame : frame + 1],
                feat_cache=autoencoder._feat_map,
                feat_idx=autoencoder._conv_idx,
                first_chunk=frame == 0,
            )
        )
    autoencoder.clear_cache()
    return unpatchify(torch.cat(chunks, dim=2), patch_size=autoencoder.config.patch_size)


def _gradients(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the differences along width, height and time."""
    return pixels.diff(dim=-1), pixels.diff(dim=-2), pixels.diff(dim=-3)


def reconstruction_loss(decoded: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """Return L1 on pixels plus L1 on their differences, which keeps edges and motion sharp.

    No perceptual network: none may be downloaded, and landscapes have little texture to hide in.
    """
    loss = (decoded - pixels).abs().mean()
    for ours, theirs in zip(_gradients(decoded), _gradients(pixels), strict=True):
        if theirs.numel():
            loss = loss + 0.7 * (ours - theirs).abs().mean()
    coarse = F.avg_pool3d(decoded - pixels, (1, 8, 8))
    return loss + 0.5 * coarse.abs().mean()


def psnr(decoded: torch.Tensor, pixels: torch.Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB for pixels in [-1, 1]."""
    return float(10 * torch.log10(4 / (decoded - pixels).square().mean()))


def _clip_frames(step: int, config: TinyTraining) -> int:
    """Return the length trained at a step: stills and short clips, then four latent frames.

    The third latent frame takes a caching path that shorter clips never see (measured: 13-16 dB
    from frame 6 on for a model trained on 5 frames), so the longer part of training has 13.
    """
    if step < 0.2 * config.autoencoder_steps:
        return 5 if step % 4 else 1
    return min(17 if step % 4 == 0 else 13, config.num_frames)


def train_autoencoder(
    config: TinyTraining, folder: Path, *, stop_after_seconds: float | None = None
) -> AutoencoderKLWan:
    """Train the autoencoder and return it with averaged weights."""
    torch.manual_seed(config.seed)
    autoencoder = build_autoencoder(config)
    library = FlightLibrary(folder / "flights", config)
    world_size = process_place()[1]

    def compute_loss(
        step: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, float]]:
        num_frames = _clip_frames(step, config)
        batch = config.autoencoder_batch * (8 if num_frames == 1 else 2 if num_frames == 5 else 1)
        batch //= world_size
        rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        pixels = torch.stack(
            [
                library.autoencoder_pixels(rng, num_frames, config.autoencoder_crop)
                for _ in range(batch)
            ]
        )
        with torch.autocast("cpu", torch.bfloat16):
            mean = autoencoder.encode(pixels).latent_dist.mean.float()
            noise = torch.randn(mean.shape, generator=generator)
            decoded = decode_unclamped(autoencoder, mean + config.latent_noise * noise)
        loss = reconstruction_loss(decoded.float(), pixels)
        # Holds the latents near unit scale, so that the fixed noise above stays a real disturbance.
        penalty = 3e-3 * mean.square().mean()
        return loss + penalty, {
            f"psnr_{num_frames}": psnr(decoded.float().detach(), pixels),
            "latent_rms": float(mean.detach().square().mean().sqrt()),
        }

    average = run_stage(
        "autoencoder",
        folder,
        modules={"autoencoder": autoencoder},
        num_steps=config.autoencoder_steps,
        learning_rate=config.autoencoder_learning_rate,
        compute_loss=compute_loss,
        seed=config.seed + 1,
        stop_after_seconds=stop_after_seconds,
        weight_decay=0.0,
        muon=True,
    )
    average.copy_to_modules()
    return autoencoder


def train_decoder(
    config: TinyTraining, folder: Path, *, stop_after_seconds: float | None = None
) -> None:
    """Train the decoder on while the encoder stands still, so that latents keep their meaning.

    The transformer can be trained at the same time: nothing it sees changes.
    """
    torch.manual_seed(config.seed + 5)
    autoencoder = build_autoencoder(config)
    load_average(folder, "autoencoder", {"autoencoder": autoencoder})
    autoencoder.encoder.requires_grad_(False)
    autoencoder.quant_conv.requires_grad_(False)
    library = FlightLibrary(folder / "flights", config)
    world_size = process_place()[1]

    def compute_loss(
        step: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, float]]:
        rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        num_frames = min(17 if step % 2 else 9, config.num_frames)
        pixels = torch.stack(
            [
                # Only pictures of the world: controls are never decoded.
                library.autoencoder_pixels(
                    rng, num_frames, config.autoencoder_crop, only_video=True
                )
                for _ in range(max(1, config.autoencoder_batch // world_size))
            ]
        )
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                mean = autoencoder.encode(pixels).latent_dist.mean.float()
            noise = torch.randn(mean.shape, generator=generator)
            decoded = decode_unclamped(autoencoder, mean + 0.5 * config.latent_noise * noise)
        loss = reconstruction_loss(decoded.float(), pixels)
        return loss, {f"psnr_{num_frames}": psnr(decoded.float().detach(), pixels)}

    run_stage(
        "decoder",
        folder,
        modules={"autoencoder": autoencoder},
        num_steps=config.decoder_steps,
        learning_rate=config.decoder_learning_rate,
        compute_loss=compute_loss,
        seed=config.seed + 6,
        stop_after_seconds=stop_after_seconds,
        weight_decay=0.0,
        muon=True,
    )


def load_autoencoder(config: TinyTraining, folder: Path) -> AutoencoderKLWan:
    """Return the trained autoencoder with the statistics of its latents, measured once.

    The statistics come from frames of the library under all looks; they are stored beside the
    checkpoint because the transformer is tied to them.
    """
    autoencoder = build_autoencoder(config)
    trained_on = (folder / "decoder.pt").exists()
    load_average(folder, "decoder" if trained_on else "autoencoder", {"autoencoder": autoencoder})
    use_stacked_causal_convolutions(autoencoder)
    stored = folder / LATENT_STATISTICS_NAME
    if not stored.exists():
        library = FlightLibrary(folder / "flights", config)
        rng = np.random.default_rng(config.seed)
        clips = torch.stack(
            [
                library.autoencoder_pixels(rng, min(17, config.num_frames), config.autoencoder_crop)
                for _ in range(64)
            ]
        )
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            latents = autoencoder.encode(clips).latent_dist.mean.float()
        flat = latents.transpose(0, 1).flatten(1)
        stored.write_text(
            json.dumps({"latents_mean": flat.mean(1).tolist(), "latents_std": flat.std(1).tolist()})
        )
    autoencoder.register_to_config(**json.loads(stored.read_text()))
    return autoencoder
