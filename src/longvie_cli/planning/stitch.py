"""What `stitch` shall do: which clips in which order, and what is heard beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, takewhile
from pathlib import Path

from longvie_cli.disk.durable import part_path
from longvie_cli.disk.hashing import fingerprint, hash_file
from longvie_cli.errors import MediaError, UsageError
from longvie_cli.media.contents import Contents, Stream, chosen_video, left_out, read_contents
from longvie_cli.media.ffmpeg import check_readable
from longvie_cli.media.fitting import FittingClips, check_shown_alike, fitting_clips
from longvie_cli.media.join import is_copied
from longvie_cli.media.packets import VideoPackets
from longvie_cli.media.sound import SoundPart, SoundStream, read_sound
from longvie_cli.planning.paths import check_output_path, is_input
from longvie_cli.progress import Progress
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.manifest import RunManifest
from longvie_cli.run_folder.run import Run
from longvie_cli.settings.requests import StitchRequest
from longvie_cli.version import __version__

# Sound that goes on so long after the last picture is more than what codecs fill up with.
_CUT_SECONDS = 0.5


@dataclass(frozen=True)
class StitchInput:
    """A run or a file to join.

    Args:
        path: As it was named.
        clips: Its clips, in order.
        hashes: One a clip.
        run: What its run.json says; None for a file.
    """

    path: Path
    clips: tuple[Path, ...]
    hashes: tuple[str, ...]
    run: RunManifest | None = None

    @property
    def source(self) -> Path | None:
        """The video that a run was made from; None without one, or if it was played back, too."""
        if self.run is None or self.run.inputs.source is None:
            return None
        if self.run.inputs.source_kind != "video" or self.run.settings.get("pingpong"):
            return None
        return Path(self.run.inputs.source)


@dataclass(frozen=True)
class StitchPlan:
    """What is joined.

    Args:
        inputs: Runs and files, in order.
        clips: The clips of all of them.
        sound: What is heard, part after part; empty where nothing is.
    """

    inputs: tuple[StitchInput, ...]
    clips: FittingClips
    sound: tuple[SoundPart, ...]

    @property
    def seconds(self) -> float:
        """Length of the result."""
        return float(self.clips.num_frames / self.clips.fps)


@dataclass(frozen=True)
class _Heard:
    """What is heard beside an input: a file from a second, or else from a frame of it, on."""

    path: Path
    second: float = 0.0
    frame: int = 0


def check_stitch_output(request: StitchRequest) -> None:
    """Do nothing if the output can be written.

    Raises:
        UsageError, OutputConflictError: As `check_output_path`.
    """
    inputs = [*request.inputs, *_sound_files(request)]
    check_output_path(request.output, inputs, run_dir=None)


def stitch_inputs(request: StitchRequest, progress: Progress) -> tuple[StitchInput, ...]:
    """Return what is to be joined.

    Raises:
        MediaError: An input is not there.
        OutputConflictError: A run is damaged.
        UsageError: An input holds no clip, or the output lies among what is read.
    """
    found: list[StitchInput] = []
    for path in request.inputs:
        if not path.exists():
            raise MediaError(f"{path}: there is no such file or folder.")
        if not path.is_dir():
            found.append(_file(path))
        elif RunFolder(path).is_begun:
            found.append(_run(path, progress))
        else:
            found += map(_file, _clips_of_folder(path, request.output))
    read = [clip for item in found for clip in item.clips]
    read += [heard.path for item in found if (heard := _heard(request, item)) is not None]
    if is_input(request.output, read) or is_input(part_path(request.output), read):
        raise UsageError(
            f"-o {request.output}: this file is an input of the same command.",
            hint="Pass another -o.",
        )
    return tuple(found)


def _sound_files(request: StitchRequest) -> list[Path]:
    """Return the file whose sound is wanted for all, if one is."""
    return [] if request.audio in (None, "none", "source") else [Path(request.audio)]


def _file(path: Path) -> StitchInput:
    check_readable(path)
    try:
        return StitchInput(path, (path,), (hash_file(path),))
    except OSError as reason:
        raise MediaError(f"{path}: cannot be read ({reason.strerror or reason}).") from reason


def _clips_of_folder(path: Path, output: Path) -> list[Path]:
    # Dot files are notes that systems leave beside the files of others.
    named = sorted(clip for clip in path.iterdir() if not clip.name.startswith("."))
    clips = [clip for clip in named if clip.suffix.lower() == ".mp4"]
    if not clips:
        raise UsageError(f"{path}: this folder holds no run and no mp4 file.")
    if output.absolute().parent.resolve() == path.resolve():
        raise UsageError(
            f"-o {output}: it would be one of the clips of {path} the next time.",
            hint="Pass -o in another folder.",
        )
    return clips


def _run(path: Path, progress: Progress) -> StitchInput:
    folder = RunFolder(path)
    folder.check_no_links()
    run = Run.read(folder)
    stored = run.clips()
    whole = takewhile(lambda clip: clip.record is not None, stored)
    done = [clip.record for clip in whole if clip.record is not None]
    if not done:
        raise UsageError(
            f"{path}: this run has no finished clip.",
            hint="Clips are gone after --no-keep-clips; use the finished mp4.",
        )
    if len(done) < len(stored):
        progress.warning(f"{path.name}: {len(done)} of {len(stored)} clips are finished.")
    clips = tuple(folder.clip_video(record.index) for record in done)
    hashes = tuple(record.video_hash for record in done)
    return StitchInput(path, clips, hashes, run.manifest)


def stitched_from(request: StitchRequest, inputs: Sequence[StitchInput]) -> str:
    """Return the hash of everything that decides the result."""
    sounds = [_heard(request, item) for item in inputs if item.run is not None]
    files = [heard.path for heard in sounds if heard is not None] + _sound_files(request)
    return fingerprint(
        {
            "version": __version__,
            "inputs": [[item.path.absolute().name, *item.hashes] for item in inputs],
            "audio": "file" if _sound_files(request) else request.audio,
            "starts": [heard and [heard.second, heard.frame] for heard in sounds],
            "sounds": [hash_file(path) if path.is_file() else None for path in files],
        }
    )


def stitch_plan(
    request: StitchRequest, inputs: Sequence[StitchInput], progress: Progress
) -> StitchPlan:
    """Return what is to be done, and say what of the inputs changes or does not go along.

    Raises:
        MediaError: An input is no video, or was encoded differently from the first.
        UsageError: There is no sound to take.
    """
    clips = fitting_clips([clip for item in inputs for clip in item.clips])
    held = [read_contents(item.clips[0]) for item in inputs]
    stored = _by_input(inputs, clips)
    shown = []
    for item, contents, (first, *_) in zip(inputs, held, stored, strict=True):
        shown.append((item.clips[0], _video(contents, first.stream)))
        if item.run is None:
            chosen = chosen_video(item.path, contents, first.stream)
            for line in (*chosen, *left_out(item.path, contents)):
                progress.warning(line)
    check_shown_alike(shown)
    if files := _sound_files(request):
        stream = read_sound(files[0])
        _say(stream.remarks(), progress)
        sound = [SoundPart(stream, 0, clips.num_frames / clips.fps)]
    else:
        sound = _sound_of_inputs(request, inputs, held, stored, clips.fps, progress)
    if sound and not is_copied(sound):
        progress.warning("The sound is encoded again, as stereo AAC.")
    return StitchPlan(tuple(inputs), clips, tuple(sound))


def _by_input(inputs: Sequence[StitchInput], clips: FittingClips) -> list[tuple[VideoPackets, ...]]:
    """Return what the clips of each input store."""
    packets = iter(clips.packets)
    return [tuple(islice(packets, len(item.clips))) for item in inputs]


def _video(contents: Contents, number: int) -> Stream:
    return next(stream for stream in contents.streams if stream.number == number)


def _say(lines: Sequence[str], progress: Progress) -> None:
    for line in lines:
        progress.warning(line)


def _sound_of_inputs(
    request: StitchRequest,
    inputs: Sequence[StitchInput],
    held: Sequence[Contents],
    stored: Sequence[tuple[VideoPackets, ...]],
    fps: Fraction,
    progress: Progress,
) -> list[SoundPart]:
    """Return what is heard, each input's beside its own frames; nothing where none has sound.

    Raises:
        MediaError, UsageError: What `--audio source` asks for is not there.
    """
    if request.audio == "source" and not any(item.source for item in inputs):
        raise UsageError(
            "--audio source: none of the inputs is a run that was made from a video.",
            hint="Pass --audio FILE, or leave it out for the sound of the inputs.",
        )
    parts, silent = [], []
    for item, contents, packets in zip(inputs, held, stored, strict=True):
        seconds = sum(len(clip.timestamps) for clip in packets) / fps
        heard = _heard(request, item)
        if heard is None or (item.run is None and not contents.of("audio")):
            silent.append(f"{item.path.name} has no sound; it is silent there.")
            parts.append(SoundPart(None, 0, seconds))
            continue
        stream = _opened(request, item, heard, seconds, progress)
        start = Fraction(heard.second) + heard.frame / fps
        parts.append(SoundPart(stream, start if stream else 0, seconds))
    if not any(part.sound for part in parts):
        return []
    _say(silent, progress)
    return parts


def _heard(request: StitchRequest, item: StitchInput) -> _Heard | None:
    """Return what is heard beside an input, None where nothing is.

    A file has its own sound. A run has the one its video has, and with `--audio source` that of the
    video it was made from.
    """
    if request.audio == "none" or _sound_files(request):
        return None
    if item.run is None:
        return _Heard(item.path)
    settings = item.run.settings
    asked = item.run.request.get("audio")
    second = float(settings.get("audio_start") or 0)
    if asked not in (None, "none", "source"):
        own = _Heard(Path(asked), second)
    elif asked == "source" and item.source is not None:
        own = _Heard(item.source, second)
    else:
        own = None
    if request.audio != "source" or item.source is None or asked == "source":
        return own
    # Of what `extend` goes on with, the first frame is the last one of the earlier video.
    first = int(settings.get("first_source_frame") or 0)
    return _Heard(item.source, frame=first + (item.run.command == "extend"))


def _opened(
    request: StitchRequest,
    item: StitchInput,
    heard: _Heard,
    seconds: Fraction,
    progress: Progress,
) -> SoundStream | None:
    """Return the sound of an input; None, and a warning, where it cannot go along."""
    try:
        if item.run is not None:
            _check_unchanged(item.run, heard.path)
        stream = read_sound(heard.path)
    except MediaError as error:
        if request.audio == "source" and item.source is not None:
            raise
        progress.warning(f"The sound of {item.path.name} does not go along: {error.message}")
        return None
    _say(stream.remarks(), progress)
    surplus = stream.end - float(seconds)
    if item.run is None and stream.is_steady and surplus > _CUT_SECONDS:
        progress.warning(
            f"{item.path.name}: its sound goes on for {surplus:.1f} s after the last picture; that "
            "is cut."
        )
    return stream


def _check_unchanged(run: RunManifest, path: Path) -> None:
    """Do nothing if a file is the one that a run was made with.

    Raises:
        MediaError: It is gone, or has changed since.
    """
    known = (str(run.settings.get("audio")).rpartition(" ")[2], run.settings.get("video_hash"))
    if not path.is_file():
        raise MediaError(f"{path}: there is no such file any more.")
    if hash_file(path) not in known:
        raise MediaError(f"{path}: this file has changed since the run was made.")
