"""Making a folder of controls from whatever gives depth and tracks: in passes, resumable.

Pass 1 asks the source for the disparity of every frame and stores it as float16 in a scratch
folder; a source that steadies its estimates then reads them back and gives those to store. The
values are counted: that gives the percentiles of the whole video. Pass 2 writes the depth clip,
reads it back, and draws the clip's tracks, coloured and ordered by the depth so read (spec 6.2).

    depth_0000.mp4 track_0000.mp4 ...   the controls of each clip
    first.png                           frame 0 of the source
    first_0002.png                      the frame with which clip 2 begins a new scene
    normalization.json                  percentiles, number of frames, what all is made from
    cond.json                           written last: with it the folder is complete
    hashes.json                         of all these, so that damage is found
    preview.mp4 contact_sheet.png       to look at, where asked for (preview.py)
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from longvie_cli.controls.depth_store import DepthStore
from longvie_cli.controls.files import (
    CONDITIONS_NAME,
    FIRST_FRAME_NAME,
    NORMALIZATION_NAME,
    ControlFiles,
    read_normalization,
    scene_frame_name,
    write_conditions,
)
from longvie_cli.controls.normalization import DepthRange, PercentileSketch
from longvie_cli.controls.rendering import render_track_clip, track_grid
from longvie_cli.controls.tracks import PointTracks
from longvie_cli.controls.written_files import WrittenFiles
from longvie_cli.disk.checksums import checksummed_json
from longvie_cli.disk.durable import make_folder, storage_error, write_atomic
from longvie_cli.errors import ControlError, OutputConflictError
from longvie_cli.media.frames import png_bytes
from longvie_cli.media.probe import SourceVideo
from longvie_cli.media.reader import read_written
from longvie_cli.media.writer import PixelFormat, VideoWriter
from longvie_cli.progress import Progress
from longvie_cli.timeline import MAX_SECONDS, ClipGeometry, ClipSpec, plan_clips

# These pictures are read back as numbers, so they are stored finer than a video to look at. Of
# tracks the colours are: with half of them, as a video to look at has, a third of the points is not
# found again, and the files are larger (docs/experiments.md).
_CONTROL_CRF = 10
TRACK_PIXEL_FORMAT: PixelFormat = "yuv444p"
# Clips whose depth is read back by one ffmpeg; the progress moves after each clip.
_CLIPS_READ_BACK = 16

_SCHEMA_VERSION = 1
_SCRATCH_PREFIX = ".depth-"
_OWN_FILE = re.compile(
    r"((depth|track)_\d{4,}\.mp4|first(_\d{4,})?\.png|normalization\.json|cond\.json"
    r"|hashes\.json|preview\.mp4|contact_sheet\.png)(?P<part>\.part)?"
)


class ControlSource(Protocol):
    """Where depth and tracks come from."""

    @property
    def layout(self) -> ControlLayout:
        """What the controls look like."""

    @property
    def expected_frames(self) -> int:
        """Frames there will be, as far as is known before reading them."""

    def settings(self) -> dict[str, Any]:
        """Return everything that decides depth and tracks, as JSON without absolute paths."""

    def pictures(self, frames: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Yield some of the frames, [H, W, 3] RGB, asked for in ascending order."""

    @property
    def steadies(self) -> bool:
        """Whether the disparity is to be replaced by what `steady` makes of it."""

    def disparity(self, stored: DepthStore) -> Iterator[NDArray[np.float32]]:
        """Yield the disparity of all frames after those stored, larger is nearer.

        Every batch is [DEPTH_BATCH_FRAMES, H, W]; only the last may be shorter. Each is stored
        before the next is asked for.
        """

    def steady(self, raw: DepthStore, start_frame: int) -> Iterator[NDArray[np.float32]]:
        """Yield, in the same batches, the steady disparity from a frame on; `raw` is whole."""

    def track(self, start_frame: int, num_frames: int, points: NDArray[np.float32]) -> PointTracks:
        """Return where points [N, 2] of `start_frame` are in `num_frames` frames from it on."""

    def text(self, start_frame: int, num_frames: int) -> str:
        """Return the prompt of a clip for `cond.json`, empty where the source has none."""


@dataclass(frozen=True)
class ControlLayout:
    """What the controls in a folder look like.

    Args:
        geometry: Clip length and fps.
        height: Of the pictures.
        width: Of the pictures.
        track_columns: Points tracked across.
        track_rows: Points tracked down.
        depth_range: Use these percentiles and not the source's own, so that controls which continue
            others keep their grey levels.
        cuts: Frames with which the source's scenes begin: each begins a clip, with new tracks.
    """

    geometry: ClipGeometry
    height: int
    width: int
    track_columns: int
    track_rows: int
    depth_range: DepthRange | None = None
    cuts: tuple[int, ...] = ()


