"""Files that say themselves whether they are as they were written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash

from longvie_cli.disk.documents import parse_json
from longvie_cli.disk.durable import is_passing, storage_error

_KEY = "checksum"
_DIGEST_BYTES = 16
_BLOCK_BYTES = 1 << 20


def checksummed_json(values: Mapping[str, Any]) -> bytes:
    """Return an object as a JSON file with a checksum of all else in it."""
    whole = {**values, _KEY: _checksum(values)}
    return (json.dumps(whole, indent=2, ensure_ascii=False) + "\n").encode()


def read_checksummed_json(data: bytes) -> dict[str, Any]:
    """Return the object in a JSON file, without the checksum.

    A file without one was written by hand, and is taken as it is.

    Raises:
        ValueError: It holds no object, or was changed since it was written.
    """
    values = parse_json(data)
    if not isinstance(values, dict):
        raise ValueError("not a JSON object")
    checksum = values.pop(_KEY, None)
    if checksum is not None and checksum != _checksum(values):
        raise ValueError("changed by hand or damaged: its checksum is another")
    return values


def with_digest(data: bytes) -> bytes:
    """Return a file's content with a hash behind it, where readers of its format do not look."""
    return data + xxhash.xxh3_128_digest(data)


def is_intact(path: Path) -> bool:
    """Return whether a file made by `with_digest` is there as it was written.

    Raises:
        ResumableError: The disk failed.
        OutputConflictError: It may not be read.
    """
    try:
        rest = path.stat().st_size - _DIGEST_BYTES
        digest = xxhash.xxh3_128()
        with open(path, "rb") as file:
            while rest > 0 and (block := file.read(min(rest, _BLOCK_BYTES))):
                digest.update(block)
                rest -= len(block)
            return rest == 0 and file.read() == digest.digest()
    except OSError as reason:
        if is_passing(reason):
            raise storage_error(path, reason) from reason
        return False


def _checksum(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return xxhash.xxh3_128_hexdigest(text.encode())
