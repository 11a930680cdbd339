"""What a depth network knows: `python -m longvie_cli.training.tiny.depth_gate DEPTH_FOLDER`.

Judged on reserved worlds and on made scenes that are not trained on; with `--stereo` also on a
photograph whose disparity is known (opencv-doc has aloeL.jpg and aloeGT.png), with `--video` by
looking (`--sheet`).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from longvie_cli.controls.depth import TransformersDepthEstimator
from longvie_cli.media.frames import png_bytes
from longvie_cli.media.image import read_image
from longvie_cli.media.probe import probe_video
from longvie_cli.media.reader import read_frames
from longvie_cli.training.tiny.config import TinyTraining
from longvie_cli.training.tiny.gate import WORLDS
from longvie_cli.training.tiny.ray_casting import render_scene
from longvie_cli.training.tiny.scenes import KINDS, made_scene
from longvie_cli.worlds import Flight

# Scenes from here on are nobody's training.
_FIRST_SCENE = 1_000_000
_SCENES_A_KIND = 8
_WORLD_FRAMES = (40, 200, 600, 1200)
_VIDEO_FRAMES = (0, 40)


@dataclass(frozen=True)
class DepthReading:
    """How near an estimate is to a true disparity.

    Args:
        error: Mean absolute error in per cent of the true range from 5th to 95th percentile, the
            estimate fitted by scale and shift.
        correlation: Of the two.
        below: Correlation of the truth with nothing but the row: what "bottom near, top far" gets.
    """

    error: float
    correlation: float
    below: float


def read_depth(estimate: NDArray[np.float32], truth: NDArray[np.float32]) -> DepthReading:
    """Return the reading of an estimate [H, W]; pixels without a finite truth do not count."""
    known = np.isfinite(truth)
    ours, true = estimate[known].astype(np.float64), truth[known].astype(np.float64)
    rows = np.broadcast_to(np.arange(len(truth))[:, None], truth.shape)[known]
    low, high = np.percentile(true, (5, 95))
    scale, shift = np.polyfit(ours, true, 1) if ours.std() > 0 else (0.0, true.mean())
    error = np.abs(scale * ours + shift - true).mean() / max(high - low, 1e-9)
    return DepthReading(float(100 * error), _correlation(ours, true), _correlation(rows, true))


def _correlation(one: NDArray[Any], other: NDArray[Any]) -> float:
    if one.std() == 0 or other.std() == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def _judged(config: TinyTraining) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.float32]]]:
    """Yield the kind, picture and disparity of everything that is made here."""
    for world in WORLDS:
        flight = Flight(world, width=config.width, height=config.height, fps=config.fps)
        for index in _WORLD_FRAMES:
            frame = flight.frame(index)
            yield "landscape", frame.rgb, frame.disparity
    left = dict.fromkeys(KINDS, _SCENES_A_KIND)
    seed = _FIRST_SCENE
    while any(left.values()):
        kind, scene = made_scene(seed)
        if left[kind]:
            left[kind] -= 1
            rgb, disparity = render_scene(scene, config.height, config.width)
            yield kind, rgb, disparity.astype(np.float32)
        seed += 1


def main() -> None:
    """Print a row a kind of picture."""
    parser = argparse.ArgumentParser(
        prog="python -m longvie_cli.training.tiny.depth_gate", description=__doc__
    )
    parser.add_argument("folder", type=Path, help="a depth network's folder")
    parser.add_argument("--stereo", type=Path, nargs=2, metavar=("PICTURE", "DISPARITY"))
    parser.add_argument("--video", type=Path, action="append", default=[])
    parser.add_argument("--sheet", type=Path, help="PNG of videos and what is estimated of them")
    arguments = parser.parse_args()
    config = TinyTraining()
    estimator = TransformersDepthEstimator(arguments.folder)

    readings: dict[str, list[DepthReading]] = {}
    for kind, rgb, disparity in _judged(config):
        estimate = estimator.estimate(rgb[None])[0]
        readings.setdefault(kind, []).append(read_depth(estimate, disparity))
    if arguments.stereo:
        picture, truth = arguments.stereo
        known = np.asarray(Image.open(truth).convert("L"), np.float32)
        height, width = known.shape
        rgb = read_image(picture, height=height, width=width, fit="stretch")
        known[known == 0] = np.nan
        readings["stereo pair"] = [read_depth(estimator.estimate(rgb[None])[0], known)]
    print("| pictures | error, % of the range | correlation | of the row alone |")
    print("|---|---|---|---|")
    for kind, rows in readings.items():
        means = (np.mean([getattr(row, name) for row in rows]) for name in ("error", "correlation"))
        error, correlation = means
        below = abs(float(np.mean([row.below for row in rows])))
        print(f"| {kind} ({len(rows)}) | {error:.1f} | {correlation:.3f} | {below:.3f} |")
    if arguments.sheet:
        columns = [
            np.concatenate((frame, _grey(estimator.estimate(frame[None])[0])))
            for path in arguments.video
            for frame in _frames(path, config)
        ]
        arguments.sheet.write_bytes(png_bytes(np.concatenate(columns, axis=1)))


def _frames(path: Path, config: TinyTraining) -> list[NDArray[np.uint8]]:
    frames = read_frames(
        probe_video(path), fps=None, height=config.height, width=config.width, fit="crop"
    )
    first = list(islice(frames, max(_VIDEO_FRAMES) + 1))
    return [first[min(index, len(first) - 1)] for index in _VIDEO_FRAMES]


def _grey(disparity: NDArray[np.float32]) -> NDArray[np.uint8]:
    low, high = np.percentile(disparity, (2, 98))
    grey = (255 * np.clip((disparity - low) / max(high - low, 1e-9), 0, 1)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


if __name__ == "__main__":
    main()
