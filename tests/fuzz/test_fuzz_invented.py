"""Inputs that were never valid: documents, texts and bytes that hypothesis makes up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .mutations import rendered
from .readers import READERS
from .running import Reader, bounded, complaint, saved

_REPEATABLE = {
    "derandomize": True,
    "database": None,
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
}


def _keys(document: Any) -> set[str]:
    """Return every key in a document."""
    if isinstance(document, dict):
        return set(document).union(*map(_keys, document.values()))
    return set().union(*map(_keys, document)) if isinstance(document, list | tuple) else set()


def _invented(reader: Reader) -> st.SearchStrategy[bytes]:
    if reader.words:
        parts = st.sampled_from(reader.words) | st.text(max_size=6)
        return st.lists(parts, max_size=12).map(
            lambda words: " ".join(words).encode(errors="replace")
        )
    if not reader.documents:
        return st.binary(max_size=200)
    keys = st.sampled_from(sorted(_keys(reader.documents)) or ["a"]) | st.text(max_size=3)
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
    documents = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=6),
        max_leaves=20,
    )
    return documents.map(rendered)


def _check(reader: Reader, folder: Path, max_examples: int) -> None:
    @settings(max_examples=max_examples, **_REPEATABLE)
    @given(_invented(reader))
    def each(data: bytes) -> None:
        reason = complaint(reader, folder, data)
        assert reason is None, f"{reader.name}: {reason}\n{saved(reader, data)}"

    with bounded():
        each()


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_few_inventions(reader: Reader, tmp_path: Path) -> None:
    _check(reader, tmp_path, 12)


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_inventions(reader: Reader, tmp_path: Path) -> None:
    _check(reader, tmp_path, 150)
