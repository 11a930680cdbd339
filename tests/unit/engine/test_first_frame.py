"""First frames by a depth-conditioned pipeline of diffusers: a real, tiny, random one from disk."""

from pathlib import Path

import numpy as np
import pytest
from diffusers import StableDiffusionPipeline

from longvie_cli.engine.first_frame import make_first_frame
from longvie_cli.errors import MissingResourceError, SettingsError
from small_image_model import image_model_parts, save_depth_controlnet

HEIGHT, WIDTH = 40, 56


@pytest.fixture(scope="module")
def control_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_depth_controlnet(tmp_path_factory.mktemp("controlnet"))


def first_frame(model: Path, dense: np.ndarray, seed: int = 3) -> np.ndarray:
    return make_first_frame(model, "snow", dense, seed=seed, device="cpu", dtype="float32")


@pytest.mark.slow
def test_the_frame_has_the_size_of_its_control_and_follows_it(control_model: Path) -> None:
    near, far = np.zeros((HEIGHT, WIDTH, 3), np.uint8), np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    frame = first_frame(control_model, near)
    assert frame.shape == (HEIGHT, WIDTH, 3)
    assert frame.dtype == np.uint8
    assert np.array_equal(frame, first_frame(control_model, near))
    assert not np.array_equal(frame, first_frame(control_model, far))
    assert not np.array_equal(frame, first_frame(control_model, near, seed=4))


def test_a_pipeline_without_depth_is_refused(tmp_path: Path) -> None:
    parts = image_model_parts(tmp_path)
    StableDiffusionPipeline(**parts, requires_safety_checker=False).save_pretrained(tmp_path)
    with pytest.raises(SettingsError, match="StableDiffusionPipeline is not conditioned on depth"):
        first_frame(tmp_path, np.zeros((HEIGHT, WIDTH, 3), np.uint8))


def test_a_folder_without_a_pipeline_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingResourceError, match="no complete pipeline"):
        first_frame(tmp_path, np.zeros((HEIGHT, WIDTH, 3), np.uint8))
