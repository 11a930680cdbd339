"""The samples of a stretch: its frames cut out, its controls made, its clips put into the shards.

A stretch is a row of clips of one scene. Its frames go into a scratch video, its controls into a
control folder, as `extract-controls` makes it, and its clips into the shards; then its line is in
the journal and the scratch goes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from longvie_cli.controls.control_folder import make_control_folder, read_depth_range
from longvie_cli.controls.extraction import Extractors, VideoControls
from longvie_cli.controls.normalization import DepthRange
from longvie_cli.disk.durable import make_folder, storage_error
from longvie_cli.errors import ControlError, MediaError
from longvie_cli.media.ffmpeg import DamagedVideoError
from longvie_cli.media.frames import Frame, resize_frame
from longvie_cli.media.probe import SourceVideo, probe_video
from longvie_cli.media.reader import read_frames, read_written
from longvie_cli.media.writer import VideoWriter, written_video
from longvie_cli.progress import Progress
from longvie_cli.settings.presets import Preset
from longvie_cli.sources.source import control_layout
from longvie_cli.training.captioner import Captioner
from longvie_cli.training.clip_choice import Dropped, PlannedClip, Reason, Stretch, stretches
from longvie_cli.training.frame_ranges import FrameRanges
from longvie_cli.training.sample_recipe import SampleRecipe
from longvie_cli.training.shard_writer import ShardWriter
from longvie_cli.training.video_plan import GivenVideo, VideoPlan

# The scratch video is read once more and gone: as good as 8 bits of luma and half the colours get.
_SCRATCH_CRF = 1
# Frames that are read back as numbers, as those of the controls.
_SAMPLE_CRF = 10

# The console draws it as a part of `clips`.
_INNER_STAGE = "controls"


class SampleMaker:
    """Makes the samples of videos that no line of the journal tells of.

    Args:
        work: Folder of the scratch.
        recipe: What samples are like.
        extractors: Loaded.
        captioner: Captions clips without a caption; None: none does.
        writer: Of the shards.
        progress: Told of clips, stage `clips`.
    """

    def __init__(
        self,
        work: Path,
        recipe: SampleRecipe,
        extractors: Extractors,
        captioner: Captioner | None,
        writer: ShardWriter,
        progress: Progress,
    ) -> None:
        self._work = work
        self._recipe = recipe
        self._extractors = extractors
        self._captioner = captioner
        self._writer = writer
        self._progress = progress

    def make(self, number: int, video: GivenVideo, plan: VideoPlan) -> None:
        """Make the samples that are missing of a video.

        Args:
            number: Its number among the videos.
            video: Where it lies.
            plan: What becomes of it.

        Raises:
            ResumableError: The disk is full or failed.
        """
        ranges: dict[int, tuple[float, float]] = {}
        reading: FrameRanges | None = None
        for place, row in enumerate(stretches(plan.clips, self._recipe.preset.geometry)):
            where = number, place
            scene = row.clips[0].scene
            if where not in self._writer.lines:
                reading = reading or self._reading(video, plan)
                self._make_stretch(where, video, row, reading, ranges.get(scene))
            line = self._writer.lines[where]
            if line.depth_range is not None:
                ranges.setdefault(scene, line.depth_range)
        if reading is not None:
            reading.close()

    def _reading(self, video: GivenVideo, plan: VideoPlan) -> FrameRanges:
        height, width = self._recipe.preset.control_size
        source = probe_video(video.path)

        def frames(start: int) -> Iterator[Frame]:
            try:
                yield from read_frames(
                    source,
                    fps=self._recipe.preset.fps,
                    height=height,
                    width=width,
                    fit=self._recipe.fit,
                    start_frame=start,
                    num_frames=plan.num_frames - start,
                )
            except MediaError as error:
                # Looked through it had these frames, small; whatever is wrong is the file's.
                raise DamagedVideoError(error.message) from error

        return FrameRanges(frames, self._recipe.history_frames + 1)

    def _make_stretch(
        self,
        where: tuple[int, int],
        video: GivenVideo,
        row: Stretch,
        reading: FrameRanges,
        known: tuple[float, float] | None,
    ) -> None:
        scratch = self._work / f"stretch-{where[0]:05d}-{where[1]:05d}"
        _remove_others(self._work, scratch)
        try:
            stretch = self._cut(scratch, row, reading)
            controls = scratch / "controls"
            make_control_folder(
                self._source(stretch, row, known),
                controls,
                progress=_Inner(self._progress),
                mend=True,
            )
        except DamagedVideoError as error:
            self._leave_out(where, video, row, "damaged", error.message)
            return
        except ControlError as error:
            self._leave_out(where, video, row, "no_depth", error.message)
            return
        used = read_depth_range(controls)
        bounds = (used.low, used.high)
        dropped: list[Dropped] = []
        files = self._files(video, row, stretch, controls, bounds, dropped)
        self._writer.append(*where, files, dropped=dropped, depth_range=bounds)
        # All at once: the time of one clip is what its stretch took, divided.
        self._progress.advance("clips", len(row.clips), detail=video.path.name)
        shutil.rmtree(scratch, ignore_errors=True)

    def _leave_out(
        self, where: tuple[int, int], video: GivenVideo, row: Stretch, reason: Reason, detail: str
    ) -> None:
        self._progress.warning(f"{video.path.name}: {detail}")
        count = len(row.clips)
        self._writer.append(*where, iter(()), dropped=[Dropped(reason=reason, count=count)])
        self._progress.advance("clips", count)

    def _cut(self, scratch: Path, row: Stretch, reading: FrameRanges) -> SourceVideo:
        """Return the frames of a stretch, history included, as a video at the controls' size."""
        preset = self._recipe.preset
        height, width = preset.control_size
        path = scratch / "stretch.mp4"
        first, end = row.first_frame, row.clips[-1].first_frame + preset.num_frames
        if not path.is_file():
            try:
                make_folder(scratch)
            except OSError as error:
                raise storage_error(scratch, error) from error
            with VideoWriter(
                path, height=height, width=width, fps=preset.fps, crf=_SCRATCH_CRF
            ) as writer:
                for frame in reading.read(first, end):
                    writer.write(frame)
        return written_video(
            path, height=height, width=width, fps=preset.fps, num_frames=end - first
        )

    def _source(
        self,
        stretch: SourceVideo,
        row: Stretch,
        known: tuple[float, float] | None,
    ) -> VideoControls:
        history = row.clips[0].history_frames
        return VideoControls(
            stretch,
            control_layout(self._recipe.preset, None if known is None else DepthRange(*known)),
            self._extractors,
            fit="stretch",
            start_frame=history,
            num_frames=stretch.num_frames - history,
        )

    def _files(
        self,
        video: GivenVideo,
        row: Stretch,
        stretch: SourceVideo,
        controls: Path,
        depth_range: tuple[float, float],
        dropped: list[Dropped],
    ) -> Iterator[dict[str, bytes]]:
        """Yield the files of each clip of a stretch; what gets no caption goes to `dropped`."""
        preset, captioner = self._recipe.preset, self._captioner
        reading = FrameRanges(
            lambda start: _from(read_written([stretch]), start), _most_shared(row, preset)
        )
        offset = row.first_frame
        for place, clip in enumerate(row.clips):
            first, end = (
                clip.first_frame - clip.history_frames,
                clip.first_frame + preset.num_frames,
            )
            path = controls.parent / "clip.mp4"
            with VideoWriter(
                path, height=preset.height, width=preset.width, fps=preset.fps, crf=_SAMPLE_CRF
            ) as writer:
                for index, frame in enumerate(reading.read(first - offset, end - offset)):
                    if index == clip.history_frames + preset.num_frames // 2:
                        middle = frame
                    # As the controls come to this size in a generation.
                    writer.write(resize_frame(frame, preset.height, preset.width, "stretch"))
            if captioner is not None and not clip.caption:
                clip = clip.model_copy(update={"caption": captioner.caption(middle)})
                if not clip.caption and self._recipe.uncaptioned == "drop":
                    dropped.append(Dropped(reason="no_caption", count=1))
                    continue
            yield {
                "json": _facts(video, clip, preset, depth_range),
                "video.mp4": path.read_bytes(),
                "depth.mp4": (controls / f"depth_{place:04d}.mp4").read_bytes(),
                "track.mp4": (controls / f"track_{place:04d}.mp4").read_bytes(),
            }
        reading.close()


