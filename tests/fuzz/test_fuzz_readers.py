"""Whatever stands in a file, a variable or a tag: taken, or refused in our own words.

The default run takes a sample of the inputs that `-m slow` takes; both are the same every time.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .readers import READERS
from .running import Reader, check

SAMPLE = 40


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_sample_is_taken_or_refused_in_our_words(reader: Reader, tmp_path: Path) -> None:
    check(reader, tmp_path, range(reader.inputs // SAMPLE))


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_every_input_is_taken_or_refused_in_our_words(reader: Reader, tmp_path: Path) -> None:
    check(reader, tmp_path, range(reader.inputs))


def test_there_are_a_hundred_thousand_inputs() -> None:
    assert sum(reader.inputs for reader in READERS) >= 100_000


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_what_is_damaged_was_whole(reader: Reader, tmp_path: Path) -> None:
    for data in reader.corpus:
        reader.read(tmp_path, data)
