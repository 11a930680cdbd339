"""The depth estimator that runs transformers' models, on a real one at toy size."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from longvie_cli.controls.depth import TransformersDepthEstimator
from longvie_cli.errors import ControlError, MissingResourceError
from longvie_cli.media.frames import resize_frame
from longvie_cli.worlds import EVALUATION_SEED_START, Flight


def test_estimates_have_the_size_of_the_frames(
    estimator: TransformersDepthEstimator, flight_frames: np.ndarray
) -> None:
    for height, width in ((48, 80), (45, 61)):
        disparity = estimator.estimate(flight_frames[:3, :height, :width])
        assert disparity.shape == (3, height, width) and disparity.dtype == np.float32
        assert np.isfinite(disparity).all() and np.ptp(disparity) > 0


def test_batches_do_not_change_the_estimate(
    depth_model_folder: Path, flight_frames: np.ndarray
) -> None:
    whole = TransformersDepthEstimator(depth_model_folder, batch_size=5).estimate(flight_frames[:5])
    parts = TransformersDepthEstimator(depth_model_folder, batch_size=2).estimate(flight_frames[:5])
    # Kernels differ with the batch; float32 over a few hundred terms.
    np.testing.assert_allclose(parts, whole, atol=1e-4)


@pytest.mark.parametrize(
    ("height", "width", "side"),
    # As released (518 x 896 of 480 x 832) at a quarter, upright, shrunk, and a real size once.
    [
        (120, 208, 126),
        pytest.param(160, 90, 126, marks=pytest.mark.slow),
        pytest.param(200, 320, 70, marks=pytest.mark.slow),
        (240, 320, 518),
    ],
)
def test_depth_is_what_transformers_makes_of_it(
    depth_anything_v2_folder: Path,
    preprocessor_writer: Callable[..., None],
    tmp_path: Path,
    height: int,
    width: int,
    side: int,
) -> None:
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    folder = tmp_path / "model"
    shutil.copytree(depth_anything_v2_folder, folder)
    settings = json.loads((folder / "preprocessor_config.json").read_text("utf-8"))
    preprocessor_writer(folder, **settings | {"size": {"height": side, "width": side}})
    flight = Flight(EVALUATION_SEED_START + 5, width=width, height=height, fps=16)
    frames = np.stack([flight.frame(index).rgb for index in (0, 9)])

    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    model = AutoModelForDepthEstimation.from_pretrained(folder, dtype="float32")
    with torch.inference_mode():
        output = model(**processor(images=list(frames), return_tensors="pt"))
    results = processor.post_process_depth_estimation(output, [(height, width)] * 2)
    expected = np.stack([result["predicted_depth"].numpy() for result in results])

    ours = TransformersDepthEstimator(folder).estimate(frames)
    # The same pictures go in; float32 sums.
    np.testing.assert_allclose(ours, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"), [(48, 80, 48, 80), (45, 61, 48, 64)]
)
def test_without_a_size_the_network_sees_the_frame_at_its_own(
    estimator: TransformersDepthEstimator,
    flight_frames: np.ndarray,
    height: int,
    width: int,
    rows: int,
    columns: int,
) -> None:
    frames = flight_frames[:3, :height, :width]
    seen: list[torch.Tensor] = []
    hook = estimator._model.register_forward_pre_hook(
        lambda _model, _args, given: seen.append(given["pixel_values"]), with_kwargs=True
    )
    try:
        estimator.estimate(frames)
    finally:
        hook.remove()
    resized = np.stack([resize_frame(frame, rows, columns, "stretch") for frame in frames])
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    expected = (resized.astype(np.float32) / 255 - mean) / std
    # To the bit: depth of the embedded model decides frames.
    assert np.array_equal(torch.cat(seen).permute(0, 2, 3, 1).numpy(), expected)


def test_the_input_size_follows_the_preprocessor(
    depth_model_folder: Path,
    preprocessor_writer: Callable[..., None],
    flight_frames: np.ndarray,
    tmp_path: Path,
) -> None:
    squashed = tmp_path / "squashed"
    shutil.copytree(depth_model_folder, squashed)
    preprocessor_writer(squashed, size={"height": 32, "width": 32}, ensure_multiple_of=8)
    kept = tmp_path / "kept"
    shutil.copytree(depth_model_folder, kept)
    preprocessor_writer(
        kept, size={"height": 48, "width": 48}, ensure_multiple_of=8, keep_aspect_ratio=True
    )
    frames = flight_frames[:1]
    original = TransformersDepthEstimator(depth_model_folder).estimate(frames)
    assert not np.allclose(TransformersDepthEstimator(squashed).estimate(frames), original)
    # 48 x 80 already has the short side asked for, so keeping the aspect changes nothing.
    np.testing.assert_array_equal(TransformersDepthEstimator(kept).estimate(frames), original)


def test_another_model_has_another_name(
    depth_model_folder: Path, preprocessor_writer: Callable[..., None], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(depth_model_folder, other)
    same = TransformersDepthEstimator(other).name
    preprocessor_writer(other, ensure_multiple_of=16)
    assert TransformersDepthEstimator(depth_model_folder).name == same
    assert TransformersDepthEstimator(other).name != same


def test_missing_files_are_named(depth_model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingResourceError, match=r"config\.json"):
        TransformersDepthEstimator(tmp_path)
    without_weights = tmp_path / "model"
    shutil.copytree(depth_model_folder, without_weights)
    (without_weights / "model.safetensors").unlink()
    with pytest.raises(MissingResourceError, match="no loadable depth model"):
        TransformersDepthEstimator(without_weights)


def test_a_model_of_unknown_depth_is_refused(
    preprocessor_writer: Callable[..., None], tmp_path: Path
) -> None:
    from transformers import GLPNConfig, GLPNForDepthEstimation

    config = GLPNConfig(
        num_encoder_blocks=4,
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 8, 8],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=8,
    )
    GLPNForDepthEstimation(config).save_pretrained(tmp_path)
    preprocessor_writer(tmp_path)
    with pytest.raises(ControlError, match="type glpn is not supported"):
        TransformersDepthEstimator(tmp_path)


def test_damaged_weights_are_missing_weights(depth_model_folder: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "model"
    shutil.copytree(depth_model_folder, damaged)
    (damaged / "model.safetensors").write_bytes(b"no weights")
    estimator = TransformersDepthEstimator(damaged)
    with pytest.raises(MissingResourceError, match="no loadable depth model"):
        estimator.estimate(np.zeros((1, 28, 28, 3), dtype=np.uint8))


def test_code_in_the_folder_is_neither_run_nor_asked_about(
    preprocessor_writer: Callable[..., None],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    names = {"AutoConfig": "own.Config", "AutoModelForDepthEstimation": "own.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": names}))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    (tmp_path / "model.safetensors").touch()
    preprocessor_writer(tmp_path)
    with pytest.raises(MissingResourceError, match="no loadable depth model"):
        TransformersDepthEstimator(tmp_path)
    assert not (tmp_path / "ran").exists()
    assert "[y/N]" not in capfd.readouterr().out
