"""Videos that play everywhere: H.264 High, yuv420p, bt709, index in front, constant rate."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np

from longvie_cli.durable import commit_file, part_path, storage_error
from longvie_cli.errors import MediaError
from longvie_cli.media.ffmpeg import FfmpegProcess, metadata_arguments, writing_error
from longvie_cli.media.frames import Frame
from longvie_cli.media.metadata import write_ffmetadata

TICKS_PER_FRAME = 1000

_COLOURS = "colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"

# Without B-frames a frame is shown in the order it is stored, so joined clips need no edit lists
# and no shifted timestamps. `stitchable` keeps the parameter sets free of the crf, so that every
# clip of a size has the same ones. A fixed number of threads gives the same bytes on every machine.
_X264 = ("-c:v", "libx264", "-profile:v", "high", "-bf", "0", "-threads", "4")
_X264_PARAMETERS = ("-x264-params", "stitchable=1")


def container_arguments(fps: int, part: Path) -> list[str]:
    """Return the ffmpeg arguments that end every mp4 of ours: exact ticks, index in front."""
    ticks = str(TICKS_PER_FRAME * fps)
    return [
        *("-fflags", "+bitexact", "-flags:v", "+bitexact", "-map_chapters", "-1"),
        *("-video_track_timescale", ticks, "-movie_timescale", ticks, "-movflags", "+faststart"),
        *("-f", "mp4", "-y", f"file:{part}"),
    ]


class VideoWriter:
    """Writes frames to an mp4 that appears, complete, when the `with` block ends well.

    Leaving the block by an exception leaves no file, Ctrl-C included. Until the end the file is
    called `NAME.part`.

    Args:
        path: The mp4 to make, replaced if it exists.
        height: Rows of every frame, even.
        width: Columns of every frame, even.
        fps: Frames per second, exact in the file.
        crf: x264's quality, 0 (best) to 51.
        preset: x264's speed preset.
        metadata: Text for the `comment` tag.

    Raises:
        MediaError: An odd size, no frame at all, or ffmpeg failed.
        OutputConflictError: The folder cannot be written.
        ResumableError: The disk is full.
    """

    def __init__(
        self,
        path: Path,
        *,
        height: int,
        width: int,
        fps: int,
        crf: int = 18,
        preset: str = "medium",
        metadata: str | None = None,
    ) -> None:
        if height % 2 or width % 2:
            raise MediaError(
                f"{path}: a video of {width}x{height} cannot be written, H.264 needs even sizes."
            )
        self.num_frames = 0
        self._path = path
        self._part = part_path(path)
        self._shape = (height, width, 3)
        self._fps = fps
        self._quality = ("-crf", str(crf), "-preset", preset)
        self._metadata = metadata
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._process: FfmpegProcess | None = None

    def __enter__(self) -> VideoWriter:
        height, width, _ = self._shape
        try:
            # A killed run may have left an ffmpeg that still holds the old file: never share it.
            self._part.unlink(missing_ok=True)
            self._part.touch()
            self._scratch = tempfile.TemporaryDirectory(prefix="longvie-")
            tags: list[str] = ["-map_metadata", "-1"]
            second_input: list[str] = []
            if self._metadata is not None:
                tags_file = Path(self._scratch.name, "tags.txt")
                write_ffmetadata(tags_file, self._metadata)
                second_input, tags = metadata_arguments(tags_file), ["-map_metadata", "1"]
        except OSError as reason:
            self._discard()
            raise storage_error(self._path, reason) from reason
        raw = ("-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", f"{width}x{height}")
        self._process = FfmpegProcess(
            [
                *raw,
                *("-framerate", str(self._fps), "-i", "pipe:0"),
                *second_input,
                *("-map", "0:v:0", *tags),
                "-vf",
                "scale=in_range=pc:out_range=tv:out_color_matrix=bt709"
                f":flags=bicubic+accurate_rnd+full_chroma_inp+bitexact,format=yuv420p,setparams={_COLOURS}",
                *_X264,
                *self._quality,
                *_X264_PARAMETERS,
                *container_arguments(self._fps, self._part),
            ],
            feed=True,
        )
        return self

    def write(self, frame: Frame) -> None:
        """Add one frame.

        Raises:
            ValueError: The frame is not 8-bit RGB of the writer's size.
            MediaError: ffmpeg failed.
            ResumableError: The disk is full.
        """
        assert self._process is not None, "write() belongs inside the with block"
        if frame.shape != self._shape or frame.dtype != np.uint8:
            raise ValueError(f"expected uint8 {self._shape}, got {frame.dtype} {frame.shape}")
        try:
            self._process.stdin.write(np.ascontiguousarray(frame).data)
        except BrokenPipeError as reason:
            raise writing_error(self._path, self._process) from reason
        self.num_frames += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._discard()

    def _finish(self) -> None:
        assert self._process is not None
        if self.num_frames == 0:
            raise MediaError(f"{self._path}: a video without a single frame cannot be written.")
        try:
            self._process.stdin.close()
        except BrokenPipeError as reason:
            raise writing_error(self._path, self._process) from reason
        if self._process.wait() != 0:
            raise writing_error(self._path, self._process)
        commit_file(self._part, self._path)

    def _discard(self) -> None:
        # ffmpeg is killed, not asked to end: asked, it would complete a file that is too short.
        if self._process is not None:
            self._process.close()
        if self._scratch is not None:
            self._scratch.cleanup()
        self._part.unlink(missing_ok=True)