def make_control_folder(
    source: ControlSource,
    folder: Path,
    *,
    progress: Progress,
    overwrite: bool = False,
    mend: bool = False,
) -> Path:
    """Return the `cond.json` of a complete control folder, making what is missing of it.

    Stopped at any instant, the same call goes on where it stopped and gives the same control
    frames; a complete folder is left as it is. Memory does not grow with the length of the source.
    A file that is not what was written is found by its hash.

    Args:
        source: Gives depth and tracks.
        folder: Made where missing.
        progress: Told of the stages `depth` (frames) and `tracks` (clips).
        overwrite: Replace controls in the folder that were made with other settings.
        mend: The folder belongs to a run: what is damaged in it is made again, with a word. Any
            other is a user's, who may have changed a file on purpose: it is left, with an error.

    Raises:
        OutputConflictError: the folder holds other controls, a link, or changed files.
        ControlError: the depth has the wrong shape, is not finite, or is one and the same.
        MediaError: the source cannot be read.
        ResumableError: the disk is full.
    """
    return _FolderMaker(source, folder, progress, mend=mend).make(overwrite=overwrite)


def read_depth_range(folder: Path) -> DepthRange:
    """Return the percentiles a control folder was made with, for controls that continue it.

    Raises:
        ControlError: the folder has none, or they are malformed.
    """
    depth_range, _ = _parse_record(folder / NORMALIZATION_NAME)
    return depth_range


