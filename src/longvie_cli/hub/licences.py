"""Licences of models: said before anything is fetched; non-commercial ones are accepted once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import platformdirs

from longvie_cli.disk.documents import MAX_JSON_BYTES, parse_json, read_document
from longvie_cli.disk.durable import write_atomic
from longvie_cli.errors import MissingResourceError
from longvie_cli.hub.registry import ModelEntry
from longvie_cli.progress import Progress


def acceptance_file() -> Path:
    """Return the file that remembers which licences this user accepted."""
    return Path(platformdirs.user_state_path("longvie")) / "accepted_licences.json"


def settle_licences(
    entries: Sequence[ModelEntry], *, accept: bool, how: str, progress: Progress
) -> None:
    """Say the licence of every entry, and go on only if the non-commercial ones are accepted.

    Never asks: a licence is accepted by `accept`, or was by an earlier call.

    Args:
        entries: What is about to be fetched or used.
        accept: Whether the user accepts, here and for the next time.
        how: How the user accepts: a command, or flags; for the error.
        progress: Where the licences are said.

    Raises:
        MissingResourceError: A non-commercial licence was not accepted.
    """
    for entry in entries:
        progress.message(f"{entry.name}: {entry.repo}, licence {entry.licence}")
    noncommercial = [entry for entry in entries if entry.noncommercial]
    before = _accepted()
    if accept:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        new = {
            entry.name: {"licence": entry.licence, "accepted": now}
            for entry in noncommercial
            if not _covers(before, entry)
        }
        if new:
            path = acceptance_file()
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(before | new, indent=1).encode())
        return
    open_ones = [entry for entry in noncommercial if not _covers(before, entry)]
    if open_ones:
        listed = ", ".join(f"{entry.name} ({entry.licence})" for entry in open_ones)
        raise MissingResourceError(
            f"{listed}: not for commercial use, and not accepted so far.",
            hint=f"If you accept: {how}",
        )


def _covers(accepted: dict[str, Any], entry: ModelEntry) -> bool:
    found = accepted.get(entry.name)
    return isinstance(found, dict) and found.get("licence") == entry.licence


def _accepted() -> dict[str, Any]:
    try:
        found = parse_json(read_document(acceptance_file(), MAX_JSON_BYTES))
    except (OSError, ValueError):
        # Not there, or not readable: then nothing counts as accepted.
        return {}
    return found if isinstance(found, dict) else {}
