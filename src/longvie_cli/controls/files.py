"""Control files: `cond.json` in the released format, and the clips a generation reads from it.

`cond.json` is a list of `{"text", "depth", "track"}`, one a clip; the two are names of mp4 files.
Neighbouring files share one frame: frame 0 of each shows the moment of the last frame of the one
before. Depth is the same there, tracks are not: those of each file start anew from a grid.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from longvie_cli.controls.written_files import WrittenFiles
from longvie_cli.disk.checksums import read_checksummed_json
from longvie_cli.disk.containment import is_inside
from longvie_cli.disk.documents import MAX_JSON_BYTES, briefly, parse_json, read_document
from longvie_cli.disk.durable import write_atomic
from longvie_cli.errors import ControlError
from longvie_cli.media.frames import Fit
from longvie_cli.media.probe import SourceVideo, probe_video
from longvie_cli.media.reader import count_frames, read_pairs
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.timeline import ClipGeometry

CONDITIONS_NAME = "cond.json"
FIRST_FRAME_NAME = "first.png"
NORMALIZATION_NAME = "normalization.json"


def scene_frame_name(clip_index: int) -> str:
    """Return the name of the picture with which the scene of a clip begins."""
    return f"first_{clip_index:04d}.png"


@dataclass(frozen=True)
class ControlFiles:
    """The files of one clip.

    Args:
        text: Prompt of the clip; empty where the file gives none.
        depth: Dense control, mp4.
        track: Sparse control, mp4.
    """

    text: str
    depth: Path
    track: Path


@dataclass(frozen=True)
class ClipControls:
    """The control frames of one clip.

    Args:
        dense: Depth pictures, uint8 [T, H, W, 3].
        sparse: Track pictures, uint8 [T, H, W, 3].
        file_of: Number of the file whose tracks each frame shows, [T].
    """

    dense: NDArray[np.uint8]
    sparse: NDArray[np.uint8]
    file_of: NDArray[np.int64]

    @property
    def tracked_frames(self) -> int:
        """Frames from the first on that are of one file: their tracks began at one grid."""
        other = np.flatnonzero(self.file_of != self.file_of[0])
        return int(other[0]) if other.size else len(self.file_of)

    def picked(self, frames: NDArray[np.int64]) -> ClipControls:
        """Return some of the frames, in the order given."""
        return ClipControls(self.dense[frames], self.sparse[frames], self.file_of[frames])


def read_conditions(path: Path) -> list[ControlFiles]:
    """Return the clips a `cond.json` names, in order; every file named exists.

    A name is looked for beside the json, then from the folder that holds the released `example/`
    (`./example/horse/depth_00.mp4` in `example/horse/cond.json`), then by its last part alone.

    Raises:
        ControlError: the file is missing or malformed, or a clip it names is missing.
    """
    try:
        entries = parse_json(read_document(path, MAX_JSON_BYTES))
    except FileNotFoundError as error:
        raise ControlError(f"{path}: there is no such file.") from error
    except (OSError, ValueError) as error:
        raise ControlError(f"{path}: cannot be read: {error}.") from error
    if not isinstance(entries, list) or not entries:
        raise ControlError(
            f"{path}: it must hold a list of at least one clip, each with text, depth and track."
        )
    return [_read_entry(path, index, entry) for index, entry in enumerate(entries)]


def write_conditions(path: Path, clips: Sequence[ControlFiles]) -> None:
    """Write a `cond.json`, atomically, with names relative to its own folder."""
    entries = [
        {
            "text": clip.text,
            "depth": clip.depth.relative_to(path.parent).as_posix(),
            "track": clip.track.relative_to(path.parent).as_posix(),
        }
        for clip in clips
    ]
    write_atomic(path, (json.dumps(entries, indent=2, ensure_ascii=False) + "\n").encode())


def load_control_clips(
    path: Path, geometry: ClipGeometry, *, progress: Progress | None = None
) -> ControlClips:
    """Return the controls in a folder, or in a `cond.json`, after checking every file.

    Every file is decoded once to count its frames, so that nothing is found out after a model has
    been loaded; not so those that are, by their hashes, as they were written.

    Args:
        path: The folder or the json.
        geometry: The clips wanted. Files of another length are cut anew into these.
        progress: Told when files are cut anew.

    Raises:
        ControlError: something is missing, depth and track of a clip differ in length, or sizes
            differ.
        MediaError: a file is no readable video.
    """
    conditions = path / CONDITIONS_NAME if path.is_dir() else path
    if path.is_dir() and not conditions.is_file():
        raise ControlError(
            f"{path}: the folder has no {CONDITIONS_NAME}.",
            hint="Make one with `longvie extract-controls VIDEO -o DIR`.",
        )
    clips = read_conditions(conditions)
    videos, frame_counts = _check_videos(clips, WrittenFiles(conditions.parent))
    first = videos[clips[0].depth]
    total = sum(frame_counts) - (len(frame_counts) - 1)
    total = _recorded_num_frames(conditions.parent, total)
    ranges = _recorded_ranges(conditions.parent, frame_counts)
    if ranges is not None:
        total = min(_recorded_num_frames(conditions.parent, ranges[-1].end), ranges[-1].end)
    for picture in conditions.parent.glob("first*.png"):
        if not is_inside(conditions.parent, picture):
            raise ControlError(f"{picture}: this link leads out of the folder and is not followed.")
    first_image = conditions.parent / FIRST_FRAME_NAME
    controls = ControlClips(
        clips=tuple(clips),
        videos=videos,
        frame_counts=tuple(frame_counts),
        geometry=geometry,
        num_frames=total,
        height=first.height,
        width=first.width,
        first_image=first_image if first_image.is_file() else None,
        ranges=ranges if ranges is not None else _ranges_in_a_row(frame_counts),
        cuts=_recorded_cuts(conditions.parent),
    )
    if controls.is_recut:
        (progress or SilentProgress()).message(
            f"{conditions.parent.name}: {len(clips)} control files of {_counts_text(frame_counts)} "
            f"frames are cut anew into {controls.num_clips} clips of {geometry.num_frames} frames."
        )
    return controls


@dataclass(frozen=True)
class FrameRange:
    """The frames of the timeline that a file shows, from its own frame 0 on.

    Args:
        start: First of them.
        end: The one after the last; what the file holds beyond is the last frame, held.
    """

    start: int
    end: int


@dataclass(frozen=True)
class ControlClips:
    """The controls of a whole video, read clip by clip. Made by `load_control_clips`.

    The files are one timeline: frame 0 of each but the first shows the moment of the frame before
    it, so a clip that begins there begins with its own file, and one that runs across leaves it
    out; unless the source cuts there, then nothing is shared (`ranges`). Clip k of the geometry is
    frames stride * k to stride * k + num_frames - 1 of it; past the end the last frame is held.

    Args:
        clips: The files, in order.
        videos: What each of the files holds.
        frame_counts: Frames in each.
        geometry: The clips they are read as.
        num_frames: Frames of the timeline that show something (held frames at its end do not).
        height: Of the stored pictures.
        width: Of the stored pictures.
        first_image: The picture the controls were made from, where the folder has one.
        ranges: What each file shows, in order and without a gap.
        cuts: First frames of the source's scenes that the files were laid out by, ascending.
    """

    clips: tuple[ControlFiles, ...]
    videos: Mapping[Path, SourceVideo]
    frame_counts: tuple[int, ...]
    geometry: ClipGeometry
    num_frames: int
    height: int
    width: int
    first_image: Path | None
    ranges: tuple[FrameRange, ...]
    cuts: tuple[int, ...] = ()

    def scene_image(self, frame: int) -> Path | None:
        """Return the stored picture of a frame that begins a scene, None where there is none."""
        if frame == 0:
            return self.first_image
        for index, shown in enumerate(self.ranges):
            path = self.clips[index].depth.parent / scene_frame_name(index)
            if shown.start == frame and frame in self.cuts and path.is_file():
                return path
        return None

    @property
    def scene_images(self) -> tuple[Path, ...]:
        """The stored pictures that scenes begin with, the first one's too, where there are any."""
        images = (self.scene_image(frame) for frame in (0, *self.cuts))
        return tuple(image for image in images if image is not None)

    @property
    def num_clips(self) -> int:
        """Clips of the geometry that cover all frames."""
        return self.geometry.num_clips(self.num_frames)

    @property
    def is_recut(self) -> bool:
        """Whether files and clips are not one to one."""
        return any(count != self.geometry.num_frames for count in self.frame_counts)

    def text(self, clip_index: int) -> str:
        """Return the prompt of a clip: that of the file with the first frame the clip adds.

        That is the frame after the one it shares with the clip before.
        """
        return self.text_at(self.geometry.stride * self._checked(clip_index) + 1)

    def text_at(self, frame: int) -> str:
        """Return the prompt of the file that holds a frame; past the end, that of the last."""
        file_index, _ = self._locate(min(frame, self._timeline_length - 1))
        return self.clips[file_index].text

    def read(self, clip_index: int, height: int, width: int, fit: Fit) -> ClipControls:
        """Return the control frames of a clip, `read_range` of its frames."""
        first_frame = self.geometry.stride * self._checked(clip_index)
        return self.read_range(first_frame, self.geometry.num_frames, height, width, fit)

    def read_range(
        self,
        first_frame: int,
        num_frames: int,
        height: int,
        width: int,
        fit: Fit,
        *,
        begins: bool = True,
    ) -> ClipControls:
        """Return control frames from any frame of the timeline on.

        Args:
            first_frame: Of the timeline.
            num_frames: How many; past the end the last frame is held.
            height: Of the frames returned.
            width: Of the frames returned.
            fit: How the stored pictures are brought to this size.
            begins: A clip begins with the first of these frames: where two files share it, it is
                taken of the second.

        Raises:
            MediaError: a file has changed since it was checked.
        """
        if not 0 <= first_frame < self._timeline_length:
            raise IndexError(f"frame {first_frame} of {self._timeline_length}")
        dense = np.empty((num_frames, height, width, 3), dtype=np.uint8)
        sparse = np.empty_like(dense)
        file_of = np.empty(num_frames, dtype=np.int64)
        filled = 0
        while filled < num_frames and first_frame + filled < self._timeline_length:
            file_index, local = self._locate(first_frame + filled, begins=begins and filled == 0)
            clip, end = self.clips[file_index], self.ranges[file_index].end
            pairs = read_pairs(
                self.videos[clip.depth],
                self.videos[clip.track],
                height=height,
                width=width,
                fit=fit,
                start_frame=local,
                num_frames=min(num_frames - filled, end - first_frame - filled),
            )
            for depth, track in pairs:
                dense[filled], sparse[filled], file_of[filled] = depth, track, file_index
                filled += 1
        read = ClipControls(dense, sparse, file_of)
        return read.picked(np.minimum(np.arange(num_frames), filled - 1))

    @property
    def _timeline_length(self) -> int:
        return self.ranges[-1].end

    def _checked(self, clip_index: int) -> int:
        if not 0 <= clip_index < self.num_clips:
            raise IndexError(f"clip {clip_index} of {self.num_clips}")
        return clip_index

    def _locate(self, frame: int, *, begins: bool = False) -> tuple[int, int]:
        """Return the file that holds a frame of the timeline, and its index in the file.

        A frame that two files share is taken of the first, or of the second for a clip that
        `begins` with it: its tracks start anew there, as the model was trained.
        """
        starts = {shown.start for shown in self.ranges[1:]}
        for file_index, shown in enumerate(self.ranges):
            shared = frame + 1 == shown.end and frame in starts
            if frame < shown.end and not (begins and shared):
                return file_index, frame - shown.start
        raise IndexError(f"frame {frame} of {self._timeline_length}")


