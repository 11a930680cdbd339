"""A run folder with finished clips in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from longvie_cli.disk.durable import write_atomic
from longvie_cli.disk.hashing import hash_file
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.manifest import ClipRecord, write_record
from longvie_cli.run_folder.tails import save_tail
from longvie_cli.timeline import ClipSpec
from stored_runs import stored_record


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run = RunFolder.beside(tmp_path / "horse.mp4")
    run.create()
    return run


@pytest.fixture
def finish_clip(folder: RunFolder) -> Callable[[ClipSpec], ClipRecord]:
    """Leave on disk what a finished clip leaves: video, tail and, last, the record."""

    tails = {-1: ""}

    def finish(spec: ClipSpec) -> ClipRecord:
        tail = np.random.default_rng(spec.index).integers(0, 256, (8, 4, 6, 3), np.uint8)
        write_atomic(folder.clip_video(spec.index), f"video {spec.index}".encode())
        save_tail(folder.tail(spec.index), tail)
        tails[spec.index] = hash_file(folder.tail(spec.index))
        record = stored_record(
            index=spec.index,
            frames=spec.added_frames,
            video_hash=hash_file(folder.clip_video(spec.index)),
            tail_hash=tails[spec.index],
            follows=tails[spec.index - 1],
        )
        write_record(folder.clip_record(spec.index), record)
        return record

    return finish
