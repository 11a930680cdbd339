"""A video whose depth and tracks are estimated."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from longvie_cli.disk.hashing import hash_file
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.settings.presets import Fit, Preset
from longvie_cli.settings.requests import AtCut
from longvie_cli.settings.tracking import TrackerChoice
from longvie_cli.sources.depth_choice import DepthChoice, ModelState
from longvie_cli.sources.source import (
    Kind,
    MadeSource,
    control_layout,
    pingpong_frame,
    played_facts,
    to_model_size,
)
from longvie_cli.timeline import ClipSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from longvie_cli.controls.control_folder import ControlSource
    from longvie_cli.controls.normalization import DepthRange
    from longvie_cli.media.probe import SourceVideo
    from longvie_cli.media.scenes import SceneChange, SceneScan


# A container's duration may be this many frames off what its frames give once resampled.
_COUNT_EXACTLY_WITHIN_FRAMES = 3


@dataclass(frozen=True)
class VideoSource(MadeSource):
    """A video whose depth and tracks are estimated.

    `fit` brings it to the size of the controls; from there to the size of the model everything is
    stretched, the first picture as well, so that controls and picture stay in place.
    """

    path: Path
    preset: Preset
    fit: Fit
    device: str
    pingpong: bool = False
    first_frame: int = 0
    depth_range: DepthRange | None = None
    depth: DepthChoice = field(default_factory=DepthChoice)
    at_cut: AtCut | None = None
    progress: Progress = field(default=SilentProgress(), compare=False)
    tracker: TrackerChoice = field(default_factory=TrackerChoice)
    accept_noncommercial: bool = False
    kind: ClassVar[Kind] = "video"

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def video(self) -> SourceVideo:
        """What the file holds."""
        from longvie_cli.media.probe import probe_video

        return probe_video(self.path)

    @cached_property
    def _exact_frames(self) -> int:
        return self._scan(None, self.progress).num_frames + self._made_from

    @property
    def location(self) -> Path:
        return self.path

    @property
    def depth_choice(self) -> DepthChoice:
        return self.depth

    @property
    def used_fit(self) -> Fit:
        return self.fit

    def files(self) -> list[tuple[str, Path]]:
        depth = [] if self.depth.video is None else [("depth", self.depth.video)]
        return [("source", self.path), *depth]

    def frames_left(self, wanted: int | None) -> int | None:
        if self.pingpong:
            return None
        roughly = math.floor(self.video.duration_seconds * self.preset.fps) - self.first_frame
        if wanted is not None and wanted < roughly - _COUNT_EXACTLY_WITHIN_FRAMES:
            return roughly
        return max(0, self._exact_frames - self.first_frame)

    def facts(self) -> dict[str, Any]:
        from longvie_cli.sources.tracker_choice import tracker_fact

        return (
            {
                "video": self.name,
                "video_hash": hash_file(self.path),
                "tracker": tracker_fact(self.tracker),
                "track_grid": self.preset.track_grid.label,
            }
            | self.depth.facts(self.preset)
            | played_facts(self)
        )

    def check_length(self, num_frames: int) -> None:
        # Played back and forth, any part of it may be shown.
        shown = self._exact_frames if self.pingpong else self.first_frame + num_frames
        self.depth.check_length(shown, fps=self.preset.fps, needed_by=self.name)

    def models(self) -> list[ModelState]:
        from longvie_cli.sources.tracker_choice import tracker_state

        tracker = tracker_state(self.tracker, accept_noncommercial=self.accept_noncommercial)
        return [self.depth.state(self.preset), tracker]

    def conversions(self) -> list[str]:
        from longvie_cli.sources.conversions import describe_conversion

        height, width = self.preset.control_size
        lines = describe_conversion(
            self.video, height=height, width=width, fps=self.preset.fps, fit=self.fit
        )
        return lines + self.depth.remarks(self.name, self.preset)

    def picture(self, frame: int) -> NDArray[np.uint8]:
        from longvie_cli.media.reader import read_frames

        frame += self.first_frame
        if self.pingpong:
            frame = pingpong_frame(frame, self._exact_frames)
        height, width = self.preset.control_size
        frames = read_frames(
            self.video,
            fps=self.preset.fps,
            height=height,
            width=width,
            fit=self.fit,
            start_frame=frame,
            num_frames=1,
        )
        return to_model_size(next(iter(frames)), self.preset)

    @cached_property
    def _scans(self) -> dict[int | None, SceneScan]:
        return {}

    def _scan(self, num_frames: int | None, progress: Progress) -> SceneScan:
        """Return what one decoding pass over the frames used finds; decodes them only once."""
        from longvie_cli.media.scenes import SceneScan, scan_scenes

        for scanned in (num_frames, None):
            if scanned in self._scans:
                return self._scans[scanned]
        fps, start = self.preset.fps, self._made_from
        expected = max(0, round(self.video.duration_seconds * fps) - start)
        stage = "looking for cuts"
        progress.start(stage, expected if num_frames is None else num_frames)
        done = 0
        for found in scan_scenes(self.video, fps=fps, start_frame=start, num_frames=num_frames):
            if isinstance(found, SceneScan):
                self._scans[num_frames] = found
            else:
                progress.advance(stage, found - done)
                done = found
        progress.finish(stage)
        return self._scans[num_frames]

    def scene_changes(self, num_frames: int, progress: Progress) -> tuple[SceneChange, ...]:
        if self.pingpong:
            return self._scan(None, progress).changes
        changes = self._scan(num_frames, progress).changes
        return tuple(change for change in changes if change.frame < num_frames)

    def caption(self, spec: ClipSpec) -> str:
        return ""

    def controls(self, num_frames: int, text: str, progress: Progress) -> ControlSource:
        from longvie_cli.controls.extraction import Extractors, VideoControls
        from longvie_cli.sources.tracker_choice import make_tracker

        changes = self.scene_changes(num_frames, progress) if self.at_cut == "restart" else ()
        cuts = tuple(change.frame for change in changes)
        extractors = Extractors(
            self.depth.load(
                self.video,
                preset=self.preset,
                fit=self.fit,
                device=self.device,
                progress=progress,
            ),
            make_tracker(
                self.tracker,
                device=self.device,
                accept_noncommercial=self.accept_noncommercial,
                progress=progress,
            ),
            self.depth.smoothing_used,
        )
        return VideoControls(
            self.video,
            control_layout(self.preset, self.depth_range, cuts),
            extractors,
            fit=self.fit,
            start_frame=self._made_from,
            num_frames=None if self.pingpong else num_frames,
            text=text,
        )

    def control_pictures(self, num_frames: int) -> Iterator[NDArray[np.uint8]]:
        from longvie_cli.media.reader import read_frames

        height, width = self.preset.control_size
        return read_frames(
            self.video,
            fps=self.preset.fps,
            height=height,
            width=width,
            fit=self.fit,
            start_frame=self.first_frame,
            num_frames=num_frames,
        )
