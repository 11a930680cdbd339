"""Whether a clip looks broken: cheap looks at its pictures, no model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Every n-th pixel both ways: the whole check of a clip of 81 frames of 832x480 takes 0.1 s.
_STEP = 4
# Grey levels of 255. A render that moves at all changes by more than half a level from frame to
# frame; controls that change by less than two levels over a clip hardly ask for motion.
_STILL = 0.05
_CONTROLS_MOVE = 2.0
# The spread of the pixels of one frame; fog over snow still has 5 and more.
_FLAT = 2.0
_BLACK, _WHITE = 8.0, 247.0
# At a seam the change must be large by itself and against the usual change between two frames.
_CUT, _CUT_RATIO = 24.0, 4.0
_COLOUR, _COLOUR_RATIO = 8.0, 4.0


def check_clip(
    frames: NDArray[np.uint8],
    *,
    before: NDArray[np.uint8] | None = None,
    controls: NDArray[np.uint8] | None = None,
    finite: bool = True,
) -> tuple[str, ...]:
    """Return what looks wrong with the frames that a clip adds, in words; nothing if they do not.

    Args:
        frames: Frames [n, height, width, 3].
        before: Last frames before them, oldest first; None where the clip begins a scene.
        controls: Depth of the same frames, [n, height, width, 3]; None without controls.
        finite: Whether the latents were all numbers.
    """
    if not finite:
        return ("not a number: the model gave values that are none",)
    found = []
    pictures = _thinned(frames)
    if flat := _flatness(pictures):
        found.append(flat)
    elif _is_frozen(pictures, controls):
        found.append("frozen: no frame differs from the one before, but the controls move")
    if before is not None and len(before):
        found += _seam(_thinned(before), pictures)
    return tuple(found)


def _thinned(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    thinned: NDArray[np.float32] = frames[:, ::_STEP, ::_STEP].astype(np.float32)
    return thinned


def _changes(pictures: NDArray[np.float32]) -> NDArray[Any]:
    """Return the mean change from each frame to the next, in grey levels."""
    changes: NDArray[Any] = np.abs(np.diff(pictures, axis=0)).mean(axis=(1, 2, 3))
    return changes


def _flatness(pictures: NDArray[np.float32]) -> str:
    grey = pictures.mean(axis=3)
    flat = grey.std(axis=(1, 2)) < _FLAT
    if flat.mean() <= 0.5:
        return ""
    level = float(grey[flat].mean())
    colour = "black" if level < _BLACK else "white" if level > _WHITE else "of one colour"
    return f"flat: {int(flat.sum())} of {len(pictures)} frames are {colour}"


def _is_frozen(pictures: NDArray[np.float32], controls: NDArray[np.uint8] | None) -> bool:
    if len(pictures) < 3 or controls is None or len(controls) < 3:
        return False
    shown = _thinned(controls)
    moved = np.abs(shown - shown[:1]).mean(axis=(1, 2, 3)).max()
    return bool(moved > _CONTROLS_MOVE and _changes(pictures).max() < _STILL)


def _seam(before: NDArray[np.float32], pictures: NDArray[np.float32]) -> list[str]:
    joined = np.concatenate([before, pictures])
    place = len(before) - 1
    changes = _changes(joined)
    usual = float(np.median(np.delete(changes, place))) if len(changes) > 1 else 0.0
    change = float(changes[place])
    if change > max(_CUT, _CUT_RATIO * usual):
        return [
            f"another scene: it begins {change:.0f} grey levels away from the frame before, "
            f"{usual:.1f} are usual"
        ]
    colours = joined.mean(axis=(1, 2))
    drifts = np.abs(np.diff(colours, axis=0)).max(axis=1)
    usual = float(np.median(np.delete(drifts, place))) if len(drifts) > 1 else 0.0
    jump = float(drifts[place])
    if jump > max(_COLOUR, _COLOUR_RATIO * usual):
        return [f"colours jump by {jump:.0f} levels where it begins, {usual:.1f} are usual"]
    return []
