"""Renders examples/reference.mp4: ten seconds over green islands, from a seed never trained on.

    python examples/make_reference.py

Its size and frame rate differ from the embedded preset's on purpose: every run of the examples also
shows that a reference is resampled and cropped.
"""

from __future__ import annotations

from pathlib import Path

from longvie_cli.media.writer import VideoWriter
from longvie_cli.worlds import EVALUATION_SEED_START, Flight, Look

HEIGHT, WIDTH, FPS, SECONDS = 180, 320, 24, 10.5


def main() -> None:
    """Render the flight and write it beside this file."""
    flight = Flight(
        EVALUATION_SEED_START + 6,
        width=WIDTH,
        height=HEIGHT,
        fps=FPS,
        look=Look("meadow", "noon", "clear"),
    )
    output = Path(__file__).with_name("reference.mp4")
    with VideoWriter(output, height=HEIGHT, width=WIDTH, fps=FPS, crf=22) as writer:
        for index in range(round(SECONDS * FPS)):
            writer.write(flight.frame(index).rgb)


if __name__ == "__main__":
    main()
