"""The embedded autoencoder: a block code in closed form, and a decoder trained for what it omits.

The code comes first and stands: latents can be stored and a transformer trained on them before the
decoder's network has seen a picture.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from longvie_cli.models.block_autoencoder import CODE, BlockAutoencoder
from longvie_cli.training.loop import process_place
from longvie_cli.training.tiny.block_code import cell_moments, fit_code
from longvie_cli.training.tiny.config import TinyTraining
from longvie_cli.training.tiny.flights import FlightLibrary
from longvie_cli.training.tiny.stage import (
    StageSettings,
    load_stage,
    run_stage,
    stage_checkpoint,
)

CODE_NAME = "code.safetensors"
STATISTICS = ("latents_mean", "latents_std")


def build_autoencoder(config: TinyTraining) -> BlockAutoencoder:
    """Return the autoencoder without a code, its network adding nothing yet."""
    return BlockAutoencoder(
        z_dim=config.latent_channels,
        width=config.autoencoder_width,
        num_layers=config.autoencoder_layers,
        latents_mean=[0.0] * config.latent_channels,
        latents_std=[1.0] * config.latent_channels,
    )


def fit_autoencoder_code(config: TinyTraining, folder: Path) -> None:
    """Fit the linear code to the rendered flights and write it with its latents' statistics.

    A code that is there already stays: latents and transformer are tied to it.
    """
    stored = folder / CODE_NAME
    if stored.exists():
        return
    library = FlightLibrary(folder / "flights", config)
    rng = np.random.default_rng(config.seed)
    autoencoder = build_autoencoder(config)
    side = autoencoder.config.scale_factor_spatial
    frames = autoencoder.config.scale_factor_temporal

    def clips(num_clips: int, num_frames: int, kind: str | None = None) -> Tensor:
        return torch.stack(
            [
                library.autoencoder_pixels(rng, num_frames, config.autoencoder_crop, kind=kind)
                for _ in range(num_clips)
            ]
        )

    moments = [
        cell_moments((clips(8, 1 + frames, kind) for _ in range(config.code_batches)), side, frames)
        for kind in config.code_shares
    ]
    shares = torch.tensor(list(config.code_shares.values()), dtype=torch.float64)
    first, after = (
        torch.einsum("k,kij->ij", shares / shares.sum(), torch.stack(each))
        for each in zip(*moments, strict=True)
    )
    codes = fit_code(
        first,
        after,
        num_channels=config.latent_channels,
        side=side,
        frames=frames,
        edge_weight=config.code_edge_weight,
    )
    analysis = codes[1][0].double()
    spread = (analysis @ after @ analysis.T).diagonal().sqrt().float()
    autoencoder.set_code(*codes, spread)
    latents = autoencoder.encode(clips(64, min(17, config.num_frames))).latent_dist.mean
    flat = latents.transpose(0, 1).flatten(1)
    scale = latent_scale(flat.std(1), config.code_whitening)
    statistics = {"latents_mean": flat.mean(1).tolist(), "latents_std": scale.tolist()}
    store_code(folder, autoencoder, statistics)


def latent_scale(deviation: Tensor, whitening: float) -> Tensor:
    """Return what the pipeline divides each latent channel [Z] by, to a mean square of one.

    Brightness varies a hundred times as much as the finest basis picture. Whitened, an error of a
    tenth in each channel is mostly one of brightness, cell by cell; with half of the power taken
    off it costs 5 to 9 dB less, and no other power costs less (Cauchy-Schwarz).
    """
    scale = deviation**whitening
    return scale * (deviation / scale).square().mean().sqrt()


def store_code(folder: Path, autoencoder: BlockAutoencoder, statistics: dict[str, Any]) -> None:
    """Write the code of an autoencoder and its latents' statistics into a work folder."""
    code = {name: autoencoder.get_parameter(name).detach().clone() for name in CODE}
    save_file(code, folder / CODE_NAME, metadata={"statistics": json.dumps(statistics)})


def coded_autoencoder(config: TinyTraining, folder: Path) -> BlockAutoencoder:
    """Return the autoencoder with the code and statistics of a work folder, no more.

    Raises:
        FileNotFoundError: the stage `code` has not run yet.
    """
    stored = folder / CODE_NAME
    if not stored.exists():
        raise FileNotFoundError(f"{stored}: run the stage code first")
    autoencoder = build_autoencoder(config)
    autoencoder.load_state_dict(load_file(stored), strict=False)
    with safe_open(stored, "pt") as file:
        autoencoder.register_to_config(**json.loads(file.metadata()["statistics"]))
    return autoencoder


