"""What is left of a picture after passes: `python -m longvie_cli.training.tiny.gate VAE_FOLDER`.

A minute of video sends its pictures through the autoencoder a dozen times, an hour hundreds: every
clip starts from the decoded end of the one before. So an autoencoder is judged by its tenth and
thirtieth pass as well as by its first, on reserved worlds, by colour frames and by the pictures of
both controls, and apart for what it codes in two ways: first frames (alone) and the frames after.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from longvie_cli.controls.rendering import render_track_clip, track_grid
from longvie_cli.kernels.causal_conv3d import use_stacked_causal_convolutions
from longvie_cli.media.frames import frames_from_pixels, pixels_from_frames
from longvie_cli.models.autoencoders import VideoAutoencoder, autoencoder_class
from longvie_cli.training.tiny.config import TinyTraining
from longvie_cli.training.tiny.flights import depth_picture
from longvie_cli.worlds import Flight

WORLDS = (1_000_000_101, 1_000_000_104, 1_000_000_107, 1_000_000_110)
KINDS = ("colour", "depth", "tracks")
# Away from the take-off, where every flight is slow.
FIRST_FRAME = 64

LEAST_EDGE_AFTER = {1: 0.90, 10: 0.85}
LARGEST_SHIFT_AFTER = {10: 1.0}
LEAST_PSNR_AFTER = {30: 30.0}


@dataclass(frozen=True)
class Reading:
    """How near the frames of one world are to the truth after some passes.

    Args:
        world: Seed of the world.
        kind: One of `KINDS`.
        still: Of the first frame, coded alone; else the mean of the frames after it.
        passes: Times the frames were encoded, decoded and made bytes, as between two clips.
        moved: Each pass saw the picture shifted by some pixels, every other one with time turned
            round, so that hardly a pixel met the same cell twice: as in a video that moves.
        psnr: dB.
        edge: Correlation of the gradients after 2x2 averaging; a flat truth has none (NaN).
        shift: Largest difference of a colour's mean, in levels of 255.
        borders: Gradients of the error across borders of 8x8 cells over those elsewhere; 1 is a
            picture without visible cells.
    """

    world: int
    kind: str
    still: bool
    passes: int
    moved: bool
    psnr: float
    edge: float
    shift: float
    borders: float

    @property
    def opens(self) -> bool:
        """Whether it is good enough to train a transformer on (the worse of what is asked)."""
        return (
            not self.edge < LEAST_EDGE_AFTER.get(self.passes, -1.0)
            and self.shift < LARGEST_SHIFT_AFTER.get(self.passes, 256.0)
            and self.psnr >= LEAST_PSNR_AFTER.get(self.passes, 0.0)
        )


def judged_clips(config: TinyTraining, world: int, num_frames: int) -> dict[str, np.ndarray]:
    """Return a clip of a reserved world by kind, uint8 [num_frames, height, width, 3] each."""
    flight = Flight(world, width=config.width, height=config.height, fps=config.fps)
    frames = [flight.frame(FIRST_FRAME + index) for index in range(num_frames)]
    depth = np.stack([frame.depth for frame in frames])
    points = track_grid(
        config.height, config.width, columns=config.track_columns, rows=config.track_rows
    )
    tracks, visible = flight.tracks(FIRST_FRAME, num_frames, points, depths=depth)
    disparity = np.stack([frame.disparity for frame in frames])
    near_black = depth_picture(disparity, np.random.default_rng(world))
    return {
        "colour": np.stack([frame.rgb for frame in frames]),
        "depth": np.repeat(near_black[..., None], 3, axis=-1),
        "tracks": render_track_clip(near_black, tracks.astype(np.float32), visible),
    }


def one_pass(autoencoder: VideoAutoencoder, frames: np.ndarray) -> np.ndarray:
    """Return frames uint8 [T, H, W, 3] encoded and decoded once, as between two clips."""
    pixels = pixels_from_frames(frames)[None]
    with torch.no_grad():
        latents = autoencoder.encode(pixels).latent_dist.mean
        return frames_from_pixels(autoencoder.decode(latents, return_dict=False)[0][0])


def passed(
    autoencoder: VideoAutoencoder, frames: np.ndarray, passes: Sequence[int], *, moved: bool
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (passes, frames uint8 [T, H, W, 3]) at each of the asked numbers of passes."""
    rng = np.random.default_rng(0)
    current = frames
    for count in range(1, max(passes) + 1):
        rows, columns = (int(pixel) for pixel in rng.integers(0, 8, 2))
        if moved:
            rim = ((0, 0), (rows, 8 - rows), (columns, 8 - columns), (0, 0))
            order = -1 if count % 2 == 0 else 1
            framed = one_pass(autoencoder, np.pad(current, rim, mode="edge")[::order])[::order]
            framed = np.ascontiguousarray(framed)
            height, width = current.shape[1:3]
            current = framed[:, rows : rows + height, columns : columns + width]
        else:
            current = one_pass(autoencoder, current)
        if count in passes:
            yield count, current