def _remove_others(folder: Path, kept: Path) -> None:
    """Remove the scratch of stretches that are in the shards."""
    for path in folder.glob("stretch-*"):
        if path != kept:
            shutil.rmtree(path, ignore_errors=True)


def _most_shared(row: Stretch, preset: Preset) -> int:
    """Return how many frames of a clip the next one of a stretch begins with, history included."""
    shared = [
        before.first_frame + preset.num_frames - (clip.first_frame - clip.history_frames)
        for before, clip in pairwise(row.clips)
    ]
    return max(shared, default=1)


def _from(frames: Iterator[Frame], start: int) -> Iterator[Frame]:
    for _ in range(start):
        next(frames)
    return frames


def _facts(
    video: GivenVideo, clip: PlannedClip, preset: Preset, depth_range: tuple[float, float]
) -> bytes:
    first, end = clip.first_frame, clip.first_frame + preset.num_frames
    facts = {
        "caption": clip.caption,
        "source": video.path.name,
        "source_hash": video.hash,
        "scene": clip.scene,
        "fps": preset.fps,
        "frames": [first, end],
        "seconds": [round(first / preset.fps, 3), round(end / preset.fps, 3)],
        "num_frames": preset.num_frames,
        "history_frames": clip.history_frames,
        "depth_range": list(depth_range),
    }
    return (json.dumps(facts, ensure_ascii=False, indent=1) + "\n").encode()


class _Inner:
    """Progress inside a stretch: its stages are bars on a terminal and never lines of their own."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.message = progress.message
        self.note = progress.note
        self.warning = progress.warning

    def start(self, stage: str, total: int, *, done: int = 0) -> None:
        self._progress.start(_INNER_STAGE, total, done=done)

    def advance(self, stage: str, amount: int = 1, *, detail: str = "") -> None:
        self._progress.advance(_INNER_STAGE, amount, detail=stage)

    def finish(self, stage: str) -> None:
        self._progress.finish(_INNER_STAGE)
