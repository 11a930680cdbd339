"""A real depth network at toy size, videos of flights, and who listens to progress."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from longvie_cli.controls.depth import TransformersDepthEstimator
from longvie_cli.media.writer import VideoWriter
from longvie_cli.worlds import EVALUATION_SEED_START, Flight


class Listener:
    """A `Progress` that remembers."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.started: dict[str, tuple[int, int]] = {}
        self.advanced: dict[str, int] = {}
        self.finished: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def warning(self, text: str) -> None:
        self.messages.append(text)

    def start(self, stage: str, total: int, *, done: int = 0) -> None:
        self.started[stage] = (total, done)
        self.advanced[stage] = 0

    def advance(self, stage: str, amount: int = 1, *, detail: str = "") -> None:
        self.advanced[stage] += amount

    def finish(self, stage: str) -> None:
        self.finished.append(stage)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Toy sizes: more threads only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def listener() -> Listener:
    return Listener()


def save_depth_anything(folder: Path, *, patch_size: int) -> None:
    """Save a Depth Anything of random weights, as a user would have it on disk."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    torch.manual_seed(0)
    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=4 * patch_size,
        patch_size=patch_size,
        out_indices=[1, 2, 3, 4],
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    model = DepthAnythingForDepthEstimation(
        DepthAnythingConfig(
            backbone_config=backbone,
            patch_size=patch_size,
            reassemble_hidden_size=16,
            reassemble_factors=[4, 2, 1, 0.5],
            neck_hidden_sizes=[8, 8, 8, 8],
            fusion_hidden_size=8,
            head_in_index=-1,
            head_hidden_size=8,
        )
    )
    # transformers starts the neck and head near zero; then nothing of the picture gets through.
    with torch.no_grad():
        for weights in [*model.neck.parameters(), *model.head.parameters()]:
            if weights.dim() > 1:
                weights.normal_(0, weights[0].numel() ** -0.5)
        model.head.conv3.bias.fill_(5.0)
    model.save_pretrained(folder)


@pytest.fixture(scope="session")
def depth_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Depth Anything that takes frames at their own size."""
    folder = tmp_path_factory.mktemp("depth") / "model"
    save_depth_anything(folder, patch_size=8)
    write_preprocessor(folder, ensure_multiple_of=8)
    return folder


@pytest.fixture(scope="session")
def depth_anything_v2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with the patches and every preprocessor field of Depth-Anything-V2-Small-hf, at 70."""
    folder = tmp_path_factory.mktemp("depth-v2") / "model"
    save_depth_anything(folder, patch_size=14)
    write_preprocessor(folder, **DEPTH_ANYTHING_V2_PREPROCESSOR)
    return folder


DEPTH_ANYTHING_V2_PREPROCESSOR: dict[str, object] = {
    "do_normalize": True,
    "do_pad": False,
    "do_rescale": True,
    "do_resize": True,
    "ensure_multiple_of": 14,
    "image_processor_type": "DPTImageProcessor",
    "keep_aspect_ratio": True,
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 70, "width": 70},
    "size_divisor": None,
}


def write_preprocessor(folder: Path, **settings: object) -> None:
    normalization = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    text = json.dumps(normalization | settings)
    (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")


@pytest.fixture(scope="session")
def preprocessor_writer() -> Callable[..., None]:
    """Write `preprocessor_config.json` into a folder, with the settings given."""
    return write_preprocessor


@pytest.fixture(scope="session")
def estimator(depth_model_folder: Path) -> TransformersDepthEstimator:
    return TransformersDepthEstimator(depth_model_folder)


@pytest.fixture(scope="session")
def flight_frames() -> np.ndarray:
    """70 frames of a flight, 80 x 48."""
    flight = Flight(EVALUATION_SEED_START + 3, width=80, height=48, fps=16)
    return np.stack([flight.frame(index).rgb for index in range(70)])


@pytest.fixture(scope="session")
def flight_video(flight_frames: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The frames at 32 fps: 35 frames at 16."""
    path = tmp_path_factory.mktemp("source") / "flight.mp4"
    with VideoWriter(path, height=48, width=80, fps=32, crf=5) as writer:
        for frame in flight_frames:
            writer.write(frame)
    return path
