"""Whether clips can follow one another as they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

from longvie_cli.errors import MediaError
from longvie_cli.media.contents import Stream, read_contents
from longvie_cli.media.ffmpeg import is_chainable, running_ffmpeg, unnamed_file, writing_error
from longvie_cli.media.packets import VideoPackets, packets_of, read_packets
from longvie_cli.media.probe import SourceVideo
from longvie_cli.media.writer import encoding_arguments, frame_arguments, written_packets

# Of these an mp4 can hold the packets, and the parameter sets say how they are decoded.
_CODECS = ("h264", "hevc", "av1", "vp9", "mpeg4", "mpeg2video")

_OTHER_ENCODER = "its encoder parameters are others"


@dataclass(frozen=True)
class FittingClips:
    """Clips that can follow one another as they are stored.

    Args:
        paths: The files, in order.
        packets: What each of them stores.
        fps: Frames per second, of each and of all.
        written: Which of them `VideoWriter` wrote, so that a row of them is read as one file.
    """

    paths: tuple[Path, ...]
    packets: tuple[VideoPackets, ...]
    fps: Fraction
    written: tuple[bool, ...]

    @property
    def num_frames(self) -> int:
        """Frames of all of them."""
        return sum(len(packets.timestamps) for packets in self.packets)

    def seconds(self, index: int) -> Fraction:
        """Return how long the frames of one of them last."""
        return len(self.packets[index].timestamps) / self.fps

    def rows(self) -> list[range]:
        """Return the clips in order, those together that are read as one file."""
        rows: list[range] = []
        for index in range(len(self.paths)):
            alike = index > 0 and self._is_chained(index - 1) and self._is_chained(index)
            if alike:
                rows[-1] = range(rows[-1].start, index + 1)
            else:
                rows.append(range(index, index + 1))
        return rows

    def _is_chained(self, index: int) -> bool:
        return self.written[index] and is_chainable(self.paths[index])


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


def fitting_clips(
    clips: Sequence[Path | SourceVideo], *, fps: Fraction | int | None = None
) -> FittingClips:
    """Return clips found to fit each other.

    Args:
        clips: Videos encoded alike, in any containers. A path is looked at; a video that was just
            written or has been looked at is not looked at again.
        fps: The rate they must have; None: the one they have.

    Raises:
        MediaError: A clip cannot be read, or does not fit the first; says in what they differ.
    """
    if not clips:
        raise MediaError("There are no clips to join.")
    paths = tuple(clip if isinstance(clip, Path) else clip.path for clip in clips)
    packets = tuple(map(_packets_of, clips))
    rate = Fraction(fps) if fps is not None else _common_rate(packets)
    for path, stored in zip(paths, packets, strict=True):
        difference = _difference(stored, packets[0], rate)
        if difference == _OTHER_ENCODER:
            difference = _encoder_difference(path, paths[0])
        if difference is not None:
            raise _unlike(path, paths[0], difference)
    written = tuple(not isinstance(clip, Path) and clip.packets is None for clip in clips)
    return FittingClips(paths, packets, rate, written)


def _packets_of(clip: Path | SourceVideo) -> VideoPackets:
    if isinstance(clip, Path):
        return read_packets(clip)
    return written_packets(clip) if clip.packets is None else clip.packets


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
