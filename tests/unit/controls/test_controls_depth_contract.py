"""What every depth estimator has to keep, whoever made it."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from video_depth_stand_in import make_stand_in

from longvie_cli.controls.depth import DepthEstimator, TransformersDepthEstimator
from longvie_cli.controls.depth_store import DEPTH_BATCH_FRAMES
from longvie_cli.controls.video_depth_anything import VideoDepthAnythingEstimator
from longvie_cli.settings.presets import preset_folder
from longvie_cli.worlds import EVALUATION_SEED_START, Flight

NAMES = ("embedded", "depth-anything-v2", "video-depth-anything")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_stand_in(tmp_path_factory.mktemp("checkout") / "Video-Depth-Anything")


@pytest.fixture(scope="module")
def loaders(depth_anything_v2_folder: Path, checkout: Path) -> dict[str, Callable[[], object]]:
    return {
        "embedded": lambda: TransformersDepthEstimator(preset_folder("tiny") / "depth"),
        "depth-anything-v2": lambda: TransformersDepthEstimator(depth_anything_v2_folder),
        "video-depth-anything": lambda: VideoDepthAnythingEstimator(checkout),
    }


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest, loaders: dict[str, Callable[[], object]]) -> object:
    return loaders[request.param]()


def estimate_video(model: DepthEstimator, frames: np.ndarray, first: int = 0, stored=None):
    """Estimate as an extraction does: batch after batch, each with its context as stored."""
    parts = [] if stored is None else [stored[:first]]
    for start in range(first, len(frames), DEPTH_BATCH_FRAMES):
        context = min(model.context_frames, start)
        earlier = np.concatenate(parts)[-context:] if context else None
        batch = frames[start - context : start + DEPTH_BATCH_FRAMES]
        parts.append(model.estimate(batch, earlier).astype(np.float16))
    return np.concatenate(parts)


def test_depth_has_the_size_of_the_frames_and_is_finite(
    model: DepthEstimator, flight_frames: np.ndarray
) -> None:
    for count, height, width in ((1, 48, 80), (3, 45, 61)):
        disparity = model.estimate(flight_frames[:count, :height, :width])
        assert disparity.shape == (count, height, width) and disparity.dtype == np.float32
        assert np.isfinite(disparity.astype(np.float16)).all() and np.ptp(disparity) > 0
    if model.context_frames:
        earlier = model.estimate(flight_frames[:2]).astype(np.float16)
        assert model.estimate(flight_frames[:5], earlier).shape == (3, 48, 80)


def test_two_of_a_kind_agree_to_the_bit(
    model: DepthEstimator,
    loaders: dict[str, Callable[[], DepthEstimator]],
    request: pytest.FixtureRequest,
    flight_frames: np.ndarray,
) -> None:
    other = loaders[request.node.callspec.params["model"]]()
    assert other.name == model.name
    other.estimate(flight_frames[30:33])
    np.testing.assert_array_equal(
        model.estimate(flight_frames[:4]), other.estimate(flight_frames[:4])
    )


def test_a_batch_depends_on_nothing_but_its_frames_and_their_context(
    model: DepthEstimator, flight_frames: np.ndarray
) -> None:
    whole = estimate_video(model, flight_frames[:35])
    np.testing.assert_array_equal(estimate_video(model, flight_frames[:35], 16, whole), whole)
    shorter = estimate_video(model, flight_frames[:33])
    np.testing.assert_array_equal(shorter[:32], whole[:32])


def test_memory_does_not_grow_with_the_video(
    model: DepthEstimator, flight_frames: np.ndarray
) -> None:
    frames = flight_frames[:16, :16, :16]

    def peak(batches: int) -> int:
        earlier = None
        context = frames[:0]
        tracemalloc.start()
        for _ in range(batches):
            disparity = model.estimate(np.concatenate([context, frames]), earlier)
            if model.context_frames:
                earlier = disparity[-model.context_frames :].astype(np.float16)
                context = frames[-model.context_frames :]
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(1)
    assert peak(12) < peak(2) * 1.2 + 100_000


@pytest.mark.slow
def test_near_things_are_larger(loaders: dict[str, Callable[[], DepthEstimator]]) -> None:
    flight = Flight(EVALUATION_SEED_START + 13, width=192, height=112, fps=16)
    frames = [flight.frame(index) for index in (0, 20, 40)]
    estimate = loaders["embedded"]().estimate(np.stack([frame.rgb for frame in frames]))
    for ours, frame in zip(estimate, frames, strict=True):
        assert np.corrcoef(ours.ravel(), frame.disparity.ravel())[0, 1] > 0.9


def test_a_checkout_leaves_no_modules_behind(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = object()
    monkeypatch.setitem(sys.modules, "utils", own)
    VideoDepthAnythingEstimator(checkout)
    assert sys.modules["utils"] is own
    assert "video_depth_anything" not in sys.modules and str(checkout) not in sys.path


def test_a_checkout_sees_at_most_one_window(checkout: Path, flight_frames: np.ndarray) -> None:
    model = VideoDepthAnythingEstimator(checkout)
    estimate_video(model, flight_frames)
    assert model._model.most_frames == 22


def test_windows_are_joined_without_a_step(checkout: Path, flight_frames: np.ndarray) -> None:
    model = VideoDepthAnythingEstimator(checkout)
    frames = np.repeat(flight_frames[:1], 64, axis=0)
    frames[::2, 0, 0] += 1
    frames[16:32, 1, 1] += 1
    frames[32:48, 2, 2] += 1
    levels = estimate_video(model, frames).astype(np.float32).mean(axis=(1, 2))
    alone = [model.estimate(frames[start : start + 16]).mean() for start in range(0, 64, 16)]
    steps = np.abs(np.diff(levels))
    assert np.abs(np.diff(alone)).max() > 0.1 and steps.max() < 0.02


def test_joined_windows_do_not_drift_in_minutes(checkout: Path) -> None:
    model = VideoDepthAnythingEstimator(checkout)
    still = np.random.default_rng(1).integers(0, 250, (12, 16, 3)).astype(np.uint8)
    context, earlier = np.empty((0, 12, 16, 3), np.uint8), None
    scales, levels = [], []
    for batch in range(300):  # 4800 frames, five minutes
        frames = np.repeat(still[None], 16, axis=0)
        frames[:, 0, 0, 0] = batch % 250
        disparity = model.estimate(np.concatenate([context, frames]), earlier)
        earlier, context = disparity[-6:].astype(np.float16), frames[-6:]
        scales.append(disparity.std())
        levels.append(disparity.mean())
    # What single windows scatter by, around what they are on average.
    alone = []
    for batch in range(100):
        frames[:, 0, 0, 0] = batch
        alone.append(model.estimate(frames).std())
    assert abs(np.mean(scales[-100:]) / np.mean(alone) - 1) < 0.1
    assert np.std(scales) / np.mean(scales) < 0.1
    assert abs(np.mean(levels[-100:]) - np.mean(levels[:100])) < 0.2


def test_weights_that_are_missing_or_foreign_are_named(checkout: Path, tmp_path: Path) -> None:
    import shutil

    import torch

    from longvie_cli.errors import ControlError, MissingResourceError

    copy = tmp_path / "copy"
    shutil.copytree(checkout, copy)
    weights = copy / "checkpoints" / "video_depth_anything_vits.pth"
    torch.save({"other": torch.zeros(1)}, weights)
    estimator = VideoDepthAnythingEstimator(copy)
    assert estimator.name != VideoDepthAnythingEstimator(checkout).name
    with pytest.raises(ControlError, match="with the code beside it"):
        estimator.estimate(np.zeros((1, 28, 28, 3), dtype=np.uint8))
    weights.unlink()
    with pytest.raises(MissingResourceError, match=r"video_depth_anything_vits\.pth"):
        VideoDepthAnythingEstimator(copy)
