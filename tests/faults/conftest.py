"""The fork server, the scenarios, and the counts that are printed at the end."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults.model import TRIALS, make_inputs
from faults.trials import Judge, Longvie, Place, Scenario, Tally
from small_preset import build_package

CONTROLLED = ("generate", "-p", "green hills", "--controls", "controls", "--seed", "11")
FLIGHT = ("generate", "-p", "green hills", "--clips", "2", "--seed", "11")
EXTRACT = ("extract-controls", "video.mp4", "--at-cut", "restart", "--preview", "-o", "ctl")
FILMED = ("generate", "-p", "hills", "--video", "video.mp4", "--at-cut", "restart")
EXTEND = ("extend", "foreign.mp4", "--clips", "2", "-p", "hills", "--seed", "3", "-o", "out.mp4")
SLIM = (*CONTROLLED, "--no-keep-clips", "--live", "live.mp4", "-o", "out.mp4")

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "generate",
            (*CONTROLLED, "-o", "out.mp4"),
            ("out.longvie", "out.mp4"),
            "out.longvie",
            (("resume", "out.longvie"),),
        ),
        Scenario(
            "slim",
            SLIM,
            ("out.longvie", "out.mp4", "live.mp4"),
            "out.longvie",
            keeps_clips=False,
        ),
        Scenario(
            "flight",
            (*FLIGHT, "-o", "out.mp4"),
            ("out.longvie", "out.mp4"),
            "out.longvie",
            (("resume", "out.longvie"),),
        ),
        Scenario(
            "filmed",
            (*FILMED, "--first-frame", "prompt", "-o", "out.mp4"),
            ("out.longvie", "out.mp4"),
            "out.longvie",
            (("resume", "out.longvie"),),
        ),
        Scenario(
            "overwrite",
            (*CONTROLLED[:-1], "12", "--overwrite", "-o", "done.mp4"),
            ("done.longvie", "done.mp4"),
            "done.longvie",
        ),
        Scenario(
            "redo",
            ("redo", "done.longvie", "--clip", "1", "--prompt", "hills in snow"),
            ("done.longvie", "done.mp4"),
            "done.longvie",
            says_so=True,
        ),
        Scenario("extend", EXTEND, ("out.longvie", "out.mp4"), "out.longvie"),
        Scenario(
            "stitch",
            ("stitch", "done.longvie", "-o", "out.mp4"),
            ("out.mp4",),
            None,
            says_so=True,
        ),
        Scenario("extract", EXTRACT, ("ctl",), None),
    )
}


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands work on: a video, controls, a finished run, a video of another tool."""
    return tmp_path_factory.mktemp("faults") / "base"


@pytest.fixture(scope="session")
def forked(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Iterator[Longvie]:
    """The fork server; `base` is made by the first commands it runs."""
    if sys.platform != "linux":
        pytest.skip("fork, pidfd and /proc are Linux")
    package = tmp_path_factory.mktemp("package")
    build_package(package, TRIALS)
    make_inputs(base)
    inputs = [str(base / name) for name in ("video.mp4", "foreign.mp4")]
    longvie = Longvie(
        package,
        [
            ("extract-controls", inputs[0], *EXTRACT[2:]),
            (*FLIGHT, "-o", "flight.mp4"),
            (*CONTROLLED[:3], "--controls", "ctl", "--at-cut", "restart", "-o", "out.mp4"),
            ("extend", inputs[1], "--clips", "1", "-p", "hills", "-o", "longer.mp4"),
            ("redo", "out.longvie", "--clip", "0"),
            ("resume", "out.longvie"),
            ("status", "out.longvie"),
            ("stitch", "out.longvie", "-o", "all.mp4"),
        ],
    )
    assert longvie.about["threads"] == 1, "a fork would lose the others"
    place = Place(base.parent / "first", base)
    for command in (
        ("extract-controls", "video.mp4", "--at-cut", "ignore", "-o", "controls"),
        (*FLIGHT, "-o", "done.mp4"),
    ):
        ended = longvie.run(place, command)
        assert ended.code == 0, ended.err
    shutil.rmtree(base)
    place.work.rename(base)
    place.remove()
    yield longvie
    print(f"\nprocessor time of the trials: {longvie.cpu:.0f} s")
    longvie.close()


Referee = Callable[[str], Judge]


@pytest.fixture(scope="session")
def referee(forked: Longvie, base: Path) -> Referee:
    """Return the judge of a scenario, after doing it once without a fault."""
    judges: dict[str, Judge] = {}

    def judge(name: str) -> Judge:
        if name not in judges:
            scenario = SCENARIOS[name]
            place = Place(base.parent / f"reference-{name}", base)
            ended = forked.run(place, scenario.command)
            assert ended.code == 0, ended.err
            judges[name] = Judge(scenario, base, place.work, ended)
        return judges[name]

    return judge


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Iterator[Callable[[str], Tally]]:
    """Return the counts of a kind of fault; they are printed when all tests are done."""
    tallies: dict[str, Tally] = {}

    def of(kind: str) -> Tally:
        return tallies.setdefault(kind, Tally())

    yield of
    for kind, counted in tallies.items():
        record_property("faults", [kind, dict(counted.counts)])
    wrong = [line for counted in tallies.values() for line in counted.wrong]
    if wrong:
        pytest.fail(f"{len(wrong)} wrong:\n" + "\n".join(wrong[:40]), pytrace=False)
