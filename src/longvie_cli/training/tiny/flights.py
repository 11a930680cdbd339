"""Rendered flights on disk: the training data of every stage.

One file a flight: a stretch of a camera path over one geometry, seen under several looks, with
exact depth and exact point tracks. Files are written once, atomically, and read by slices.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from longvie_cli.controls.rendering import render_track_clip, track_grid
from longvie_cli.models.depth_colours import Look as VideoLook
from longvie_cli.training.tiny.config import TinyTraining
from longvie_cli.worlds import EVALUATION_SEED_START, Flight
from longvie_cli.worlds.looks import PALETTES, TIMES_OF_DAY, WEATHERS, Look, caption_for

# Beside the folder of the flights: controls extracted from some of them.
EXTRACTED = "extracted"

# A tiny model learns light and colour from clear pictures; thick weather is the rarer guest.
TIME_SHARES = {"dawn": 0.22, "noon": 0.34, "sunset": 0.24, "night": 0.20}
WEATHER_SHARES = {
    "clear": 0.36, "cloudy": 0.28, "overcast": 0.10, "foggy": 0.10, "rainy": 0.08, "snowfall": 0.08,
}  # fmt: skip

# Flights begin anywhere in their first minutes, so that the model does not only see take-offs.
LATEST_START_FRAME = 1600
# The frame that a video began with lies at most so far before a clip of it, in frames; one example
# in four is a video's first clip, which begins with that frame itself.
_EARLIEST_LOOK = 400
_FIRST_CLIPS = 0.25


@dataclass(frozen=True)
class FlightExample:
    """One flight under one look.

    Args:
        rgb: Frames, uint8 [frames, height, width, 3].
        depth: Depth picture bytes of the same frames, uint8 [frames, height, width], near black.
        tracks: Track pictures of the clip, uint8 [num_frames, height, width, 3].
        caption: What the flight shows.
        look: The frame that the video of the flight began with.
    """

    rgb: np.ndarray
    depth: np.ndarray
    tracks: np.ndarray
    caption: str
    look: VideoLook


def training_look(rng: np.random.Generator) -> Look:
    """Return a look, independent of any geometry, so that the model listens to the prompt."""
    return Look(
        PALETTES[int(rng.integers(len(PALETTES)))],
        TIMES_OF_DAY[rng.choice(len(TIMES_OF_DAY), p=[TIME_SHARES[name] for name in TIMES_OF_DAY])],
        WEATHERS[rng.choice(len(WEATHERS), p=[WEATHER_SHARES[name] for name in WEATHERS])],
    )


def render_flight(config: TinyTraining, seed: int, path: Path) -> None:
    """Render the flight of `seed` to `path`.

    Raises:
        ValueError: the seed is reserved for evaluation.
    """
    if seed >= EVALUATION_SEED_START:
        raise ValueError(f"seed {seed} is reserved for evaluation")
    rng = np.random.default_rng(seed)
    start = int(rng.integers(LATEST_START_FRAME))
    frames = config.sequence_frames
    first = Flight(seed, width=config.width, height=config.height, fps=config.fps)
    looks = [training_look(rng) for _ in range(config.looks_per_flight)]
    rgb = np.empty((len(looks), frames, config.height, config.width, 3), np.uint8)
    depth = np.empty((frames, config.height, config.width), np.float32)
    for index in range(frames):
        for which, frame in enumerate(first.frames_under(start + index, looks)):
            rgb[which, index] = frame.rgb
        depth[index] = frame.depth
    clip_start = config.history_frames - 1
    back = 0
    if rng.random() >= _FIRST_CLIPS:
        back = int(rng.integers(min(start + clip_start, _EARLIEST_LOOK) + 1))
    began = list(first.frames_under(start + clip_start - back, looks))
    points = track_grid(
        config.height, config.width, columns=config.track_columns, rows=config.track_rows
    )
    tracks, visible = first.tracks(
        start + clip_start, config.num_frames, points, depths=depth[clip_start:]
    )
    motion = first.motion_at(start + clip_start, config.num_frames)
    captions = [
        caption_for(look, first.geometry, motion=motion, seed=seed + which)
        for which, look in enumerate(looks)
    ]
    part = path.with_suffix(".part")
    save_file(
        {
            "rgb": rgb,
            "disparity": _disparity(depth),
            "look_rgb": np.stack([frame.rgb for frame in began]),
            "look_disparity": _disparity(began[0].depth),
            "tracks": tracks.astype(np.float32),
            "visible": visible,
        },
        part,
        metadata={
            "captions": json.dumps(captions),
            "looks": json.dumps([(k.palette, k.time_of_day, k.weather) for k in looks]),
            "seed": str(seed),
        },
    )
    os.replace(part, path)


def _disparity(depth: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(depth), 1 / np.maximum(depth, 1e-3), 0).astype(np.float32)


def render_library(config: TinyTraining, folder: Path, *, worker: int, num_workers: int) -> None:
    """Render every `num_workers`-th missing flight of the library in the work folder."""
    flights = folder / "flights"
    flights.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for index in range(worker, config.num_flights, num_workers):
        path = flights / f"{index:05d}.safetensors"
        if not path.exists():
            render_flight(config, config.seed % 1_000_000 * 100 + index, path)


def depth_picture(disparity: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return depth bytes of a stretch of a flight, normalised as if it were part of a longer video.

    The 5th and 95th percentiles of a whole video span more than those of a stretch: both ends are
    moved out (or slightly in) at random, which also teaches the model other estimators' scale.
    """
    sample = disparity[:, ::4, ::4]
    low, high = np.percentile(sample, (5, 95))
    span = max(float(high - low), 1e-6)
    low = low - span * rng.uniform(-0.05, 0.15) * (low > 0)
    high = high + span * rng.uniform(-0.1, 0.6)
    return (255 * np.clip((high - disparity) / (high - low), 0, 1)).astype(np.uint8)


