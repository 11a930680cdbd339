"""Video Depth Anything out of a checkout of the user's own.

The repository (github.com/DepthAnything/Video-Depth-Anything) is no package: it is cloned, and its
weights are put into `checkpoints/`. Its code is imported from the folder the user named, which is
why it has to be named. Its own way through a video holds every frame and every depth in memory;
here each batch is a call of its own.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longvie_cli.controls.depth_smoothing import fit_gauge
from longvie_cli.disk.folder_hashes import file_hashes
from longvie_cli.disk.hashing import fingerprint
from longvie_cli.errors import ControlError, MissingResourceError

# What the three published sizes are built with.
_SIZES: dict[str, dict[str, Any]] = {
    "vitl": {"features": 256, "out_channels": [256, 512, 1024, 1024]},
    "vitb": {"features": 128, "out_channels": [96, 192, 384, 768]},
    "vits": {"features": 64, "out_channels": [48, 96, 192, 384]},
}
_MODULE = Path("video_depth_anything") / "video_depth.py"
_PACKAGES = ("video_depth_anything", "utils")

# With 16 new frames, 6 earlier ones make the 22 for which its `infer_video_depth` runs its network
# of 32 frames exactly once.
_CONTEXT_FRAMES = 6
_MAX_SCALE = 16.0
_FIT_VALUES = 1 << 16
# The share of its own level that a batch returns to: over minutes nothing drifts from the model's.
_RETURN = 0.05


def is_checkout(folder: Path) -> bool:
    """Return whether a folder is a checkout of Video Depth Anything."""
    return (folder / _MODULE).is_file()


def checkout_digest(folder: Path) -> str:
    """Return what tells the code of a checkout and the weights used from any others.

    Raises:
        MissingResourceError: there are no weights.
    """
    code = (folder / _MODULE.parent).rglob("*.py")
    return fingerprint(file_hashes(folder, [*code, _find_weights(folder)[1]]))[:16]


class VideoDepthAnythingEstimator:
    """Runs a checkout of Video Depth Anything, the largest of its weights that are there.

    Every batch is estimated together with the last 6 frames before it and brought to their scale
    and shift, then led back by a twentieth to the model's own: joints show no step, and errors of
    the joints do not add up.

    Args:
        folder: The checkout, with `checkpoints/video_depth_anything_vit{l,b,s}.pth`.
        device: Where it runs; float16 on a GPU, float32 on a CPU.
        input_size: Short side of the network's input.

    Raises:
        MissingResourceError: there are no weights; or, by the first frame, its code needs a package
            that is missing.
        ControlError: by the first frame, the weights do not belong to the code.
    """

    context_frames = _CONTEXT_FRAMES

    def __init__(self, folder: Path, *, device: str = "cpu", input_size: int = 518) -> None:
        self.encoder, self._weights = _find_weights(folder)
        self._folder = folder
        self._device = device
        self._input_size = input_size
        self.name = f"video-depth-anything-{self.encoder}-{input_size}-{checkout_digest(folder)}"

    @cached_property
    def _model(self) -> Any:
        """The network, built and loaded by the first frame: complete controls need none."""
        import torch

        with _importing_from(self._folder):
            try:
                module = importlib.import_module("video_depth_anything.video_depth")
            except ImportError as error:
                raise MissingResourceError(
                    f"{self._folder}: its code cannot be imported: {error}.",
                    hint="Install what its requirements.txt names.",
                ) from error
        try:
            model = module.VideoDepthAnything(encoder=self.encoder, **_SIZES[self.encoder])
            state = torch.load(self._weights, map_location="cpu", weights_only=True)
            model.load_state_dict(state, strict=True)
        except (AttributeError, TypeError, RuntimeError, OSError, ValueError) as error:
            raise ControlError(
                f"{self._weights}: not loadable with the code beside it: {error}"
            ) from error
        return model.to(self._device).eval()

    def estimate(
        self, frames: NDArray[np.uint8], earlier: NDArray[np.float16] | None = None
    ) -> NDArray[np.float32]:
        """Return the disparity [T, H, W] of the frames after the earlier ones; see the class."""
        import torch

        kind = torch.device(self._device).type
        with torch.inference_mode():
            depths, _ = self._model.infer_video_depth(
                frames,
                16,
                input_size=self._input_size,
                device=kind,
                fp32=kind == "cpu",
            )
        disparity = np.asarray(depths, dtype=np.float32)
        if disparity.shape != frames.shape[:3]:
            raise ControlError(
                f"Video Depth Anything gave depth of shape {list(disparity.shape)} for "
                f"{list(frames.shape[:3])}."
            )
        if earlier is None:
            return disparity
        count = len(earlier)
        every = max(1, earlier.size // _FIT_VALUES)
        gauge = fit_gauge(
            disparity[:count].reshape(-1)[::every],
            earlier.astype(np.float32).reshape(-1)[::every],
            max_scale=_MAX_SCALE,
        )
        new = disparity[count:]
        if gauge is None:
            return new
        # 1 at the joint, 1 - _RETURN at the end of the batch.
        held = np.linspace(1, 1 - _RETURN, len(new) + 1, dtype=np.float32)[1:, None, None]
        return np.asarray(held * gauge(new) + (1 - held) * new, dtype=np.float32)


def _find_weights(folder: Path) -> tuple[str, Path]:
    names = [f"video_depth_anything_{encoder}.pth" for encoder in _SIZES]
    for encoder, name in zip(_SIZES, names, strict=True):
        path = folder / "checkpoints" / name
        if path.is_file():
            return encoder, path
    raise MissingResourceError(
        f"{folder / 'checkpoints'}: none of {', '.join(names)} is there.",
        hint="Fetch one as the checkout's README says.",
    )


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Import the checkout's packages, one of them called `utils`, without a trace in others."""
    outside = _taken_out()
    sys.path.insert(0, str(folder.absolute()))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder.absolute()))
        _taken_out()
        sys.modules.update(outside)


def _taken_out() -> dict[str, Any]:
    names = [name for name in sys.modules if name.partition(".")[0] in _PACKAGES]
    return {name: sys.modules.pop(name) for name in names}
