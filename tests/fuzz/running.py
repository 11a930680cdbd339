"""Running a reader over damaged inputs: our own errors in bounded time and memory, or a failure."""

from __future__ import annotations

import hashlib
import random
import resource
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longvie_cli.errors import LongVieError

from . import mutations

# Processor time, so that a busy machine does not count.
SECONDS_AN_INPUT = 5.0
MEMORY_AN_INPUT = 1 << 30
_LONGEST_MESSAGE = 2000


@dataclass(frozen=True)
class Reader:
    """Something that reads what anybody may have written.

    Args:
        name: In reports.
        read: Reads bytes, with a scratch folder for those that want a file, and uses the result as
            the product does.
        corpus: Valid inputs.
        inputs: How many damaged ones a full run tries.
        codes: Exit codes that its errors may have.
        documents: The corpus as values, for damage by structure.
        words: The words of its language, where it has one.
        yaml: The documents are YAML.
        decoded: What is damaged in bytes is decoded first, as an argument or variable would be.
    """

    name: str
    read: Callable[[Path, bytes], object]
    corpus: tuple[bytes, ...]
    inputs: int
    codes: frozenset[int]
    documents: tuple[Any, ...] = ()
    words: tuple[str, ...] = ()
    yaml: bool = False

    def damaged(self, seed: int) -> bytes:
        """Return the damaged input of a number."""
        chance = random.Random(f"{self.name} {seed}")
        ways: list[Callable[[], bytes]] = [
            lambda: mutations.damaged_bytes(chance, chance.choice(self.corpus))
        ]
        if self.documents:
            ways += [lambda: self._restructured(chance)] * 3
        if self.words:
            ways += [
                lambda: mutations.damaged_words(
                    chance, chance.choice(self.corpus).decode(), self.words
                )
            ] * 3
        return chance.choice(ways)()

    def _restructured(self, chance: random.Random) -> bytes:
        document = chance.choice(self.documents)
        changed = mutations.damaged_document(chance, document, yaml=self.yaml)
        return mutations.rendered(changed)


class TooLong(BaseException):
    """An input took more processor time than any may."""


@contextmanager
def bounded() -> Iterator[None]:
    """Bound memory while many inputs are read."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + MEMORY_AN_INPUT
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))

    def stop(number: int, frame: object) -> None:
        raise TooLong(f"more than {SECONDS_AN_INPUT:g} s of processor time")

    handler = signal.signal(signal.SIGVTALRM, stop)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def complaint(reader: Reader, folder: Path, data: bytes) -> str | None:
    """Return what a reader does wrong with an input, None if it takes it or refuses it well."""
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS_AN_INPUT)
    try:
        reader.read(folder, data)
    except LongVieError as error:
        return _wrong_error(reader, error)
    except (Exception, TooLong) as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return None


def _wrong_error(reader: Reader, error: LongVieError) -> str | None:
    if error.exit_code not in reader.codes:
        return f"exit code {error.exit_code}: {error.message[:300]}"
    if not error.message or len(error.message) > _LONGEST_MESSAGE:
        return f"a message of {len(error.message)} characters: {error.message[:300]}"
    if "\n" in error.message:
        return f"a message of several lines: {error.message[:300]}"
    return None


def check(reader: Reader, folder: Path, seeds: range) -> None:
    """Read the damaged inputs of some numbers; say each that went wrong and where it is saved."""
    wrong: dict[str, str] = {}
    with bounded():
        for seed in seeds:
            data = reader.damaged(seed)
            reason = complaint(reader, folder, data)
            if reason is not None and reason.partition(":")[0] not in wrong:
                wrong[reason.partition(":")[0]] = f"input {seed}: {reason}\n{saved(reader, data)}"
    print(f"fuzz: {reader.name}: {len(seeds)} inputs, {len(wrong)} kinds of failure")
    assert not wrong, f"{reader.name}:\n" + "\n".join(wrong.values())


def saved(reader: Reader, data: bytes) -> str:
    """Save an input that went wrong and return where, with its beginning."""
    digest = hashlib.sha256(data).hexdigest()[:12]
    path = Path(tempfile.gettempdir()) / f"longvie-fuzz-{reader.name.replace(' ', '-')}-{digest}"
    path.write_bytes(data)
    return f"  {path}: {data[:400]!r}"
