"""One video out of clips, without encoding a frame again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from longvie_cli.disk.durable import begin_part, commit_file, part_path, storage_error
from longvie_cli.errors import LongVieError, OutputConflictError
from longvie_cli.media.ffmpeg import (
    chained_arguments,
    check_read_to_the_end,
    input_arguments,
    metadata_arguments,
    running_ffmpeg,
    unnamed_arguments,
    unnamed_file,
    writing_error,
)
from longvie_cli.media.fitting import FittingClips, fitting_clips
from longvie_cli.media.metadata import ffmetadata, seal
from longvie_cli.media.probe import SourceVideo
from longvie_cli.media.sound import SoundPart, sound_file
from longvie_cli.media.writer import (
    container_arguments,
    timing,
)

# How players of Apple want HEVC named.
_TAGS = {"hevc": ("-tag:v", "hvc1")}
# Pieces of mp4 that can follow one another: each says at which time it begins.
_PIECES = (
    *("-movflags", "frag_keyframe+empty_moov+default_base_moof+frag_discont"),
    *("-frag_duration", "5000000", "-use_editlist", "0", "-avoid_negative_ts", "disabled"),
)
_PIECE_BOXES = (b"moof", b"mdat")
_BLOCK_BYTES = 1 << 20


def join_clips(
    clips: Sequence[Path | SourceVideo],
    output: Path,
    *,
    fps: int,
    metadata: str | None,
    sound: Sequence[SoundPart] = (),
    overwrite: bool,
) -> int:
    """Join clips into one mp4 by stream copy, each frame exactly 1/fps, and return its frames.

    Args:
        clips: As for `fitting_clips`, in order; every frame of each is kept.
        fps: Frames per second of the clips and of the result.

    The other arguments, and what is raised beside `MediaError` for clips that do not fit, are
    those of `write_joined`.
    """
    fitting = fitting_clips(clips, fps=fps)
    write_joined(fitting, output, metadata=metadata, sound=sound, overwrite=overwrite)
    return fitting.num_frames


def write_joined(
    clips: FittingClips,
    output: Path,
    *,
    metadata: str | None,
    sound: Sequence[SoundPart] = (),
    overwrite: bool,
) -> None:
    """Write clips into one mp4, packet by packet, each frame exactly 1/fps.

    Args:
        clips: What to join.
        output: The mp4 to make; it appears when complete.
        metadata: Text for the `comment` tag; tags of the clips are not kept.
        sound: Parts of its sound, one after another; without any it has none. A single part of AAC
            from the beginning of a file is copied, everything else becomes stereo AAC.
        overwrite: Replace `output` if it exists.

    Raises:
        MediaError: A clip or a sound cannot be read.
        OutputConflictError: `output` exists, or its folder cannot be written.
        ResumableError: The disk is full.
    """
    if output.exists() and not overwrite:
        raise OutputConflictError(
            f"{output}: exists already.", hint="Pass --overwrite to replace it."
        )
    part = part_path(output)
    try:
        begin_part(part)
    except OSError as reason:
        raise storage_error(output, reason) from reason
    try:
        with ExitStack() as files:
            listed = files.enter_context(unnamed_file())
            rows = clips.rows()
            source = files.enter_context(_row(clips, rows[0])) if len(rows) == 1 else _PIECES_IN
            arguments, inherited = _join_arguments(clips, source, metadata, sound, output, files)
            timescale, _ = timing(clips.fps)
            process = files.enter_context(
                running_ffmpeg(
                    [
                        *arguments,
                        *container_arguments(timescale, part),
                        *(*source.packets, "-f", "framecrc", f"pipe:{listed.fileno()}"),
                    ],
                    feed=True,
                    inherited=[*inherited, listed.fileno()],
                )
            )
            try:
                if len(rows) > 1:
                    _feed(clips, rows, process.stdin)
                process.stdin.close()
            except BrokenPipeError as reason:
                raise writing_error(output, process) from reason
            if process.wait() != 0:
                raise writing_error(output, process)
            _check_joined(listed, output, clips)
        if metadata is not None:
            seal(part)
        commit_file(part, output)
    finally:
        # Where even that fails, another error is already on its way.
        with suppress(OSError):
            part.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Packets:
    """Where packets with their final times come from.

    Args:
        inputs: ffmpeg's arguments that read them.
        packets: Its arguments that take them along.
        inherited: Descriptors that it must inherit.
    """

    inputs: list[str]
    packets: list[str]
    inherited: tuple[int, ...] = ()


# Several rows of clips are read one after another, and their packets handed on.
_PIECES_IN = _Packets(["-f", "mp4", "-i", "pipe:0"], ["-map", "0:v:0", "-c:v", "copy"])


@contextmanager
def _row(clips: FittingClips, row: range) -> Iterator[_Packets]:
    """How ffmpeg reads clips that lie in a row, each frame at its time in the whole."""
    timescale, ticks = timing(clips.fps)
    done = sum(len(packets.timestamps) for packets in clips.packets[: row.start])
    delay = max(packets.delay for packets in clips.packets)
    first = clips.packets[row.start]
    shown = f"({done + delay + first.first_shown}+round((PTS-STARTPTS)/{ticks}))*{ticks}"
    retime = f"setts=pts={shown}:dts=({done}+N)*{ticks}:duration={ticks}:time_base=1/{timescale}"
    packets = ["-map", f"0:{first.stream}", "-c:v", "copy", "-bsf:v", f"{retime}:prescale=1"]
    if len(row) == 1:
        yield _Packets(input_arguments(clips.paths[row.start]), packets)
        return
    with chained_arguments([(clips.paths[index], clips.seconds(index)) for index in row]) as chain:
        inputs, number = chain
        yield _Packets(inputs, packets, (number,))


def _join_arguments(
    clips: FittingClips,
    source: _Packets,
    metadata: str | None,
    sound: Sequence[SoundPart],
    output: Path,
    files: ExitStack,
) -> tuple[list[str], list[int]]:
    """Return the arguments that join packets with the rest, and what is inherited."""
    inherited = list(source.inherited)
    inputs = list(source.inputs)
    options = [*source.packets, *_TAGS.get(clips.packets[0].codec, ())]
    if metadata is not None:
        tags = files.enter_context(unnamed_file(ffmetadata(metadata)))
        inherited.append(tags.fileno())
        inputs += metadata_arguments(tags.fileno())
    options += ["-map_metadata", "-1" if metadata is None else "1"]
    if sound:
        number = 1 if metadata is None else 2
        if is_copied(sound):
            heard, place = _copied_sound(sound[0])
        else:
            file = files.enter_context(sound_file(sound, output))
            inherited.append(file.fileno())
            heard, place = unnamed_arguments(file.fileno()), 0
        inputs += heard
        options += ["-map", f"{number}:a:{place}", "-c:a", "copy", "-flags:a", "+bitexact"]
    return [*inputs, *options], inherited


def is_copied(parts: Sequence[SoundPart]) -> bool:
    """Return whether sound of these parts goes along as it is stored."""
    (part, *more) = parts
    if more or part.sound is None or part.start:
        return False
    return part.sound.codec == "aac" and part.sound.is_steady


def _copied_sound(part: SoundPart) -> tuple[list[str], int]:
    """Return the arguments that read sound to be copied, and its place in what is read."""
    assert part.sound is not None, "it can be copied"
    # Even 0 would cut off the frame that primes an AAC decoder.
    start = part.sound.picture_start
    begin = ["-ss", f"{start:.6f}"] if start else []
    lasts = ["-t", f"{float(part.duration):.6f}"]
    return [*begin, *lasts, *input_arguments(part.sound.path)], part.sound.place


def _feed(clips: FittingClips, rows: Sequence[range], joined: IO[bytes]) -> None:
    """Write the packets of all clips to a process, as pieces of one mp4 with their final times."""
    timescale, _ = timing(clips.fps)
    pieces = ["-map_metadata", "-1", "-map_chapters", "-1"]
    pieces += ["-video_track_timescale", str(timescale), *_PIECES, "-f", "mp4", "pipe:1"]
    for row in rows:
        with (
            _row(clips, row) as source,
            running_ffmpeg(
                [*source.inputs, *source.packets, *pieces], inherited=source.inherited
            ) as process,
        ):
            for kind, header, length in _boxes(process.stdout):
                # Of what comes before the pieces once is enough: it is the same for all.
                wanted = row.start == 0 or kind in _PIECE_BOXES
                _hand_on(process.stdout, joined if wanted else None, header, length)
            check_read_to_the_end(clips.paths[row.start], process)


def _boxes(stream: IO[bytes]) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield kind, header and remaining length of each box; its body has to be read in between."""
    while len(header := stream.read(8)) == 8:
        size, kind = int.from_bytes(header[:4]), header[4:]
        if size == 1:
            header += stream.read(8)
            size = int.from_bytes(header[8:])
        yield kind, header, size - len(header)


def _hand_on(source: IO[bytes], target: IO[bytes] | None, header: bytes, length: int) -> None:
    if target is not None:
        target.write(header)
    while length:
        block = source.read(min(length, _BLOCK_BYTES))
        if not block:
            return  # It was stopped, as its exit status says.
        length -= len(block)
        if target is not None:
            target.write(block)


def _check_joined(listed: IO[bytes], output: Path, clips: FittingClips) -> None:
    """Do nothing if every frame was handed to the file, each 1/fps after the one before."""
    listed.seek(0)
    rows = (line.split(b",") for line in listed if not line.startswith(b"#"))
    times = sorted((int(shown), int(lasts)) for _, _, shown, lasts, *_ in rows)
    first = times[0][0] if times else 0
    _, ticks = timing(clips.fps)
    wanted = [(first + ticks * number, ticks) for number in range(clips.num_frames)]
    if times != wanted:
        raise LongVieError(
            f"{output}: joining gave {len(times)} frames instead of {clips.num_frames}, or not at "
            f"{clips.fps} fps each."
        )
