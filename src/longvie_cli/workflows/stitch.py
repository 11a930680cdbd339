"""`stitch`: clips and whole runs joined into one file without encoding again."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path

from longvie_cli.errors import MediaError, UsageError
from longvie_cli.media.join import join_clips
from longvie_cli.media.metadata import encode_settings
from longvie_cli.media.packets import read_packets
from longvie_cli.media.probe import probe_video
from longvie_cli.planning.paths import check_output_path, output_taken
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.result import JobResult
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.manifest import RunInputs
from longvie_cli.run_folder.run import Run
from longvie_cli.settings.requests import StitchRequest
from longvie_cli.version import __version__


def stitch(request: StitchRequest, progress: Progress | None = None) -> JobResult:
    """Join runs and clips in the order given.

    A run gives the clips it has finished; they hold only the frames they add, so no frame is shown
    twice. A folder gives its mp4 files by name.

    Raises:
        MediaError: An input is no video, or was encoded differently from the first.
        OutputConflictError: The output exists, or a run is damaged.
        UsageError: An input holds no clip, or there is no sound to take.
    """
    progress = progress or SilentProgress()
    sound = () if request.audio in ("none", "source") else (Path(request.audio),)
    check_output_path(request.output, [*request.inputs, *sound], run_dir=None)
    if request.output.exists() and request.no_clobber:
        progress.message(f"{request.output}: exists, skipped (--no-clobber).")
        return JobResult("skipped", request.output)
    if request.output.exists() and not request.overwrite:
        raise output_taken(request.output)
    clips = [clip for path in request.inputs for clip in _clips_of(path, progress)]
    fps = _frames_per_second(clips[0])
    metadata = None
    if request.embed_metadata:
        names = [path.absolute().name for path in request.inputs]
        metadata = encode_settings(
            {
                "tool": "longvie",
                "version": __version__,
                "command": "stitch",
                "inputs": names,
                "fps": fps,
            }
        )
    frames = join_clips(
        clips,
        request.output,
        fps=fps,
        metadata=metadata,
        audio=_audio(request),
        overwrite=request.overwrite,
    )
    return JobResult("done", request.output, frames=frames, seconds=frames / fps)


def _clips_of(path: Path, progress: Progress) -> list[Path]:
    if not path.exists():
        raise MediaError(f"{path}: there is no such file or folder.")
    if not path.is_dir():
        return [path]
    folder = RunFolder(path)
    if not folder.is_begun:
        clips = sorted(path.glob("*.mp4"))
        if not clips:
            raise UsageError(f"{path}: this folder holds no run and no mp4 file.")
        return clips
    folder.check_no_links()
    run = Run.read(folder)
    stored = run.clips()
    done = list(takewhile(lambda clip: clip.record is not None, stored))
    if not done:
        raise UsageError(
            f"{path}: this run has no finished clip.",
            hint="Clips are gone after --no-keep-clips; use the finished mp4.",
        )
    if len(done) < len(stored):
        progress.warning(f"{path.name}: {len(done)} of {len(stored)} clips are finished.")
    return [folder.clip_video(clip.spec.index) for clip in done]


def _frames_per_second(clip: Path) -> int:
    fps = read_packets(clip).average_fps
    if fps is None:
        fps_of_one_frame = probe_video(clip).fps
        return round(fps_of_one_frame)
    if fps.denominator != 1:
        raise MediaError(
            f"{clip}: its frames come at {float(fps):.4g} fps, which is no whole number; it cannot "
            "be joined without encoding it again."
        )
    return fps.numerator


def _audio(request: StitchRequest) -> Path | None:
    if request.audio == "none":
        return None
    if request.audio != "source":
        return Path(request.audio)
    inputs = _only_run(request)
    if inputs is None or inputs.source is None or inputs.source_kind != "video":
        raise UsageError(
            "--audio source: needs exactly one run that was made from a video.",
            hint="Pass --audio FILE.",
        )
    source = inputs.source
    if not probe_video(Path(source)).has_audio:
        raise UsageError(f"--audio source: {Path(source).name} has no sound.")
    return Path(source)


def _only_run(request: StitchRequest) -> RunInputs | None:
    if len(request.inputs) != 1:
        return None
    folder = RunFolder(request.inputs[0])
    return Run.read(folder).manifest.inputs if folder.is_begun else None
