"""A video looked through: decoded once, scenes found, clips chosen; nothing of it is made yet."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from longvie_cli.disk.checksums import read_checksummed_json
from longvie_cli.disk.documents import MAX_JSON_BYTES, read_document
from longvie_cli.disk.durable import is_passing, storage_error
from longvie_cli.disk.hashing import fingerprint, hash_file
from longvie_cli.errors import InputError, MediaError, SettingsError
from longvie_cli.media.ffmpeg import DamagedVideoError
from longvie_cli.media.probe import SourceVideo, probe_video
from longvie_cli.media.reader import count_sound_frames
from longvie_cli.media.scenes import SceneScan, scan_scenes
from longvie_cli.progress import Progress
from longvie_cli.sources.conversions import describe_conversion
from longvie_cli.training.captions import Caption
from longvie_cli.training.clip_choice import (
    Dropped,
    Motion,
    PlannedClip,
    Reason,
    choose_clips,
    motion_lag,
)
from longvie_cli.training.sample_recipe import SampleRecipe

# Videos that are shown in a loop often end in a dissolve, back to where they began.
_HELD_FRAMES = 16


class CaptionSource(Protocol):
    """Where captions stand."""

    def of(self, video: Path) -> Caption:
        """Return the caption of a video.

        Raises:
            SettingsError: Its file cannot be read.
        """


class GivenVideo:
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


class VideoPlan(BaseModel):
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

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    hash: str
    num_frames: Annotated[int, Field(ge=0)] = 0
    scenes: Annotated[int, Field(ge=0)] = 0
    clips: tuple[PlannedClip, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()


def look_through(video: GivenVideo, recipe: SampleRecipe, progress: Progress) -> VideoPlan:
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


def kept_plan(path: Path, content: str) -> VideoPlan | None:
    """Return the plan that a file holds; None if it is damaged or of other bytes than `content`.

    Raises:
        ResumableError: The disk failed.
    """
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


def _hash(path: Path) -> str:
    try:
        return hash_file(path)
    except OSError:
        return ""  # Looking at it says what is wrong.
