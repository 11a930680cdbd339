"""Makes two clips from Python on the embedded model: a flight over a landscape, as one mp4.

    python examples/python_api.py [OUT.mp4] [--steps 12]

The clips come one by one, so a video of any length needs the memory of one clip.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from longvie_cli import load_pipeline, load_preset
from longvie_cli.controls.control_folder import ControlLayout, make_control_folder
from longvie_cli.controls.files import FIRST_FRAME_NAME, load_control_clips
from longvie_cli.controls.procedural import FlightControls
from longvie_cli.media.image import read_image
from longvie_cli.media.writer import VideoWriter
from longvie_cli.progress import SilentProgress
from longvie_cli.worlds import Flight

NUM_CLIPS = 2
SEED = 7


def main() -> None:
    """Make the video."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, nargs="?", default=Path("python_api.mp4"))
    parser.add_argument("--steps", type=int)
    arguments = parser.parse_args()

    preset = load_preset("tiny")
    pipeline = load_pipeline(preset)
    size = {"height": preset.height, "width": preset.width}
    with tempfile.TemporaryDirectory() as name:
        # Depth and tracks of a flight, in the released format; `cond.json` names them.
        folder = Path(name)
        source = FlightControls(
            Flight(SEED, fps=preset.fps, **size),
            ControlLayout(
                preset.geometry,
                **size,
                track_columns=preset.track_grid.columns,
                track_rows=preset.track_grid.rows,
            ),
            num_frames=preset.geometry.frames_of_clips(NUM_CLIPS),
        )
        make_control_folder(source, folder, progress=SilentProgress())
        controls = load_control_clips(folder, preset.geometry)
        pictures = (controls.read(index, **size, fit="native") for index in range(NUM_CLIPS))
        clips = pipeline.generate(
            [controls.text(index) for index in range(NUM_CLIPS)],
            read_image(folder / FIRST_FRAME_NAME, **size, fit="native"),
            ((clip.dense, clip.sparse) for clip in pictures),
            seed=SEED,
            num_inference_steps=arguments.steps or preset.num_inference_steps,
            guidance_scale=preset.guidance_scale,
        )
        with VideoWriter(arguments.output, fps=preset.fps, **size) as writer:
            for frames in clips:
                for frame in frames:
                    writer.write(frame)
    print(arguments.output)


if __name__ == "__main__":
    main()
