"""Clocks that jump, and two processes that want the same run."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from faults.trials import Place

YEAR = 365.25 * 86400


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["generate", "flight"])
def test_the_clock_jumps_between_two_starts(forked, base, referee, tally, name) -> None:
    judge, counts = referee(name), tally("clock jumps")
    jumps = ((10 * YEAR, -10 * YEAR), (-3600.0, 0.0), (0.0, -40 * YEAR))
    for before, after in jumps if name == "flight" else jumps[:1]:
        place = Place(base.parent / "trial", base)
        outside = judge.outside(place)
        fault = {"kinds": ("replace",), "at": 9 if name == "flight" else 6, "fault": "kill"}
        killed = forked.run(place, judge.scenario.command, clock_offset=before or 1e-9, **fault)
        assert killed.code == -9, killed.err
        kept = judge.finished_clips(place.work)
        looked = forked.run(place, ("status", "out.longvie"), clock_offset=after or 1e-9)
        ended = forked.run(place, judge.scenario.command, clock_offset=after or 1e-9)
        trouble = judge.trouble(place, ended, outside, kept)
        trouble += [] if looked.code == 0 else [f"status: {looked.code} {looked.err}"]
        trouble += [f"odd times: {ended.err}"] if "-1" in ended.err else []
        counts.judge(f"{name}, {before:.0f} s off, then {after:.0f} s", trouble)
        place.remove()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["generate", "extend", "extract"])
def test_the_clock_jumps_to_and_fro(forked, base, referee, tally, name) -> None:
    judge, counts = referee(name), tally("clock jumps")
    place = Place(base.parent / "trial", base)
    outside = judge.outside(place)
    ended = forked.run(place, judge.scenario.command, clock_offset=20 * YEAR, clock_back_after=1)
    counts.judge(f"{name}, to and fro", judge.trouble(place, ended, outside, {}))
    place.remove()


@pytest.mark.slow
def test_two_writers(forked, base, referee, tally) -> None:
    judge, counts = referee("generate"), tally("two writers")
    place = Place(base.parent / "trial", base)
    outside = judge.outside(place)
    first = forked.start(place, judge.scenario.command)
    wait_for(place.work / "out.longvie" / "run.json")
    os.kill(first.pid, signal.SIGSTOP)
    for command in (
        judge.scenario.command,
        ("resume", "out.longvie"),
        (*judge.scenario.command, "--overwrite"),
    ):
        second = forked.run(place, command)
        trouble = [] if second.code == 4 else [f"ended with {second.code}: {second.err}"]
        if f"process {first.pid} works on this run" not in second.err:
            trouble.append(f"does not say who: {second.err}")
        counts.judge(f"{command[0]} beside generate", trouble)
    looked = forked.run(place, ("status", "out.longvie"))
    says = f"process {first.pid} works on it"
    counts.judge("status", [] if looked.code == 0 and says in looked.out else [looked.out])
    os.kill(first.pid, signal.SIGCONT)
    ended = first.wait()
    counts.judge("the first", judge.trouble(place, ended, outside, {}))
    place.remove()


def test_a_lock_left_behind_holds_nobody(forked, base, referee, tally) -> None:
    """Also where the number of the process that was killed now belongs to another."""
    judge, counts = referee("generate"), tally("two writers")
    place = Place(base.parent / "trial", base)
    outside = judge.outside(place)
    killed = forked.run(place, judge.scenario.command, kinds=("replace",), at=3, fault="kill")
    assert killed.code == -9
    (place.work / "out.longvie" / ".lock.holder").write_text(f"{os.getpid()}\n")
    ended = forked.run(place, judge.scenario.command)
    counts.judge("a stale lock", judge.trouble(place, ended, outside, {}))
    place.remove()


def test_a_finished_run_can_be_read_while_its_lock_is_held(forked, base, referee, tally) -> None:
    import fcntl

    referee("generate")
    place = Place(base.parent / "trial", base)
    with open(place.work / "done.longvie" / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (
            ("status", "done.longvie"),
            ("status", "done.mp4", "--json"),
            ("stitch", "done.longvie", "-o", "again.mp4"),
        ):
            ended = forked.run(place, command)
            trouble = [] if ended.code == 0 else [f"ended with {ended.code}: {ended.err}"]
            tally("two writers").judge(f"{command[0]} under a lock", trouble)
    place.remove()
