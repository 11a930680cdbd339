"""Which point tracker a run uses: Lucas-Kanade, or CoTracker3 once its licence is accepted."""

from __future__ import annotations

from pathlib import Path

from longvie_cli.controls.tracks import LucasKanadeTracker, PointTracker
from longvie_cli.errors import MissingResourceError
from longvie_cli.hub.installed import entry_status, is_offline
from longvie_cli.hub.licences import settle_licences
from longvie_cli.hub.registry import entry_named
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.settings.tracking import TrackerChoice
from longvie_cli.sources.depth_choice import ModelState

_HOW_TO_ACCEPT = "pass --accept-noncommercial; if not: --tracker lk"


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
    settle_licences(
        [entry_named("cotracker3")],
        accept=accept_noncommercial,
        how=_HOW_TO_ACCEPT,
        progress=progress,
    )
    return _cotracker(choice, device)


def tracker_fact(choice: TrackerChoice) -> str:
    """Return what decides the tracks, without absolute paths: many checkouts share a name."""
    if choice.checkout is None:
        return choice.label
    from longvie_cli.controls.cotracker import checkout_digest

    online = choice.kind == "cotracker3-online"
    try:
        weights = cotracker_weights(online=online, checkout=choice.checkout)
        return f"{choice.label} {checkout_digest(choice.checkout, weights)}"
    except (OSError, MissingResourceError):
        # Nothing can be made with it either, as `tracker_state` says.
        return choice.label


def tracker_state(choice: TrackerChoice, *, accept_noncommercial: bool) -> ModelState:
    """Return whether the tracker may be used and everything it needs is there; writes nothing."""
    if not choice.is_cotracker:
        return ModelState("tracker", choice.label)
    try:
        if not accept_noncommercial:
            settle_licences(
                [entry_named("cotracker3")],
                accept=False,
                how=_HOW_TO_ACCEPT,
                progress=SilentProgress(),
            )
        _cotracker(choice, "cpu")
    except MissingResourceError as missing:
        return ModelState("tracker", choice.label, missing)
    return ModelState("tracker", choice.label)


def _cotracker(choice: TrackerChoice, device: str) -> PointTracker:
    from longvie_cli.controls.cotracker import CoTrackerTracker

    online = choice.kind == "cotracker3-online"
    return CoTrackerTracker(
        cotracker_weights(online=online, checkout=choice.checkout),
        online=online,
        checkout=choice.checkout,
        device=device,
        offline_machine=is_offline(),
    )


def cotracker_weights(*, online: bool, checkout: Path | None) -> Path:
    """Return the weights of CoTracker3: in or beside the checkout, else in the hub's cache.

    Raises:
        MissingResourceError: They are in none of these places.
    """
    name = f"scaled_{'online' if online else 'offline'}.pth"
    if checkout is not None:
        for folder in (checkout, checkout / "checkpoints", checkout.absolute().parent):
            if (folder / name).is_file():
                return folder / name
    entry = entry_named("cotracker3")
    status = entry_status(entry)
    if status.folder is not None and name in status.present:
        return status.folder / name
    raise MissingResourceError(
        f"--tracker: {name} of {entry.repo} is not on this machine.",
        hint=f"longvie models pull {entry.name} --accept-noncommercial",
    )
