"""A preparation at toy size, here and as a program: `toy_prepare.py FOLDER VIDEO KILL...`.

Each KILL is the number of an operation that lasts (a rename, a flush to the disk, a removal, a file
cut short) before which a fork of this program dies by SIGKILL; `every-N` is every N-th of them, one
after the other, each in a folder of its own. After each kill another fork finishes what was left,
and the folder is compared with that of an unbroken run; printed is how many were killed.
"""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from delivered import contents
from longvie_cli.controls.extraction import Extractors
from longvie_cli.controls.tracks import LucasKanadeTracker
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.settings.presets import Preset
from longvie_cli.sources.depth_choice import DepthChoice
from longvie_cli.training.captions import Sidecars
from longvie_cli.training.dataset import ClipSize
from longvie_cli.training.prepare import Preparation, Prepared
from longvie_cli.training.prepared import PreparedSamples
from longvie_cli.training.sample_recipe import SampleRecipe
from small_preset import SMALL

TOY = SMALL.model_copy(update={"num_frames": 5, "height": 32, "width": 48})
# Some ten kilobytes a sample: two or three of them a shard.
SHARD_BYTES = 40_000


def recipe(preset: Preset = TOY, **changes: Any) -> SampleRecipe:
    known: dict[str, Any] = {"fit": "crop", "uncaptioned": "empty", "history_frames": 8}
    return SampleRecipe(preset, **known | {"controls": {"depth_model": "embedded"}} | changes)


def preparation(
    folder: Path,
    videos: Sequence[Path],
    *,
    progress: Progress | None = None,
    preset: Preset = TOY,
    **changes: Any,
) -> Preparation:
    made = recipe(preset, **changes)
    return Preparation(folder, videos, Sidecars(), made, progress or SilentProgress())


@functools.cache
def extractors() -> Extractors:
    depth = DepthChoice().estimator(TOY, device="cpu", progress=SilentProgress())
    return Extractors(depth, LucasKanadeTracker(), "none")


def prepare(work: Preparation, *, overwrite: bool = False) -> Prepared:
    index = work.finished(overwrite=overwrite)
    if index is not None:
        work.check(index)
        work.clear()
        return Prepared(index.samples, index.dropped)
    with work.opened(overwrite=overwrite):
        plans = work.keep_plans()
        return work.carry_out(plans, extractors(), shard_bytes=SHARD_BYTES)


def opened(folder: Path, *, history_frames: int = 8) -> PreparedSamples:
    size = ClipSize(TOY.num_frames, TOY.height, TOY.width, history_frames)
    return PreparedSamples(folder, size, fps=TOY.fps)


def _in_a_fork(folder: Path, video: Path, kill: int | None) -> int:
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    code = 1
    try:
        if kill is not None:
            _die_at(kill)
        prepare(preparation(folder, [video]))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _die_at(number: int) -> None:
    left = [number]
    for name in ("fsync", "replace", "unlink", "truncate", "rmdir"):
        act = getattr(os, name)

        def dying(*given: Any, act: Any = act, **named: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return act(*given, **named)

        setattr(os, name, dying)


def main(root: str, video: str, *kills: str) -> None:
    torch.set_num_threads(1)
    extractors()
    unbroken = Path(root) / "unbroken"
    assert _in_a_fork(unbroken, Path(video), None) == 0
    wanted, killed = contents(unbroken), 0
    step = kills[0].removeprefix("every-")
    for kill in map(int, kills) if step == kills[0] else itertools.count(0, int(step)):
        folder = Path(root) / f"killed-{kill}"
        if _in_a_fork(folder, Path(video), kill) == 0:
            break
        killed += 1
        # Half of them are killed twice.
        if kill % 2:
            _in_a_fork(folder, Path(video), kill // 2)
        assert _in_a_fork(folder, Path(video), None) == 0, kill
        found = contents(folder)
        assert found == wanted, (kill, sorted(found), sorted(wanted))
        shutil.rmtree(folder)
    print(killed)


if __name__ == "__main__":
    main(*sys.argv[1:])
