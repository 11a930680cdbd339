"""Runs as they lie on disk, for tests that make none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from longvie_cli.disk.hashing import fingerprint
from longvie_cli.run_folder.manifest import ClipRecord, Redo, RunInputs, RunManifest
from longvie_cli.timeline import ClipSpec

RUN_ID = "5eed" * 8
PROMPT, SEED = "a horse at dawn", 7


def stored_manifest(
    plan: Sequence[ClipSpec], redos: Sequence[Redo] = (), **changes: Any
) -> RunManifest:
    """Return a whole `run.json` of these clips."""
    settings = changes.pop("settings", {"prompt": PROMPT, "seed": SEED})
    values: dict[str, Any] = {
        "run_id": RUN_ID,
        "command": "generate",
        "settings": settings,
        "fingerprint": fingerprint(settings),
        "request": {"output": "out.mp4"},
        "asked": "00ff",
        "inputs": RunInputs(source_kind="flight"),
        "plan": tuple(plan),
        "seed": SEED,
        "preset": "tiny",
        "model_hashes": {"transformer": "00ff"},
        "versions": {"longvie": "0.1.0"},
        "created": "2026-11-23T15:00:00+00:00",
        "redos": tuple(redos),
    }
    return RunManifest(**values | changes)


def stored_record(**changes: Any) -> ClipRecord:
    """Return the record of a clip of such a run."""
    values: dict[str, Any] = {
        "run_id": RUN_ID,
        "index": 0,
        "frames": 33,
        "video_hash": "a",
        "tail_hash": "b",
        "seconds": 1.5,
        "seed": SEED,
        "prompt": PROMPT,
        "follows": "",
    }
    return ClipRecord(**values | changes)
