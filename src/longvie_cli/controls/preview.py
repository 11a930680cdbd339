"""Controls to look at: source, depth and tracks side by side, as a video and as a sheet."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from longvie_cli.controls.files import ControlClips
from longvie_cli.controls.written_files import WrittenFiles
from longvie_cli.disk.durable import write_atomic
from longvie_cli.media.frames import png_bytes
from longvie_cli.media.reader import read_pairs
from longvie_cli.media.writer import VideoWriter
from longvie_cli.progress import Progress

PREVIEW_NAME = "preview.mp4"
CONTACT_SHEET_NAME = "contact_sheet.png"

# Moments on the contact sheet, from the first frame to the last.
_SHEET_ROWS = 8
_STAGE = "preview"


def write_preview(
    controls: ControlClips, pictures: Iterator[NDArray[np.uint8]], *, fps: int, progress: Progress
) -> tuple[Path, Path]:
    """Return the `preview.mp4` and `contact_sheet.png` of a control folder, making what is missing.

    Both show source, depth and tracks from left to right, each at the size of the controls; the
    sheet shows eight moments, one a row. Each file appears complete or not at all. Memory holds one
    frame and the sheet, whatever the length.

    Args:
        controls: Of the folder, complete.
        pictures: What they are the controls of, [height, width, 3] at their size, frame by frame.
        fps: Of the controls.
        progress: Told of the stage `preview` (frames).

    Raises:
        MediaError: A file cannot be read.
        ResumableError: The disk is full.
    """
    folder = controls.clips[0].depth.parent
    preview, sheet = folder / PREVIEW_NAME, folder / CONTACT_SHEET_NAME
    if preview.is_file() and sheet.is_file():
        return preview, sheet
    # H.264 needs even sizes.
    height, width = controls.height // 2 * 2, controls.width // 2 * 2
    moments = set(np.linspace(0, controls.num_frames - 1, _SHEET_ROWS).round().astype(int).tolist())
    rows: list[NDArray[np.uint8]] = []
    progress.start(_STAGE, controls.num_frames)
    with VideoWriter(preview, height=height, width=3 * width, fps=fps) as writer:
        for index, frame in enumerate(_side_by_side(controls, pictures)):
            if index in moments:
                rows.append(frame)
            writer.write(
                np.concatenate(
                    [part[:height, :width] for part in np.split(frame, 3, axis=1)], axis=1
                )
            )
            progress.advance(_STAGE)
    progress.finish(_STAGE)
    write_atomic(sheet, png_bytes(np.concatenate(rows)))
    WrittenFiles(folder).add([preview, sheet])
    return preview, sheet


def _side_by_side(
    controls: ControlClips, pictures: Iterator[NDArray[np.uint8]]
) -> Iterator[NDArray[np.uint8]]:
    """Yield [height, 3 * width, 3] for every frame that shows something."""
    both = zip(pictures, _stored(controls), strict=False)
    for picture, (depth, track) in islice(both, controls.num_frames):
        yield np.concatenate((picture, depth, track), axis=1)


def _stored(controls: ControlClips) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Yield depth and track of every frame that shows something."""
    size = {"height": controls.height, "width": controls.width}
    next_frame = 0
    for clip, shown in zip(controls.clips, controls.ranges, strict=True):
        repeated = next_frame - shown.start
        yield from read_pairs(
            controls.videos[clip.depth],
            controls.videos[clip.track],
            **size,
            fit="native",
            start_frame=repeated,
            num_frames=shown.end - next_frame,
        )
        next_frame = shown.end
