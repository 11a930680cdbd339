"""Latents of the whole library, computed once with the frozen autoencoder and kept in memory.

The transformer never sees a pixel in training: what it needs of a flight is encoded here, exactly
as the pipeline encodes it at inference.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from longvie_cli.media.frames import pixels_from_frames
from longvie_cli.models.block_autoencoder import BlockAutoencoder
from longvie_cli.models.carrying import carry, confidence_mask
from longvie_cli.models.depth_colours import Look as VideoLook
from longvie_cli.models.track_pictures import read_tracks
from longvie_cli.training.tiny.autoencoder import load_autoencoder
from longvie_cli.training.tiny.config import TinyTraining
from longvie_cli.training.tiny.flights import FlightExample, FlightLibrary
from longvie_cli.worlds.looks import Look

logger = logging.getLogger(__name__)

# Looks of a flight share its controls; keeping one row a flight halves the memory of those.
FLIGHT_KEYS = ("dense", "dense_first", "sparse", "sparse_first")
LOOK_KEYS = ("video", "image", "history")
# Stored where the recipe's image condition is carried: the first frame carried along the controls
# as the pipeline does it, and the confidence as mask channels, one row a flight.
CARRIED_LOOK_KEY, CARRIED_FLIGHT_KEY = "carried", "confidence"


def encode(autoencoder: BlockAutoencoder, pixels: torch.Tensor) -> torch.Tensor:
    """Return normalised latents [B, C, T', h, w] of pixels [B, 3, T, H, W]: mean, not sampled."""
    config = autoencoder.config
    shape = (1, -1, 1, 1, 1)
    with torch.no_grad():
        latents = autoencoder.encode(pixels).latent_dist.mean
    mean = torch.tensor(config.latents_mean).view(shape)
    std = torch.tensor(config.latents_std).view(shape)
    return (latents - mean) / std


def first_then_grey(pixels: torch.Tensor) -> torch.Tensor:
    """Return the first frame followed by mid-grey (0.0), shaped as `pixels` [B, 3, T, H, W]."""
    held = torch.zeros_like(pixels)
    held[:, :, 0] = pixels[:, :, 0]
    return held


def encode_flight(
    config: TinyTraining,
    autoencoder: BlockAutoencoder,
    library: FlightLibrary,
    path: Path,
    out: Path,
) -> None:
    """Encode one flight and write it to `out`."""
    rng = np.random.default_rng(int(path.stem) + 77)
    examples = [library.example(path, look, rng) for look in range(config.looks_per_flight)]
    start = config.history_frames - 1
    video = torch.stack([pixels_from_frames(e.rgb[start:]) for e in examples])
    dense = pixels_from_frames(np.repeat(examples[0].depth[start:][..., None], 3, axis=-1))[None]
    sparse = pixels_from_frames(examples[0].tracks)[None]
    history = torch.stack([pixels_from_frames(e.rgb[: config.history_frames]) for e in examples])
    clips = torch.cat([video, dense, sparse])
    latents = encode(autoencoder, torch.cat([clips, first_then_grey(clips)]))
    looks, half = len(examples), len(clips)
    tensors = {
        "video": latents[:looks],
        "dense": latents[looks : looks + 1],
        "sparse": latents[looks + 1 : looks + 2],
        "image": latents[half : half + looks],
        "dense_first": latents[half + looks : half + looks + 1],
        "sparse_first": latents[half + looks + 1 :],
        "history": encode(autoencoder, history),
    }
    if config.image_condition == "carried":
        tensors |= _carried_latents(config, autoencoder, examples)
    tensors = {key: value.half().contiguous() for key, value in tensors.items()}
    tensors["first_frame"] = torch.from_numpy(np.stack([e.rgb[start] for e in examples]))
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    part = out.with_suffix(".part")
    save_file(
        tensors, part, metadata={"captions": metadata["captions"], "looks": metadata["looks"]}
    )
    os.replace(part, out)


def _carried_latents(
    config: TinyTraining, autoencoder: BlockAutoencoder, examples: list[FlightExample]
) -> dict[str, torch.Tensor]:
    """Return the latents of a flight's carried frames, and the confidence."""
    start, looks = config.history_frames - 1, len(examples)
    # Read from the pictures, as at inference: there nothing else is known of the tracks.
    tracks = read_tracks(examples[0].tracks, columns=config.track_columns, rows=config.track_rows)
    # All looks move alike.
    first = np.concatenate([e.rgb[start] for e in examples], axis=-1)
    began = np.concatenate([e.look.picture for e in examples], axis=-1)
    look = VideoLook(began, examples[0].look.depth)
    carried = carry(first, examples[0].depth[start:], tracks, look)
    frames = np.split(carried.frames, looks, axis=-1)
    latents = encode(autoencoder, torch.stack([pixels_from_frames(clip) for clip in frames]))
    sure = torch.from_numpy(carried.confidence)
    temporal = autoencoder.config.scale_factor_temporal
    return {
        CARRIED_LOOK_KEY: latents,
        CARRIED_FLIGHT_KEY: confidence_mask(sure, temporal, *latents.shape[-2:]),
    }


def encode_library(config: TinyTraining, folder: Path, *, worker: int, num_workers: int) -> None:
    """Encode every `num_workers`-th rendered flight that has no latents yet."""
    torch.set_num_threads(1)
    autoencoder = load_autoencoder(config, folder)
    target = folder / "latents"
    target.mkdir(exist_ok=True)
    library = FlightLibrary(folder / "flights", config)
    for path in sorted((folder / "flights").glob("*.safetensors"))[worker::num_workers]:
        out = target / path.name
        if not out.exists():
            encode_flight(config, autoencoder, library, path, out)


@dataclass(frozen=True)
class LatentLibrary:
    """All latents in memory, half precision.

    Args:
        flights: `FLIGHT_KEYS` tensors [flights, C, T', h, w], and the confidence where stored.
        looks: `LOOK_KEYS` tensors [examples, C, T', h, w], and the carried frames where stored;
            `history` has its own length.
        first_frames: uint8 [examples, H, W, 3].
        flight_of: Row of `flights` each example belongs to.
        captions: What each example shows.
        look_of: The look of each example.
    """

    flights: dict[str, torch.Tensor]
    looks: dict[str, torch.Tensor]
    first_frames: torch.Tensor
    flight_of: torch.Tensor
    captions: list[str]
    look_of: list[Look]

    @classmethod
    def load(cls, folder: Path) -> LatentLibrary:
        """Read every latent file of `folder`."""
        flights: dict[str, list[torch.Tensor]] = {key: [] for key in FLIGHT_KEYS}
        looks: dict[str, list[torch.Tensor]] = {key: [] for key in LOOK_KEYS}
        first_frames, flight_of, captions, look_of = [], [], [], []
        paths = sorted(folder.glob("*.safetensors"))
        if paths:
            with safe_open(paths[0], "pt") as file:
                if CARRIED_LOOK_KEY in file.keys():  # noqa: SIM118 (no mapping)
                    flights[CARRIED_FLIGHT_KEY] = []
                    looks[CARRIED_LOOK_KEY] = []
        for number, path in enumerate(paths):
            tensors = load_file(path)
            with safe_open(path, "pt") as file:
                metadata = file.metadata()
            for key in flights:
                flights[key].append(tensors[key])
            for key in looks:
                looks[key].append(tensors[key])
            first_frames.append(tensors["first_frame"])
            names = json.loads(metadata["captions"])
            captions += names
            look_of += [Look(*words) for words in json.loads(metadata["looks"])]
            flight_of += [number] * len(names)
        logger.info("%d examples of %d flights", len(captions), len(flights["dense"]))
        return cls(
            {key: torch.cat(value) for key, value in flights.items()},
            {key: torch.cat(value) for key, value in looks.items()},
            torch.cat(first_frames),
            torch.tensor(flight_of),
            captions,
            look_of,
        )
