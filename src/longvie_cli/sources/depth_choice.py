"""Where the depth of a video comes from: a model by name or folder, or a ready depth video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from longvie_cli.disk.folder_hashes import folder_hashes
from longvie_cli.disk.hashing import fingerprint, hash_file
from longvie_cli.errors import MissingResourceError
from longvie_cli.hub.installed import entry_folder, gigabytes
from longvie_cli.hub.licences import settle_licences
from longvie_cli.hub.registry import entry_named
from longvie_cli.media.ffmpeg import check_readable
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.run_folder.manifest import StoredDepth
from longvie_cli.settings.presets import DEFAULT_PRESET, Fit, Preset, preset_folder
from longvie_cli.settings.requests import DEPTH_MODELS, DepthSettings

if TYPE_CHECKING:
    from longvie_cli.controls.depth import DepthEstimator
    from longvie_cli.controls.depth_video import DepthVideo
    from longvie_cli.media.probe import SourceVideo

_PATH_PREFIX = "path:"


@dataclass(frozen=True)
class ModelState:
    """A model that controls are made with, and whether it can be used.

    Args:
        role: `depth`, `tracker` or `captioner`.
        name: What was chosen, as typed; of a folder its last name.
        missing: Why it cannot be used; None where it can.
    """

    role: Literal["depth", "tracker", "captioner"]
    name: str
    missing: MissingResourceError | None = None


@dataclass(frozen=True)
class DepthChoice:
    """What was asked for as depth; None leaves it to the preset.

    Args:
        model: One of `DEPTH_MODELS`, or a folder as `DIR` or `path:DIR`.
        smoothing: Whether depth is steadied along the flow; None: estimates are, ready depth not.
        video: Ready depth, used in place of estimates.
        polarity: What is near in `video`.
    """

    model: str | None = None
    smoothing: Literal["none", "flow"] | None = None
    video: Path | None = None
    polarity: Literal["near-white", "near-black", "auto"] = "auto"

    @classmethod
    def of(cls, request: DepthSettings) -> DepthChoice:
        """Return the choice of a request."""
        return cls(
            request.depth_model,
            request.depth_smoothing,
            request.depth,
            request.depth_polarity or "auto",
        )

    @classmethod
    def of_stored(cls, stored: StoredDepth | None) -> DepthChoice:
        """Return the choice that `stored` returned; the default where nothing is."""
        if stored is None:
            return cls()
        video = None if stored.video is None else Path(stored.video)
        return cls(stored.model, stored.smoothing, video, stored.polarity)

    def stored(self) -> StoredDepth:
        """Return the choice for the run folder, paths absolute."""
        folder = self._model_folder
        return StoredDepth(
            model=self.model if folder is None else f"{_PATH_PREFIX}{folder.absolute()}",
            smoothing=self.smoothing,
            video=None if self.video is None else str(self.video.absolute()),
            polarity=self.polarity,
        )

    @property
    def smoothing_used(self) -> Literal["none", "flow"]:
        """What is done to the depth over time."""
        return self.smoothing or ("flow" if self.video is None else "none")

    def facts(self, preset: Preset) -> dict[str, Any]:
        """Return what decides the depth, as JSON without absolute paths.

        Raises:
            MediaError: Ready depth is no readable file.
        """
        smoothing = {"depth_smoothing": self.smoothing_used}
        if self.video is not None:
            check_readable(self.video)
            return smoothing | {
                "depth": f"{self.video.name} {hash_file(self.video)}",
                "depth_polarity": self.polarity,
            }
        folder = self._model_folder
        if folder is None:
            return smoothing | {"depth_model": self._named(preset)}
        from longvie_cli.controls.video_depth_anything import checkout_digest, is_checkout

        # Many models lie in folders of one name.
        if is_checkout(folder):
            content = checkout_digest(folder)
        else:
            content = fingerprint(folder_hashes(folder))
        return smoothing | {"depth_model": f"{folder.absolute().name} {content}"}

    def load(
        self, video: SourceVideo, *, preset: Preset, fit: Fit, device: str, progress: Progress
    ) -> DepthEstimator | DepthVideo:
        """Return the estimator, loaded, or the ready depth of a video, its polarity known and said.

        Raises:
            MissingResourceError: The model is not on this machine.
            ControlError: It is no depth model, or ready depth is coloured.
            MediaError: Ready depth cannot be read.
        """
        if self.video is not None:
            return self._ready(video, preset, fit, progress)
        return self.estimator(preset, device=device, progress=progress)

    def estimator(self, preset: Preset, *, device: str, progress: Progress) -> DepthEstimator:
        """Return the estimator, loaded.

        Raises:
            MissingResourceError: The model is not on this machine, or its licence not accepted.
            ControlError: It is no depth model.
        """
        from longvie_cli.controls.depth import TransformersDepthEstimator
        from longvie_cli.controls.video_depth_anything import (
            VideoDepthAnythingEstimator,
            is_checkout,
        )

        folder = self._located(preset)
        if self._model_folder is None:
            _settle_licence(self._named(preset), progress)
            return TransformersDepthEstimator(folder, device=device)
        if not is_checkout(folder):
            return TransformersDepthEstimator(folder, device=device)
        estimator = VideoDepthAnythingEstimator(folder, device=device)
        if estimator.encoder != "vits":
            progress.message(
                f"--depth-model {folder.name}: Video Depth Anything {estimator.encoder} is "
                "licensed CC-BY-NC-4.0, for non-commercial use."
            )
        return estimator

    def state(self, preset: Preset) -> ModelState:
        """Return whether the model, or the ready depth, is there; loads nothing.

        Raises:
            MediaError: Ready depth is no readable file.
        """
        if self.video is not None:
            check_readable(self.video)
            return ModelState("depth", self.video.name)
        folder = self._model_folder
        name = self._named(preset) if folder is None else folder.absolute().name
        try:
            self._located(preset)
            if folder is None:
                _settle_licence(name, SilentProgress())
        except MissingResourceError as missing:
            return ModelState("depth", name, missing)
        return ModelState("depth", name)

    def remarks(self, name: str, preset: Preset) -> list[str]:
        """Return in a line that a guess stands for depth of what the estimator never saw, if so.

        Args:
            name: What the depth is of.
            preset: Its own estimator is used where none is named.
        """
        if self.video is not None or self._model_folder is not None:
            return []
        if self._named(preset) != "embedded":
            return []
        better = entry_named("depth-anything-v2-small")
        return [
            f"{name}: depth is estimated by the embedded model, which knows landscapes: of "
            "streets, rooms or people it gives little more than bottom near, top far. For those "
            f"pass --depth-model small (longvie models pull {better.name}: "
            f"{gigabytes(better.approximate_bytes)}, {better.licence})."
        ]

    def check_length(self, num_frames: int, *, fps: int, needed_by: str) -> None:
        """Do nothing if ready depth, where there is any, lasts for so many frames at `fps`.

        Raises:
            MediaError: It is shorter, or cannot be read.
        """
        if self.video is not None:
            from longvie_cli.controls.depth_video import check_length

            check_length(self._ready_video, num_frames, fps=fps, needed_by=needed_by)

    def _located(self, preset: Preset) -> Path:
        folder = self._model_folder
        if folder is None:
            return _named_folder(self._named(preset))
        if not folder.is_dir():
            raise MissingResourceError(
                f"--depth-model {folder}: there is no such folder.",
                hint=f"Pass {', '.join(DEPTH_MODELS)}, or the folder of a depth model.",
            )
        return folder

    @cached_property
    def _ready_video(self) -> SourceVideo:
        from longvie_cli.media.probe import probe_video

        assert self.video is not None, "asked first"
        return probe_video(self.video)

    @property
    def _model_folder(self) -> Path | None:
        if self.model is None or self.model in DEPTH_MODELS:
            return None
        return Path(self.model.removeprefix(_PATH_PREFIX))

    def _named(self, preset: Preset) -> str:
        return self.model or ("small" if preset.models else "embedded")

    def _ready(
        self, video: SourceVideo, preset: Preset, fit: Fit, progress: Progress
    ) -> DepthVideo:
        from longvie_cli.controls.depth import TransformersDepthEstimator
        from longvie_cli.controls.depth_video import DepthVideo, find_polarity

        depth = self._ready_video
        if self.polarity != "auto":
            return DepthVideo(depth, self.polarity)
        estimator = TransformersDepthEstimator(_named_folder("embedded"))
        found = find_polarity(depth, video, estimator, fps=preset.fps, fit=fit)
        line = (
            f"{depth.path.name}: {found.polarity.removeprefix('near-')} is near ({found.reason})."
        )
        if found.sure:
            progress.message(line)
        else:
            progress.warning(f"{line} If that is wrong, pass --depth-polarity.")
        return DepthVideo(depth, found.polarity)


def say_models(models: Sequence[ModelState], progress: Progress) -> list[dict[str, Any]]:
    """Say which models controls are made with, and return it as JSON values; a plan's lines."""
    for model in models:
        if model.missing is None:
            progress.message(f"{model.role}: {model.name}, here")
        else:
            progress.warning(
                f"The run will not start: {model.missing.message} {model.missing.hint}".rstrip()
            )
    return [
        {
            "role": model.role,
            "name": model.name,
            "state": "here" if model.missing is None else "missing",
            **({} if model.missing is None else {"hint": model.missing.hint}),
        }
        for model in models
    ]


def _settle_licence(name: str, progress: Progress) -> None:
    """Say the licence of a fetched model, and go on only if it may be used or was accepted."""
    if name != "embedded":
        entry = entry_named(f"depth-anything-v2-{name}")
        how = f"longvie models pull {entry.name} --accept-noncommercial"
        settle_licences([entry], accept=False, how=how, progress=progress)


def _named_folder(name: str) -> Path:
    """Return the folder of one of `DEPTH_MODELS`: embedded, or fetched into the hub's cache.

    Raises:
        MissingResourceError: It was not fetched.
    """
    if name == "embedded":
        return preset_folder(DEFAULT_PRESET) / "depth"
    return entry_folder(entry_named(f"depth-anything-v2-{name}"))
