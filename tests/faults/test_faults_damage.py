"""Files of a run folder that are torn, flipped, gone or replaced: the same frames, or our error."""

from __future__ import annotations

import json
import random
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faults.trials import Ended, Judge, Longvie, Place, Tally
from longvie_cli.disk.checksums import checksummed_json, read_checksummed_json
from longvie_cli.disk.hashing import fingerprint

HARMS = ("empty", "cut", "last byte", "flip", "flip", "gone", "folder", "link")
# Folders whose files must be right again (those of clips in a finished run as well).
MENDED = ("clips", "tails", "controls")
WORDS = ("made again", "written anew", "joined again", "encoded again", "it is made")


def harm(path: Path, how: str, rng: random.Random, elsewhere: Path) -> None:
    """Damage a file in one of the ways of `HARMS`."""
    data = path.read_bytes()
    if how == "empty":
        path.write_bytes(b"")
    elif how == "cut":
        path.write_bytes(data[: rng.randrange(1, max(2, len(data)))])
    elif how == "last byte":
        path.write_bytes(data[:-1])
    elif how == "flip":
        place = rng.randrange(max(1, len(data)))
        flipped = bytes([(data or b"\0")[place] ^ (1 << rng.randrange(8))])
        path.write_bytes(data[:place] + flipped + data[place + 1 :])
    else:
        path.unlink()
        if how == "folder":
            path.mkdir()
        elif how == "link":
            elsewhere.write_bytes(data)
            path.symlink_to(elsewhere)


def files_in(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith(".lock")]


class Damages:
    """Tries harms on the files of a folder in a certain state.

    Args:
        forked: The fork server.
        judge: Of the command that made the folder.
        state: Working folder in that state.
        counts: Where it is counted.
        commands: Commands that go on; they take turns.
    """

    def __init__(
        self,
        forked: Longvie,
        judge: Judge,
        state: Path,
        counts: Tally,
        commands: tuple[tuple[str, ...], ...],
    ) -> None:
        self.forked, self.judge, self.state, self.counts = forked, judge, state, counts
        self.commands = commands
        self.turn = 0

    def each(self, folder: str, harms: int, seed: str) -> None:
        """Harm every file beneath a folder in some of the ways."""
        for path in files_in(self.state / folder):
            relative = path.relative_to(self.state)
            rng = random.Random(zlib.crc32(f"{seed} {relative}".encode()))
            for how in rng.sample(HARMS, harms):
                self.one(relative, how, rng)

    def one(self, relative: Path, how: str, rng: random.Random) -> None:
        place = Place(self.state.parent / "trial", self.state)
        harm(place.work / relative, how, rng, place.root / "elsewhere")
        outside = self.judge.outside(place)
        harmed = _content(place.work / relative)
        command = self.commands[self.turn % len(self.commands)]
        self.turn += 1
        ended = self.forked.run(place, command)
        trouble = self.trouble(place, relative, ended, outside, mattered=harmed)
        if ended.code == 0 and how != "gone" and relative.parent.name in MENDED:
            wanted = (self.judge.reference / relative).read_bytes()
            if relative.suffix != ".json" and _content(place.work / relative) != wanted:
                trouble.append("not mended")
        if how in ("gone", "link", "folder"):
            trouble = [line for line in trouble if line != "not a word about it"]
        self.counts.judge(f"{relative} {how}, {command[0]}", trouble)
        place.remove()

    def trouble(
        self, place: Place, relative: Path, ended: Ended, outside: Any, mattered: bytes | None
    ) -> list[str]:
        if ended.code:
            self.counts.add("our own error")
            tidy = ended.is_tidy_error and ended.code in (4, 5, 75)
            trouble = [] if tidy else [f"ended with {ended.code}: {ended.err[-600:]}"]
            return trouble + self.judge.litter(place, outside)
        self.counts.add("identical")
        # What is not needed any more, as the prompts once all clips are made, is left as it is.
        trouble = self.judge.differences(place.work, spare=str(relative)) + self.judge.litter(
            place, outside
        )
        after = _content(place.work / relative)
        written = after not in (None, mattered) and relative.suffix != ".jsonl"
        if written and mattered is not None and not any(word in ended.err for word in WORDS):
            trouble.append("not a word about it")
        return trouble


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() and not path.is_symlink() else None


@pytest.fixture
def state(
    forked: Longvie, base: Path, referee: Callable[[str], Judge]
) -> Callable[[str, str | None], Path]:
    """Return a working folder in which a scenario's command was killed at an operation, or not."""

    def make(name: str, at: str | None) -> Path:
        judge = referee(name)
        folder = base.parent / f"state-{name}-{zlib.crc32(str(at).encode())}"
        if folder.exists():
            return folder
        place = Place(base.parent / "making", base)
        fault: dict[str, Any] = {}
        if at is not None:
            lines = list(judge.ended.operations)
            fault = {"at": lines.index(at), "fault": "kill"}
        ended = forked.run(place, judge.scenario.command, **fault)
        assert ended.code == (0 if at is None else -9), ended.err
        place.work.rename(folder)
        place.remove()
        return folder

    return make


