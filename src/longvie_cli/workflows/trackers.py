"""Which point tracker a run uses: Lucas-Kanade, or CoTracker3 once its licence is accepted."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import platformdirs

from longvie_cli.controls.tracks import LucasKanadeTracker, PointTracker
from longvie_cli.durable import write_atomic
from longvie_cli.errors import MissingResourceError
from longvie_cli.progress import Progress
from longvie_cli.settings.tracking import TrackerChoice

COTRACKER_LICENCE = "CC-BY-NC-4.0"
WEIGHTS_REPO = "facebook/cotracker3"
WEIGHTS_REVISION = "bf55ea50d4390e1820a267f131cd6587240fb2c5"

_ENTRY_NAME = "cotracker3"
_TRUE = {"1", "ON", "YES", "TRUE"}


def make_tracker(
    choice: TrackerChoice, *, device: str, accept_noncommercial: bool, progress: Progress
) -> PointTracker:
    """Return the tracker of a choice; nothing is loaded yet, but everything needed is there.

    Args:
        choice: What was asked for.
        device: A real device, for CoTracker3.
        accept_noncommercial: Accept the licence of CoTracker3, here and for the next time.
        progress: Where the licence is said.

    Raises:
        MissingResourceError: The licence is not accepted, or weights or code are not there.
    """
    if not choice.is_cotracker:
        return LucasKanadeTracker()
    from longvie_cli.controls.cotracker import CoTrackerTracker

    settle_cotracker_licence(accept=accept_noncommercial, progress=progress)
    online = choice.kind == "cotracker3-online"
    return CoTrackerTracker(
        cotracker_weights(online=online, checkout=choice.checkout),
        online=online,
        checkout=choice.checkout,
        device=device,
        offline_machine=os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE,
    )


def cotracker_weights(*, online: bool, checkout: Path | None) -> Path:
    """Return the weights of CoTracker3: in or beside the checkout, else in the hub's cache.

    Raises:
        MissingResourceError: They are in none of these places.
    """
    from huggingface_hub import try_to_load_from_cache

    name = f"scaled_{'online' if online else 'offline'}.pth"
    if checkout is not None:
        for folder in (checkout, checkout / "checkpoints", checkout.absolute().parent):
            if (folder / name).is_file():
                return folder / name
    found = try_to_load_from_cache(WEIGHTS_REPO, name, revision=WEIGHTS_REVISION)
    if isinstance(found, str):
        return Path(found)
    raise MissingResourceError(
        f"--tracker: {name} of {WEIGHTS_REPO} is not on this machine.",
        hint=f"longvie models pull {_ENTRY_NAME} --accept-noncommercial",
    )


def settle_cotracker_licence(*, accept: bool, progress: Progress) -> None:
    """Say the licence of CoTracker3, and go on only if it is accepted, now or before.

    Raises:
        MissingResourceError: It is not accepted.
    """
    progress.message(f"{_ENTRY_NAME}: code and weights of CoTracker, licence {COTRACKER_LICENCE}")
    path = Path(platformdirs.user_state_path("longvie")) / "accepted_licences.json"
    accepted: dict[str, Any] = {}
    if path.is_file():
        try:
            accepted = dict(json.loads(path.read_bytes()))
        except (OSError, ValueError):
            accepted = {}  # Not readable: then nothing counts as accepted.
    before = accepted.get(_ENTRY_NAME)
    if isinstance(before, dict) and before.get("licence") == COTRACKER_LICENCE:
        return
    if not accept:
        raise MissingResourceError(
            f"--tracker: CoTracker3 ({COTRACKER_LICENCE}) is not for commercial use, and its "
            "licence is not accepted so far.",
            hint="If you accept it, pass --accept-noncommercial; or use --tracker lk.",
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    accepted[_ENTRY_NAME] = {"licence": COTRACKER_LICENCE, "accepted": now}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(accepted, indent=1).encode())
