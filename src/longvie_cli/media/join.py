"""One video out of clips, without encoding a frame again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import IO

from longvie_cli.disk.durable import begin_part, commit_file, part_path, storage_error
from longvie_cli.errors import LongVieError, MediaError, OutputConflictError
from longvie_cli.media.contents import Stream, read_contents
from longvie_cli.media.ffmpeg import (
    check_read_to_the_end,
    input_arguments,
    metadata_arguments,
    running_ffmpeg,
    unnamed_arguments,
    unnamed_file,
    writing_error,
)
from longvie_cli.media.metadata import ffmetadata, seal
from longvie_cli.media.packets import VideoPackets, packets_of, read_packets
from longvie_cli.media.probe import SourceVideo
from longvie_cli.media.sound import SoundPart, sound_file
from longvie_cli.media.writer import (
    container_arguments,
    encoding_arguments,
    frame_arguments,
    timing,
)

# Of these an mp4 can hold the packets, and the parameter sets say how they are decoded.
_CODECS = ("h264", "hevc", "av1", "vp9", "mpeg4", "mpeg2video")
# How players of Apple want HEVC named.
_TAGS = {"hevc": ("-tag:v", "hvc1")}
# Pieces of mp4 that can follow one another: each says at which time it begins.
_PIECES = (
    *("-movflags", "frag_keyframe+empty_moov+default_base_moof+frag_discont"),
    *("-frag_duration", "5000000", "-use_editlist", "0", "-avoid_negative_ts", "disabled"),
)
_PIECE_BOXES = (b"moof", b"mdat")
_BLOCK_BYTES = 1 << 20

_OTHER_ENCODER = "its encoder parameters are others"


@dataclass(frozen=True)
class FittingClips:
    """Clips that can follow one another as they are stored.

    Args:
        paths: The files, in order.
        packets: What each of them stores.
        fps: Frames per second, of each and of all.
    """

    paths: tuple[Path, ...]
    packets: tuple[VideoPackets, ...]
    fps: Fraction

    @property
    def num_frames(self) -> int:
        """Frames of all of them."""
        return sum(len(packets.timestamps) for packets in self.packets)

    def seconds(self, index: int) -> Fraction:
        """Return how long the frames of one of them last."""
        return len(self.packets[index].timestamps) / self.fps


def is_joinable(
    video: SourceVideo, *, height: int, width: int, fps: int, preset: str = "medium"
) -> bool:
    """Return whether clips of this size, rate and x264 preset can follow `video` by stream copy.

    True for videos that `VideoWriter` or `join_clips` made, in whatever container. Others have to
    be encoded again (`read_frames` into a `VideoWriter`) before clips can follow.
    """
    packets = video.packets
    assert packets is not None, "looked at, not written just now"
    if (packets.codec, packets.height, packets.width) != ("h264", height, width):
        return False
    sample = _sample(height, width, fps, preset)
    return _difference(packets, sample, Fraction(fps)) is None


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


def fitting_clips(clips: Sequence[Path], *, fps: Fraction | int | None = None) -> FittingClips:
    """Return clips found to fit each other.

    Args:
        clips: Videos encoded alike, in any containers.
        fps: The rate they must have; None: the one they have.

    Raises:
        MediaError: A clip cannot be read, or does not fit the first; says in what they differ.
    """
    if not clips:
        raise MediaError("There are no clips to join.")
    packets = tuple(map(read_packets, clips))
    rate = Fraction(fps) if fps is not None else _common_rate(packets)
    for clip, stored in zip(clips, packets, strict=True):
        difference = _difference(stored, packets[0], rate)
        if difference == _OTHER_ENCODER:
            difference = _encoder_difference(clip, clips[0])
        if difference is not None:
            raise _unlike(clip, clips[0], difference)
    return FittingClips(tuple(clips), packets, rate)


def check_shown_alike(clips: Sequence[tuple[Path, Stream]]) -> None:
    """Do nothing if the pictures of files are shown in the same way.

    Args:
        clips: Each file and the stream of it that is its video.

    Raises:
        MediaError: One is to be turned otherwise than the first, or stores other pixels.
    """
    for clip, stream in clips:
        if (difference := _shown_otherwise(stream, *clips[0])) is not None:
            raise _unlike(clip, clips[0][0], difference)


def _shown_otherwise(stream: Stream, first: Path, reference: Stream) -> str | None:
    if stream.rotation != reference.rotation:
        return (
            f"it is to be turned by {stream.rotation:g} degrees, {first.name} by "
            f"{reference.rotation:g}"
        )
    if stream.layout != reference.layout:
        return f"its pixel format is {stream.layout}, that of {first.name} {reference.layout}"
    if stream.profile != reference.profile:
        return (
            f"its {stream.codec} profile is {stream.profile}, that of {first.name} "
            f"{reference.profile}"
        )
    return None


def _encoder_difference(clip: Path, first: Path) -> str:
    videos = [read_contents(path).of("video") for path in (clip, first)]
    shown = _shown_otherwise(videos[0][0], first, videos[1][0]) if all(videos) else None
    return shown or f"its encoder parameters are others than those of {first.name}"


def _unlike(clip: Path, first: Path, difference: str) -> MediaError:
    beside = "" if clip == first else f" to {first.name}"
    return MediaError(
        f"{clip}: cannot be joined{beside} without encoding it again: {difference}.",
        hint="Write the clips alike first, with one program and the same size, constant frame "
        "rate, codec and quality; or leave this one out.",
    )


def _common_rate(clips: Sequence[VideoPackets]) -> Fraction:
    """Return the rate that all clips have, or else one that the first may be meant to have."""
    guesses = _rates(next((clip for clip in clips if len(clip.timestamps) > 1), clips[0]))
    fitting = (rate for rate in guesses if all(_has_rate(clip, rate) for clip in clips))
    return next(fitting, guesses[0])


def _rates(packets: VideoPackets) -> list[Fraction]:
    """Return rates that rounded times may stand for, the likeliest first."""
    average = packets.average_fps
    if average is None:
        average = 1 / packets.duration if packets.duration else Fraction(1)
    whole, broadcast = round(average), Fraction(round(average * 1001 / 1000) * 1000, 1001)
    guesses = [Fraction(whole), broadcast, average.limit_denominator(1001)]
    found = [rate for rate in guesses if rate > 0 and _has_rate(packets, rate)]
    return found or [max(Fraction(1), guesses[0])]


def _has_rate(packets: VideoPackets, fps: Fraction) -> bool:
    """Return whether frames come at this rate, but for the rounding of a container's times.

    How long the last one is to stay does not count, unless it is much longer.
    """
    # In whole numbers: 24 hours have millions of frames.
    scale = packets.time_base.numerator * fps.numerator
    frame = packets.time_base.denominator * fps.denominator
    allowed = scale if scale * 4 <= frame else 0
    first, count = packets.timestamps[0], len(packets.timestamps)
    times = enumerate(packets.timestamps)
    if any(abs((time - first) * scale - number * frame) > allowed for number, time in times):
        return False
    return (packets.end - first) * scale <= count * frame + frame // 2


def _difference(packets: VideoPackets, reference: VideoPackets, fps: Fraction) -> str | None:
    """Return what keeps `packets` from following or leading `reference`, None if nothing does."""
    shape, wanted = (packets.width, packets.height), (reference.width, reference.height)
    if packets.codec not in _CODECS:
        return f"its codec is {packets.codec}, of which no mp4 is made"
    if packets.codec != reference.codec:
        return f"its codec is {packets.codec}, not {reference.codec}"
    if shape != wanted:
        return "it is {}x{}, not {}x{}".format(*shape, *wanted)
    if packets.hidden_frames:
        return (
            f"{packets.hidden_frames} of its frames are hidden by an edit list, as programs leave "
            "it that trim without encoding"
        )
    if not _has_rate(packets, fps):
        return _rate_difference(packets, fps)
    if packets.extradata != reference.extradata:
        return _OTHER_ENCODER
    return None


def _rate_difference(packets: VideoPackets, fps: Fraction) -> str:
    own = _rates(packets)[0]
    if _has_rate(packets, own):
        return f"its frames come at {float(own):.5g} fps, not at {float(fps):.5g}"
    return (
        f"its frame rate varies ({float(packets.average_fps or own):.4g} fps on average), and "
        f"every frame has to last 1/{float(fps):.5g} s"
    )


def join_clips(
    clips: Sequence[Path],
    output: Path,
    *,
    fps: int,
    metadata: str | None,
    sound: Sequence[SoundPart] = (),
    overwrite: bool,
) -> int:
    """Join clips into one mp4 by stream copy, each frame exactly 1/fps, and return its frames.

    Args:
        clips: Videos encoded alike, in order, in any containers; every frame of each is kept.
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
            arguments, inherited = _join_arguments(clips, metadata, sound, output, files)
            timescale, _ = timing(clips.fps)
            process = files.enter_context(
                running_ffmpeg(
                    [*arguments, *container_arguments(timescale, part)],
                    feed=True,
                    inherited=inherited,
                )
            )
            try:
                _feed(clips, process.stdin)
                process.stdin.close()
            except BrokenPipeError as reason:
                raise writing_error(output, process) from reason
            if process.wait() != 0:
                raise writing_error(output, process)
        _check_result(part, output, clips)
        if metadata is not None:
            seal(part)
        commit_file(part, output)
    finally:
        # Where even that fails, another error is already on its way.
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _join_arguments(
    clips: FittingClips,
    metadata: str | None,
    sound: Sequence[SoundPart],
    output: Path,
    files: ExitStack,
) -> tuple[list[str], list[int]]:
    """Return the arguments that join the pieces on stdin with the rest, and what is inherited."""
    inherited: list[int] = []
    inputs = ["-f", "mp4", "-i", "pipe:0"]
    options = ["-map", "0:v:0", "-c:v", "copy", *_TAGS.get(clips.packets[0].codec, ())]
    if metadata is not None:
        tags = files.enter_context(unnamed_file(ffmetadata(metadata)))
        inherited.append(tags.fileno())
        inputs += metadata_arguments(tags.fileno())
    options += ["-map_metadata", "-1" if metadata is None else "1"]
    if sound:
        number = 1 if metadata is None else 2
        if is_copied(sound):
            source, place = _copied_sound(sound[0])
        else:
            file = files.enter_context(sound_file(sound, output))
            inherited.append(file.fileno())
            source, place = unnamed_arguments(file.fileno()), 0
        inputs += source
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


