"""Depth estimators: how near each pixel is. One interface, one that runs transformers' models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from longvie_cli.disk.folder_hashes import folder_hashes
from longvie_cli.disk.hashing import fingerprint
from longvie_cli.errors import ControlError, MissingResourceError

if TYPE_CHECKING:
    import torch

# Relative estimators give disparity, metric ones metres; other model types say neither.
_MODEL_TYPES = ("depth_anything", "dpt")
_NEAREST_METRES = 1e-3
_PREPROCESSOR_NAME = "preprocessor_config.json"
# Pixels of the network's input estimated at once: two frames of 518 x 896 on a CPU, sixteen on a
# GPU. More are no faster there, and the finest maps of the head take 60 times their bytes.
_CPU_BATCH_PIXELS = 1 << 20
_GPU_BATCH_PIXELS = 1 << 23


class DepthEstimator(Protocol):
    """Estimates the depth of a video, batch after batch.

    It keeps nothing from call to call: a batch has the same depth whatever was estimated before,
    and an extraction can be stopped between any two.
    """

    @property
    def name(self) -> str:
        """What makes the depth, written beside it; other numbers have another name."""

    @property
    def context_frames(self) -> int:
        """Frames before a batch that it wants to see, with the depth they were given; often 0."""

    def estimate(
        self, frames: NDArray[np.uint8], earlier: NDArray[np.float16] | None = None
    ) -> NDArray[np.float32]:
        """Return the relative disparity of the frames that follow the earlier ones.

        Its scale is free but the same for the whole video. It is stored as float16, so differences
        that matter lie between 1e-4 and 6e4.

        Args:
            frames: [C + T, H, W, 3] RGB.
            earlier: [C, H, W], the disparity of the first C frames, at most `context_frames`; None
                where there are none.

        Returns:
            [T, H, W], larger is nearer.
        """


class TransformersDepthEstimator:
    """Runs a depth model of transformers (Depth Anything V1 and V2, DPT) from a local folder.

    The folder holds `config.json`, `model.safetensors` and `preprocessor_config.json`, which
    transformers' `DPTImageProcessorPil` reads; only where it names no `size`, or says not to
    resize, frames keep theirs, rounded to `ensure_multiple_of`. The estimate is resized back to the
    frame as by its `post_process_depth_estimation` (bicubic), metres once they have become
    disparity.

    On a GPU matrix products are float16, which has the precision that depth is stored with; the
    rest, and everything on a CPU, is float32.

    Args:
        folder: The model, already on disk: nothing is downloaded.
        device: Where it runs.
        batch_size: Frames estimated at once; chosen by their size where None.

    Raises:
        MissingResourceError: a file of the model is missing, or, by the first frame, damaged.
        ControlError: it is no relative or metric depth model of a known type, or its preprocessor
            does something unknown.
    """

    context_frames = 0

    def __init__(self, folder: Path, *, device: str = "cpu", batch_size: int | None = None) -> None:
        for name in ("config.json", _PREPROCESSOR_NAME):
            if not (folder / name).is_file():
                raise MissingResourceError(f"{folder / name}: the depth model has no such file.")
        if not any(folder.glob("*.safetensors")):
            raise MissingResourceError(
                f"{folder}: no loadable depth model: it has no .safetensors file."
            )
        from transformers import AutoConfig, DPTImageProcessorPil

        try:
            settings: dict[str, Any] = json.loads((folder / _PREPROCESSOR_NAME).read_text("utf-8"))
            self._processor = DPTImageProcessorPil(**settings)
            # Told not to run code of the folder, or transformers would ask on stdin.
            config = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, TypeError) as error:
            raise MissingResourceError(f"{folder}: no loadable depth model: {error}") from error
        if config.model_type not in _MODEL_TYPES:
            raise ControlError(
                f"{folder}: a depth model of type {config.model_type} is not supported.",
                hint=f"Use one of {', '.join(_MODEL_TYPES)}.",
            )
        if settings.get("do_pad"):
            raise ControlError(f"{folder / _PREPROCESSOR_NAME}: do_pad is not supported.")
        self._folder = folder
        self._device = device
        self._half = device.startswith("cuda")
        self._batch_size = batch_size
        self._metric = getattr(config, "depth_estimation_type", "relative") == "metric"
        self._keeps_size = "size" not in settings or not settings.get("do_resize", True)
        precision = "-float16" if self._half else ""
        self.name = f"{config.model_type}-{fingerprint(folder_hashes(folder))[:16]}{precision}"

    @cached_property
    def _model(self) -> Any:
        """The network, loaded by the first frame: controls that are complete need none."""
        from transformers import AutoModelForDepthEstimation

        try:
            with _without_progress_bar():
                model = AutoModelForDepthEstimation.from_pretrained(
                    self._folder,
                    local_files_only=True,
                    use_safetensors=True,
                    trust_remote_code=False,
                    dtype="float32",
                )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise MissingResourceError(
                f"{self._folder}: no loadable depth model: {error}"
            ) from error
        return model.to(self._device).eval()

    def estimate(
        self, frames: NDArray[np.uint8], earlier: NDArray[np.float16] | None = None
    ) -> NDArray[np.float32]:
        """Return the relative disparity [T, H, W] of [T, H, W, 3] RGB; see `DepthEstimator`."""
        import torch

        if earlier is not None:
            frames = frames[len(earlier) :]
        disparity = np.empty(frames.shape[:3], dtype=np.float32)
        at_once = self._frames_at_once(*frames.shape[1:3])
        with torch.inference_mode():
            for start in range(0, len(frames), at_once):
                batch = frames[start : start + at_once]
                disparity[start : start + len(batch)] = self._estimate_batch(batch).cpu().numpy()
        return disparity

    def _frames_at_once(self, height: int, width: int) -> int:
        if self._batch_size is not None:
            return self._batch_size
        (picture,) = self._pictures(np.zeros((1, height, width, 3), dtype=np.uint8))
        rows, columns = map(int, picture.shape[-2:])
        pixels = _GPU_BATCH_PIXELS if self._half else _CPU_BATCH_PIXELS
        return max(1, min(16, pixels // (rows * columns)))

    def _pictures(self, frames: NDArray[np.uint8]) -> torch.Tensor:
        """Return what the network is shown of the frames, [T, 3, rows, columns]."""
        height, width = frames.shape[1:3]
        own_size = {"do_resize": True, "size": {"height": height, "width": width}}
        shown: torch.Tensor = self._processor(
            images=list(frames),
            input_data_format="channels_last",
            return_tensors="pt",
            **(own_size if self._keeps_size else {}),
        ).pixel_values
        return shown

    def _estimate_batch(self, frames: NDArray[np.uint8]) -> torch.Tensor:
        import torch
        from torch.nn import functional

        height, width = frames.shape[1:3]
        pixels = self._pictures(frames).to(self._device)
        with torch.autocast("cuda", dtype=torch.float16, enabled=self._half):
            output = self._model(pixel_values=pixels)
        depth: torch.Tensor = output.predicted_depth.float()
        if self._metric:
            depth = depth.clamp(min=_NEAREST_METRES).reciprocal()
        if depth.shape[1:] == (height, width):
            return depth
        return functional.interpolate(depth[:, None], (height, width), mode="bicubic")[:, 0]


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    """Keep transformers from drawing a bar of its own while it loads."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