class _FolderMaker:
    def __init__(
        self,
        source: ControlSource,
        folder: Path,
        progress: Progress,
        *,
        mend: bool,
    ) -> None:
        self._mend = mend
        self._source = source
        self._folder = folder
        self._layout = layout = source.layout
        self._progress = progress
        settings = {
            "fps": layout.geometry.fps,
            "clip_frames": layout.geometry.num_frames,
            "height": layout.height,
            "width": layout.width,
            "track_grid": [layout.track_columns, layout.track_rows],
            "depth_range": layout.depth_range and dataclasses.asdict(layout.depth_range),
            **({"cuts": list(layout.cuts)} if layout.cuts else {}),
            **source.settings(),
        }
        text = json.dumps(settings, sort_keys=True)
        # As it will be read back, so that the two compare equal.
        self._settings: dict[str, Any] = json.loads(text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        self._scratch_folder = folder / f"{_SCRATCH_PREFIX}{digest[:16]}"

    def make(self, *, overwrite: bool) -> Path:
        self._claim(overwrite=overwrite)
        self._written = WrittenFiles(self._folder)
        if self._mend:
            self._written.remove_damaged(self._progress)
        else:
            self._written.refuse_damaged(self._progress)
        conditions = self._folder / CONDITIONS_NAME
        store = self._store("depth")
        depth_range, num_frames = self._recorded() or self._measure(store)
        plan = plan_clips(self._layout.geometry, num_frames, cuts=self._layout.cuts)
        clips = self._clips(plan)
        missing = [index for index, clip in enumerate(clips) if not _is_made(clip)]
        if missing and store.num_frames != num_frames:
            self._fill(store, PercentileSketch())
        self._write_tracks(store, depth_range, plan, clips, missing)
        self._write_scene_frames(plan)
        if not conditions.is_file():
            write_conditions(conditions, clips)
            self._written.add([conditions])
        _remove_scratch(self._folder)
        return conditions

    def _claim(self, *, overwrite: bool) -> None:
        """Make the folder ours, or refuse to touch what something else made there."""
        self._make_folder()
        names = sorted(path.name for path in self._folder.iterdir())
        ours = [match for name in names if (match := _OWN_FILE.fullmatch(name))]
        # What a killed process left half-written says nothing about the folder.
        whole = [match.string for match in ours if not match["part"]]
        made_with = self._made_with()
        if made_with == self._settings:
            self._remove_half_written(match.string for match in ours if match["part"])
            return
        if not whole:
            return
        if not overwrite:
            raise OutputConflictError(
                f"{self._folder}: it holds controls ({whole[0]}) {self._difference(made_with)}.",
                hint="Choose another folder, or pass --overwrite to replace them.",
            )
        remove_controls(self._folder)

    def _remove_half_written(self, names: Iterable[str]) -> None:
        for name in names:
            try:
                (self._folder / name).unlink()
            except OSError as reason:
                raise storage_error(self._folder / name, reason) from reason

    def _make_folder(self) -> None:
        try:
            make_folder(self._folder)
        except OSError as reason:
            raise storage_error(self._folder, reason) from reason
        for path in (*self._folder.iterdir(), *self._folder.glob(f"{_SCRATCH_PREFIX}*/*")):
            known = _OWN_FILE.fullmatch(path.name) or _SCRATCH_PREFIX in str(path)
            if known and path.is_symlink():
                raise OutputConflictError(
                    f"{path}: is a link; nothing outside this folder is written.",
                    hint="Put what it points to in its place, or remove it.",
                )

    def _made_with(self) -> object:
        """Return the settings the folder was made with, None where it does not say."""
        path = self._folder / NORMALIZATION_NAME
        if not path.is_file():
            return None
        try:
            return read_normalization(path).get("settings")
        except ControlError as error:
            if not self._mend:
                raise
            self._progress.warning(f"{error.message} It is made again.")
            path.unlink()
            # It lies in the folder of a run, whose run.json says the same.
            return self._settings

    def _store(self, name: str) -> DepthStore:
        store = DepthStore(self._scratch_folder / name)
        if store.damaged:
            self._progress.warning(f"{store.damaged}: is not what was written; it is made again.")
        return store

    def _difference(self, made_with: object) -> str:
        if not isinstance(made_with, dict):
            return "that longvie did not make or did not finish"
        for key, wanted in self._settings.items():
            if made_with.get(key) != wanted:
                return f"made with {key} {made_with.get(key)}, not {wanted}"
        return "made with settings this version does not know"

    def _recorded(self) -> tuple[DepthRange, int] | None:
        path = self._folder / NORMALIZATION_NAME
        return _parse_record(path) if path.is_file() else None

    def _measure(self, store: DepthStore) -> tuple[DepthRange, int]:
        sketch = PercentileSketch()
        self._fill(store, sketch)
        depth_range = self._layout.depth_range or sketch.depth_range()
        record = {
            "schema_version": _SCHEMA_VERSION,
            "low": depth_range.low,
            "high": depth_range.high,
            "num_frames": store.num_frames,
            "settings": self._settings,
        }
        if self._layout.cuts:
            plan = plan_clips(self._layout.geometry, store.num_frames, cuts=self._layout.cuts)
            record["clips"] = [[spec.first_frame, _end(spec)] for spec in plan]
        write_atomic(self._folder / NORMALIZATION_NAME, checksummed_json(record))
        return depth_range, store.num_frames

    def _fill(self, store: DepthStore, sketch: PercentileSketch) -> None:
        """Store the depth of all frames, going on from what is stored; count every value."""
        if not self._source.steadies:
            store.drop_short_batch()
            expected = max(self._source.expected_frames, store.num_frames)
            self._append("depth", expected, store, sketch, self._source.disparity(store))
            return
        raw = self._store("raw")
        raw.drop_short_batch()
        expected = max(self._source.expected_frames, raw.num_frames)
        self._append("depth", expected, raw, PercentileSketch(), self._source.disparity(raw))
        store.drop_short_batch()
        steady = self._source.steady(raw, store.num_frames)
        self._append("steady depth", raw.num_frames, store, sketch, steady)

    def _append(
        self,
        stage: str,
        num_frames: int,
        store: DepthStore,
        sketch: PercentileSketch,
        batches: Iterator[NDArray[np.float32]],
    ) -> None:
        for batch in store.batches():
            sketch.add(batch)
        self._progress.start(stage, num_frames, done=store.num_frames)
        for disparity in batches:
            if disparity.shape[1:] != (self._layout.height, self._layout.width):
                raise ControlError(
                    f"The depth estimator gave {disparity.shape[2]}x{disparity.shape[1]} for "
                    f"frames of {self._layout.width}x{self._layout.height}."
                )
            sketch.add(store.append(disparity))
            self._progress.advance(stage, len(disparity))
        self._progress.finish(stage)

    def _clips(self, plan: Sequence[ClipSpec]) -> list[ControlFiles]:
        return [
            ControlFiles(
                self._source.text(spec.first_frame, _end(spec) - spec.first_frame),
                self._folder / f"depth_{spec.index:04d}.mp4",
                self._folder / f"track_{spec.index:04d}.mp4",
            )
            for spec in plan
        ]

    def _write_scene_frames(self, plan: Sequence[ClipSpec]) -> None:
        paths = {0: self._folder / FIRST_FRAME_NAME} | {
            spec.first_frame: self._folder / scene_frame_name(spec.index)
            for spec in plan
            if spec.starts_scene
        }
        missing = [frame for frame, path in paths.items() if not path.is_file()]
        for frame, picture in zip(missing, self._source.pictures(missing), strict=True):
            write_atomic(paths[frame], png_bytes(picture))
        if missing:
            self._written.add(list(paths.values()))

    def _write_tracks(
        self,
        store: DepthStore,
        depth_range: DepthRange,
        plan: Sequence[ClipSpec],
        clips: list[ControlFiles],
        missing: list[int],
    ) -> None:
        layout, geometry = self._layout, self._layout.geometry
        points = track_grid(layout.height, layout.width, layout.track_columns, layout.track_rows)
        self._progress.start("tracks", len(clips), done=len(clips) - len(missing))
        for first in range(0, len(missing), _CLIPS_READ_BACK):
            written = missing[first : first + _CLIPS_READ_BACK]
            depth = [
                self._write_depth(store, depth_range, plan[index], clips[index].depth)
                for index in written
            ]
            self._written.add([], depth)
            # Coloured by the depth as it is decoded, which is what a folder holds.
            decoded = map(_grey, read_written(depth))
            for index in written:
                start = plan[index].first_frame
                shown = _end(plan[index]) - start
                held = geometry.num_frames - shown
                tracks = self._source.track(start, shown, points)
                pictures = render_track_clip(
                    np.stack(list(islice(decoded, geometry.num_frames))),
                    _hold(tracks.points, held),
                    _hold(tracks.visible, held),
                )
                sparse = self._write_video(clips[index].track, pictures, TRACK_PIXEL_FORMAT)
                self._written.add([], [sparse])
                self._progress.advance("tracks", detail=f"clip {index + 1} of {len(clips)}")
            # To its end, which says whether all of it could be read.
            for _ in decoded:
                raise ControlError(f"{clips[written[-1]].depth}: more frames than were written.")
        self._progress.finish("tracks")

    def _write_depth(
        self, store: DepthStore, depth_range: DepthRange, spec: ClipSpec, path: Path
    ) -> SourceVideo:
        shown = _end(spec) - spec.first_frame
        # Frame by frame: normalization works in float64.
        disparity = store.read(spec.first_frame, shown)
        depth = np.stack([depth_range.depth_bytes(frame) for frame in disparity])
        held = self._layout.geometry.num_frames - shown
        return self._write_video(path, _hold(depth, held)[..., None].repeat(3, axis=-1))

    def _write_video(
        self, path: Path, frames: NDArray[np.uint8], pixel_format: PixelFormat = "yuv420p"
    ) -> SourceVideo:
        height, width = frames.shape[1:3]
        with VideoWriter(
            path,
            height=height,
            width=width,
            fps=self._layout.geometry.fps,
            crf=_CONTROL_CRF,
            pixel_format=pixel_format,
        ) as writer:
            for frame in frames:
                writer.write(frame)
        return writer.written


def is_control_name(name: str) -> bool:
    """Return whether a control folder has a file of this name, which is replaced in time."""
    return _OWN_FILE.fullmatch(name) is not None


def remove_controls(folder: Path) -> None:
    """Remove the files of a control folder by their names; what else lies there stays.

    Raises:
        ResumableError: The disk failed.
        OutputConflictError: A file cannot be removed.
    """
    names = [path.name for path in folder.iterdir() if is_control_name(path.name)]
    # cond.json first: without it nobody takes the rest for complete.
    for name in sorted(names, key=lambda name: name != CONDITIONS_NAME):
        try:
            (folder / name).unlink()
        except OSError as reason:
            raise storage_error(folder / name, reason) from reason
    _remove_scratch(folder)


def _remove_scratch(folder: Path) -> None:
    for path in folder.glob(f"{_SCRATCH_PREFIX}*"):
        shutil.rmtree(path, ignore_errors=True)


def _end(spec: ClipSpec) -> int:
    """Return the frame of the source after the last that a clip shows."""
    return spec.first_frame + spec.skip_frames + spec.added_frames


def _grey(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grey: NDArray[np.uint8] = np.rint(frame.mean(axis=-1)).astype(np.uint8)
    return grey


def _is_made(clip: ControlFiles) -> bool:
    return clip.depth.is_file() and clip.track.is_file()


def _hold(frames: NDArray[Any], num_frames: int) -> NDArray[Any]:
    """Return frames with the last one repeated `num_frames` times."""
    return np.concatenate([frames, np.repeat(frames[-1:], num_frames, axis=0)])


def _parse_record(path: Path) -> tuple[DepthRange, int]:
    record = read_normalization(path)
    try:
        depth_range = DepthRange(float(record["low"]), float(record["high"]))
        num_frames = record["num_frames"]
        if type(num_frames) is not int or not 0 < num_frames <= MAX_SECONDS * 60:
            raise ValueError("no number of frames")
        return depth_range, num_frames
    except (KeyError, TypeError, ValueError) as error:
        raise ControlError(f"{path}: low, high or num_frames is missing or no number.") from error
