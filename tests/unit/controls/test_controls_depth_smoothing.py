"""Steady depth: flicker goes, what really happens stays, and minutes do not matter.

`pytest tests/unit/controls/test_controls_depth_smoothing.py -s -k flicker` prints the table of
docs/benchmarks.md.
"""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from longvie_cli.controls.depth import TransformersDepthEstimator
from longvie_cli.controls.depth_smoothing import FlowSmoother, Gauge, fit_gauge, flow_between
from longvie_cli.controls.depth_store import DEPTH_BATCH_FRAMES, DepthStore
from longvie_cli.media.probe import probe_video
from longvie_cli.media.reader import read_frames
from longvie_cli.settings.presets import preset_folder
from longvie_cli.worlds import EVALUATION_SEED_START, Flight

EXAMPLE = Path(__file__).parents[3] / "examples" / "reference.mp4"


def stored(folder: Path, depth: np.ndarray) -> DepthStore:
    store = DepthStore(folder)
    for start in range(0, len(depth), DEPTH_BATCH_FRAMES):
        store.append(depth[start : start + DEPTH_BATCH_FRAMES])
    return store


def smoothed(frames: np.ndarray, depth: np.ndarray, folder: Path, first: int = 0) -> np.ndarray:
    store = stored(folder, depth)
    batches = FlowSmoother().smooth(lambda start: iter(frames[start:]), store, first)
    return np.concatenate(list(batches))


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Something that flow can hold on to, [height, width, 3]."""
    import cv2

    noise = np.random.default_rng(seed).normal(0, 1, (height, width)).astype(np.float32)
    blurred = sum(cv2.GaussianBlur(noise, (0, 0), sigma) * sigma for sigma in (1.0, 2.0, 4.0))
    grey = np.clip(128 + 60 * blurred / blurred.std(), 0, 255).astype(np.uint8)
    return grey[..., None].repeat(3, axis=-1)


def ramp(height: int, width: int) -> np.ndarray:
    return np.linspace(1, 3, height, dtype=np.float32)[:, None].repeat(width, axis=1)


@pytest.mark.slow
def test_a_still_scene_keeps_its_level_for_minutes(tmp_path: Path) -> None:
    """4800 frames, five minutes, with a scale, a shift and pixel noise of its own in each."""
    count, height, width = 4800, 24, 32
    rng = np.random.default_rng(3)
    picture, truth = texture(height, width), ramp(height, width)
    frames = np.broadcast_to(picture, (count, *picture.shape))
    scale = np.exp(rng.normal(0, 0.05, (count, 1, 1)))
    shift = rng.normal(0, 0.1, (count, 1, 1))
    raw = truth * scale + shift + rng.normal(0, 0.02, (count, height, width))
    steady = smoothed(frames, raw.astype(np.float32), tmp_path)
    flicker_before = np.abs(np.diff(raw, axis=0)).mean()
    flicker_after = np.abs(np.diff(steady, axis=0)).mean()
    assert flicker_after < 0.15 * flicker_before
    for part in np.array_split(steady, 10):
        assert abs(part.mean() - truth.mean()) < 0.02
        assert abs(part.mean(axis=0).std() / truth.std() - 1) < 0.02
    # No slow wandering either: the means of single seconds scatter as those of the estimates do.
    seconds_raw = raw.reshape(-1, 16, height * width).mean(axis=(1, 2))
    seconds = steady.reshape(-1, 16, height * width).mean(axis=(1, 2))
    assert seconds.std() < 1.2 * seconds_raw.std()


@pytest.mark.slow
def test_a_camera_that_comes_nearer_comes_nearer(tmp_path: Path) -> None:
    """The picture grows by 1 % a frame and its disparity with it; that must not be taken out."""
    import cv2

    count, side = 64, 96
    big = texture(384, 384)
    frames, truth = [], []
    for index in range(count):
        zoom = 1.01**index
        size = (side, side)
        matrix = np.array([[zoom, 0, side / 2 - 192 * zoom], [0, zoom, side / 2 - 192 * zoom]])
        frames.append(cv2.warpAffine(big, matrix, size, flags=cv2.INTER_LINEAR))
        rows = (np.arange(side, dtype=np.float32) - side / 2) / zoom
        truth.append(zoom * (2 + rows[:, None].repeat(side, axis=1) / side))
    true = np.stack(truth).astype(np.float32)
    rng = np.random.default_rng(1)
    raw = true * np.exp(rng.normal(0, 0.03, (count, 1, 1))) + rng.normal(0, 0.03, (count, 1, 1))
    steady = smoothed(np.stack(frames), raw.astype(np.float32), tmp_path / "jitter")
    middle = slice(12, -12)
    slope_true, slope = (
        np.polyfit(np.arange(count - 24), np.log(depth[middle].mean(axis=(1, 2))), 1)[0]
        for depth in (true, steady)
    )
    assert abs(slope / slope_true - 1) < 0.1
    error_raw, error = (np.abs(depth[middle] - true[middle]).mean() for depth in (raw, steady))
    assert error < 0.6 * error_raw
    # Depth that was steady already is left alone, to the ends.
    same = smoothed(np.stack(frames), true, tmp_path / "exact")
    assert np.abs(same / true - 1).mean() < 0.005


def test_a_thing_that_moves_is_not_smeared(tmp_path: Path) -> None:
    """A near square crosses a far ground, 3 pixels a frame."""
    count, height, width = 24, 64, 128
    ground, square = texture(height, width, 1), texture(24, 24, 2)
    frames = np.repeat(ground[None], count, axis=0)
    depth = np.full((count, height, width), 1.0, np.float32)
    for index in range(count):
        place = (slice(20, 44), slice(10 + 3 * index, 34 + 3 * index))
        frames[index][place] = square
        depth[index][place] = 4.0
    steady = smoothed(frames, depth, tmp_path)
    assert (np.abs(steady - depth) > 0.3).mean() < 0.005


def test_a_cut_is_not_crossed(tmp_path: Path) -> None:
    frames = np.concatenate([np.repeat(texture(48, 64, seed)[None], 20, axis=0) for seed in (1, 2)])
    depth = np.concatenate(
        [np.repeat(d[None], 20, axis=0) for d in (ramp(48, 64), 9 - ramp(48, 64))]
    )
    steady = smoothed(frames, depth, tmp_path)
    np.testing.assert_allclose(steady, depth, atol=5e-3)


@pytest.mark.slow
def test_a_pass_that_goes_on_anywhere_gives_the_same_bits(tmp_path: Path) -> None:
    flight = Flight(EVALUATION_SEED_START + 3, width=80, height=48, fps=16)
    shown = [flight.frame(index) for index in range(70)]
    frames = np.stack([frame.rgb for frame in shown])
    rng = np.random.default_rng(0)
    depth = np.stack([frame.disparity for frame in shown]) * rng.uniform(0.9, 1.1, (70, 1, 1))
    whole = smoothed(frames, depth, tmp_path / "whole")
    for first in (16, 48, 64):
        rest = smoothed(frames, depth, tmp_path / str(first), first)
        np.testing.assert_array_equal(rest, whole[first:])


def test_the_number_of_threads_does_not_matter(tmp_path: Path) -> None:
    import cv2

    frames = np.stack([texture(96, 128)[:, k : k + 96] for k in range(10)])
    depth = np.repeat(ramp(96, 96)[None], 10, axis=0)
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        one = smoothed(frames, depth, tmp_path / "one")
        cv2.setNumThreads(4)
        four = smoothed(frames, depth, tmp_path / "four")
        assert cv2.getNumThreads() == 4
    finally:
        cv2.setNumThreads(before)
    np.testing.assert_array_equal(one, four)


def test_a_gauge_is_found_among_outliers_and_is_symmetric() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(1, 3, 2000).astype(np.float32)
    y = (1.2 * x - 0.3 + rng.normal(0, 0.01, 2000)).astype(np.float32)
    y[:400] = rng.uniform(0, 9, 400)
    gauge, back = fit_gauge(x, y), fit_gauge(y, x)
    assert gauge is not None and back is not None
    assert gauge.scale == pytest.approx(1.2, rel=0.01) and gauge.shift == pytest.approx(
        -0.3, abs=0.02
    )
    identity = gauge.then(back)
    assert identity.scale == pytest.approx(1) and identity.shift == pytest.approx(0, abs=1e-6)
    there_and_back = gauge.then(gauge.inverse())
    assert there_and_back.scale == pytest.approx(1) and there_and_back.shift == pytest.approx(0)
    assert fit_gauge(x, 5 * x) is None
    assert fit_gauge(np.ones(9, np.float32), np.full(9, 3, np.float32)) == Gauge(1.0, 2.0)


def warp(picture: np.ndarray, flow: np.ndarray) -> np.ndarray:
    import cv2

    height, width = picture.shape
    x = np.arange(width, dtype=np.float32) + flow[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    return cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def per_cent(depth: np.ndarray) -> np.ndarray:
    """Depth as the model sees it: clipped to the video's percentiles, in per cent of them."""
    low, high = np.percentile(depth, [5, 95])
    return ((np.clip(depth, low, high) - low) / (high - low) * 100).astype(np.float32)


