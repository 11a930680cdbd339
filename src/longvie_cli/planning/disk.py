"""How much disk a job needs, by estimate, against what is free."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from longvie_cli.errors import OutputConflictError
from longvie_cli.planning.job import Job
from longvie_cli.progress import Progress
from longvie_cli.settings.presets import Preset
from longvie_cli.sources.source import Source
from longvie_cli.sources.video import VideoSource

# H.264 at crf 18 of moving landscapes stays below this; a guess, on the safe side.
_BYTES_A_PIXEL = 0.25
_DEPTH_BYTES_A_PIXEL = 2


def run_bytes(job: Job) -> int:
    """Return about the most that a run takes up at one time, its output included."""
    pixels = job.preset.height * job.preset.width
    # Clips and the joined file; an uncompressed tail a clip.
    videos = job.added_frames * 2 * pixels * _BYTES_A_PIXEL
    earlier = job.earlier.path.stat().st_size if job.earlier else 0
    tails = len(job.specs) * job.preset.history_frames * pixels * 3
    kept, scratch = _control_bytes(job.source, job.preset, job.source_frames)
    # The raw depth is gone before the first clip is made.
    return kept + max(scratch, int(videos + earlier + tails))


def extraction_bytes(source: Source, preset: Preset, num_frames: int) -> int:
    """Return about the most that the extraction of controls takes up at one time."""
    return sum(_control_bytes(source, preset, num_frames))


def _control_bytes(source: Source, preset: Preset, num_frames: int) -> tuple[int, int]:
    """Return the bytes of the controls, and of the raw depth while they are made."""
    if source.kind in ("controls", "none"):
        return 0, 0
    height, width = preset.control_size
    pixels = height * width * num_frames
    steadied = isinstance(source, VideoSource) and source.depth.smoothing_used != "none"
    scratch = pixels * _DEPTH_BYTES_A_PIXEL * (2 if steadied else 1)
    return int(2 * pixels * _BYTES_A_PIXEL), scratch


def samples_bytes(preset: Preset, num_clips: int, history_frames: int, num_together: int) -> int:
    """Return about the most that the preparation of training samples takes up at one time.

    Args:
        preset: Of the samples.
        num_clips: How many there are.
        history_frames: Most frames before each.
        num_together: Most clips whose controls are made at a time.
    """
    height, width = preset.control_size
    picture, control = preset.height * preset.width, height * width
    shown = picture * (preset.num_frames + history_frames) + 2 * control * preset.num_frames
    depth = control * preset.num_frames * 2 * _DEPTH_BYTES_A_PIXEL
    together = min(num_clips, num_together)
    return int(num_clips * shown * _BYTES_A_PIXEL + together * (depth + control))


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk on which a folder is or will be."""
    return shutil.disk_usage(_existing(folder)).free


def say_disk(needed: int, folder: Path, progress: Progress, *, only_if_short: bool) -> None:
    """Say what a job needs against what is free; a warning where that is too little.

    No error: the need is an estimate on the safe side, and a run that fills the disk goes on later.

    Args:
        needed: As `run_bytes` or `extraction_bytes` return it.
        folder: Where it goes; what lies in it is part of the need already.
        progress: Told of it.
        only_if_short: Say nothing where there is enough.
    """
    free, there = free_bytes(folder), _used_bytes(folder)
    if not only_if_short:
        progress.message(f"disk: about {needed / 1e6:.1f} MB of {free / 1e6:.0f} MB free")
    if needed - there > free:
        progress.warning(
            f"{folder}: the run may need {(needed - there) / 1e6:.0f} MB, and {free / 1e6:.0f} MB "
            "are free; it stops where the disk is full, and goes on once there is room."
        )


def unwritable(*paths: Path) -> OutputConflictError | None:
    """Return the error of the first folder that is to be written to, but cannot be."""
    for path in paths:
        folder = _existing(path)
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            return OutputConflictError(
                f"{folder}: nothing can be written here.",
                hint="Pass -o, or --run-dir, in a folder of yours.",
            )
    return None


def _existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _used_bytes(folder: Path) -> int:
    """Return the bytes of all files in a folder, 0 where there is none."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
