"""Videos that play everywhere: H.264 High, yuv420p, bt709, index in front, constant rate.

Pictures that are read back by their colours are stored with all of them: yuv444p.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np

from longvie_cli.disk.durable import begin_part, commit_file, part_path, storage_error
from longvie_cli.errors import MediaError
from longvie_cli.media.ffmpeg import (
    metadata_arguments,
    running_ffmpeg,
    unnamed_file,
    writing_error,
)
from longvie_cli.media.frames import Frame
from longvie_cli.media.metadata import ffmetadata
from longvie_cli.media.packets import VideoPackets
from longvie_cli.media.probe import Picture, SourceVideo

TICKS_PER_FRAME = 1000

PixelFormat = Literal["yuv420p", "yuv444p"]

# The matrix is applied and not only named, or colours would shift in every player.
_COLOUR_FILTERS = (
    "scale=in_range=pc:out_range=tv:out_color_matrix=bt709"
    ":flags=bicubic+accurate_rnd+full_chroma_inp+bitexact",
    "format={pixel_format}",
    "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv",
)

# Without B-frames a frame is shown in the order it is stored, so joined clips need no edit lists
# and no shifted timestamps. `stitchable` keeps the parameter sets free of the crf, so that every
# clip of a size has the same ones. A fixed number of threads gives the same bytes on every machine.
_X264 = ("-c:v", "libx264", "-bf", "0", "-threads", "4")
_PROFILES: dict[PixelFormat, str] = {"yuv420p": "high", "yuv444p": "high444"}
_STITCHABLE = ("-x264-params", "stitchable=1")

# The index lies in front, and in it, before the tables that grow, what a decoder needs.
_INDEX_BYTES = 1 << 14
_PARAMETER_BOX = b"avcC"


def frame_arguments(height: int, width: int, fps: int, descriptor: int) -> list[str]:
    """Return the ffmpeg arguments that read RGB frames from a descriptor."""
    size = ("-video_size", f"{width}x{height}", "-framerate", str(fps))
    return ["-f", "rawvideo", "-pixel_format", "rgb24", *size, "-i", f"pipe:{descriptor}"]


def encoding_arguments(crf: int, preset: str, pixel_format: PixelFormat = "yuv420p") -> list[str]:
    """Return the ffmpeg arguments that encode RGB frames as every video of ours is encoded."""
    filters = ",".join(_COLOUR_FILTERS).format(pixel_format=pixel_format)
    quality = ("-profile:v", _PROFILES[pixel_format], "-crf", str(crf), "-preset", preset)
    return ["-vf", filters, *_X264, *_STITCHABLE, *quality]


def timing(fps: Fraction | int) -> tuple[int, int]:
    """Return ticks of a second and of a frame, both whole."""
    if isinstance(fps, int) or fps.denominator == 1:
        return TICKS_PER_FRAME * int(fps), TICKS_PER_FRAME
    return fps.numerator, fps.denominator


def container_arguments(timescale: int, part: Path) -> list[str]:
    """Return the ffmpeg arguments that end every mp4 of ours: exact ticks, index in front."""
    ticks = str(timescale)
    return [
        *("-fflags", "+bitexact", "-flags:v", "+bitexact", "-map_chapters", "-1"),
        *("-video_track_timescale", ticks, "-movie_timescale", ticks, "-movflags", "+faststart"),
        *("-f", "mp4", "-y", f"file:{part}"),
    ]


def written_video(
    path: Path,
    *,
    height: int,
    width: int,
    fps: int,
    num_frames: int,
    pixel_format: PixelFormat = "yuv420p",
) -> SourceVideo:
    """Return what `probe_video` finds in a file that `VideoWriter` wrote, but for its packets."""
    return SourceVideo(
        path=path,
        stream=0,
        fps=float(fps),
        num_frames=num_frames,
        duration_seconds=num_frames / fps,
        height=height,
        width=width,
        has_audio=False,
        codec="h264",
        decoded_height=height,
        decoded_width=width,
        pixel_aspect=Fraction(1),
        picture=Picture(
            container="mov,mp4,m4a,3gp,3g2,mj2",
            pixel_format=pixel_format,
            color_range="tv",
            matrix="bt709",
            primaries="bt709",
            transfer="bt709",
        ),
        longest_seconds=1 / fps,
    )


def written_packets(video: SourceVideo) -> VideoPackets:
    """Return what `probe_video` finds stored in a file that `VideoWriter` wrote; starts nothing.

    Args:
        video: The file, as `written_video` describes it.

    Raises:
        MediaError: The file does not begin as one that was written so.
        ResumableError: The disk failed.
    """
    timescale, ticks = timing(round(video.fps))
    try:
        with video.path.open("rb") as file:
            head = file.read(_INDEX_BYTES)
    except OSError as reason:
        raise storage_error(video.path, reason) from reason
    place = head.find(_PARAMETER_BOX)
    if place < 4:
        raise MediaError(f"{video.path}: is not a video as longvie writes them.")
    size = int.from_bytes(head[place - 4 : place])
    parameters = head[place + 4 : place - 4 + size]
    return VideoPackets(
        stream=0,
        is_default=True,
        codec=video.codec,
        height=video.height,
        width=video.width,
        time_base=Fraction(1, timescale),
        timestamps=tuple(range(0, video.num_frames * ticks, ticks)),
        delay=0,
        first_shown=0,
        hidden_frames=0,
        end=video.num_frames * ticks,
        usual_duration=ticks,
        # As ffmpeg's framecrc names it: its Adler-32 begins at 0.
        extradata=f"{len(parameters)}, 0x{zlib.adler32(parameters, 0):08x}",
        audio_codec=None,
    )


class VideoWriter:
    """Writes frames to an mp4 that appears, complete, when the `with` block ends well.

    Leaving the block by an exception leaves no file, Ctrl-C included. Until the end the file is
    called `NAME.part`.

    Args:
        path: The mp4 to make, replaced if it exists.
        height: Rows of every frame, even.
        width: Columns of every frame, even.
        fps: Frames per second, exact in the file.
        crf: x264's quality, 1 (best) to 51; 0 would be lossless, which browsers show black.
        preset: x264's speed preset; below `superfast` the profile is simpler than High.
        pixel_format: `yuv444p` keeps the colour of every pixel; few browsers show it.
        metadata: Text for the `comment` tag.

    Raises:
        MediaError: An odd size, a crf out of range, no frame at all, or ffmpeg failed.
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
        pixel_format: PixelFormat = "yuv420p",
        metadata: str | None = None,
    ) -> None:
        if height % 2 or width % 2:
            raise MediaError(
                f"{path}: a video of {width}x{height} cannot be written, H.264 needs even sizes."
            )
        if not 1 <= crf <= 51:
            raise MediaError(f"{path}: crf must be from 1 to 51, not {crf}.")
        self.num_frames = 0
        self._path = path
        self._part = part_path(path)
        self._shape = (height, width, 3)
        self._fps = fps
        self._pixel_format = pixel_format
        self._encoding = encoding_arguments(crf, preset, pixel_format)
        self._metadata = metadata
        self._resources = ExitStack()

    def __enter__(self) -> VideoWriter:
        with ExitStack() as resources:
            try:
                # A killed run may have left an ffmpeg that holds the old file: never share it.
                begin_part(self._part)
            except OSError as reason:
                raise storage_error(self._path, reason) from reason
            resources.callback(self._remove_part)
            inherited: list[int] = []
            if self._metadata is not None:
                tags = unnamed_file(ffmetadata(self._metadata))
                inherited.append(resources.enter_context(tags).fileno())
            arguments = [
                *frame_arguments(self._shape[0], self._shape[1], self._fps, 0),
                *_tag_arguments(inherited),
                *self._encoding,
                *container_arguments(timing(self._fps)[0], self._part),
            ]
            # Closed first, and then it is killed, not asked to end: asked, it would complete a
            # file that is too short.
            self._process = resources.enter_context(
                running_ffmpeg(arguments, feed=True, inherited=inherited)
            )
            self._resources = resources.pop_all()
        return self

    def write(self, frame: Frame) -> None:
        """Add one frame.

        Raises:
            ValueError: The frame is not 8-bit RGB of the writer's size.
            MediaError: ffmpeg failed.
            ResumableError: The disk is full.
        """
        if frame.shape != self._shape or frame.dtype != np.uint8:
            raise ValueError(f"expected uint8 {self._shape}, got {frame.dtype} {frame.shape}")
        try:
            self._process.stdin.write(np.ascontiguousarray(frame).data)
        except BrokenPipeError as reason:
            raise writing_error(self._path, self._process) from reason
        self.num_frames += 1

    @property
    def written(self) -> SourceVideo:
        """What the finished file holds, as `probe_video` would find it, but for its packets."""
        height, width, _ = self._shape
        return written_video(
            self._path,
            height=height,
            width=width,
            fps=self._fps,
            num_frames=self.num_frames,
            pixel_format=self._pixel_format,
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._resources:
            if kind is None:
                self._finish()

    def _finish(self) -> None:
        if self.num_frames == 0:
            raise MediaError(f"{self._path}: a video without a single frame cannot be written.")
        try:
            self._process.stdin.close()
        except BrokenPipeError as reason:
            raise writing_error(self._path, self._process) from reason
        if self._process.wait() != 0:
            raise writing_error(self._path, self._process)
        commit_file(self._part, self._path)

    def _remove_part(self) -> None:
        # Where even that fails, the error that made it useless is already on its way.
        with suppress(OSError):
            self._part.unlink(missing_ok=True)


def _tag_arguments(tags: Sequence[int]) -> list[str]:
    if not tags:
        return ["-map", "0:v:0", "-map_metadata", "-1"]
    return [*metadata_arguments(tags[0]), "-map", "0:v:0", "-map_metadata", "1"]
