"""Trials: a folder, a command, a fault, and a judgement of what is left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import xxhash

TESTS = Path(__file__).parents[1]
TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Args:
        code: Exit code, or minus the signal.
        out: What it wrote to stdout.
        err: What it wrote to stderr.
        operations: What it did to watched files, `kind path` each, in order.
        hung: Whether it had to be killed because it did not end.
        cpu: Seconds of processor time, its own and that of its ffmpegs.
        seconds: Seconds until it ended.
    """

    code: int
    out: str
    err: str
    operations: tuple[str, ...]
    hung: bool
    cpu: float
    seconds: float

    @property
    def is_tidy_error(self) -> bool:
        """Whether it ended by an error of our own, in words."""
        said = "Traceback" in self.err or "Unexpected failure" in self.err
        return self.code in (1, 2, 3, 4, 5, 75) and not said and not self.hung and bool(self.err)


class Place:
    """A folder for one trial: where the command runs, its home and its temp folder.

    Args:
        root: Made anew; a trial that failed may have left one.
        base: What the working folder begins with.
    """

    def __init__(self, root: Path, base: Path | None = None) -> None:
        self.root = root
        self.work, self.home, self.temp, self.logs = (
            root / name for name in ("work", "home", "temp", "logs")
        )
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        if base is None:
            self.work.mkdir()
        else:
            shutil.copytree(base, self.work, symlinks=True)
        # What longvie remembers between runs lies in these two.
        caches = (self.home / "CACHE" / "longvie", self.home / "STATE" / "longvie")
        for folder in (*caches, self.temp, self.logs):
            folder.mkdir(parents=True)

    @property
    def environment(self) -> dict[str, str]:
        home = str(self.home)
        xdg = {
            f"XDG_{name}_HOME": f"{home}/{name}" for name in ("CONFIG", "CACHE", "DATA", "STATE")
        }
        return {"HOME": home, "TMPDIR": str(self.temp), **xdg}

    def remove(self) -> None:
        shutil.rmtree(self.root)


