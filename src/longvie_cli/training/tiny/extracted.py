"""Controls of training flights as the tool itself extracts them from a video.

Exact depth and tracks are better than any that are estimated: a model that has seen only those
shows what it does not know wherever fewer tracks are sure. So a share of the flights is trained on
with controls that the embedded depth network and the embedded tracker find in one of its looks.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from longvie_cli.controls.rendering import track_grid
from longvie_cli.controls.tracks import LucasKanadeTracker
from longvie_cli.training.tiny.config import TinyTraining
from longvie_cli.training.tiny.depth import estimated_disparity, load_depth_estimator
from longvie_cli.training.tiny.flights import EXTRACTED


def is_extracted(config: TinyTraining, number: int) -> bool:
    """Return whether a flight of the library is trained on with extracted controls."""
    return (number * 0.6180339887498949) % 1 < config.extracted_share


def extract_flight(config: TinyTraining, network: torch.nn.Module, path: Path, out: Path) -> None:
    """Write what the tool would find in one look of a flight, under the names of the exact ones."""
    number = int(path.stem)
    with safe_open(path, "numpy") as file:
        rgb = file.get_slice("rgb")[number % config.looks_per_flight]
        began = file.get_slice("look_rgb")[number % config.looks_per_flight]
    disparity = estimated_disparity(network, np.concatenate((began[None], rgb)))
    points = track_grid(
        config.height, config.width, columns=config.track_columns, rows=config.track_rows
    )
    tracks = LucasKanadeTracker().track(rgb[config.history_frames - 1 :], points)
    part = out.with_suffix(".part")
    save_file(
        {
            "disparity": disparity[1:],
            "look_disparity": disparity[0],
            "tracks": tracks.points,
            "visible": tracks.visible,
        },
        part,
    )
    os.replace(part, out)


def extract_library(config: TinyTraining, folder: Path, *, worker: int, num_workers: int) -> None:
    """Extract the controls of every `num_workers`-th flight that is to have them."""
    torch.set_num_threads(1)
    target = folder / EXTRACTED
    target.mkdir(exist_ok=True)
    network = None
    for path in sorted((folder / "flights").glob("*.safetensors"))[worker::num_workers]:
        out = target / path.name
        if is_extracted(config, int(path.stem)) and not out.exists():
            network = network or load_depth_estimator(folder)
            extract_flight(config, network, path, out)
