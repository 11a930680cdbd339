"""Long videos become samples: looked through once, then cut, extracted and stored in stretches.

A stretch is a row of clips of one scene, two minutes at most; `stretch_samples.py` makes its
samples and puts a line into the journal. Killed anywhere, the next call goes on with the stretch
that has no line. Each video is decoded twice: to look at it, and to cut it.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from longvie_cli.controls.extraction import Extractors
from longvie_cli.disk.checksums import checksummed_json, read_checksummed_json
from longvie_cli.disk.documents import MAX_JSON_BYTES, read_document
from longvie_cli.disk.durable import is_passing, make_folder, storage_error, write_atomic
from longvie_cli.errors import InputError, OutputConflictError
from longvie_cli.progress import Progress
from longvie_cli.training.captioner import Captioner
from longvie_cli.training.clip_choice import stretches
from longvie_cli.training.sample_recipe import SampleRecipe
from longvie_cli.training.sample_store import (
    INDEX_NAME,
    UNFINISHED_NAME,
    StoreIndex,
    check_shard,
    is_store_name,
    read_index,
    write_index,
)
from longvie_cli.training.shard_writer import SHARD_BYTES, ShardWriter
from longvie_cli.training.stretch_samples import SampleMaker
from longvie_cli.training.video_plan import (
    CaptionSource,
    GivenVideo,
    VideoPlan,
    dropped_by_reason,
    kept_plan,
    look_through,
    nothing_kept,
)

_REQUEST_NAME = "request.json"


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
    def _given(self) -> list[GivenVideo]:
        known: set[str] = set()
        found = []
        self._progress.start("hashing videos", len(self._videos))
        for path in self._videos:
            video = GivenVideo(path, self._captions)
            video.is_known = bool(video.hash) and video.hash in known
            known.add(video.hash)
            found.append(video)
            self._progress.advance("hashing videos")
        self._progress.finish("hashing videos")
        return found

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the samples: recipe, and videos and captions by their hashes."""
        videos = [[video.path.name, video.hash, video.caption_hash] for video in self._given]
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
        return look_through(self._given[number], self._recipe, self._progress)

    def _kept_plan(self, number: int) -> VideoPlan | None:
        return kept_plan(self._plan_path(number), self._given[number].hash)

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
        self,
        plans: Sequence[VideoPlan],
        extractors: Extractors,
        *,
        captioner: Captioner | None = None,
        shard_bytes: int = SHARD_BYTES,
    ) -> Prepared:
        """Make the samples that are missing, check all of them, and write the index.

        Args:
            plans: Of the videos, in order, with one clip at least.
            extractors: Loaded.
            captioner: Captions clips without a caption; None: none does.
            shard_bytes: Size of a shard.

        Raises:
            InputError: Not one sample could be made, or a shard is damaged.
            ResumableError: The disk is full or failed.
        """
        writer = ShardWriter(self._folder, shard_bytes=shard_bytes)
        maker = SampleMaker(self._work, self._recipe, extractors, captioner, writer, self._progress)
        total = sum(len(plan.clips) for plan in plans)
        self._progress.start("clips", total, done=self._num_done(plans, writer))
        try:
            for number, plan in enumerate(plans):
                maker.make(number, self._given[number], plan)
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
