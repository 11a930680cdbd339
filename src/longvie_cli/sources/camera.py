"""A camera path: through a picture, or over a landscape."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.settings.camera_path import CameraPath
from longvie_cli.settings.presets import Fit, Preset
from longvie_cli.sources.depth_choice import DepthChoice, ModelState
from longvie_cli.sources.source import (
    Kind,
    MadeSource,
    control_layout,
    played_facts,
    to_model_size,
)
from longvie_cli.timeline import ClipSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from longvie_cli.controls.control_folder import ControlSource
    from longvie_cli.controls.normalization import DepthRange
    from longvie_cli.controls.picture_flight import PictureFlight
    from longvie_cli.worlds import Flight


@dataclass(frozen=True)
class CameraSource(MadeSource):
    """A camera path: through a picture, or over the landscape of a seed where there is none.

    Args:
        camera: The path; without an end, or as long as it says.
        preset: Model and sizes.
        fit: How a picture of another aspect is brought to the size.
        device: Of the depth estimator.
        seed: Of the landscape: all there is, or what goes on beyond the picture.
        image: File of the picture.
        pixels: The picture itself, [height, width, 3] of any size, where there is no file.
        fov: Horizontal field of view of the picture, in degrees.
        greys: Depth picture of the frame it goes on from, [height, width] as controls have it:
            greys go on from there as well as they can.
        depth: Which estimator gives the picture's depth.
        progress: Told of its licence.
    """

    camera: CameraPath
    preset: Preset
    fit: Fit
    device: str
    seed: int
    image: Path | None = None
    pixels: NDArray[np.uint8] | None = None
    fov: float = 55.0
    pingpong: bool = False
    first_frame: int = 0
    depth_range: DepthRange | None = None
    greys: NDArray[np.uint8] | None = None
    depth: DepthChoice = field(default_factory=DepthChoice)
    progress: Progress = field(default=SilentProgress(), compare=False)
    kind: ClassVar[Kind] = "camera"

    @property
    def name(self) -> str:
        where = f"landscape {self.seed}"
        if self.has_picture:
            where = self.image.name if self.image is not None else "the last frame"
        return f"camera through {where}"

    @property
    def has_picture(self) -> bool:
        """Whether it goes through a picture, which is then its first frame."""
        return self.image is not None or self.pixels is not None

    @property
    def depth_choice(self) -> DepthChoice:
        return self.depth

    @property
    def used_fit(self) -> Fit:
        return self.fit

    def files(self) -> list[tuple[str, Path]]:
        return [] if self.image is None else [("picture", self.image)]

    @cached_property
    def _scene_picture(self) -> NDArray[np.uint8]:
        """The picture at the size of the controls, [height, width, 3]."""
        from longvie_cli.media.frames import resize_frame
        from longvie_cli.media.image import read_image

        height, width = self.preset.control_size
        if self.image is not None:
            return read_image(self.image, height=height, width=width, fit=self.fit)
        assert self.pixels is not None, "only asked where there is a picture"
        return resize_frame(self.pixels, height, width, "stretch")

    @cached_property
    def _through_picture(self) -> PictureFlight:
        from longvie_cli.controls.picture_flight import PictureFlight

        return PictureFlight(
            self._scene_picture,
            self.depth.estimator(self.preset, device=self.device, progress=self.progress),
            self.camera,
            fps=self.preset.fps,
            fov_degrees=self.fov,
            seed=self.seed,
        )

    @cached_property
    def _over_landscape(self) -> Flight:
        from longvie_cli.worlds import Flight

        height, width = self.preset.control_size
        fps = self.preset.fps
        return Flight(self.seed, width=width, height=height, fps=fps, path=self.camera)

    @property
    def _num_frames(self) -> int | None:
        duration = self.camera.duration
        return None if duration is None else max(2, round(duration * self.preset.fps))

    def frames_left(self, wanted: int | None) -> int | None:
        if self.pingpong or self._num_frames is None:
            return None
        return max(0, self._num_frames - self.first_frame)

    def facts(self) -> dict[str, Any]:
        scene: dict[str, Any] = {"landscape": self.seed}
        if self.has_picture:
            digest = hashlib.sha256(self._scene_picture.tobytes()).hexdigest()
            scene |= {"camera_picture": digest[:32], "fov": self.fov}
            scene |= {"depth_model": self.depth.facts(self.preset)["depth_model"]}
        scene |= {"track_grid": self.preset.track_grid.label}
        return {"camera": str(self.camera)} | scene | played_facts(self)

    def models(self) -> list[ModelState]:
        return [self.depth.state(self.preset)] if self.has_picture else []

    def conversions(self) -> list[str]:
        if not self.has_picture:
            return []
        remarks = self.depth.remarks(self.name, self.preset)
        if self.image is None:
            return remarks
        from longvie_cli.media.image import describe_image, image_size
        from longvie_cli.sources.conversions import describe_fit

        size = image_size(self.image)
        fitted = describe_fit(self.image.name, size, self.preset.control_size, self.fit)
        return [*describe_image(self.image), *fitted, *remarks]

    def picture(self, frame: int) -> NDArray[np.uint8] | None:
        if not self.has_picture:
            picture = self._over_landscape.frame(self.first_frame + frame).rgb
        elif self.first_frame + frame == 0:
            picture = self._scene_picture
        else:
            return None
        return to_model_size(picture, self.preset)

    def caption(self, spec: ClipSpec) -> str:
        if self.has_picture:
            return ""
        start = self.first_frame + spec.first_frame
        return self._over_landscape.caption_at(start, self.preset.num_frames)

    def controls(self, num_frames: int, text: str, progress: Progress) -> ControlSource:
        from longvie_cli.controls.picture_flight import PictureControls, range_to_continue
        from longvie_cli.controls.procedural import FlightControls

        geometry, start = self.preset.geometry, self._made_from
        if self.pingpong and self._num_frames is not None:
            # Any part may come next, and the turning frame is the path's last.
            reach = self._num_frames
        else:
            # Past its end a path stands still; the last clip has frames of its own all the same.
            reach = geometry.frames_of_clips(geometry.num_clips(num_frames))
        depth_range = self.depth_range
        if not self.has_picture:
            layout = control_layout(self.preset, depth_range)
            return FlightControls(self._over_landscape, layout, reach, start_frame=start, text=text)
        if depth_range is None and self.greys is not None:
            depth_range = range_to_continue(self._through_picture.disparity(start), self.greys)
        layout = control_layout(self.preset, depth_range)
        return PictureControls(self._through_picture, layout, reach, start_frame=start, text=text)

    def control_pictures(self, num_frames: int) -> Iterator[NDArray[np.uint8]]:
        for index in range(self.first_frame, self.first_frame + num_frames):
            if self.has_picture:
                yield self._through_picture.seen(index)
            else:
                yield self._over_landscape.frame(index).rgb