def _feed(clips: FittingClips, joined: IO[bytes]) -> None:
    """Write the packets of all clips to a process, as pieces of one mp4 with their final times."""
    timescale, ticks = timing(clips.fps)
    delay = max(packets.delay for packets in clips.packets)
    done = 0
    for clip, packets in zip(clips.paths, clips.packets, strict=True):
        shown = f"({done + delay + packets.first_shown}+round((PTS-STARTPTS)/{ticks}))*{ticks}"
        retime = (
            f"setts=pts={shown}:dts=({done}+N)*{ticks}:duration={ticks}"
            f":time_base=1/{timescale}:prescale=1"
        )
        taken = [*input_arguments(clip), "-map", f"0:{packets.stream}", "-c", "copy"]
        taken += ["-bsf:v", retime, "-map_metadata", "-1", "-map_chapters", "-1"]
        pieces = ["-video_track_timescale", str(timescale), *_PIECES, "-f", "mp4", "pipe:1"]
        with running_ffmpeg([*taken, *pieces]) as process:
            for kind, header, length in _boxes(process.stdout):
                # Of what comes before the pieces once is enough: it is the same for all.
                wanted = done == 0 or kind in _PIECE_BOXES
                _hand_on(process.stdout, joined if wanted else None, header, length)
            check_read_to_the_end(clip, process)
        done += len(packets.timestamps)


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


def _check_result(part: Path, output: Path, clips: FittingClips) -> None:
    packets = read_packets(part)
    found = len(packets.timestamps)
    if found != clips.num_frames or packets.timestamps[0] or not packets.is_constant(clips.fps):
        raise LongVieError(
            f"{output}: joining gave {found} frames at {packets.average_fps} fps "
            f"instead of {clips.num_frames} at {clips.fps}."
        )
