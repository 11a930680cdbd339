"""Long videos become samples: looked through once, then cut, extracted and stored in stretches.

A stretch is a row of clips of one scene, two minutes at most. Its frames go into a scratch video,
its controls into a control folder, as `extract-controls` makes it, and its clips into the shards;
then its line is in the journal and the scratch goes. Killed anywhere, the next call goes on with
the stretch that has no line. Each video is decoded twice: to look at it, and to cut it.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from longvie_cli.controls.control_folder import make_control_folder, read_depth_range
from longvie_cli.controls.depth import DepthEstimator
from longvie_cli.controls.extraction import Smoothing, VideoControls
from longvie_cli.controls.normalization import DepthRange
from longvie_cli.controls.tracks import PointTracker
from longvie_cli.disk.checksums import checksummed_json, read_checksummed_json
from longvie_cli.disk.documents import MAX_JSON_BYTES, read_document
from longvie_cli.disk.durable import is_passing, make_folder, storage_error, write_atomic
from longvie_cli.disk.hashing import fingerprint, hash_file
from longvie_cli.errors import (
    ControlError,
    InputError,
    MediaError,
    OutputConflictError,
    SettingsError,
)
from longvie_cli.media.ffmpeg import DamagedVideoError
from longvie_cli.media.frames import Frame, resize_frame
from longvie_cli.media.probe import SourceVideo, probe_video
from longvie_cli.media.reader import count_sound_frames, read_frames, read_written
from longvie_cli.media.scenes import SceneScan, scan_scenes
from longvie_cli.media.writer import VideoWriter, written_video
from longvie_cli.progress import Progress
from longvie_cli.settings.presets import Fit, Preset
from longvie_cli.sources.conversions import describe_conversion
from longvie_cli.sources.source import control_layout
from longvie_cli.training.captioner import Captioner
from longvie_cli.training.captions import Caption
from longvie_cli.training.clip_choice import (
    Dropped,
    Motion,
    PlannedClip,
    Reason,
    Stretch,
    choose_clips,
    motion_lag,
    stretches,
)
from longvie_cli.training.sample_store import (
    INDEX_NAME,
    SHARD_BYTES,
    UNFINISHED_NAME,
    ShardWriter,
    StoreIndex,
    check_shard,
    is_store_name,
    read_index,
    write_index,
)

HISTORY_FRAMES = 16
"""Frames before a clip that go along: a stage draws 4, 8, 12 or 16 of them (spec 7.4 C)."""

# Videos that are shown in a loop often end in a dissolve, back to where they began.
_HELD_FRAMES = 16

# The scratch video is read once more and gone: as good as 8 bits of luma and half the colours get.
_SCRATCH_CRF = 1
# Frames that are read back as numbers, as those of the controls.
_SAMPLE_CRF = 10

_REQUEST_NAME = "request.json"
# The console draws it as a part of `clips`.
_INNER_STAGE = "controls"


class CaptionSource(Protocol):
    """Where captions stand."""

    def of(self, video: Path) -> Caption:
        """Return the caption of a video.

        Raises:
            SettingsError: Its file cannot be read.
        """


@dataclass(frozen=True)
class SampleRecipe:
    """What samples are like, whatever videos they are made of.

    Args:
        preset: Sizes and clip length.
        fit: How videos come to the size of the controls; from there to the size of the model
            everything is stretched, as in a generation.
        uncaptioned: Whether clips without a caption are kept.
        captioner: Name of the model that captions clips without a caption; None: none does.
        controls: What depth and tracks are made with, as JSON without absolute paths.
        history_frames: Most frames before a clip.
    """

    preset: Preset
    fit: Fit
    uncaptioned: Literal["drop", "empty"]
    controls: Mapping[str, Any]
    history_frames: int = HISTORY_FRAMES
    captioner: str | None = None

    def settings(self) -> dict[str, Any]:
        """Return everything that decides samples of given videos, as JSON."""
        preset = self.preset
        return {
            "clip_frames": preset.num_frames,
            "fps": preset.fps,
            "size": [preset.width, preset.height],
            "control_size": list(reversed(preset.control_size)),
            "fit": self.fit,
            "history_frames": self.history_frames,
            "track_grid": [preset.track_grid.columns, preset.track_grid.rows],
            "uncaptioned": self.uncaptioned,
            "captioner": self.captioner,
            **self.controls,
        }


@dataclass(frozen=True)
class Extractors:
    """The models that samples are made with, loaded or not; `captioner` None: nobody is asked."""

    depth: DepthEstimator
    smoothing: Smoothing
    tracker: PointTracker
    captioner: Captioner | None = None


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class VideoPlan(_Stored):
    """What becomes of one video.

    Args:
        name: Of the file.
        hash: Of its bytes; empty where it cannot be read.
        num_frames: Frames at the preset's fps, counted by decoding; 0 where it cannot be read.
        scenes: How many there are.
        clips: What samples are made of.
        dropped: What is left out.
        notes: What happens to its pictures on the way, in words.
    """

    name: str
    hash: str
    num_frames: Annotated[int, Field(ge=0)] = 0
    scenes: Annotated[int, Field(ge=0)] = 0
    clips: tuple[PlannedClip, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """What a preparation made.

    Args:
        samples: How many clips are stored.
        dropped: By reason.
    """

    samples: int
    dropped: Mapping[str, int]


class Preparation:
    """The samples of some videos, on their way into a folder.

    Args:
        folder: Where they go.
        videos: In the order in which their samples come.
        captions: Where their captions stand.
        recipe: What samples are like.
        progress: Told of everything.
    """

    def __init__(
        self,
        folder: Path,
        videos: Sequence[Path],
        captions: CaptionSource,
        recipe: SampleRecipe,
        progress: Progress,
    ) -> None:
        self._folder = folder
        self._work = folder / UNFINISHED_NAME
        self._videos = videos
        self._captions = captions
        self._recipe = recipe
        self._progress = progress

    @cached_property
    def _looked_at(self) -> list[_Video]:
        known: set[str] = set()
        found = []
        self._progress.start("hashing videos", len(self._videos))
        for path in self._videos:
            video = _Video(path, self._captions)
            video.is_known = bool(video.hash) and video.hash in known
            known.add(video.hash)
            found.append(video)
            self._progress.advance("hashing videos")
        self._progress.finish("hashing videos")
        return found

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the samples: recipe, and videos and captions by their hashes."""
        videos = [[video.path.name, video.hash, video.caption_hash] for video in self._looked_at]
        settings: dict[str, Any] = json.loads(
            json.dumps({**self._recipe.settings(), "videos": videos})
        )
        return settings

    def finished(self, *, overwrite: bool) -> StoreIndex | None:
        """Return the index if these very samples are made, None if they are to be made.

        Raises:
            OutputConflictError: The folder holds others, and they are not to be replaced.
            InputError: Its index is damaged, and it is not to be replaced.
        """
        if not (self._folder / INDEX_NAME).exists():
            return None
        try:
            index = read_index(self._folder)
        except InputError:
            if overwrite:
                return None
            raise
        if index.settings == self.settings:
            return index
        if overwrite:
            return None
        raise OutputConflictError(
            f"{self._folder}: it holds samples {_difference(index.settings, self.settings)}.",
            hint="Choose another folder, or pass --overwrite to replace them.",
        )

    def plans(self) -> tuple[VideoPlan, ...]:
        """Return what becomes of each video, looking through those that no plan is kept of.

        Writes nothing.

        Raises:
            ResumableError: The disk failed.
        """
        ours = self._begun_with() == self.settings
        return tuple(
            (self._kept_plan(number) if ours else None) or self._look_through(number)
            for number in range(len(self._videos))
        )

    def _look_through(self, number: int) -> VideoPlan:
        return _look_through(self._looked_at[number], self._recipe, self._progress)

    def _kept_plan(self, number: int) -> VideoPlan | None:
        return _kept_plan(self._plan_path(number), self._looked_at[number].hash)

    def _plan_path(self, number: int) -> Path:
        return self._work / f"video-{number:05d}.json"

    def _begun_with(self) -> dict[str, Any] | None:
        path = self._work / _REQUEST_NAME
        try:
            return read_checksummed_json(read_document(path, MAX_JSON_BYTES))
        except OSError as error:
            if is_passing(error):
                raise storage_error(path, error) from error
            return None
        except ValueError:
            return {}

    @contextmanager
    def opened(self, *, overwrite: bool) -> Iterator[None]:
        """Make the folder ours while the block runs, removing what is to be replaced.

        Raises:
            OutputConflictError: It holds other samples, a link, or another process works on it.
            ResumableError: The disk failed.
        """
        _refuse_link(self._work)
        try:
            make_folder(self._work)
        except OSError as error:
            raise storage_error(self._work, error) from error
        lock = FileLock(self._work / "lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise OutputConflictError(
                f"{self._folder}: another process prepares these samples.",
                hint="Wait for it, stop it, or choose another folder.",
            ) from error
        except OSError as error:
            raise storage_error(self._work / "lock", error) from error
        try:
            self._claim(overwrite=overwrite)
            yield
        finally:
            lock.release()

    def _claim(self, *, overwrite: bool) -> None:
        ours = [path for path in self._folder.iterdir() if is_store_name(path.name)]
        for path in ours:
            _refuse_link(path)
        begun = self._begun_with()
        if begun == self.settings and not (self._folder / INDEX_NAME).exists():
            return
        if (ours or begun) and not overwrite:
            raise OutputConflictError(
                f"{self._folder}: it holds samples {_difference(begun or {}, self.settings)}.",
                hint="Choose another folder, or pass --overwrite to replace them.",
            )
        # The index first: without it nobody takes the rest for complete.
        for path in sorted(ours, key=lambda path: path.name != INDEX_NAME):
            _remove(path)
        for path in self._work.iterdir():
            if path.name != "lock":
                _remove(path)
        write_atomic(self._work / _REQUEST_NAME, checksummed_json(self.settings))

    def keep_plans(self) -> tuple[VideoPlan, ...]:
        """Return `plans`, each written down once it is made, so that no video is looked at again.

        Raises:
            ResumableError: The disk is full or failed.
        """
        plans = []
        for number in range(len(self._videos)):
            plan = self._kept_plan(number)
            if plan is None:
                plan = self._look_through(number)
                text = checksummed_json(plan.model_dump(mode="json"))
                write_atomic(self._plan_path(number), text)
            plans.append(plan)
        return tuple(plans)

    def carry_out(
        self, plans: Sequence[VideoPlan], extractors: Extractors, *, shard_bytes: int = SHARD_BYTES
    ) -> Prepared:
        """Make the samples that are missing, check all of them, and write the index.

        Args:
            plans: Of the videos, in order, with one clip at least.
            extractors: Loaded.
            shard_bytes: Size of a shard.

        Raises:
            InputError: Not one sample could be made, or a shard is damaged.
            ResumableError: The disk is full or failed.
        """
        writer = ShardWriter(self._folder, shard_bytes=shard_bytes)
        total = sum(len(plan.clips) for plan in plans)
        self._progress.start("clips", total, done=self._num_done(plans, writer))
        try:
            for number, plan in enumerate(plans):
                self._make(number, plan, writer, extractors)
            shards = writer.finish()
        finally:
            writer.close()
        self._progress.finish("clips")
        dropped = Counter(dropped_by_reason(plans))
        for line in writer.lines.values():
            for each in line.dropped:
                dropped[each.reason] += each.count
        if not shards:
            raise nothing_kept(dropped)
        preset, (height, width) = self._recipe.preset, self._recipe.preset.control_size
        index = StoreIndex(
            schema_version=1,
            num_frames=preset.num_frames,
            fps=preset.fps,
            height=preset.height,
            width=preset.width,
            control_height=height,
            control_width=width,
            history_frames=self._recipe.history_frames,
            samples=writer.num_samples,
            dropped=dict(sorted(dropped.items())),
            shards=shards,
            settings=self.settings,
        )
        self.check(index)
        write_index(self._folder, index)
        self.clear()
        return Prepared(index.samples, index.dropped)

    def check(self, index: StoreIndex) -> None:
        """Compare every stored file with its hash.

        Raises:
            InputError: One is damaged or missing; names its shard.
        """
        self._progress.start("checking", index.samples)
        for shard, summary in enumerate(index.shards):
            self._progress.advance("checking", check_shard(self._folder, shard, summary))
        self._progress.finish("checking")

    def clear(self) -> None:
        """Remove what only an unfinished preparation needs."""
        shutil.rmtree(self._work, ignore_errors=True)

    def _num_done(self, plans: Sequence[VideoPlan], writer: ShardWriter) -> int:
        geometry = self._recipe.preset.geometry
        return sum(
            len(row.clips)
            for number, plan in enumerate(plans)
            for place, row in enumerate(stretches(plan.clips, geometry))
            if (number, place) in writer.lines
        )

    def _make(
        self, number: int, plan: VideoPlan, writer: ShardWriter, extractors: Extractors
    ) -> None:
        rows = stretches(plan.clips, self._recipe.preset.geometry)
        ranges: dict[int, tuple[float, float]] = {}
        reading: _Reading | None = None
        for place, row in enumerate(rows):
            line = writer.lines.get((number, place))
            scene = row.clips[0].scene
            if line is None:
                reading = reading or self._reading(number, plan)
                self._make_stretch(number, place, row, writer, extractors, reading, ranges)
                line = writer.lines[number, place]
            if line.depth_range is not None:
                ranges.setdefault(scene, line.depth_range)
        if reading is not None:
            reading.close()

    def _reading(self, number: int, plan: VideoPlan) -> _Reading:
        height, width = self._recipe.preset.control_size
        video = probe_video(self._looked_at[number].path)

        def frames(start: int) -> Iterator[Frame]:
            try:
                yield from read_frames(
                    video,
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

        return _Reading(frames, self._recipe.history_frames + 1)

    def _make_stretch(
        self,
        number: int,
        place: int,
        row: Stretch,
        writer: ShardWriter,
        extractors: Extractors,
        reading: _Reading,
        ranges: Mapping[int, tuple[float, float]],
    ) -> None:
        scratch = self._work / f"stretch-{number:05d}-{place:05d}"
        _remove_others(self._work, scratch)
        known = ranges.get(row.clips[0].scene)
        try:
            video = self._cut(scratch, row, reading)
            controls = scratch / "controls"
            make_control_folder(
                self._source(video, row, extractors, known),
                controls,
                progress=_Inner(self._progress),
                mend=True,
            )
        except DamagedVideoError as error:
            self._leave_out(writer, (number, place), row, "damaged", error.message)
            return
        except ControlError as error:
            self._leave_out(writer, (number, place), row, "no_depth", error.message)
            return
        used = read_depth_range(controls)
        bounds = (used.low, used.high)
        dropped: list[Dropped] = []
        files = self._files(number, row, video, controls, bounds, extractors.captioner, dropped)
        writer.append(number, place, files, dropped=dropped, depth_range=bounds)
        # All at once: the time of one clip is what its stretch took, divided.
        self._progress.advance("clips", len(row.clips), detail=self._videos[number].name)
        shutil.rmtree(scratch, ignore_errors=True)

    def _leave_out(
        self,
        writer: ShardWriter,
        where: tuple[int, int],
        row: Stretch,
        reason: Reason,
        detail: str,
    ) -> None:
        self._progress.warning(f"{self._videos[where[0]].name}: {detail}")
        count = len(row.clips)
        writer.append(*where, iter(()), dropped=[Dropped(reason=reason, count=count)])
        self._progress.advance("clips", count)

    def _cut(self, scratch: Path, row: Stretch, reading: _Reading) -> SourceVideo:
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
                for frame in reading.frames(first, end):
                    writer.write(frame)
        return written_video(
            path, height=height, width=width, fps=preset.fps, num_frames=end - first
        )

    def _source(
        self,
        video: SourceVideo,
        row: Stretch,
        extractors: Extractors,
        known: tuple[float, float] | None,
    ) -> VideoControls:
        history = row.clips[0].history_frames
        return VideoControls(
            video,
            control_layout(self._recipe.preset, None if known is None else DepthRange(*known)),
            fit="stretch",
            depth=extractors.depth,
            smoothing=extractors.smoothing,
            tracker=extractors.tracker,
            start_frame=history,
            num_frames=video.num_frames - history,
        )

    def _files(
        self,
        number: int,
        row: Stretch,
        video: SourceVideo,
        controls: Path,
        depth_range: tuple[float, float],
        captioner: Captioner | None,
        dropped: list[Dropped],
    ) -> Iterator[dict[str, bytes]]:
        """Yield the files of each clip of a stretch; what gets no caption goes to `dropped`."""
        preset = self._recipe.preset
        read = _Reading(
            lambda start: _from(read_written([video]), start), _most_shared(row, preset)
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
                for index, frame in enumerate(read.frames(first - offset, end - offset)):
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
                "json": _facts(self._looked_at[number], clip, preset, depth_range),
                "video.mp4": path.read_bytes(),
                "depth.mp4": (controls / f"depth_{place:04d}.mp4").read_bytes(),
                "track.mp4": (controls / f"track_{place:04d}.mp4").read_bytes(),
            }
        read.close()


class _Video:
    """A video as it was named, the hash of its bytes, and its caption."""

    def __init__(self, path: Path, captions: CaptionSource) -> None:
        self.path = path
        self.is_known = False
        self.hash = _hash(path)
        self.caption = Caption()
        self.caption_trouble = ""
        try:
            self.caption = captions.of(path)
        except SettingsError as error:
            self.caption_trouble = error.message

    @property
    def caption_hash(self) -> str:
        """What tells whether its caption is still the same."""
        prompts = [prompt.model_dump(mode="json") for prompt in self.caption.prompts]
        return fingerprint({"prompts": prompts, "unreadable": bool(self.caption_trouble)})


def nothing_kept(dropped: Mapping[str, int]) -> InputError:
    """Return the error where not one sample is left."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
    return InputError(
        f"Not one sample is left of these videos: {reasons or 'they have no clip'}.",
        hint="The lines above say why; `--dry-run` shows the plan of each video. Captions stand in "
        "NAME.txt beside NAME.mp4 or in --captions FILE, or pass --uncaptioned empty.",
    )


def dropped_by_reason(plans: Iterable[VideoPlan]) -> dict[str, int]:
    """Return how often something of these videos is left out for each reason."""
    counts: Counter[str] = Counter()
    for plan in plans:
        for each in plan.dropped:
            counts[each.reason] += each.count
    return dict(sorted(counts.items()))


def _look_through(video: _Video, recipe: SampleRecipe, progress: Progress) -> VideoPlan:
    """Decode a video once: count its frames, find its scenes, choose its clips."""
    name = video.path.name

    def left_out(reason: Reason, detail: str) -> VideoPlan:
        dropped = (Dropped(reason=reason, count=1, detail=detail),)
        return VideoPlan(name=name, hash=video.hash, dropped=dropped)

    if video.is_known:
        return left_out("duplicate", f"{video.path}: the same bytes were given before.")
    if video.caption_trouble:
        return left_out("bad_caption", video.caption_trouble)
    geometry = recipe.preset.geometry
    height, width = recipe.preset.control_size
    motion = Motion(motion_lag(geometry))
    damage: tuple[Dropped, ...] = ()
    try:
        source = probe_video(video.path)
        notes = describe_conversion(
            source, height=height, width=width, fps=geometry.fps, fit=recipe.fit
        )
        try:
            scan = _scan(source, geometry.fps, motion, progress, None)
        except DamagedVideoError as error:
            readable = count_sound_frames(source, fps=geometry.fps)
            if readable < 1:
                return left_out("unreadable", error.message)
            damage = (Dropped(reason="damaged", count=1, detail=error.message),)
            motion = Motion(motion_lag(geometry))
            scan = _scan(source, geometry.fps, motion, progress, readable)
    except MediaError as error:
        return left_out("unreadable", error.message)
    clips, dropped = choose_clips(
        scan,
        motion,
        geometry,
        video.caption,
        history_frames=recipe.history_frames,
        uncaptioned="empty" if recipe.captioner else recipe.uncaptioned,
    )
    return VideoPlan(
        name=name,
        hash=video.hash,
        num_frames=scan.num_frames,
        scenes=len(scan.changes) + 1,
        clips=clips,
        dropped=(*damage, *dropped),
        notes=tuple(notes),
    )


def _scan(
    source: SourceVideo, fps: int, motion: Motion, progress: Progress, num_frames: int | None
) -> SceneScan:
    stage = f"looking through {source.path.name}"
    expected = round(source.duration_seconds * fps) if num_frames is None else num_frames
    progress.start(stage, expected)
    done = 0
    try:
        for found in scan_scenes(
            source, fps=fps, num_frames=num_frames, watch=motion, held_frames=_HELD_FRAMES
        ):
            if isinstance(found, SceneScan):
                return found
            progress.advance(stage, found - done)
            done = found
    finally:
        progress.finish(stage)
    raise AssertionError("a scan ends with what it found")


def _kept_plan(path: Path, content: str) -> VideoPlan | None:
    try:
        stored = read_checksummed_json(read_document(path, MAX_JSON_BYTES))
        plan = VideoPlan.model_validate_json(json.dumps(stored))
    except OSError as error:
        if is_passing(error):
            raise storage_error(path, error) from error
        return None
    except (ValueError, ValidationError):
        return None  # Looked through again.
    return plan if plan.hash == content else None


def _hash(path: Path) -> str:
    try:
        return hash_file(path)
    except OSError:
        return ""  # Looking at it says what is wrong.


def _difference(made_with: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    for key, value in wanted.items():
        if key == "videos" and made_with.get(key) != value:
            return "of other videos or captions"
        if made_with.get(key) != value:
            return f"made with {key} {made_with.get(key)}, not {value}"
    return "made otherwise"


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise OutputConflictError(
            f"{path}: is a link; nothing outside this folder is written.",
            hint="Put what it points to in its place, or remove it.",
        )


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error


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
    video: _Video, clip: PlannedClip, preset: Preset, depth_range: tuple[float, float]
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


class _Reading:
    """Reads ranges of frames that go forward, decoding once; the last few are kept for overlaps."""

    def __init__(self, begin: Callable[[int], Iterator[Frame]], keep: int) -> None:
        self._begin = begin
        self._frames: Iterator[Frame] | None = None
        self._kept: deque[Frame] = deque(maxlen=keep)
        self._next = 0

    def frames(self, first: int, end: int) -> Iterator[Frame]:
        """Yield the frames from `first` to the one before `end`."""
        if self._frames is None or first < self._next - len(self._kept):
            self.close()
            self._frames, self._next = self._begin(first), first
            self._kept.clear()
        frames = self._frames
        assert frames is not None, "just begun"
        yield from list(self._kept)[len(self._kept) - max(0, self._next - first) :]
        while self._next < end:
            try:
                frame = np.array(next(frames))
            except BaseException:
                self._frames = None
                raise
            wanted = self._next >= first
            self._next += 1
            self._kept.append(frame)
            if wanted:
                yield frame

    def close(self) -> None:
        """End the decoding."""
        if self._frames is not None:
            self._frames.close()  # type: ignore[attr-defined]  # a generator of the reader's
            self._frames = None


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
