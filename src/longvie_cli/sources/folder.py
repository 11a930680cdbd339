"""Controls made before."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from longvie_cli.disk.hashing import hash_file
from longvie_cli.progress import Progress
from longvie_cli.settings.presets import Fit, Preset
from longvie_cli.sources.source import Kind, PlayedControls, Source, played_facts
from longvie_cli.timeline import ClipSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from longvie_cli.controls.files import ControlClips
    from longvie_cli.media.scenes import SceneChange


@dataclass(frozen=True)
class FolderSource(Source):
    """Controls made before, in the released format."""

    path: Path
    preset: Preset
    fit: Fit
    progress: Progress
    pingpong: bool = False
    first_frame: int = 0
    kind: ClassVar[Kind] = "controls"

    @property
    def name(self) -> str:
        return self.path.absolute().name

    @cached_property
    def _controls(self) -> ControlClips:
        from longvie_cli.controls.files import load_control_clips

        return load_control_clips(self.path, self.preset.geometry, progress=self.progress)

    @cached_property
    def _played(self) -> PlayedControls:
        return PlayedControls(
            self._controls, self.first_frame, self.pingpong, self.preset, self.fit
        )

    @property
    def location(self) -> Path:
        return self.path

    @property
    def used_fit(self) -> Fit:
        return self.fit

    def files(self) -> list[tuple[str, Path]]:
        clips = self._controls.clips
        paths = [path for clip in clips for path in (clip.depth, clip.track)]
        return [("controls", path) for path in (*paths, *self._controls.scene_images)]

    def frames_left(self, wanted: int | None) -> int | None:
        return None if self.pingpong else max(0, self._controls.num_frames - self.first_frame)

    def facts(self) -> dict[str, Any]:
        files = [path for clip in self._controls.clips for path in (clip.depth, clip.track)]
        return {
            "controls": self.name,
            "controls_hashes": [hash_file(path) for path in files],
            "controls_pictures": [hash_file(path) for path in self._controls.scene_images],
        } | played_facts(self)

    def conversions(self) -> list[str]:
        controls, preset = self._controls, self.preset
        if (controls.height, controls.width) == (preset.height, preset.width):
            return []
        return [
            f"{self.name}: control pictures of {controls.width}x{controls.height} are brought to "
            f"{preset.width}x{preset.height} ({self.fit})."
        ]

    def picture(self, frame: int) -> NDArray[np.uint8] | None:
        from longvie_cli.media.image import read_image

        stored = self._controls.scene_image(self.first_frame + frame)
        if stored is None:
            return None
        size = {"height": self.preset.height, "width": self.preset.width}
        return read_image(stored, **size, fit=self.fit)

    def scene_changes(self, num_frames: int, progress: Progress) -> tuple[SceneChange, ...]:
        from longvie_cli.media.scenes import SceneChange

        if self.pingpong:
            return tuple(SceneChange(cut, cut) for cut in self._controls.cuts)
        cuts = (cut - self.first_frame for cut in self._controls.cuts)
        return tuple(SceneChange(cut, cut) for cut in cuts if 0 < cut < num_frames)

    def caption(self, spec: ClipSpec) -> str:
        return self._played.text(spec)

    def prepare(self, folder: Path, num_frames: int, progress: Progress) -> PlayedControls:
        return self._played
