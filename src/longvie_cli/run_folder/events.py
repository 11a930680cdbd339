"""What happened in a run, one JSON line an event, for people and programs that watch."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from longvie_cli.disk.documents import json_line, parse_json
from longvie_cli.disk.durable import storage_error


def append_event(path: Path, event: str, **facts: Any) -> None:
    """Add a line with the time (ISO 8601, UTC), the event's name and its facts (JSON values).

    Raises:
        ResumableError: The disk is full.
        OutputConflictError: The file cannot be written.
    """
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = json_line({"time": time, "event": event, **facts}) + "\n"
    try:
        # Never through a link out of the run folder.
        with open(path, "ab+", opener=_not_through_links) as file:
            if _ends_in_torn_line(file.fileno()):
                line = "\n" + line
            file.write(line.encode())
    except OSError as reason:
        raise storage_error(path, reason) from reason


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return the events so far, none if the file is missing or cannot be read.

    A line torn by a kill is left out: an event is a report, nothing depends on it.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []
    events = []
    for line in lines:
        try:
            event = parse_json(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            events.append(event)
    return events


def _not_through_links(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _ends_in_torn_line(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