class Longvie:
    """Runs `longvie` commands through the fork server.

    Args:
        package: Folder that holds the package to use.
        warm_up: Commands that the server runs once, for what they import.
    """

    def __init__(self, package: Path, warm_up: Sequence[Sequence[str]]) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": f"{package}{os.pathsep}{TESTS}",
            "OMP_NUM_THREADS": "1",
            "OPENCV_FOR_THREADS_NUM": "1",
            "HF_HUB_OFFLINE": "1",
            "NO_COLOR": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.cpu = 0.0
        self._log = package / "server.log"
        with open(self._log, "wb") as log:
            self._server = self._begin(warm_up, environment, log)
        try:
            self.about = self._answer()
        except RuntimeError:
            self.close()
            raise

    def _begin(
        self, warm_up: Sequence[Sequence[str]], environment: dict[str, str], log: IO[bytes]
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "faults.server", json.dumps([list(c) for c in warm_up])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            cwd=TESTS,
            text=True,
        )

    def close(self) -> None:
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(60)
        self._server.stdout.close()

    def start(self, place: Place, command: Sequence[str | Path], **fault: Any) -> Running:
        """Start a command in the working folder; `fault` as `server._become` understands it."""
        number = len(list(place.logs.iterdir())) // 3
        files = {kind: str(place.logs / f"{number:03d}.{kind}") for kind in ("out", "err", "log")}
        request = {
            "do": "start",
            "command": [str(part) for part in command],
            "folder": str(place.work),
            "environment": place.environment,
            "roots": [str(place.work), str(place.temp)],
            **files,
            **fault,
        }
        return Running(self, self._ask(request)["pid"], files)

    def run(self, place: Place, command: Sequence[str | Path], **fault: Any) -> Ended:
        """Run a command to its end."""
        kill_after = fault.pop("kill_after", None)
        return self.start(place, command, **fault).wait(kill_after=kill_after)

    def wait(self, pid: int, files: dict[str, str], **how: Any) -> Ended:
        answer = self._ask({"do": "wait", "pid": pid, "timeout": TIMEOUT_SECONDS, **how})
        self.cpu += answer["cpu"]
        texts = {kind: Path(name).read_text("utf-8", "replace") for kind, name in files.items()}
        return Ended(
            answer["code"],
            texts["out"],
            texts["err"],
            tuple(texts["log"].splitlines()),
            answer["hung"],
            answer["cpu"],
            answer["seconds"],
        )

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._server.stdin is not None
        print(json.dumps(request), file=self._server.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        if not line:
            status, said = self._server.wait(), self._log.read_text("utf-8", "replace")
            raise RuntimeError(f"the fork server ended with {status}: {said[-2000:]}")
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer


@dataclass(frozen=True)
class Running:
    """A command under way."""

    longvie: Longvie
    pid: int
    files: dict[str, str]

    def wait(self, **how: Any) -> Ended:
        return self.longvie.wait(self.pid, self.files, **how)


@dataclass(frozen=True)
class Scenario:
    """A command whose interruptions are tried.

    Args:
        name: For the reader.
        command: The command.
        made: What it may touch in its working folder: run folder, output.
        run: The run folder, where there is one, among them.
        finish: Further commands that may end it once it has begun.
        says_so: Once its output is there, the same command is a new order: it says that the output
            exists, or does its work once more.
        keeps_clips: Clips are still there when it is done.
    """

    name: str
    command: tuple[str, ...]
    made: tuple[str, ...]
    run: str | None
    finish: tuple[tuple[str, ...], ...] = ()
    says_so: bool = False
    keeps_clips: bool = True


@dataclass
class Tally:
    """What a kind of fault came to."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, what: str, number: int = 1) -> None:
        self.counts[what] += number

    def judge(self, label: str, trouble: Sequence[str]) -> None:
        self.add("tried")
        if trouble:
            self.wrong.append(f"{label}: {'; '.join(trouble)}")
        else:
            self.add("right")


def files_of(root: Path, leave_out: Sequence[str] = ()) -> dict[str, tuple[str, int, int]]:
    """Return kind, size and time of all there is beneath a folder, by path, without some trees."""
    found = {}
    for folder, folders, names in os.walk(root):
        shown = os.path.relpath(folder, root)
        folders[:] = [
            f for f in folders if os.path.normpath(os.path.join(shown, f)) not in leave_out
        ]
        for name in (*folders, *names):
            path = os.path.normpath(os.path.join(shown, name))
            if path in leave_out:
                continue
            status = os.lstat(os.path.join(folder, name))
            is_folder = name in folders
            found[path] = (
                "folder" if is_folder else oct(status.st_mode),
                0 if is_folder else status.st_size,
                0 if is_folder else status.st_mtime_ns,
            )
    return found


def hash_of(path: Path) -> str:
    return xxhash.xxh3_128_hexdigest(path.read_bytes())


def _state(path: Path) -> tuple[int, int, str]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, hash_of(path)


class Judge:
    """Knows what an uninterrupted command leaves, and compares.

    Args:
        scenario: The command.
        base: Working folder it began with.
        reference: Working folder in which it was done without a fault.
        ended: How it ended there.
    """

    def __init__(self, scenario: Scenario, base: Path, reference: Path, ended: Ended) -> None:
        self._base = base
        self.scenario = scenario
        self.reference = reference
        self.ended = ended
        self._frames = {path: hash_of(reference / path) for path in self._compared(reference)}
        # A judge that compares nothing, or knows no operation, would find everything right.
        assert self._frames, f"{scenario.name}: nothing to compare"
        kinds = {line.split()[0] for line in ended.operations}
        assert {"create", "write", "fsync", "replace"} <= kinds, f"{scenario.name}: {kinds}"
        if scenario.run is not None and scenario.keeps_clips:
            records = sorted((reference / scenario.run / "clips").glob("*.json"))
            known = set(self.finished_clips(reference))
            assert records, f"{scenario.name}: no clip was made"
            assert {str(path.relative_to(reference)) for path in records} <= known

    def _compared(self, work: Path) -> list[str]:
        """Return what decides frames: videos, tails, pictures, and cond.json."""
        suffixes = (".mp4", ".safetensors", ".png")
        names = []
        for made in self.scenario.made:
            path = work / made
            files = sorted(path.rglob("*")) if path.is_dir() else [path]
            names += [
                str(file.relative_to(work))
                for file in files
                if file.is_file() and (file.suffix in suffixes or file.name == "cond.json")
            ]
        return names

    def outside(self, place: Place) -> dict[str, tuple[str, int, int]]:
        """Return the state of everything the command has no business with."""
        parts = (f"work/{name}" for name in self.scenario.made)
        with_part = (f"work/{name}.part" for name in self.scenario.made)
        caches = ("home/CACHE/longvie", "home/STATE/longvie")
        return files_of(place.root, ("logs", *caches, *parts, *with_part))

    def finished_clips(self, work: Path) -> dict[str, tuple[int, int, str]]:
        """Return inode, time and hash of the files of clips that are finished for good."""
        found = {}
        for path in self._finished_files(work):
            found[str(path.relative_to(work))] = _state(path)
        return found

    def _finished_files(self, work: Path) -> list[Path]:
        if self.scenario.run is None:
            return self._finished_controls(work)
        run = work / self.scenario.run
        files = self._finished_controls(run)
        for record_path in sorted((run / "clips").glob("*.json")):
            video = record_path.with_suffix(".mp4")
            tail = run / "tails" / f"{record_path.stem}.safetensors"
            wanted = self.reference / record_path.relative_to(work)
            try:
                record, final = (json.loads(p.read_bytes()) for p in (record_path, wanted))
                same = all(record[k] == final[k] for k in ("revision", "seed", "prompt", "follows"))
                intact = hash_of(video) == record["video_hash"] == final["video_hash"]
                intact = intact and hash_of(tail) == record["tail_hash"]
            except (OSError, ValueError, KeyError):
                continue
            if same and intact:
                files += [record_path, video, tail]
        return files

    def _finished_controls(self, folder: Path) -> list[Path]:
        """Return the control files of clips whose tracks are there too: those come last."""
        files = []
        for made in self.scenario.made if self.scenario.run is None else ("controls",):
            for track in sorted((folder / made).glob("track_*.mp4")):
                depth = track.with_name(track.name.replace("track", "depth"))
                relative = [
                    str(p.relative_to(folder))
                    if self.scenario.run is None
                    else f"{self.scenario.run}/{p.relative_to(folder)}"
                    for p in (track, depth)
                ]
                if all(
                    p.is_file() and hash_of(p) == self._frames.get(r)
                    for p, r in zip((track, depth), relative, strict=True)
                ):
                    files += [track, depth]
        return files

    def trouble(
        self,
        place: Place,
        ended: Ended,
        outside: dict[str, tuple[str, int, int]],
        kept: dict[str, tuple[int, int, str]],
        *,
        was_done: bool = False,
    ) -> list[str]:
        """Return what is not as it should be after the command that finished the job.

        Args:
            place: Where.
            ended: How that command ended.
            outside: State of everything else before.
            kept: State of the finished clips before that command.
            was_done: The output was there in full before that command.
        """
        trouble = []
        done = ended.code == 4 and self.scenario.says_so and was_done
        if ended.code != 0 and not done:
            return [f"ended with {ended.code}, hung {ended.hung}: {ended.err[-600:]}"]
        trouble += self.differences(place.work)
        # Single clips may be gone for good reason (--no-keep-clips).
        again = [
            name
            for name, state in kept.items()
            if (self.reference / name).exists() and _state(place.work / name) != state
        ]
        if again and not (self.scenario.says_so and was_done):
            trouble.append(f"made again without need: {again}")
        return trouble + self.litter(place, outside)

    def whole_outputs(self, name: str) -> set[str]:
        """Return hashes of what an output may be at any instant: as before, or as it becomes."""
        files = (self._base / name, self.reference / name)
        return {hash_of(file) for file in files if file.is_file()}

    def is_done(self, work: Path) -> bool:
        """Return whether everything a command makes is there."""
        return not self.differences(work)

    def differences(self, work: Path, *, spare: str = "") -> list[str]:
        """Return what of the result, but for one file, is not what it would be without a fault."""
        there = self._compared(work)
        differ = [
            path
            for path, content in self._frames.items()
            if path != spare and (not (work / path).is_file() or hash_of(work / path) != content)
        ]
        extra = sorted(set(there) - set(self._frames))
        return ([f"other content: {differ}"] if differ else []) + (
            [f"left over: {extra}"] if extra else []
        )

    def litter(self, place: Place, outside: dict[str, tuple[str, int, int]]) -> list[str]:
        """Return what is left of temporary files, and what was touched elsewhere."""
        trouble = []
        parts = [str(p.relative_to(place.work)) for p in place.work.rglob("*.part")]
        if parts:
            trouble.append(f"left half-written: {parts}")
        now = self.outside(place)
        touched = sorted(name for name in {*now, *outside} if now.get(name) != outside.get(name))
        if touched:
            trouble.append(f"touched outside the run: {touched}")
        return trouble
