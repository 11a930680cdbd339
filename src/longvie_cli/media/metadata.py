"""The settings of a run, as JSON in the `comment` tag of its video."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from longvie_cli.disk.documents import parse_json
from longvie_cli.media.ffmpeg import check_readable, input_arguments, run_reading

_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_LINE = re.compile(r"(?:\\[\s\S]|[^\\\n])+")
_SPECIAL = re.compile(r"([=;#\\\n])")


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
    comment = _global_tags(report.decode(errors="replace")).get("comment")
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


def _global_tags(report: str) -> dict[str, str]:
    # "key=value" lines up to the first section; a line break inside a value follows a backslash.
    tags: dict[str, str] = {}
    for line in _LINE.findall(report):
        if line.startswith("["):
            break
        key, equals, value = line.partition("=")
        if equals and not line.startswith(";"):
            tags[key.lower()] = _ESCAPED.sub(r"\1", value)
    return tags
