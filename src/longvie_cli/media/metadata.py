"""The settings of a run, as JSON in the `comment` tag of its video."""

from __future__ import annotations

import json
import mmap
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash

from longvie_cli.disk.documents import parse_json
from longvie_cli.disk.durable import storage_error
from longvie_cli.media.ffmpeg import check_readable, input_arguments, run_reading

_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_LINE = re.compile(r"(?:\\[\s\S]|[^\\\n])+")
_SPECIAL = re.compile(r"([=;#\\\n])")

SEAL = "sealed"
"""Key of the settings under which the hash of the whole file stands, once `seal` wrote it there."""
NOT_SEALED = "0" * 32
"""Its value before, for which the hash is made."""
_BLOCK_BYTES = 1 << 20


def encode_settings(settings: Mapping[str, Any]) -> str:
    """Return settings as one line of JSON with sorted keys, for a writer's `metadata`."""
    return json.dumps(settings, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def read_settings(path: Path) -> dict[str, Any] | None:
    """Return the settings stored in a video, None if its comment is missing or is something else.

    Raises:
        MediaError: The file cannot be read.
    """
    check_readable(path)
    report = run_reading(path, [*input_arguments(path), "-f", "ffmetadata", "pipe:1"])
    return settings_in(report)


def settings_in(report: bytes) -> dict[str, Any] | None:
    """Return the settings in ffmpeg's report of a video's tags, as `read_settings` does."""
    # Tags of other tools need not be UTF-8.
    comment = global_tags(report.decode(errors="replace")).get("comment")
    if comment is None:
        return None
    try:
        settings = parse_json(comment)
    except ValueError:
        return None
    return settings if isinstance(settings, dict) else None


def ffmetadata(comment: str) -> bytes:
    """Return an ffmetadata file that holds `comment`: of any length, unlike an argument."""
    escaped = _SPECIAL.sub(r"\\\1", comment)
    return f";FFMETADATA1\ncomment={escaped}\n".encode()


def seal(path: Path) -> None:
    """Put the hash of a file into its settings; does nothing where they have no room for it.

    Raises:
        ResumableError: The disk is full or failed.
    """
    place = _seal_place(path, NOT_SEALED)
    if place is None:
        return
    digest = _hash_without(path, place)
    try:
        with open(path, "rb+") as file:
            file.seek(place)
            file.write(digest.encode())
    except OSError as reason:
        raise storage_error(path, reason) from reason


def is_as_sealed(path: Path, settings: Mapping[str, Any]) -> bool:
    """Return whether a file with these settings is, to the last bit, the one that was sealed."""
    sealed = settings.get(SEAL)
    if not isinstance(sealed, str) or len(sealed) != len(NOT_SEALED):
        return False
    place = _seal_place(path, sealed)
    return place is not None and _hash_without(path, place) == sealed


def _seal_place(path: Path, sealed: str) -> int | None:
    written = f'"{SEAL}":"{sealed}"'.encode()
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = data.find(written)
    return found + len(written) - len(sealed) - 1 if found >= 0 else None


def _hash_without(path: Path, place: int) -> str:
    """Return the hash of a file as if the seal at a place in it had not been written."""
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        digest.update(file.read(place))
        file.seek(len(NOT_SEALED), os.SEEK_CUR)
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def global_tags(report: str) -> dict[str, str]:
    """Return the tags of a whole file in ffmpeg's report of it, by name in small letters."""
    # "key=value" lines up to the first section; a line break inside a value follows a backslash.
    tags: dict[str, str] = {}
    for line in _LINE.findall(report):
        if line.startswith("["):
            break
        key, equals, value = line.partition("=")
        if equals and not line.startswith(";"):
            tags[key.lower()] = _ESCAPED.sub(r"\1", value)
    return tags