def flicker(depth: np.ndarray, flows: np.ndarray, seen: np.ndarray) -> float:
    """Return by how much depth changes from frame to frame along the motion, in per cent."""
    changes = [
        np.abs(warp(depth[k + 1], flows[k]) - depth[k])[seen[k]].mean() for k in range(len(flows))
    ]
    return float(np.mean(changes))


def correlation(depth: np.ndarray, truth: np.ndarray) -> float:
    return float(np.corrcoef(depth.ravel(), truth.ravel())[0, 1])


def embedded(frames: np.ndarray) -> np.ndarray:
    model = TransformersDepthEstimator(preset_folder("tiny") / "depth")
    batches = range(0, len(frames), DEPTH_BATCH_FRAMES)
    return np.concatenate([model.estimate(frames[k : k + DEPTH_BATCH_FRAMES]) for k in batches])


@pytest.mark.slow
def test_full_size_depth_is_steadied(tmp_path: Path) -> None:
    """32 frames of 832x480 with a scale of their own; prints the processor time a frame."""
    count, height, width = 32, 480, 832
    picture, truth = texture(height, width + 2 * count), ramp(height, width)
    frames = np.stack([picture[:, 2 * t : 2 * t + width] for t in range(count)])
    scale = np.exp(np.random.default_rng(3).normal(0, 0.05, (count, 1, 1)))
    raw = (truth * scale).astype(np.float32)
    began = time.process_time()
    steady = smoothed(frames, raw, tmp_path)
    took = (time.process_time() - began) / count
    print(f"\n{width}x{height}: {took:.2f} s a frame")
    assert np.abs(np.diff(steady, axis=0)).mean() < 0.3 * np.abs(np.diff(raw, axis=0)).mean()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11, 12, 13])