def controls_of(path: Path) -> dict[str, np.ndarray]:
    """Return disparity, that of the look, tracks and visibility that a flight is trained on with.

    Extracted ones where there are any, else exact ones.
    """
    extracted = path.parent.parent / EXTRACTED / path.name
    with safe_open(extracted if extracted.exists() else path, "numpy") as file:
        return {
            name: file.get_tensor(name)
            for name in ("disparity", "look_disparity", "tracks", "visible")
        }


def depth_of_flight(
    controls: dict[str, np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return depth bytes of a flight [T, H, W] and of the frame its video began with [H, W]."""
    both = np.concatenate((controls["disparity"], controls["look_disparity"][None]))
    depth = depth_picture(both, rng)
    return depth[:-1], depth[-1]


class FlightLibrary:
    """Reads rendered flights by slices; sees files that appear while it is in use."""

    def __init__(self, folder: Path, config: TinyTraining) -> None:
        self.folder = folder
        self.config = config
        self._paths: list[Path] = []

    def paths(self) -> list[Path]:
        """Return the rendered flights, listed again once a thousand draws."""
        self._draws = getattr(self, "_draws", -1) + 1
        if self._draws % 1000 == 0:
            self._paths = sorted(self.folder.glob("*.safetensors"))
        if not self._paths:
            raise FileNotFoundError(
                f"{self.folder} holds no rendered flight; run the render stage first"
            )
        return self._paths

    def example(self, path: Path, look: int, rng: np.random.Generator) -> FlightExample:
        """Return a whole flight under one of its looks."""
        controls = controls_of(path)
        depth, look_depth = depth_of_flight(controls, rng)
        with safe_open(path, "numpy") as file:
            captions = json.loads(file.metadata()["captions"])
            rgb = file.get_slice("rgb")[look]
            began = VideoLook(file.get_slice("look_rgb")[look], look_depth)
        clip = depth[self.config.history_frames - 1 :]
        tracks = render_track_clip(clip, controls["tracks"], controls["visible"])
        return FlightExample(rgb, depth, tracks, captions[look], began)

    def autoencoder_pixels(
        self, rng: np.random.Generator, num_frames: int, crop: int, *, kind: str | None = None
    ) -> torch.Tensor:
        """Return one random crop for the autoencoder, float [3, num_frames, crop, crop] in [-1, 1].

        Unless a kind is given, a quarter of the crops are what controls and conditions look like.

        Args:
            kind: `video`, `depth` (grey), `tracks` (coloured boxes on black) or `first` (a first
                frame followed by mid-grey).
        """
        paths = self.paths()
        path = paths[int(rng.integers(len(paths)))]
        if kind is None:
            kind = rng.choice(["video", "depth", "tracks", "first"], p=[0.72, 0.12, 0.1, 0.06])
        config = self.config
        first = config.history_frames - 1
        begin = first + int(rng.integers(config.num_frames - num_frames + 1))
        y = int(rng.integers(config.height - crop + 1))
        x = int(rng.integers(config.width - crop + 1))
        window = (slice(begin, begin + num_frames), slice(y, y + crop), slice(x, x + crop))
        with safe_open(path, "numpy") as file:
            if kind in ("video", "first"):
                look = int(rng.integers(config.looks_per_flight))
                frames = file.get_slice("rgb")[(look, *window)]
            else:
                depth = depth_picture(file.get_tensor("disparity"), rng)
                if kind == "depth":
                    frames = np.repeat(depth[window][..., None], 3, axis=-1)
                else:
                    pictures = render_track_clip(
                        depth[first:], file.get_tensor("tracks"), file.get_tensor("visible")
                    )
                    frames = pictures[
                        (slice(begin - first, begin - first + num_frames), *window[1:])
                    ]
        pixels = (
            torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2).float() / 127.5 - 1
        )
        if kind == "first":
            pixels[:, 1:] = 0
        if rng.random() < 0.5:
            pixels = pixels.flip(-1)
        return pixels
