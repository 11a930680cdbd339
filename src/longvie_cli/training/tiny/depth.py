"""The embedded depth estimator: a very small Depth Anything trained on exact depth of worlds.

Half of its examples are landscapes, half are made scenes (`scenes.py`), without which it learns
little more of other pictures than that the bottom is near and the top is far.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

from longvie_cli.training.tiny.config import TinyTraining
from longvie_cli.training.tiny.flights import FlightLibrary
from longvie_cli.training.tiny.stage import (
    StageSettings,
    load_stage,
    run_stage,
    stage_checkpoint,
)

# Same as Depth Anything's own preprocessor (ImageNet statistics).
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
PATCH = 8
# World disparity is about 0..0.1; the network predicts numbers near one.
DISPARITY_SCALE = 30.0
# Nobody sees whether a room is a doll's house: the near end of a made scene is always here.
_NEAR_END, _NEAREST = 2.0, 4.0
_LARGEST_ZOOM = 1.8
# What the stage starts from, where a preset's network was taken over.
START_NAME = "depth_start"


def build_depth_estimator() -> DepthAnythingForDepthEstimation:
    """Return the depth network with random weights: Dinov2 of width 128, patches of 8 pixels."""
    backbone = Dinov2Config(
        hidden_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        mlp_ratio=3,
        image_size=128,
        patch_size=PATCH,
        out_indices=[2, 4, 5, 6],
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    return DepthAnythingForDepthEstimation(
        DepthAnythingConfig(
            backbone_config=backbone,
            patch_size=PATCH,
            reassemble_hidden_size=128,
            reassemble_factors=[4, 2, 1, 0.5],
            neck_hidden_sizes=[32, 48, 64, 64],
            fusion_hidden_size=48,
            head_in_index=-1,
            head_hidden_size=32,
            depth_estimation_type="relative",
        )
    )


def depth_loss(predicted: Tensor, disparity: Tensor) -> Tensor:
    """Return L1 on the disparity and on its differences, which keeps silhouettes sharp.

    The target is not aligned per frame: one scale for all worlds, so that a still surface keeps its
    value from frame to frame.
    """
    loss = (predicted - disparity).abs().mean()
    for dim in (-1, -2):
        loss = loss + (predicted.diff(dim=dim) - disparity.diff(dim=dim)).abs().mean()
    return loss


def _landscape(
    library: FlightLibrary, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    paths = library.paths()
    path = paths[int(rng.integers(len(paths)))]
    frame = int(rng.integers(library.config.sequence_frames))
    with safe_open(path, "numpy") as file:
        rgb = file.get_slice("rgb")[int(rng.integers(library.config.looks_per_flight)), frame]
        disparity = file.get_slice("disparity")[frame]
    return rgb, DISPARITY_SCALE * disparity


def _made_scene(
    paths: Sequence[Path], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    with safe_open(paths[int(rng.integers(len(paths)))], "numpy") as file:
        number = int(rng.integers(file.get_slice("rgb").get_shape()[0]))
        rgb, disparity = file.get_slice("rgb")[number], file.get_slice("disparity")[number]
    height, width = disparity.shape
    zoom = rng.uniform(1, _LARGEST_ZOOM)
    rows, columns = round(height / zoom), round(width / zoom)
    y, x = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    window = slice(y, y + rows), slice(x, x + columns)
    both = np.concatenate((rgb[window].astype(np.float32), disparity[window][..., None]), axis=-1)
    larger = F.interpolate(
        torch.from_numpy(both).permute(2, 0, 1)[None], (height, width), mode="bilinear"
    )[0].numpy()
    near = max(float(np.percentile(larger[3], 98)), 1e-6)
    target = np.minimum(_NEAR_END * larger[3] / near, _NEAREST)
    return np.rint(larger[:3]).astype(np.uint8).transpose(1, 2, 0), target


def _examples(
    library: FlightLibrary, scenes: Sequence[Path], rng: np.random.Generator, batch: int
) -> tuple[Tensor, Tensor]:
    pixels, targets = [], []
    for _ in range(batch):
        if rng.random() < library.config.scene_share:
            rgb, disparity = _made_scene(scenes, rng)
        else:
            rgb, disparity = _landscape(library, rng)
        if rng.random() < 0.5:
            rgb, disparity = rgb[:, ::-1], disparity[:, ::-1]
        image = rgb.astype(np.float32) / 255
        # Other cameras and encoders: exposure, tint, noise.
        image = image ** rng.uniform(0.7, 1.4) * rng.uniform(0.8, 1.2, 3).astype(np.float32)
        image = image + rng.normal(0, 0.02 * rng.random(), image.shape)
        pixels.append(np.ascontiguousarray(image.clip(0, 1), np.float32))
        targets.append(np.ascontiguousarray(disparity, np.float32))
    return _normalized(np.stack(pixels)), torch.from_numpy(np.stack(targets))


def _normalized(pixels: NDArray[np.floating]) -> Tensor:
    """Return pictures [B, H, W, 3] in 0..1 as the network is shown them, [B, 3, H, W]."""
    images = torch.from_numpy(pixels).float().permute(0, 3, 1, 2)
    mean, std = torch.tensor(IMAGE_MEAN), torch.tensor(IMAGE_STD)
    return (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def load_depth_estimator(folder: Path) -> DepthAnythingForDepthEstimation:
    """Return the depth network as its stage left it, or as it was taken over.

    Raises:
        FileNotFoundError: neither has happened.
    """
    network = build_depth_estimator()
    name = "depth" if stage_checkpoint(folder, "depth") else START_NAME
    load_stage(folder, name, {"depth": network})
    return network


@torch.no_grad()
def estimated_disparity(
    network: DepthAnythingForDepthEstimation, frames: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """Return the disparity [T, H, W] that the network sees in frames [T, H, W, 3]."""
    found = []
    for at in range(0, len(frames), 8):
        images = _normalized(frames[at : at + 8] / np.float32(255))
        predicted = network(images).predicted_depth.float()
        found.append(F.interpolate(predicted[:, None], frames.shape[1:3], mode="bilinear")[:, 0])
    disparity: NDArray[np.float32] = (torch.cat(found) / DISPARITY_SCALE).clamp(min=0).numpy()
    return disparity


def train_depth_estimator(
    config: TinyTraining, folder: Path, *, stop_after_seconds: float | None = None
) -> DepthAnythingForDepthEstimation:
    """Train the depth estimator and return it with averaged weights.

    Raises:
        FileNotFoundError: flights or made scenes are missing.
    """
    torch.manual_seed(config.seed + 40)
    network = build_depth_estimator()
    if stage_checkpoint(folder, START_NAME) and not stage_checkpoint(folder, "depth"):
        load_stage(folder, START_NAME, {"depth": network})
    library = FlightLibrary(folder / "flights", config)
    scenes = sorted((folder / "scenes").glob("*.safetensors"))
    if config.scene_share > 0 and not scenes:
        raise FileNotFoundError(f"{folder / 'scenes'} holds no scene; run the scenes stage first")

    def compute_loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        images, disparity = _examples(library, scenes, rng, config.depth_batch)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = network(images).predicted_depth.float()
        if predicted.shape != disparity.shape:
            predicted = F.interpolate(predicted[:, None], disparity.shape[-2:], mode="bilinear")[
                :, 0
            ]
        return depth_loss(predicted, disparity), {}

    run_stage(
        "depth",
        folder,
        {"depth": network},
        compute_loss,
        StageSettings(config.depth_steps, 1e-3, config.seed + 41, muon=True),
        stop_after_seconds=stop_after_seconds,
    )
    return network
