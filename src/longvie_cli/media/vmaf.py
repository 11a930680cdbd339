"""VMAF of a video against a reference, by the libvmaf of the ffmpeg that is used."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from longvie_cli.errors import MediaError
from longvie_cli.media.ffmpeg import run_inspecting, run_reading
from longvie_cli.media.filters import deinterlacing, video_arguments
from longvie_cli.media.probe import SourceVideo

VMAF_MODEL = "vmaf_v0.6.1"

_SCORE = re.compile(r"VMAF score: (?P<score>-?[\d.]+)")
_FEWEST_ROWS = 32
# Frames in a row that are compared.
_RUN = 8


@cache
def has_vmaf() -> bool:
    """Return whether the ffmpeg that is used was built with libvmaf."""
    filters = run_reading(Path("ffmpeg"), ["-filters"])
    return b"libvmaf" in filters


def vmaf_score(
    video: SourceVideo,
    reference: SourceVideo,
    *,
    fps: int | None,
    num_frames: int,
    every: int = 1,
) -> float:
    """Return the mean VMAF (model vmaf_v0.6.1, 0 to 100) of a video against its reference.

    Both are brought to the video's size and numbered anew at one rate: libvmaf pairs frames by
    their times, and files of one rate need not have the same ones.

    Args:
        video: The one that is judged.
        reference: The other, of the same aspect.
        fps: Rate both are read at; None takes the frames as stored.
        num_frames: Frames of each that are compared.
        every: Compare one in so many of them, in runs of 8: motion is a part of VMAF.

    Raises:
        MediaError: A file cannot be read, or the pictures are too small.
    """
    # libvmaf reads planes of even size; its smallest scale halves them four times.
    height, width = video.height // 2 * 2, video.width // 2 * 2
    if min(height, width) < _FEWEST_ROWS:
        raise MediaError(f"{video.path}: {width}x{height} is too small for VMAF.")
    inputs: list[str] = []
    graph = []
    for place, source in enumerate((video, reference)):
        inputs += video_arguments(source)
        rate = [] if fps is None else [f"fps={fps}"]
        # Chosen here: of libvmaf's own n_subsample the motion is that to the last one compared.
        filters = [
            *deinterlacing(source),
            *rate,
            f"trim=end_frame={num_frames}",
            *([f"select=lt(mod(n\\,{_RUN * every})\\,{_RUN})"] if every > 1 else []),
            f"scale={width}:{height}:flags=bicubic",
            "format=yuv420p",
            "settb=1/16",
            "setpts=N",
        ]
        graph.append(f"[{place}:{source.stream}]{','.join(filters)}[part{place}]")
    graph.append("[part0][part1]libvmaf=shortest=1[scored]")
    output = ("-map", "[scored]", "-fps_mode", "passthrough", "-f", "null", "-")
    _, said = run_inspecting(video.path, [*inputs, "-filter_complex", ";".join(graph), *output])
    for line in reversed(said):
        if found := _SCORE.search(line):
            return float(found["score"])
    raise MediaError(f"{video.path}: libvmaf gave no score.")
