"""One video out of clips, without encoding a frame again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from longvie_cli.durable import commit_file, part_path, storage_error
from longvie_cli.errors import LongVieError, MediaError, OutputConflictError
from longvie_cli.media.ffmpeg import (
    concat_arguments,
    input_arguments,
    metadata_arguments,
    running_ffmpeg,
    writing_error,
)
from longvie_cli.media.metadata import write_ffmetadata
from longvie_cli.media.packets import VideoPackets, read_packets, read_sound
from longvie_cli.media.writer import TICKS_PER_FRAME, VideoWriter, container_arguments


def is_joinable(path: Path, *, height: int, width: int, fps: int, preset: str = "medium") -> bool:
    """Return whether clips of this size, rate and x264 preset can follow `path` by stream copy.

    True for videos that `VideoWriter` or `join_clips` made. Others have to be encoded again
    (`read_frames` into a `VideoWriter`) before clips can follow.

    Raises:
        MediaError: The file cannot be read.
    """
    packets = read_packets(path)
    if (packets.codec, packets.height, packets.width) != ("h264", height, width):
        return False
    with tempfile.TemporaryDirectory(prefix="longvie-") as scratch:
        sample = Path(scratch, "sample.mp4")
        with VideoWriter(sample, height=height, width=width, fps=fps, preset=preset) as writer:
            writer.write(np.zeros((height, width, 3), np.uint8))
        return _difference(packets, read_packets(sample), fps) is None


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
        part.unlink(missing_ok=True)
        part.touch()
        with tempfile.TemporaryDirectory(prefix="longvie-") as scratch:
            arguments = _join_arguments(clips, Path(scratch), metadata, audio, fps, num_frames)
            with running_ffmpeg([*arguments, *container_arguments(fps, part)]) as process:
                if process.wait() != 0:
                    raise writing_error(output, process)
        _check_result(part, output, fps, num_frames)
        commit_file(part, output)
    except OSError as reason:
        raise storage_error(output, reason) from reason
    finally:
        part.unlink(missing_ok=True)
    return num_frames


def _join_arguments(
    clips: Sequence[Path],
    scratch: Path,
    metadata: str | None,
    audio: Path | None,
    fps: int,
    num_frames: int,
) -> list[str]:
    list_file = scratch / "clips.txt"
    entries = "ffconcat version 1.0\n" + "".join(map(_list_entry, clips))
    list_file.write_bytes(os.fsencode(entries))
    inputs = concat_arguments(list_file)
    options = ["-map", "0:v:0", "-c:v", "copy"]
    next_input = 1
    if metadata is None:
        options += ["-map_metadata", "-1"]
    else:
        write_ffmetadata(scratch / "tags.txt", metadata)
        inputs += metadata_arguments(scratch / "tags.txt")
        options += ["-map_metadata", str(next_input)]
        next_input += 1
    if audio is not None:
        sound = read_sound(audio)
        if sound.picture_start:  # even 0 would cut off the frame that primes an AAC decoder
            inputs += ["-ss", f"{sound.picture_start:.6f}"]
        inputs += input_arguments(audio)
        options += ["-map", f"{next_input}:a:0", "-t", f"{num_frames / fps:.6f}"]
        options += ["-c:a", "copy"] if sound.codec == "aac" else ["-c:a", "aac", "-b:a", "192k"]
        options += ["-flags:a", "+bitexact"]
    # The concat reader adds up durations in microseconds; the frame number is exact at any rate.
    ticks = TICKS_PER_FRAME
    retime = f"setts=ts=N*{ticks}:duration={ticks}:time_base=1/{ticks * fps}"
    return [*inputs, *options, "-bsf:v", retime]


def _list_entry(clip: Path) -> str:
    name = str(clip.absolute())
    if "\n" in name:
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
