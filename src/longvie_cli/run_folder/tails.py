"""The last frames of a clip, without loss: what the next clip starts from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from longvie_cli.disk.documents import reason_of
from longvie_cli.disk.durable import is_passing, storage_error, write_atomic
from longvie_cli.errors import MediaError

_NAME = "frames"


def save_tail(path: Path, frames: NDArray[np.uint8]) -> None:
    """Write frames [n, height, width, 3] to a safetensors file in one step.

    Raises:
        ValueError: The frames are not 8-bit RGB.
        ResumableError: The disk is full.
        OutputConflictError: The folder cannot be written.
    """
    from safetensors.numpy import save

    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(
            f"expected uint8 [frames, height, width, 3], got {frames.dtype} {frames.shape}"
        )
    write_atomic(path, save({_NAME: np.ascontiguousarray(frames)}))


def load_tail(path: Path) -> NDArray[np.uint8]:
    """Return the frames [n, height, width, 3] of a tail file, bit for bit.

    Raises:
        MediaError: The file is missing or damaged.
        ResumableError: The disk failed.
        OutputConflictError: It may not be read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        frames: NDArray[np.uint8] = load(path.read_bytes())[_NAME]
    except OSError as reason:
        if is_passing(reason):
            raise storage_error(path, reason) from reason
        raise MediaError(
            f"{path}: the saved last frames cannot be read ({reason.strerror})."
        ) from reason
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError) as reason:
        raise MediaError(
            f"{path}: the saved last frames are damaged ({reason_of(reason)})."
        ) from reason
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise MediaError(
            f"{path}: the saved last frames are {frames.dtype} {frames.shape}, not RGB."
        )
    return frames
