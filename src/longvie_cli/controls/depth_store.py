"""The raw depth of a whole video on disk, between the two passes of an extraction."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from longvie_cli.disk.checksums import is_intact, with_digest
from longvie_cli.disk.documents import reason_of
from longvie_cli.disk.durable import make_folder, storage_error, write_atomic
from longvie_cli.errors import ControlError

# Frames in a file. Estimators are asked for as many at once, so that a resumed pass sees the same
# batches as an uninterrupted one.
DEPTH_BATCH_FRAMES = 16


class DepthStore:
    """Disparity of consecutive frames as float16, `DEPTH_BATCH_FRAMES` a file, appended in order.

    A file exists only when it is whole, so a killed process leaves a shorter video. It carries a
    hash; the video ends before the first file that does not match its own.

    Args:
        folder: Made by the first `append`.

    Attributes:
        folder: As given.
        damaged: The file before which it ends for that reason, None where there is none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged: Path | None = None
        self._counts = [len(_mapped(path)) for path in self._paths()]

    @property
    def num_frames(self) -> int:
        """Frames stored."""
        return sum(self._counts)

    def drop_short_batch(self) -> None:
        """Remove the last file if it is not full, so that `append` goes on from a whole batch."""
        if self._counts and self._counts[-1] < DEPTH_BATCH_FRAMES:
            self._path(len(self._counts) - 1).unlink()
            self._counts.pop()

    def append(self, disparity: NDArray[np.floating]) -> NDArray[np.float16]:
        """Store the next batch, [n, H, W], and return it as it is stored.

        Values beyond float16 become infinite; whoever counts them refuses them.
        """
        if self._counts and self._counts[-1] != DEPTH_BATCH_FRAMES:
            raise ValueError("a short batch ends the video, nothing can follow it")
        if not 0 < len(disparity) <= DEPTH_BATCH_FRAMES:
            raise ValueError(f"a batch has 1 to {DEPTH_BATCH_FRAMES} frames, not {len(disparity)}")
        with np.errstate(over="ignore"):
            stored = disparity.astype(np.float16)
        try:
            make_folder(self.folder)
        except OSError as reason:
            raise storage_error(self.folder, reason) from reason
        data = io.BytesIO()
        np.save(data, stored, allow_pickle=False)
        write_atomic(self._path(len(self._counts)), with_digest(data.getvalue()))
        self._counts.append(len(stored))
        return stored

    def batches(self) -> Iterator[NDArray[np.float16]]:
        """Yield what is stored, one file at a time."""
        for index in range(len(self._counts)):
            yield np.load(self._path(index), allow_pickle=False)

    def read(self, start_frame: int, num_frames: int) -> NDArray[np.float16]:
        """Return frames `start_frame` to `start_frame + num_frames - 1`, [n, H, W]."""
        end_frame = start_frame + num_frames
        if not 0 <= start_frame < end_frame <= self.num_frames:
            raise IndexError(f"frames {start_frame} to {end_frame - 1} of {self.num_frames}")
        first, last = start_frame // DEPTH_BATCH_FRAMES, (end_frame - 1) // DEPTH_BATCH_FRAMES
        parts = [
            np.load(self._path(index), mmap_mode="r", allow_pickle=False)
            for index in range(first, last + 1)
        ]
        parts[-1] = parts[-1][: end_frame - last * DEPTH_BATCH_FRAMES]
        parts[0] = parts[0][start_frame - first * DEPTH_BATCH_FRAMES :]
        return np.concatenate(parts)

    def remove(self) -> None:
        """Delete everything stored."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._counts = []

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:06d}.npy"

    def _paths(self) -> Iterator[Path]:
        index = 0
        while self._path(index).is_file():
            if not is_intact(self._path(index)):
                self.damaged = self._path(index)
                return
            yield self._path(index)
            index += 1


def _mapped(path: Path) -> NDArray[np.float16]:
    """Return a stored batch without reading it.

    Raises:
        ControlError: The file is what was written, but no batch was.
    """
    try:
        # Mapped: a header that claims more than the file has is refused without allocating it.
        # `np.load` would take an archive too, and leave one open that is damaged.
        batch = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # numpy has Python's own parser read the header.
        raise ControlError(f"{path}: holds no depth ({reason_of(error)}).") from error
    if not (batch.ndim == 3 and batch.dtype == np.float16 and batch.size):
        raise ControlError(f"{path}: holds no depth ({batch.dtype} {batch.shape}).")
    stored: NDArray[np.float16] = batch
    return stored
