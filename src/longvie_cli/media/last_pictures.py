"""The pictures a video ends with, as a hash that says whether it still ends with them."""

from __future__ import annotations

from longvie_cli.media.ffmpeg import input_arguments, run_reading
from longvie_cli.media.probe import SourceVideo


def hash_last_pictures(video: SourceVideo, count: int) -> str:
    """Return a hash of the last `count` decoded pictures of a video, or of all if it has fewer.

    As stored, before any conversion: decoding H.264 gives the same bytes everywhere, and copying
    a stream to another container changes none.

    Raises:
        MediaError: The pictures cannot be decoded.
    """
    first = max(0, (video.num_frames or count) - count)
    last = f"select=gte(n\\,{first})"
    chosen = ("-map", f"0:{video.stream}", "-vf", last, "-fps_mode", "passthrough")
    hashed = ("-f", "hash", "-hash", "md5", "pipe:1")
    report = run_reading(video.path, [*input_arguments(video.path), *chosen, *hashed])
    return report.decode().strip().removeprefix("MD5=")