def edges(frames: np.ndarray) -> Tensor:
    """Return gradients [2, T, h, w] of the grey picture after 2x2 averaging, not of pixel noise."""
    grey = F.avg_pool2d(torch.from_numpy(frames).float().mean(-1)[:, None], 2)[:, 0]
    corner = grey[:, 1:, 1:]
    return torch.stack((corner - grey[:, 1:, :-1], corner - grey[:, :-1, 1:]))


def edge_correlation(frames: np.ndarray, truth: np.ndarray) -> float:
    """Return the correlation of two videos' `edges`, NaN where the truth has next to none."""
    ours, theirs = edges(frames), edges(truth)
    if theirs.square().mean() < 1e-2:
        return float("nan")
    return float((ours * theirs).sum() / (ours.norm() * theirs.norm()).clamp(min=1e-9))


def cell_borders(frames: np.ndarray, truth: np.ndarray, cell: int = 8) -> float:
    """Return how much the error jumps between columns of two cells, over columns within one."""
    error = (frames.astype(np.float32) - truth).mean(-1)
    jumps = np.abs(np.diff(error, axis=-1)).mean((0, 1))
    at_border = (np.arange(len(jumps)) + 1) % cell == 0
    return float(jumps[at_border].mean() / max(float(jumps[~at_border].mean()), 1e-6))


