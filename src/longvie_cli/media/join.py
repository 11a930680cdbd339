"""One video out of clips, without encoding a frame again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path

from longvie_cli.disk.durable import begin_part, commit_file, part_path, storage_error
from longvie_cli.errors import LongVieError, MediaError, OutputConflictError
from longvie_cli.media.ffmpeg import (
    concat_arguments,
    input_arguments,
    metadata_arguments,
    running_ffmpeg,
    unnamed_file,
    writing_error,
)
from longvie_cli.media.metadata import ffmetadata
from longvie_cli.media.packets import VideoPackets, packets_of, read_packets, read_sound
from longvie_cli.media.probe import SourceVideo
from longvie_cli.media.writer import (
    TICKS_PER_FRAME,
    container_arguments,
    encoding_arguments,
    frame_arguments,
)


def is_joinable(
    video: SourceVideo, *, height: int, width: int, fps: int, preset: str = "medium"
) -> bool:
    """Return whether clips of this size, rate and x264 preset can follow `video` by stream copy.

    True for videos that `VideoWriter` or `join_clips` made. Others have to be encoded again
    (`read_frames` into a `VideoWriter`) before clips can follow.
    """
    packets = video.packets
    assert packets is not None, "looked at, not written just now"
    if (packets.codec, packets.height, packets.width) != ("h264", height, width):
        return False
    sample = _sample(height, width, fps, preset)
    return _difference(packets, sample, fps) is None


@cache
def _sample(height: int, width: int, fps: int, preset: str) -> VideoPackets:
    """Return what a video of ours is like, made without a file: one black frame."""
    with (
        unnamed_file(bytes(height * width * 3)) as black,
        running_ffmpeg(
            [
                *frame_arguments(height, width, fps, black.fileno()),
                *encoding_arguments(18, preset),
                *("-movflags", "frag_keyframe+empty_moov", "-f", "mp4", "pipe:1"),
            ],
            inherited=[black.fileno()],
        ) as process,
    ):
        video = process.stdout.read()
        if process.wait() != 0:
            raise writing_error(Path("a sample video"), process)
    return packets_of(video)


def join_clips(
    clips: Sequence[Path],
    output: Path,
    *,
    fps: int,
    metadata: str | None,
    audio: Path | None = None,
    overwrite: bool,
) -> int:
    """Join clips into one mp4 by stream copy, each frame exactly 1/fps, and return its frames.

    Args:
        clips: Videos by `VideoWriter` or `join_clips`, in order; every frame of each is kept.
        output: The mp4 to make; it appears when complete.
        fps: Frames per second of the clips and of the result.
        metadata: Text for the `comment` tag; tags of the clips are not kept.
        audio: A video or sound file whose first sound stream goes along, from its first picture or
            else from its beginning, cut to the length of the video. AAC is copied, anything else
            becomes AAC.
        overwrite: Replace `output` if it exists.

    Raises:
        MediaError: A clip cannot be read or was encoded differently, or `audio` has no sound.
        OutputConflictError: `output` exists, or its folder cannot be written.
        ResumableError: The disk is full.
    """
    if output.exists() and not overwrite:
        raise OutputConflictError(
            f"{output}: exists already.", hint="Pass --overwrite to replace it."
        )
    num_frames = _check_clips(clips, fps)
    part = part_path(output)
    try:
        begin_part(part)
    except OSError as reason:
        raise storage_error(output, reason) from reason
    try:
        with ExitStack() as files:
            inherited = [files.enter_context(unnamed_file(_list_of(clips))).fileno()]
            if metadata is not None:
                tags = files.enter_context(unnamed_file(ffmetadata(metadata)))
                inherited.append(tags.fileno())
            arguments = _join_arguments(inherited, audio, fps, num_frames)
            process = files.enter_context(
                running_ffmpeg([*arguments, *container_arguments(fps, part)], inherited=inherited)
            )
            if process.wait() != 0:
                raise writing_error(output, process)
        _check_result(part, output, fps, num_frames)
        commit_file(part, output)
    finally:
        # Where even that fails, another error is already on its way.
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return num_frames


def _join_arguments(
    inherited: Sequence[int], audio: Path | None, fps: int, num_frames: int
) -> list[str]:
    """Return the arguments that join; `inherited` are list of clips and, if any, the tags."""
    inputs = concat_arguments(inherited[0])
    options = ["-map", "0:v:0", "-c:v", "copy"]
    for tags in inherited[1:]:
        inputs += metadata_arguments(tags)
    options += ["-map_metadata", "1" if inherited[1:] else "-1"]
    if audio is not None:
        sound = read_sound(audio)
        if sound.picture_start:  # even 0 would cut off the frame that primes an AAC decoder
            inputs += ["-ss", f"{sound.picture_start:.6f}"]
        inputs += input_arguments(audio)
        options += ["-map", f"{len(inherited)}:a:0", "-t", f"{num_frames / fps:.6f}"]
        options += ["-c:a", "copy"] if sound.codec == "aac" else ["-c:a", "aac", "-b:a", "192k"]
        options += ["-flags:a", "+bitexact"]
    # The concat reader adds up durations in microseconds; the frame number is exact at any rate.
    ticks = TICKS_PER_FRAME
    retime = f"setts=ts=N*{ticks}:duration={ticks}:time_base=1/{ticks * fps}"
    return [*inputs, *options, "-bsf:v", retime]


def _list_of(clips: Sequence[Path]) -> bytes:
    return os.fsencode("ffconcat version 1.0\n" + "".join(map(_list_entry, clips)))


def _list_entry(clip: Path) -> str:
    name = str(clip.absolute())
    if {"\n", "\r"} & {*name}:
        raise MediaError(f"{name!r}: a clip whose name has a line break cannot be joined.")
    return "file '{}'\n".format("file:" + name.replace("'", r"'\''"))


def _check_clips(clips: Sequence[Path], fps: int) -> int:
    if not clips:
        raise MediaError("There are no clips to join.")
    first = read_packets(clips[0])
    num_frames = 0
    for clip in clips:
        packets = read_packets(clip)
        difference = _difference(packets, first, fps)
        if difference is not None:
            raise MediaError(f"{clip}: cannot be joined without encoding it again, {difference}.")
        num_frames += len(packets.timestamps)
    return num_frames


def _difference(packets: VideoPackets, reference: VideoPackets, fps: int) -> str | None:
    """Return what keeps `packets` from following or leading `reference`, None if nothing does."""
    shape, wanted = (packets.width, packets.height), (reference.width, reference.height)
    if packets.codec != reference.codec:
        return f"its codec is {packets.codec}, not {reference.codec}"
    if shape != wanted:
        return "it is {}x{}, not {}x{}".format(*shape, *wanted)
    if packets.extradata != reference.extradata:
        return "its encoder settings differ from those of the clips beside it"
    if not packets.in_decoding_order:
        return "its frames are stored out of order (B-frames)"
    if not packets.is_constant(fps):
        return f"its frames do not last exactly 1/{fps} s each"
    return None


def _check_result(part: Path, output: Path, fps: int, num_frames: int) -> None:
    packets = read_packets(part)
    found = len(packets.timestamps)
    if found != num_frames or packets.timestamps[0] != 0 or not packets.is_constant(fps):
        raise LongVieError(
            f"{output}: joining gave {found} frames at {packets.average_fps} fps "
            f"instead of {num_frames} at {fps}."
        )
