"""Killed at any instant, a command goes on with the same frames and loses one clip at most."""

from __future__ import annotations

import random
import zlib
from pathlib import Path

import pytest

from faults.boundary import LASTING
from faults.trials import Judge, Longvie, Place, Scenario, hash_of

KILLED = -9
# Operations at which a run is killed; of the frames that ffmpeg is fed only some.
POINTS = (*LASTING, "feed")


def points(judge: Judge) -> list[int]:
    """Return the numbers of the operations of a command after which it is killed."""
    operations = [line for line in judge.ended.operations if line.split()[0] in POINTS]
    chosen = []
    for number, line in enumerate(operations):
        kind, path = line.split(maxsplit=1)
        unnamed = path.startswith("../temp")
        if not unnamed and kind != "create" and (kind != "feed" or number % 3 == 0):
            chosen.append(number)
    return chosen


def kill_and_finish(
    forked: Longvie, judge: Judge, place: Place, *, finish: tuple[str, ...], **fault: object
) -> list[str] | None:
    """Return what is wrong after a kill and the command that goes on; None if it was not killed."""
    outside = judge.outside(place)
    killed = forked.run(place, judge.scenario.command, kinds=POINTS, fault="kill", **fault)
    if killed.code != KILLED:
        return None if killed.code == 0 else [f"ended with {killed.code}: {killed.err[-400:]}"]
    kept = judge.finished_clips(place.work)
    trouble = _half_made_output(judge, place)
    untouched, was_done = judge.outside(place), judge.is_done(place.work)
    if untouched != outside:
        trouble.append(f"the killed one touched {_changes(outside, untouched)}")
    ended = forked.run(place, finish)
    if ended.code == 5 and finish != judge.scenario.command and "no run here" in ended.err:
        # Killed before there was a run; only the command itself knows what was wanted.
        ended = forked.run(place, judge.scenario.command)
    return trouble + judge.trouble(place, ended, outside, kept, was_done=was_done)


def _half_made_output(judge: Judge, place: Place) -> list[str]:
    """Return what is wrong if an output is neither what was there before nor what it becomes."""
    return [
        f"{name} is half made"
        for name in judge.scenario.made
        if name.endswith(".mp4") and name != "live.mp4" and (place.work / name).exists()
        if hash_of(place.work / name) not in judge.whole_outputs(name)
    ]


def _changes(before: dict[str, object], after: dict[str, object]) -> list[str]:
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))


def try_points(forked: Longvie, judge: Judge, base: Path, chosen: list[int], counts) -> None:
    scenario = judge.scenario
    operations = [line for line in judge.ended.operations if line.split()[0] in POINTS]
    ways = (scenario.command, *scenario.finish)
    for turn, number in enumerate(chosen):
        place = Place(base.parent / "trial", base)
        way = ways[turn % len(ways)]
        trouble = kill_and_finish(forked, judge, place, finish=way, at=number)
        label = f"{scenario.name}, after {number} ({operations[number]}), then {way[0]}"
        counts.judge(label, ["was not killed"] if trouble is None else trouble)
        place.remove()


def sample(scenario: Scenario, numbers: list[int], size: int) -> list[int]:
    """Return some of the numbers, always the same ones, in order."""
    rng = random.Random(zlib.crc32(scenario.name.encode()))
    return sorted(rng.sample(numbers, min(size, len(numbers))))


@pytest.mark.parametrize(
    "name", ["generate", pytest.param("extend", marks=pytest.mark.slow), "stitch"]
)
def test_killed_at_some_commit_points(forked, base, referee, tally, name) -> None:
    judge = referee(name)
    chosen = sample(judge.scenario, points(judge), 4)
    try_points(forked, judge, base, chosen, tally("kills at commit points"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [
        *(("generate", 22), ("filmed", 6), ("slim", 6)),
        *(("overwrite", 10), ("redo", 10), ("extend", 12)),
    ],
)
def test_killed_at_commit_points(forked, base, referee, tally, name, size) -> None:
    judge = referee(name)
    chosen = sample(judge.scenario, points(judge), size)
    try_points(forked, judge, base, chosen, tally("kills at commit points"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flight", "extract"])
def test_killed_again_and_again(forked, base, referee, tally, name) -> None:
    """Each attempt is killed a few operations after the one before was, until one gets through."""
    judge, counts = referee(name), tally("kills one after another")
    rng = random.Random(zlib.crc32(name.encode()))
    place = Place(base.parent / "trial", base)
    outside, trouble = judge.outside(place), []
    reached: set[str] = set()
    killed = 0
    for _ in range(100):
        kept = judge.finished_clips(place.work)
        # As many operations as the attempt needs to get to something new, and one to six more.
        ended = forked.run(
            place,
            judge.scenario.command,
            kinds=POINTS,
            fault="kill",
            beyond=sorted(reached),
            at=rng.randrange(6),
        )
        reached.update(ended.operations)
        now = judge.finished_clips(place.work)
        again = [path for path, state in kept.items() if now.get(path) != state]
        if again:
            trouble.append(f"attempt {killed} made again {again}")
        if ended.code != KILLED:
            break
        killed += 1
    counts.add("kills", killed)
    counts.judge(name, trouble + judge.trouble(place, ended, outside, {}))
    place.remove()


@pytest.mark.slow
def test_killed_at_random_instants(forked, base, referee, tally) -> None:
    counts = tally("kills at random instants")
    rng = random.Random(20)
    for name in ("generate", "filmed", "redo", "extend", "extract"):
        judge = referee(name)
        # As long as it takes here and now.
        whole = Place(base.parent / "trial", base)
        seconds = forked.run(whole, judge.scenario.command).seconds
        whole.remove()
        for _ in range(3):
            place = Place(base.parent / "trial", base)
            delay = rng.uniform(0.05, 0.95) * seconds
            trouble = kill_and_finish(
                forked, judge, place, finish=judge.scenario.command, kill_after=delay
            )
            if trouble is None:
                counts.add("came too late")
            else:
                counts.judge(f"{name} after {delay:.3f} s", trouble)
            place.remove()