def load_autoencoder(config: TinyTraining, folder: Path) -> BlockAutoencoder:
    """Return the autoencoder with as much of its decoder's network as there is.

    Raises:
        FileNotFoundError: the stage `code` has not run yet.
    """
    autoencoder = coded_autoencoder(config, folder)
    # Where a preset was taken over, the checkpoint of `code` holds its decoder.
    for stage in ("decoder", "code"):
        if stage_checkpoint(folder, stage) is not None:
            load_stage(folder, stage, {"autoencoder": autoencoder})
            break
    return autoencoder.eval()


def picture_loss(decoded: Tensor, truth: Tensor) -> Tensor:
    """Return L1 of pixels [B, 3, T, H, W], of their edges at two scales and of their cells' means.

    No perceptual network: none may be downloaded, and landscapes have little texture to hide in.
    """
    error = decoded - truth
    halved = F.avg_pool3d(error, (1, 2, 2))
    loss = error.abs().mean() + 0.5 * F.avg_pool3d(error, (1, 8, 8)).abs().mean()
    for picture in (error, halved):
        for dim in (-1, -2):
            loss = loss + 1.5 * picture.diff(dim=dim).abs().mean()
    return loss


def psnr(decoded: Tensor, pixels: Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB for pixels in [-1, 1]."""
    return float(10 * torch.log10(4 / (decoded - pixels).square().mean()))


def unrolled_loss(
    autoencoder: BlockAutoencoder,
    pixels: Tensor,
    generator: torch.Generator,
    *,
    passes: int,
    latent_noise: float,
) -> tuple[Tensor, list[float]]:
    """Return the mean `picture_loss` of some passes, each of the one before, and the dB of each.

    Between passes the picture moves by up to a cell and time may turn round: on the same cells the
    second pass would be the first again. Every pass after the first loses a cell of height and
    width of `pixels` [B, 3, T, H, W].

    Args:
        latent_noise: Standard deviation of the noise on the latents, of their own.
    """
    cell = autoencoder.config.scale_factor_spatial
    current, truth, losses, readings = pixels, pixels, [], []
    for index in range(passes):
        if index:
            rows, columns = torch.randint(cell + 1, (2,), generator=generator).tolist()
            height, width = truth.shape[-2] - cell, truth.shape[-1] - cell
            window = (..., slice(rows, rows + height), slice(columns, columns + width))
            current, truth = current[window].clamp(-1, 1), truth[window]
            if torch.rand((), generator=generator) < 0.5:
                current, truth = current.flip(2), truth.flip(2)
        latents = autoencoder.encode(current).latent_dist.mean
        noise = torch.randn(latents.shape, generator=generator)
        latents = latents + latent_noise * autoencoder.spread.view(-1, 1, 1, 1) * noise
        with torch.autocast("cpu", torch.bfloat16):
            first, after = autoencoder.details(latents)
        current = autoencoder.decode_unclamped(latents, (first.float(), after.float()))
        losses.append(picture_loss(current, truth))
        readings.append(psnr(current.detach(), truth))
    return torch.stack(losses).mean(), readings


def train_decoder(
    config: TinyTraining, folder: Path, *, stop_after_seconds: float | None = None
) -> BlockAutoencoder:
    """Train the decoder's network and return the autoencoder with averaged weights.

    The code stands still, so a transformer can be trained at the same time: nothing it sees
    changes.
    """
    torch.manual_seed(config.seed)
    autoencoder = coded_autoencoder(config, folder)
    if stage_checkpoint(folder, "code") is not None:
        load_stage(folder, "code", {"autoencoder": autoencoder})
    library = FlightLibrary(folder / "flights", config)
    world_size = process_place()[1]

    def compute_loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        # Stills and short clips are cheap, and first frames are one in four or more there.
        num_frames = min((13, 5, 13, 1)[step % 4], config.num_frames)
        passes = 1 + int(torch.randint(config.decoder_passes, (1,), generator=generator))
        batch = config.autoencoder_batch * {1: 5, 5: 2}.get(num_frames, 1)
        rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        crop = config.autoencoder_crop + 8 * (passes - 1)
        pixels = torch.stack(
            [
                library.autoencoder_pixels(rng, num_frames, min(crop, config.height))
                for _ in range(max(1, batch // passes // world_size))
            ]
        )
        loss, readings = unrolled_loss(
            autoencoder, pixels, generator, passes=passes, latent_noise=config.latent_noise
        )
        return loss, {
            f"psnr_{num_frames}_pass_{index + 1}": value for index, value in enumerate(readings)
        }

    run_stage(
        "decoder",
        folder,
        {"autoencoder": autoencoder},
        compute_loss,
        StageSettings(
            config.decoder_steps,
            config.decoder_learning_rate,
            config.seed + 1,
            muon=True,
            weight_decay=0.0,
        ),
        stop_after_seconds=stop_after_seconds,
    )
    return autoencoder