def _read_entry(path: Path, index: int, entry: object) -> ControlFiles:
    where = f"{path}: clip {index}"
    if not isinstance(entry, dict):
        raise ControlError(f"{where}: it must be an object with text, depth and track.")
    fields = cast(dict[str, Any], entry)
    for key in ("depth", "track"):
        if not isinstance(fields.get(key), str) or not fields[key]:
            raise ControlError(f'{where}: it has no "{key}", the name of an mp4 file.')
    text = fields.get("text", "")
    if not isinstance(text, str):
        raise ControlError(f'{where}: its "text" must be a string.')
    depth, track = (_find(path, index, key, fields[key]) for key in ("depth", "track"))
    return ControlFiles(text, depth, track)


def _find(path: Path, index: int, key: str, name: str) -> Path:
    folder = path.absolute().parent
    named = Path(name)
    candidates = [folder / named]
    if not named.is_absolute():
        # From the folder above as many levels as the name has: where `example/` was published.
        levels = len(named.parts) - 1
        if 0 < levels <= len(folder.parents):
            candidates.append(folder.parents[levels - 1] / named)
    candidates.append(folder / named.name)
    # os.path: names too long for the disk, or that are none, are no files.
    found = list(filter(os.path.isfile, candidates))
    for candidate in found:
        if named.is_absolute() or is_inside(folder, candidate):
            return candidate
    if found:
        raise ControlError(
            f'{path}: clip {index}: "{key}" names {briefly(name)}, which leads out of this folder.',
            hint="Put the file itself there, or write its absolute path.",
        )
    raise ControlError(
        f'{path}: clip {index}: "{key}" names {_quoted(name)}, and there is no such file.'
    )


