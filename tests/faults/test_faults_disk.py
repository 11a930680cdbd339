"""A disk that is full, fails or forbids: our own error, what to do, and then the same frames."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.boundary import FILLING, READING
from faults.trials import Ended, Judge, Longvie, Place, Tally


def numbers_of(judge: Judge, kinds: tuple[str, ...]) -> list[tuple[int, str]]:
    """Return the operations of these kinds of an uninterrupted command, numbered as they count."""
    lines = [line for line in judge.ended.operations if line.split()[0] in kinds]
    return list(enumerate(lines))


def sample(judge: Judge, numbers: list[tuple[int, str]], size: int) -> list[tuple[int, str]]:
    rng = random.Random(zlib.crc32(judge.scenario.name.encode()))
    return sorted(rng.sample(numbers, min(size, len(numbers))))


def refused(ended: Ended, codes: tuple[int, ...]) -> list[str]:
    """Return what is wrong with how a command ended that met a fault."""
    if ended.code == 0:
        return []
    if not ended.is_tidy_error or ended.code not in codes:
        return [f"ended with {ended.code}, hung {ended.hung}: {ended.err[-500:]}"]
    # The message and what to do, one or two lines.
    return [] if len(ended.err.strip().splitlines()[-1]) > 20 else [f"no hint: {ended.err}"]


def try_fault(
    forked: Longvie,
    judge: Judge,
    base: Path,
    counts: Tally,
    label: str,
    codes: tuple[int, ...],
    **fault: object,
) -> None:
    """Let a command meet a fault, and then do it again without."""
    place = Place(base.parent / "trial", base)
    outside = judge.outside(place)
    ended = forked.run(place, judge.scenario.command, **fault)
    trouble = refused(ended, codes)
    at = fault.get("at")
    if isinstance(at, int) and len(ended.operations) <= at:
        trouble.append("it did not meet the fault")
    kept = judge.finished_clips(place.work)
    if ended.code == 0:
        counts.add("did not matter")
        trouble += judge.trouble(place, ended, outside, kept)
    else:
        trouble += judge.litter(place, outside)
        again = forked.run(place, judge.scenario.command)
        trouble += judge.trouble(place, again, outside, kept)
    counts.judge(f"{judge.scenario.name}, {label}", trouble)
    place.remove()


@pytest.mark.parametrize("name", ["generate"])
def test_the_disk_is_full_at_some_writes(forked, base, referee, tally, name) -> None:
    judge, counts = referee(name), tally("ENOSPC at writes")
    for number, line in sample(judge, numbers_of(judge, FILLING), 3):
        fault = {"kinds": FILLING, "at": number, "fault": "ENOSPC", "sticky": True}
        try_fault(forked, judge, base, counts, f"full at {number} ({line})", (75,), **fault)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "step"),
    [("generate", 2), ("stitch", 1), ("redo", 4), ("extend", 4), ("extract", 6), ("flight", 6)],
)
def test_the_disk_is_full_at_writes(forked, base, referee, tally, name, step) -> None:
    """Each attempt gets as far as one write, or `step` writes, more before all of them fail."""
    judge, counts = referee(name), tally("ENOSPC at writes")
    place = Place(base.parent / "trial", base)
    outside = judge.outside(place)
    reached: set[str] = set()
    for _ in range(150):
        kept = judge.finished_clips(place.work)
        fault = {"kinds": FILLING, "at": step - 1, "fault": "ENOSPC", "sticky": True}
        ended = forked.run(place, judge.scenario.command, beyond=sorted(reached), **fault)
        fresh = [line for line in ended.operations if line not in reached]
        reached.update(ended.operations)
        was_done = judge.scenario.says_so and judge.is_done(place.work)
        if ended.code == 0 or was_done:
            break
        now = judge.finished_clips(place.work)
        trouble = refused(ended, (75,)) + judge.litter(place, outside)
        trouble += [f"made again: {path}" for path in kept if now.get(path) != kept[path]]
        counts.judge(f"{name}, full at {fresh[:1]}", trouble)
    assert counts.counts["tried"], "no write was refused"
    if ended.code:  # an error after the last step: the output is there
        ended = forked.run(place, judge.scenario.command)
    trouble = judge.trouble(place, ended, outside, {}, was_done=was_done)
    counts.judge(f"{name}, in the end", trouble)
    place.remove()


@pytest.mark.slow
def test_files_may_not_grow(forked, base, referee, tally) -> None:
    """RLIMIT_FSIZE, which ffmpeg meets as well."""
    counts = tally("file size limits")
    for name in ("generate", "flight", "extend", "extract"):
        for limit in (900, 1500, 2500):
            try_fault(
                forked,
                referee(name),
                base,
                counts,
                f"no file above {limit} bytes",
                (75,),
                file_size_limit=limit,
            )


@pytest.fixture
def small_disk(base: Path) -> Iterator[Path]:
    """A mount point, where mounting is allowed."""
    point = base.parent / "disk"
    point.mkdir()
    if _mount(point, "size=64k"):
        _unmount(point)
        yield point
        _unmount(point)
        point.rmdir()
    else:
        point.rmdir()
        pytest.skip("a tmpfs cannot be mounted here (not root)")


def _mount(point: Path, options: str) -> bool:
    if os.geteuid() or shutil.which("mount") is None:
        return False
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(point)]
    return subprocess.run(command, capture_output=True).returncode == 0


def _unmount(point: Path) -> None:
    subprocess.run(["umount", "-l", str(point)], capture_output=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["generate", "flight", "extend", "extract"])
def test_the_disk_is_small(forked, base, referee, tally, small_disk: Path, name) -> None:
    """A tmpfs that fills up, more slowly each time; ffmpeg writes to it too."""
    judge, counts = referee(name), tally("small tmpfs")
    needed = sum(p.stat().st_blocks * 512 for p in judge.reference.rglob("*") if p.is_file())
    start = sum(-(-p.stat().st_size // 4096) * 4096 for p in base.rglob("*") if p.is_file())
    rng = random.Random(zlib.crc32(name.encode()))
    for _ in range(4):
        free = rng.randrange(8192, max(16384, needed - start))
        size = start + 4096 * 12 + free // 4096 * 4096
        assert _mount(small_disk, f"size={size}")
        try:
            place = Place(small_disk / "trial", base)
            outside = judge.outside(place)
            ended = forked.run(place, judge.scenario.command)
            trouble = refused(ended, (75,))
            kept = judge.finished_clips(place.work)
            subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
            if ended.code:
                trouble += judge.litter(place, outside)
                ended = forked.run(place, judge.scenario.command)
            else:
                counts.add("did not matter")
            trouble += judge.trouble(place, ended, outside, kept)
            counts.judge(f"{name}, {free // 1024} KiB free", trouble)
        finally:
            _unmount(small_disk)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"), [("generate", 6), ("filmed", 3), ("extend", 3), ("extract", 3), ("redo", 3)]
)
def test_the_disk_fails(forked, base, referee, tally, name, size) -> None:
    judge, counts = referee(name), tally("EIO")
    for kinds in (FILLING, READING):
        for number, line in sample(judge, numbers_of(judge, kinds), size):
            fault = {"kinds": kinds, "at": number, "fault": "EIO"}
            # What the user brought cannot be read: 5; a record or run.json: 4.
            codes = (75, 5, 4) if kinds is READING else (75,)
            try_fault(forked, judge, base, counts, f"EIO at {number} ({line})", codes, **fault)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["generate", "extract"])
def test_permission_is_lost(forked, base, referee, tally, name) -> None:
    judge, counts = referee(name), tally("permission losses")
    for fault_name in ("EACCES", "EROFS"):
        for number, line in sample(judge, numbers_of(judge, FILLING), 3):
            fault = {"kinds": FILLING, "at": number, "fault": fault_name, "sticky": True}
            label = f"{fault_name} at {number} ({line})"
            try_fault(forked, judge, base, counts, label, (4,), **fault)


@pytest.mark.slow
def test_folders_turn_read_only(forked, base, referee, tally) -> None:
    """The parent, the run folder, or a room of it may not be written any more; nor a file read."""
    judge, counts = referee("generate"), tally("permission losses")
    obey = {"obeys_modes": True}
    for locked in (".", "out.longvie", "out.longvie/clips", "out.longvie/tails/0000.safetensors"):
        place = Place(base.parent / "trial", base)
        first = forked.run(
            place, judge.scenario.command, kinds=("replace",), at=6, fault="kill", **obey
        )
        trouble = [] if first.code == -9 else [f"first ended with {first.code}: {first.err}"]
        path = place.work / locked
        mode = path.stat().st_mode
        outside, kept = judge.outside(place), judge.finished_clips(place.work)
        path.chmod(0o555 if path.is_dir() else 0o000)
        ended = forked.run(place, judge.scenario.command, **obey)
        path.chmod(mode)
        trouble += refused(ended, (4,)) if ended.code else ["was not refused"]
        again = forked.run(place, judge.scenario.command, **obey)
        trouble += judge.trouble(place, again, outside, kept)
        counts.judge(f"{locked} is locked", trouble)
        place.remove()
