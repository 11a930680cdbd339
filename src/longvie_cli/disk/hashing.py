"""Hashes that name content: of files, and of JSON values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash

_BLOCK_BYTES = 1 << 20


def hash_file(path: Path) -> str:
    """Return the xxh3 128-bit hash of a file's bytes, in hexadecimal.

    Raises:
        OSError: The file cannot be read.
    """
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Return a hash of JSON values that does not depend on the order of keys."""
    text = json.dumps(facts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return xxhash.xxh3_128_hexdigest(text.encode())


def input_state(path: Path) -> str:
    """Return what tells whether an input is still what it was: a hash of a file's bytes.

    Of a folder it is a hash of the names, sizes and times of all files in it.

    Raises:
        OSError: It cannot be read.
    """
    if not path.is_dir():
        return hash_file(path)
    listing = []
    for file in sorted(path.rglob("*")):
        found = file.stat()
        listing.append([file.relative_to(path).as_posix(), found.st_size, found.st_mtime_ns])
    return fingerprint({"files": listing})