def _quoted(name: str) -> str:
    plain = name.isprintable() and len(name) <= 200
    return name if plain else briefly(name)


def _check_videos(
    clips: Sequence[ControlFiles], written: WrittenFiles
) -> tuple[dict[Path, SourceVideo], list[int]]:
    """Return what every file holds, and the frames of each clip."""
    videos: dict[Path, SourceVideo] = {}
    frame_counts: list[int] = []
    size: tuple[int, int] | None = None
    for index, clip in enumerate(clips):
        counts: dict[Path, int] = {}
        for path in (clip.depth, clip.track):
            own = written.video(path)
            video = videos[path] = own or probe_video(path)
            size = size or (video.height, video.width)
            if (video.height, video.width) != size:
                raise ControlError(
                    f"{path}: it is {video.width}x{video.height}, but {clips[0].depth.name} is "
                    f"{size[1]}x{size[0]}. All control files must have one size."
                )
            counts[path] = own.num_frames if own else count_frames(video, fps=None)
        depth_count, track_count = counts[clip.depth], counts[clip.track]
        if depth_count != track_count:
            raise ControlError(
                f"clip {index}: {clip.depth.name} has {depth_count} frames and {clip.track.name} "
                f"has {track_count}. Depth and track of a clip must have equally many."
            )
        if depth_count < 2:
            raise ControlError(f"{clip.depth}: it has {depth_count} frame; a control clip needs 2.")
        frame_counts.append(depth_count)
    return videos, frame_counts


