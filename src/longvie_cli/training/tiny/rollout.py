"""What is left of a video after clips: `python -m longvie_cli.training.tiny.rollout PRESET_FOLDER`.

Flights over reserved worlds are made again by the model: from their true first frame, their
caption, and controls stored and read back as `longvie generate` has them. What it makes is held
against the flight itself, clip by clip: how near (PSNR), how sharp (correlation of edges) and how
far the colours have drifted.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from longvie_cli.controls.control_folder import ControlLayout, make_control_folder
from longvie_cli.controls.files import load_control_clips
from longvie_cli.controls.procedural import FlightControls
from longvie_cli.engine.loader import load_pipeline
from longvie_cli.media.frames import png_bytes
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.progress import SilentProgress
from longvie_cli.settings.presets import Preset, read_preset
from longvie_cli.training.tiny.gate import FIRST_FRAME, WORLDS, edge_correlation, psnr_bytes
from longvie_cli.worlds import Flight


@dataclass(frozen=True)
class ClipReading:
    """How near a clip is to the flight it follows.

    Args:
        world: Seed of the world.
        clip: Its number, from 0.
        psnr: dB, the mean of its frames.
        edge: Correlation of the gradients after 2x2 averaging.
        drift: Largest difference of a colour's mean, in levels of 255.
        seconds: Processor seconds of making it, all of the program's threads.
    """

    world: int
    clip: int
    psnr: float
    edge: float
    drift: float
    seconds: float


def follow(
    pipeline: LongViePipeline,
    preset: Preset,
    world: int,
    num_clips: int,
) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Yield the frames that each clip adds, the flight's own, and the processor seconds it took.

    Args:
        pipeline: Of the preset.
        preset: Its sizes, steps and guidance are used.
        world: Seed of the flight; also of the noise.
        num_clips: Clips to make.
    """
    height, width = preset.height, preset.width
    flight = Flight(world, fps=preset.fps, height=height, width=width)
    layout = ControlLayout(
        preset.geometry,
        height,
        width,
        track_columns=preset.track_grid.columns,
        track_rows=preset.track_grid.rows,
    )
    frames = preset.geometry.frames_of_clips(num_clips)
    source = FlightControls(flight, layout, frames, start_frame=FIRST_FRAME)
    with tempfile.TemporaryDirectory() as folder:
        make_control_folder(source, Path(folder), progress=SilentProgress())
        controls = load_control_clips(Path(folder), preset.geometry)
        pictures = (controls.read(index, height, width, "native") for index in range(num_clips))
        caption = controls.text(0)
        pairs = ((clip.dense, clip.sparse) for clip in pictures)
        clips = pipeline.generate(
            [caption] * num_clips,
            flight.frame(FIRST_FRAME).rgb,
            pairs,
            seed=world,
            num_inference_steps=preset.num_inference_steps,
            guidance_scale=preset.guidance_scale,
        )
        shown = FIRST_FRAME
        began = time.process_time()
        for made in clips:
            seconds = time.process_time() - began
            truth = np.stack([flight.frame(shown + index).rgb for index in range(len(made))])
            shown += len(made)
            yield made, truth, seconds
            began = time.process_time()


def read_clips(
    pipeline: LongViePipeline, preset: Preset, world: int, num_clips: int, strips: list[np.ndarray]
) -> list[ClipReading]:
    """Return the readings of a world's clips; the last frames, truth above, join `strips`."""
    readings = []
    last: list[np.ndarray] = []
    for index, (made, truth, seconds) in enumerate(follow(pipeline, preset, world, num_clips)):
        means = (made.astype(np.float64) - truth).mean((0, 1, 2))
        readings.append(
            ClipReading(
                world,
                index,
                psnr_bytes(made, truth),
                edge_correlation(made, truth),
                float(np.abs(means).max()),
                seconds,
            )
        )
        last.append(np.concatenate((truth[-1], made[-1])))
    strips.append(np.concatenate(last, axis=1))
    return readings


def table(readings: Sequence[ClipReading]) -> str:
    """Return a Markdown table: a row a clip, the worlds side by side."""
    worlds = list(dict.fromkeys(reading.world for reading in readings))
    lines = [
        f"| clip ({' / '.join(str(world % 1000) for world in worlds)}) | PSNR dB | edge "
        "| colour drift, levels | processor s |",
        "|---|---|---|---|---|",
    ]
    for clip in dict.fromkeys(reading.clip for reading in readings):
        these = [reading for reading in readings if reading.clip == clip]
        cells = (
            " / ".join(form.format(getattr(reading, field)) for reading in these)
            for field, form in (
                ("psnr", "{:.1f}"), ("edge", "{:.2f}"), ("drift", "{:.1f}"), ("seconds", "{:.1f}"),
            )
        )  # fmt: skip
        lines.append(f"| {clip} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table of a preset folder."""
    parser = argparse.ArgumentParser(
        prog="python -m longvie_cli.training.tiny.rollout", description=__doc__
    )
    parser.add_argument("folder", type=Path, help="a preset folder, as `export` writes it")
    parser.add_argument("--clips", type=int, default=10, help="clips a world (of 2 s each)")
    parser.add_argument("--worlds", type=int, nargs="+", default=list(WORLDS))
    parser.add_argument("--steps", type=int, help="in place of the preset's")
    parser.add_argument("--guidance", type=float, help="in place of the preset's")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write all readings here as well")
    parser.add_argument("--picture", type=Path, help="PNG of each clip's last frame, truth above")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    preset = read_preset(arguments.folder / "preset.json", "tiny")
    changes = {
        "num_inference_steps": arguments.steps,
        "guidance_scale": arguments.guidance,
    }
    preset = preset.model_copy(update={k: v for k, v in changes.items() if v is not None})
    pipeline = load_pipeline(preset, weights=arguments.folder)
    strips: list[np.ndarray] = []
    readings = [
        reading
        for world in arguments.worlds
        for reading in read_clips(pipeline, preset, world, arguments.clips, strips)
    ]
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(each) for each in readings], indent=1))
    if arguments.picture:
        arguments.picture.write_bytes(png_bytes(np.concatenate(strips)))
    print(table(readings))


if __name__ == "__main__":
    main()
