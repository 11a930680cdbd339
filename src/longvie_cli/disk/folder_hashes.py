"""Hashes of weights and code that a user brings; each file is read once, until it changes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import platformdirs

from longvie_cli.disk.documents import MAX_JSON_BYTES, parse_json, read_document
from longvie_cli.disk.durable import write_atomic
from longvie_cli.disk.hashing import hash_file
from longvie_cli.errors import LongVieError

_SUFFIXES = (".safetensors", ".json", ".pth", ".model")


def folder_hashes(folder: Path) -> dict[str, str]:
    """Return the hash of every weights and settings file of a folder, by its name there."""
    paths = (path for path in folder.rglob("*") if path.suffix in _SUFFIXES and path.is_file())
    return file_hashes(folder, paths)


def file_hashes(folder: Path, paths: Iterable[Path]) -> dict[str, str]:
    """Return the hash of files under a folder, by their names there, in order.

    Full-size weights are tens of gigabytes: hashes are remembered in the user's cache by path, size
    and time of change.

    Raises:
        OSError: A file cannot be read.
    """
    remembered_at = Path(platformdirs.user_cache_path("longvie")) / "weight_hashes.json"
    remembered = _read(remembered_at)
    hashes: dict[str, str] = {}
    learned: dict[str, list[Any]] = {}
    for path in sorted(paths):
        status = path.stat()
        place = str(path.resolve())
        state = [status.st_size, status.st_mtime_ns]
        known = remembered.get(place)
        if not (isinstance(known, list) and known[:2] == state and len(known) == 3):
            known = learned[place] = [*state, hash_file(path)]
        hashes[path.relative_to(folder).as_posix()] = str(known[2])
    if learned:
        _remember(remembered_at, remembered | learned)
    return hashes


def _read(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(read_document(path, MAX_JSON_BYTES))
    except (OSError, ValueError):
        return {}  # Nothing remembered: every file is read.
    return found if isinstance(found, dict) else {}


def _remember(path: Path, hashes: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(hashes).encode())
    except (OSError, LongVieError):
        return  # A cache that cannot be written costs time, not correctness.