def test_flicker_of_estimates_on_worlds(seed: int, tmp_path: Path) -> None:
    count, height, width = 32, 112, 192
    flight = Flight(EVALUATION_SEED_START + seed, width=width, height=height, fps=16)
    shown = [flight.frame(index) for index in range(count)]
    frames = np.stack([frame.rgb for frame in shown])
    truth = np.stack([frame.disparity for frame in shown])
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    points = np.stack([columns, rows], axis=-1).reshape(-1, 2).astype(np.float32)
    flows, seen = [], []
    for index in range(count - 1):
        places, visible = flight.tracks(index, 2, points, depths=truth_depth(shown, index))
        flows.append((places[1] - points).reshape(height, width, 2))
        seen.append(visible[1].reshape(height, width))
    motion = np.stack(flows).astype(np.float32), np.stack(seen)
    raw = embedded(frames)
    steady = smoothed(frames, raw, tmp_path)
    before, after, true = (per_cent(depth) for depth in (raw, steady, truth))
    of_before, of_after, of_true = (flicker(depth, *motion) for depth in (before, after, true))
    error_before, error_after = (flicker(depth - true, *motion) for depth in (before, after))
    like_before, like_after = (correlation(depth, truth) for depth in (raw, steady))
    print(
        f"\nworld {EVALUATION_SEED_START + seed}: change a frame {of_before:.3f} -> {of_after:.3f} "
        f"% (true {of_true:.3f}), of the error {error_before:.3f} -> {error_after:.3f} %, "
        f"mean error {np.abs(before - true).mean():.2f} -> {np.abs(after - true).mean():.2f} %, "
        f"correlation {like_before:.4f} -> {like_after:.4f}"
    )
    assert of_after < 0.85 * of_before and error_after < 0.85 * error_before
    assert like_after > like_before - 5e-4


def truth_depth(shown: list, index: int) -> list[np.ndarray]:
    return [shown[index].depth, shown[index + 1].depth]


@pytest.mark.slow
def test_flicker_of_estimates_on_the_example(tmp_path: Path) -> None:
    frames = np.stack(
        list(
            read_frames(
                probe_video(EXAMPLE), fps=16, height=112, width=192, fit="crop", num_frames=64
            )
        )
    )
    greys = [frame[..., 1].copy() for frame in frames]
    links = [flow_between(a, b) for a, b in pairwise(greys)]
    motion = np.stack([link[0] for link in links]), np.stack([link[2] > 0.5 for link in links])
    raw = embedded(frames)
    before, after = (flicker(per_cent(d), *motion) for d in (raw, smoothed(frames, raw, tmp_path)))
    print(f"\nexamples/reference.mp4: change a frame {before:.3f} -> {after:.3f} %")
    assert after < 0.8 * before
