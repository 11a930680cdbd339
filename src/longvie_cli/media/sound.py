"""Sound in step with the picture: found in a file, read from any second, joined of parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from longvie_cli.disk.durable import storage_error
from longvie_cli.errors import MediaError
from longvie_cli.media.contents import Stream, streams_in
from longvie_cli.media.ffmpeg import (
    DamagedVideoError,
    FfmpegProcess,
    check_read_to_the_end,
    check_readable,
    input_arguments,
    running_ffmpeg,
    writing_error,
)
from longvie_cli.media.packets import NO_TIMESTAMP, look_at, main_stream

_RATE = 48_000
_SAMPLE_BYTES = 8  # two floats
_BLOCK_BYTES = 1 << 16

# In these a time means the same whichever streams are read, and can be sought. In the others, such
# as MPEG-TS, ffmpeg counts from the first of the streams it reads, and mends leaps of the clock by
# them: picture and sound are in step only where both are read, from the beginning.
_STEADY = {"mov", "matroska", "avi", "wav", "w64", "aiff", "mp3", "flac"}
_FIRST_PICTURE = "0:V:0?"

# Above it a gap is filled and an overlap is cut; below, a difference is the rounding of times.
_GAP_SECONDS = 0.025
# Enough to see that it can be decoded.
_TRIED_SAMPLES = _RATE // 10


@dataclass(frozen=True)
class SoundStream:
    """The sound stream of a file that is heard: its default one, else the first.

    Args:
        path: The file.
        codec: ffmpeg's name of the codec, `aac` for instance.
        place: Its place among the sound streams of the file.
        num_streams: Sound streams in the file.
        is_default: Whether the file says that it is the one to play.
        picture: The picture beside it, in ffmpeg's words.
        picture_start: Seconds of the file that pass before its first picture; 0 without one.
        end: Seconds after the first picture at which it ends; where it is not steady, about.
        is_steady: Whether its times are the same whichever streams are read.
    """

    path: Path
    codec: str
    place: int
    num_streams: int
    is_default: bool
    picture: str
    picture_start: float
    end: float
    is_steady: bool

    def remarks(self) -> list[str]:
        """Return in a line which stream is heard, where the file has several."""
        if self.num_streams == 1:
            return []
        why = ", its default," if self.is_default else ""
        return [
            f"{self.path.name}: it holds {self.num_streams} sound tracks; number {self.place + 1}"
            f"{why} is used."
        ]


@dataclass(frozen=True)
class SoundPart:
    """A stretch of a sound track.

    Args:
        sound: Where it is taken from; None for silence.
        start: Seconds into it, from its first picture or else from its beginning.
        duration: Seconds; where the file ends earlier the rest is silent.
    """

    sound: SoundStream | None
    start: Fraction | float
    duration: Fraction | float


def read_sound(path: Path) -> SoundStream:
    """Return which sound stream of a file is heard, and where in the file the picture begins.

    Reads the file to its end; decodes the first picture and the beginning of the sound.

    Raises:
        MediaError: The file cannot be read, is cut off, or has no sound that can be decoded.
    """
    check_readable(path)
    picture = _FIRST_PICTURE
    spans, containers, streams = _listened(path, picture)
    videos = [stream.number for stream in streams if stream.kind == "video" and not stream.is_cover]
    if len(videos) > 1 and (main := main_stream(look_at(path).streams).stream) != videos[0]:
        picture = f"0:{main}"
        spans, containers, streams = _listened(path, picture)
    sounds = [span for span in spans if span.kind == "audio"]
    defaults = [stream.is_default for stream in streams if stream.kind == "audio"]
    defaults += [False] * (len(sounds) - len(defaults))
    places = [i for i, span in enumerate(sounds) if span.begins is not None and span.is_known]
    if not places:
        why = f" that can be decoded ({sounds[0].codec})" if sounds else ""
        raise MediaError(f"{path}: there is no sound in this file{why}.")
    place = next((place for place in places if defaults[place]), places[0])
    shown = [span.begins for span in spans if span.kind == "video"]
    start = next((begins for begins in shown if begins is not None), Fraction(0))
    stream = SoundStream(
        path=path,
        codec=sounds[place].codec,
        place=place,
        num_streams=len(sounds),
        is_default=defaults[place],
        picture=picture,
        picture_start=float(start),
        end=float(sounds[place].ends - start),
        is_steady=not containers.isdisjoint(_STEADY),
    )
    _try_to_decode(stream, float((sounds[place].begins or 0) - start))
    return stream


def _listened(path: Path, picture: str) -> tuple[list[_Span], frozenset[str], tuple[Stream, ...]]:
    """Return what a picture and all sounds of a file span, and what container and streams are."""
    # The first picture that can be decoded is the first that is shown.
    first = ("-c:v", "rawvideo", "-vf", "trim=end_frame=1,scale=16:16,format=gray")
    timing = ("-fps_mode", "passthrough", "-enc_time_base", "1/1000000")
    arguments = [*input_arguments(path), *_beside(picture), "-c:a", "copy", *first, *timing]
    with running_ffmpeg([*arguments, "-f", "framecrc", "pipe:1"], informative=True) as process:
        spans = _spans(line.decode(errors="replace") for line in process.stdout)
        check_read_to_the_end(path, process, decoded=False)
        return spans, *streams_in(process.remarks())


def _beside(picture: str) -> list[str]:
    """Return the arguments with which a picture and all sounds beside it are read."""
    return ["-map", picture, "-map", "0:a?"]


def _try_to_decode(sound: SoundStream, start: float) -> None:
    with _decoded(sound, start) as (decoder, samples):
        wanted = _TRIED_SAMPLES * _SAMPLE_BYTES
        if len(samples.read(wanted)) < wanted:
            _check_decoded(sound, decoder)


def _check_decoded(sound: SoundStream, decoder: FfmpegProcess) -> None:
    if decoder.wait() > 0:
        why = next(iter(decoder.complaints()), "ffmpeg said nothing")
        raise MediaError(f"{sound.path}: its sound ({sound.codec}) cannot be decoded ({why}).")
    with suppress(DamagedVideoError):
        check_read_to_the_end(sound.path, decoder)


@dataclass
class _Span:
    """What the packets of a stream span, in seconds of the file; `begins` is None without any."""

    kind: str = ""
    codec: str = ""
    tick: Fraction = Fraction(1)
    begins: Fraction | None = None
    ends: Fraction = Fraction(0)

    @property
    def is_known(self) -> bool:
        return self.codec not in ("none", "unknown", "")


def _spans(report: Iterable[str]) -> list[_Span]:
    # framecrc: "#key stream: value" lines, then "stream, dts, pts, duration, ...".
    spans: dict[int, _Span] = {}
    for line in report:
        if line.startswith("#"):
            key, _, value = line[1:].partition(":")
            name, _, number = key.partition(" ")
            if not number.isdigit():
                continue
            span = spans.setdefault(int(number), _Span())
            if name == "media_type":
                span.kind = value.strip()
            elif name == "codec_id":
                span.codec = value.strip()
            elif name == "tb":
                span.tick = Fraction(value.strip())
            continue
        stream, decoded_at, shown_at, lasts = (int(field) for field in line.split(",")[:4])
        span = spans[stream]
        at = (decoded_at if shown_at == NO_TIMESTAMP else shown_at) * span.tick
        span.begins = at if span.begins is None else min(span.begins, at)
        span.ends = max(span.ends, at + lasts * span.tick)
    return [spans[number] for number in sorted(spans)]


def _samples(sound: SoundStream | None, start: float, count: int) -> Iterator[bytes]:
    """Yield so many stereo samples, as bytes of floats, from a second after the first picture on.

    Silence where there is no sound: before it begins, in its gaps, and after it has ended.

    Raises:
        MediaError: The sound cannot be decoded.
    """
    needed = count * _SAMPLE_BYTES
    if sound is not None:
        # Damage is silent, or what the decoder makes of it; it does not end the sound.
        with _decoded(sound, start, "-max_error_rate", "1") as (decoder, samples):
            while needed and (block := samples.read(min(needed, _BLOCK_BYTES))):
                needed -= len(block)
                yield block
            if needed:
                _check_decoded(sound, decoder)
    while needed:
        block = bytes(min(needed, _BLOCK_BYTES))
        needed -= len(block)
        yield block


@contextmanager
def _decoded(
    sound: SoundStream, start: float, *options: str
) -> Iterator[tuple[FfmpegProcess, IO[bytes]]]:
    """Give the decoder of a sound, and stereo samples from a second after the first picture on.

    Where the sound changes its channels or its rate on the way, ffmpeg begins its filters anew, and
    they would fill up the time from 0 on once more. So a second process fills the gaps.
    """
    begins = sound.picture_start + start
    source = input_arguments(sound.path)
    filters = [f"aformat=sample_fmts=flt:sample_rates={_RATE}:channel_layouts=stereo"]
    more: tuple[str, ...] = ()
    if sound.is_steady:
        # What is not needed is skipped, not decoded.
        source = ["-ss", f"{begins:.6f}", *source]
    else:
        filters = [f"atrim=start={begins:.6f}", f"asetpts=PTS-{begins:.6f}/TB", *filters]
        more = (*_beside(sound.picture), "-c", "copy", "-f", "null", "-")
    graph = f"[0:a:{sound.place}]{','.join(filters)}[heard]"
    heard = ("-map", "[heard]", "-c:a", "pcm_f32le", "-f", "nut", "pipe:1")
    gaps = f"aresample=async=1:min_hard_comp={_GAP_SECONDS}:first_pts=0"
    with running_ffmpeg([*options, *source, "-filter_complex", graph, *heard, *more]) as decoder:
        pipe = decoder.stdout.fileno()
        timed = ("-copyts", "-f", "nut", "-i", f"pipe:{pipe}")
        filled = ("-af", gaps, "-f", "f32le", "pipe:1")
        with running_ffmpeg([*timed, *filled], inherited=[pipe]) as filler:
            # Only the filler reads it, or the decoder would not notice where that ends.
            decoder.stdout.close()
            yield decoder, filler.stdout


@contextmanager
def sound_file(parts: Sequence[SoundPart], beside: Path) -> Iterator[IO[bytes]]:
    """A file without a name that holds the parts one after another as stereo AAC in MP4.

    Each part lasts exactly as long as it says. However the process ends, nothing is left of it.

    Args:
        parts: At least one.
        beside: File on whose disk there is room for it.

    Raises:
        MediaError: A sound cannot be decoded.
        ResumableError: The disk is full.
    """
    with ExitStack() as closing:
        try:
            file = closing.enter_context(TemporaryFile(dir=beside.parent))
        except OSError as reason:
            raise storage_error(beside, reason) from reason
        _write_sound(parts, file, beside)
        file.seek(0)
        yield file


def _write_sound(parts: Sequence[SoundPart], file: IO[bytes], output: Path) -> None:
    samples = ("-f", "f32le", "-ar", str(_RATE), "-ac", "2", "-i", "pipe:0")
    encoding = ("-c:a", "aac", "-b:a", "192k", "-flags:a", "+bitexact", "-fflags", "+bitexact")
    written = ("-f", "mp4", "-y", "-fd", str(file.fileno()), "fd:")
    with running_ffmpeg(
        [*samples, *encoding, *written], feed=True, inherited=[file.fileno()]
    ) as encoder:
        done, seconds = 0, Fraction(0)
        try:
            for part in parts:
                # Counted from the beginning, so that the rounding of many parts does not add up.
                seconds += Fraction(part.duration)
                end = round(seconds * _RATE)
                for block in _samples(part.sound, float(part.start), end - done):
                    encoder.stdin.write(block)
                done = end
            encoder.stdin.close()
        except BrokenPipeError as reason:
            raise writing_error(output, encoder) from reason
        if encoder.wait() != 0:
            raise writing_error(output, encoder)