def _recorded_num_frames(folder: Path, total: int) -> int:
    """Return the frames that show something: what `extract_controls` recorded, at most `total`."""
    path = folder / NORMALIZATION_NAME
    if not path.is_file():
        return total
    recorded = _recorded(folder).get("num_frames")
    if type(recorded) is not int or recorded < 1:
        raise ControlError(
            f"{path}: num_frames must be a whole number above 0, not {briefly(recorded)}."
        )
    return min(total, recorded)


def _ranges_in_a_row(frame_counts: Sequence[int]) -> tuple[FrameRange, ...]:
    starts = [sum(frame_counts[:index]) - index for index in range(len(frame_counts))]
    return tuple(
        FrameRange(start, start + count) for start, count in zip(starts, frame_counts, strict=True)
    )


def _recorded_ranges(folder: Path, frame_counts: Sequence[int]) -> tuple[FrameRange, ...] | None:
    """Return what each file shows where that was recorded: in folders laid out by scenes."""
    recorded = _recorded(folder).get("clips")
    if recorded is None:
        return None
    path = folder / NORMALIZATION_NAME
    try:
        ranges = tuple(_frame_range(*pair) for pair in recorded)
    except (TypeError, ValueError) as error:
        raise ControlError(f"{path}: clips must hold pairs of frames.") from error
    if len(ranges) != len(frame_counts):
        raise ControlError(
            f"{path}: it describes {len(ranges)} clips, but {CONDITIONS_NAME} names "
            f"{len(frame_counts)}."
        )
    expected_start = 0
    for index, (shown, count) in enumerate(zip(ranges, frame_counts, strict=True)):
        # A file begins with the frame after the one before it, or repeats its last.
        follows = shown.start in (expected_start, expected_start - 1)
        if not follows or not 0 < shown.end - shown.start <= count or shown.end <= expected_start:
            raise ControlError(f"{path}: clip {index} cannot show frames {shown} of the video.")
        expected_start = shown.end
    return ranges


def _frame_range(start: object, end: object) -> FrameRange:
    if type(start) is not int or type(end) is not int:
        raise ValueError("no frames")
    return FrameRange(start, end)


def _recorded_cuts(folder: Path) -> tuple[int, ...]:
    settings = _recorded(folder).get("settings")
    cuts = settings.get("cuts", []) if isinstance(settings, dict) else []
    if not isinstance(cuts, list) or not all(type(cut) is int for cut in cuts):
        raise ControlError(f"{folder / NORMALIZATION_NAME}: cuts must be a list of frames.")
    return tuple(sorted(cuts))


def _recorded(folder: Path) -> dict[str, Any]:
    path = folder / NORMALIZATION_NAME
    if not path.is_file():
        return {}
    return read_normalization(path)


def read_normalization(path: Path) -> dict[str, Any]:
    """Return what a `normalization.json` holds, unchecked.

    Raises:
        ControlError: It cannot be read, or holds no JSON object.
    """
    try:
        return read_checksummed_json(read_document(path, MAX_JSON_BYTES))
    except OSError as error:
        raise ControlError(f"{path}: it cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ControlError(f"{path}: it cannot be read: {error}.") from error


def _counts_text(frame_counts: Sequence[int]) -> str:
    shortest, longest = min(frame_counts), max(frame_counts)
    return str(shortest) if shortest == longest else f"{shortest} to {longest}"
