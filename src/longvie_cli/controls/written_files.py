"""Which files of a control folder are as they were written, and what they hold: `hashes.json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast, get_args

from longvie_cli.disk.checksums import checksummed_json, read_checksummed_json
from longvie_cli.disk.durable import is_passing, storage_error, write_atomic
from longvie_cli.disk.hashing import hash_file
from longvie_cli.errors import OutputConflictError
from longvie_cli.media.ffmpeg import MAX_PIXELS
from longvie_cli.media.probe import SourceVideo
from longvie_cli.media.writer import PixelFormat, written_video
from longvie_cli.progress import Progress

HASHES_NAME = "hashes.json"


class WrittenFiles:
    """The hashes of the finished files of a control folder, and the size of its videos.

    Kept in the folder.

    A file that is not listed is taken as it is: it was finished just before the process was killed.

    Args:
        folder: The control folder.

    Raises:
        ResumableError: The disk failed.
        OutputConflictError: The list may not be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / HASHES_NAME
        self._trouble = ""
        self._hashes: dict[str, str] = {}
        self._videos: dict[str, SourceVideo] = {}
        try:
            listed = read_checksummed_json(self._path.read_bytes())
            names = {*listed["files"], *listed["videos"]}
            if any(name in ("", ".", "..") or Path(name).name != name for name in names):
                raise ValueError("it names files outside the folder")
            videos = listed["videos"].items()
            self._videos = {name: _video(folder / name, shape) for name, shape in videos}
            self._hashes = {str(name): str(content) for name, content in listed["files"].items()}
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as reason:
            if isinstance(reason, OSError) and is_passing(reason):
                raise storage_error(self._path, reason) from reason
            self._trouble = f"{self._path}: damaged ({reason})."

    def video(self, path: Path) -> SourceVideo | None:
        """Return what a video holds that is as it was written; None of any other file.

        Raises:
            ResumableError: The disk failed.
            OutputConflictError: The file may not be read.
        """
        video = self._videos.get(path.name)
        if video is None or path.absolute() != video.path.absolute():
            return None
        try:
            return video if hash_file(path) == self._hashes.get(path.name) else None
        except OSError as reason:
            raise storage_error(path, reason) from reason

    def damaged(self) -> list[Path]:
        """Return the files that are there and not as they were written.

        Raises:
            ResumableError: The disk failed.
            OutputConflictError: A file may not be read.
        """
        found = []
        for name, content in self._hashes.items():
            path = self._folder / name
            try:
                if path.is_file() and hash_file(path) != content:
                    found.append(path)
            except OSError as reason:
                raise storage_error(path, reason) from reason
        return found

    def remove_damaged(self, progress: Progress) -> None:
        """Remove the damaged files, so that they are made again, and say so.

        Raises:
            ResumableError: The disk failed.
            OutputConflictError: A file cannot be removed.
        """
        self._say_trouble(progress)
        for path in self.damaged():
            progress.warning(f"{path}: is not what was written; it is made again.")
            try:
                path.unlink()
            except OSError as reason:
                raise storage_error(path, reason) from reason

    def refuse_damaged(self, progress: Progress) -> None:
        """Do nothing if all files are as they were written, or the list itself is damaged.

        Raises:
            OutputConflictError: One was damaged, or changed by somebody who may want to keep it.
        """
        self._say_trouble(progress)
        for path in self.damaged():
            raise OutputConflictError(
                f"{path}: is not what was written: damaged, or changed by hand.",
                hint="Remove it, and the same command makes it again; or use the folder as it is "
                "with --controls.",
            )

    def _say_trouble(self, progress: Progress) -> None:
        if self._trouble:
            progress.warning(f"{self._trouble} It is written anew.")

    def add(self, paths: Sequence[Path], videos: Sequence[SourceVideo] = ()) -> None:
        """List finished files, and videos that `VideoWriter` has just written.

        Raises:
            ResumableError: The disk is full.
            OutputConflictError: The folder cannot be written.
        """
        files = [*paths, *(video.path for video in videos)]
        new = {path.name: hash_file(path) for path in files}
        if self._trouble or any(self._hashes.get(name) != content for name, content in new.items()):
            self._trouble = ""
            self._hashes |= new
            self._videos |= {video.path.name: video for video in videos}
            shapes = {
                name: [
                    *(video.num_frames, video.height, video.width, round(video.fps)),
                    video.picture.pixel_format,
                ]
                for name, video in self._videos.items()
            }
            write_atomic(self._path, checksummed_json({"files": self._hashes, "videos": shapes}))


def _video(path: Path, shape: Sequence[object]) -> SourceVideo:
    *counts, pixel_format = shape
    num_frames, height, width, fps = (_count(value) for value in counts)
    if pixel_format not in get_args(PixelFormat):
        raise ValueError(f"{pixel_format!r} is no pixel format of ours")
    if height * width > MAX_PIXELS:
        raise ValueError(f"{path.name}: {width}x{height} is more than {MAX_PIXELS} pixels")
    return written_video(
        path,
        height=height,
        width=width,
        fps=fps,
        num_frames=num_frames,
        pixel_format=cast(PixelFormat, pixel_format),
    )


def _count(value: object) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{value!r} is no number of frames or pixels")
    return value