def psnr_bytes(frames: np.ndarray, truth: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in dB, the mean over frames; at most 78."""
    error = np.square(frames.astype(np.float32) - truth).mean((1, 2, 3))
    return float((10 * np.log10(255**2 / np.maximum(error, 1e-3))).mean())


def read_passes(
    autoencoder: VideoAutoencoder,
    clips: dict[int, dict[str, np.ndarray]],
    *,
    passes: Sequence[int] = (1, 10, 30),
    kinds: Sequence[str] = KINDS,
    moved: bool = False,
) -> list[Reading]:
    """Return the readings of an autoencoder on clips by world and kind (`judged_clips`)."""
    readings = []
    for world, by_kind in clips.items():
        for kind in kinds:
            truth = by_kind[kind]
            for count, frames in passed(autoencoder, truth, passes, moved=moved):
                for still in (True, False):
                    part = slice(0, 1) if still else slice(1, None)
                    ours, theirs = frames[part], truth[part]
                    means = (ours.astype(np.float64) - theirs).mean((0, 1, 2))
                    readings.append(
                        Reading(
                            world,
                            kind,
                            still,
                            count,
                            moved,
                            psnr=psnr_bytes(ours, theirs),
                            edge=edge_correlation(ours, theirs),
                            shift=float(np.abs(means).max()),
                            borders=cell_borders(ours, theirs),
                        )
                    )
    return readings


def gate_is_open(readings: Sequence[Reading]) -> bool:
    """Return whether every colour reading in place is good enough (moved ones are not asked)."""
    return all(r.opens for r in readings if r.kind == "colour" and not r.moved)


def table(readings: Sequence[Reading]) -> str:
    """Return the readings as a Markdown table: a row a kind and pass, worlds side by side."""
    worlds = list(dict.fromkeys(r.world for r in readings))
    lines = [
        f"| {' / '.join(str(world % 1000) for world in worlds)} | passes | PSNR dB | edge "
        "| colour shift, levels | cell borders |",
        "|---|---|---|---|---|---|",
    ]
    rows = dict.fromkeys((r.kind, r.still, r.moved, r.passes) for r in readings)
    for row in sorted(rows, key=lambda row: (KINDS.index(row[0]), row[2], not row[1], row[3])):
        these = [r for r in readings if (r.kind, r.still, r.moved, r.passes) == row]
        kind, still, moved, count = row
        name = f"{kind}, {'first frame' if still else 'frames after'}{', moved' if moved else ''}"
        cells = (
            " / ".join(form.format(getattr(r, field)) for r in these)
            for field, form in (
                ("psnr", "{:.1f}"), ("edge", "{:.2f}"), ("shift", "{:.1f}"), ("borders", "{:.2f}"),
            )
        )  # fmt: skip
        lines.append(f"| {name} | {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


def seconds_of_clip(
    autoencoder: VideoAutoencoder, config: TinyTraining, repeats: int = 3
) -> dict[str, float]:
    """Return the processor seconds of encoding and of decoding one clip, the least of some."""
    pixels = torch.rand(1, 3, config.num_frames, config.height, config.width) * 2 - 1
    encode, decode = [], []
    with torch.no_grad():
        for _ in range(repeats + 1):
            began = time.process_time()
            latents = autoencoder.encode(pixels).latent_dist.mean
            between = time.process_time()
            autoencoder.decode(latents, return_dict=False)
            encode.append(between - began)
            decode.append(time.process_time() - between)
    return {"encode": min(encode[1:]), "decode": min(decode[1:])}


def load_for_gate(folder: Path) -> VideoAutoencoder:
    """Return the autoencoder of a folder in diffusers layout, in float32 as the pipeline has it.

    Raises:
        OSError: config or weights are not there.
        ValueError: it is of no class that a pipeline takes.
    """
    autoencoder = autoencoder_class(folder).from_pretrained(
        folder, torch_dtype=torch.float32, local_files_only=True
    )
    use_stacked_causal_convolutions(autoencoder)
    return autoencoder.eval()


def main() -> None:
    """Print the table of an autoencoder and whether the gate opens (else exit with 1)."""
    parser = argparse.ArgumentParser(
        prog="python -m longvie_cli.training.tiny.gate", description=__doc__
    )
    parser.add_argument("folder", type=Path, help="an autoencoder's folder: config.json, weights")
    parser.add_argument("--frames", type=int, default=17, help="frames of a clip, 4k+1")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write all readings here as well")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = TinyTraining()
    autoencoder = load_for_gate(arguments.folder)
    seconds = seconds_of_clip(autoencoder, config)
    clips = {world: judged_clips(config, world, arguments.frames) for world in WORLDS}
    readings = read_passes(autoencoder, clips, kinds=("colour",))
    readings += read_passes(autoencoder, clips, passes=(1, 10), kinds=("depth", "tracks"))
    readings += read_passes(autoencoder, clips, passes=(1, 10), kinds=("colour",), moved=True)
    if arguments.json:
        rows = [asdict(reading) for reading in readings]
        arguments.json.write_text(json.dumps({"seconds": seconds, "readings": rows}, indent=1))
    print(table(readings))
    print(
        f"\nA clip takes {seconds['encode']:.2f} s to encode, {seconds['decode']:.2f} s to decode."
    )
    is_open = gate_is_open(readings)
    print(f"The gate {'opens' if is_open else 'stays shut'}.")
    raise SystemExit(0 if is_open else 1)


if __name__ == "__main__":
    main()
