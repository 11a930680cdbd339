"""The one shape that image, controls and history of a clip have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from longvie_cli.errors import ControlError, InputError

if TYPE_CHECKING:
    from longvie_cli.models.pipeline import LongViePipeline


def shared_shape(
    pipeline: LongViePipeline,
    image: np.ndarray | None,
    dense: np.ndarray | None,
    sparse: np.ndarray | None,
    history: np.ndarray | None,
    num_frames: int | None,
    height: int | None,
    width: int | None,
) -> tuple[int, int, int]:
    """Return (frames, height, width), the same for all inputs and possible for the model.

    This is the pipeline's method `clip_shape`.
    """
    controls = [("dense", dense), ("sparse", sparse)]
    given = [control for _, control in controls if control is not None]
    sizes = [frames.shape[-3:-1] for frames in (image, *given, history) if frames is not None]
    num_frames = num_frames or (len(given[0]) if given else None)
    height, width = (height, width) if height and width else sizes[0] if sizes else (None, None)
    if num_frames is None or height is None or width is None:
        raise InputError("Without controls a clip needs num_frames, and an image or its size.")
    for name, control in controls:
        if control is not None and control.shape != (num_frames, height, width, 3):
            raise ControlError(
                f"{name} control: {_describe(control)}, but the clip has {num_frames} frames "
                f"of {width}x{height}."
            )
    for name, frames in (("image", image), ("history", history)):
        if frames is not None and frames.shape[-3:] != (height, width, 3):
            raise InputError(f"{name}: {_describe(frames)}, but the clip is {width}x{height}.")
    temporal = pipeline.vae.config.scale_factor_temporal
    rows, columns = pipeline.size_multiple
    if num_frames % temporal != 1 or height % rows or width % columns:
        raise InputError(
            f"A clip of {num_frames} frames of {width}x{height} cannot be made: frames must be "
            f"{temporal}k+1, width a multiple of {columns} and height of {rows}."
        )
    return num_frames, height, width


def _describe(frames: np.ndarray) -> str:
    *count, height, width, _ = frames.shape
    return f"{count[0]} frames of {width}x{height}" if count else f"{width}x{height}"