FIRST_CLIP = "replace out.longvie/clips/0000.json"
FIRST_CONTROLS = "replace out.longvie/controls/hashes.json"
RESUME = ("resume", "out.longvie")


@pytest.mark.slow
def test_a_harmed_half_made_run_sample(forked, referee, tally, state) -> None:
    judge = referee("generate")
    damages = Damages(
        forked,
        judge,
        state("generate", FIRST_CLIP),
        tally("damaged files"),
        (("generate", *judge.scenario.command[1:]),),
    )
    rng = random.Random(3)
    for name, how in (("run.json", "cut"), ("tails/0000.safetensors", "flip")):
        damages.one(Path("out.longvie", name), how, rng)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "at", "harms"),
    [
        ("flight", FIRST_CLIP, 2),
        ("flight", FIRST_CONTROLS, 1),
        ("extend", FIRST_CLIP, 1),
        ("generate", None, 1),
    ],
    ids=["half", "controls", "extended", "finished"],
)
def test_a_harmed_run(forked, referee, tally, state, name, at, harms) -> None:
    judge = referee(name)
    commands = (judge.scenario.command, RESUME)
    damages = Damages(forked, judge, state(name, at), tally("damaged files"), commands)
    damages.each("out.longvie", harms, f"{name} {at}")


@pytest.mark.slow
def test_a_harmed_run_whose_output_is_gone(forked, referee, tally, state, base) -> None:
    judge = referee("generate")
    folder = base.parent / "state-output-gone"
    shutil.copytree(state("generate", None), folder)
    # Its run.json names the folder of controls where it was first: only the command itself goes on.
    (folder / "out.mp4").unlink()
    damages = Damages(forked, judge, folder, tally("damaged files"), (judge.scenario.command,))
    damages.each("out.longvie", 1, "output gone")


@pytest.mark.slow
@pytest.mark.parametrize("at", ["replace ctl/hashes.json", None], ids=["half", "finished"])
def test_a_harmed_extraction(forked, referee, tally, state, at) -> None:
    """Here the files may have been changed on purpose: they are refused, not made again."""
    judge = referee("extract")
    damages = Damages(
        forked, judge, state("extract", at), tally("damaged files"), (judge.scenario.command,)
    )
    damages.each("ctl", 1, f"extract {at}")


def _set(*keys: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def edit(values: dict[str, Any]) -> None:
        for key in keys[:-1]:
            values = values[key]
        values[keys[-1]] = to

    return edit


EDITS: dict[str, Callable[[dict[str, Any]], None]] = {
    "seed": _set("seed", to=12),
    "settings": _set("settings", "seed", to=12),
    "request": _set("request", "seed", to=12),
    "prompt": _set("request", "prompt", to="red desert"),
    "plan": _set("plan", to=[]),
    "redos": _set("redos", to=[{"clip": 1, "prompt": "snow"}]),
    "weights": _set("model_hashes", "vae/config.json", to="0" * 32),
    "no request": _set("request", to={}),
    "newer": _set("schema_version", to=99),
    "preset": _set("preset", to="huge"),
}


@pytest.mark.slow
@pytest.mark.parametrize("thorough", [False, True], ids=["run.json", "with checksum and copy"])
def test_run_json_is_edited_by_hand(forked, referee, tally, state, thorough) -> None:
    judge, counts = referee("flight"), tally("hand edits of run.json")
    damages = Damages(forked, judge, state("flight", FIRST_CLIP), counts, (RESUME,))
    for name, edit in EDITS.items():
        place = Place(damages.state.parent / "trial", damages.state)
        run = place.work / "out.longvie"
        values = read_checksummed_json((run / "run.json").read_bytes())
        edit(values)
        if thorough:
            for file in ("run.json", "run.copy.json"):
                (run / file).write_bytes(checksummed_json(values))
        else:
            stored = json.loads((run / "run.json").read_bytes())
            (run / "run.json").write_text(json.dumps(stored | values))
        outside = judge.outside(place)
        ended = forked.run(place, RESUME)
        trouble = damages.trouble(
            place, Path("out.longvie/run.json"), ended, outside, mattered=None
        )
        if not thorough and ended.code == 0 and "written anew" not in ended.err:
            trouble.append("not a word about it")
        counts.judge(f"{name}, thorough {thorough}", trouble)
        place.remove()


@pytest.mark.slow
def test_the_seed_of_a_run_cannot_be_edited(forked, referee, tally, state) -> None:
    """Even consistently, in all places but the fingerprint: clips of two seeds are no video."""
    judge = referee("flight")
    place = Place(state("flight", FIRST_CLIP).parent / "trial", state("flight", FIRST_CLIP))
    run = place.work / "out.longvie"
    values = read_checksummed_json((run / "run.json").read_bytes())
    values["settings"]["seed"] = values["request"]["seed"] = 12
    values["settings"]["flight"] = values["seed"] = 12
    for file in ("run.json", "run.copy.json"):
        (run / file).write_bytes(checksummed_json(values))
    ended = forked.run(place, RESUME)
    assert ended.code == 4 and "by hand" in ended.err
    assert values["fingerprint"] != fingerprint(values["settings"])
    tally("hand edits of run.json").judge(
        "seed everywhere", judge.litter(place, judge.outside(place))
    )
    place.remove()
