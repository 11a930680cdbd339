"""What `--tracker` and `--track-grid` may say."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

from longvie_cli.settings.presets import TrackGrid

TRACKER_FORMS = "lk, cotracker3, cotracker3-online, path:DIR or path:DIR:online"

_GRID = re.compile(r"(\d{1,4})x(\d{1,4})", re.IGNORECASE)
_PATH_PREFIX = "path:"
_ONLINE_SUFFIX = ":online"


class TrackerChoice(BaseModel):
    """The point tracker asked for.

    Args:
        kind: `lk` is Lucas-Kanade of OpenCV; the others are CoTracker3, the whole clip at once or
            a window of 16 frames at a time.
        checkout: Folder with the code of CoTracker; None where torch.hub keeps it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["lk", "cotracker3", "cotracker3-online"] = "lk"
    checkout: Path | None = None

    @property
    def is_cotracker(self) -> bool:
        """Whether it needs the code and weights of CoTracker3, which are non-commercial."""
        return self.kind != "lk"

    @property
    def label(self) -> str:
        """The choice as it is typed, without the folders above a checkout."""
        if self.checkout is None:
            return self.kind
        online = _ONLINE_SUFFIX if self.kind == "cotracker3-online" else ""
        return f"{_PATH_PREFIX}{self.checkout.absolute().name}{online}"


def tracker_placed(value: str, place: Callable[[str], str]) -> str:
    """Return a tracker as written, with the folder that `place` makes of the one in it."""
    if not value.startswith(_PATH_PREFIX):
        return value
    folder = value.removeprefix(_PATH_PREFIX).removesuffix(_ONLINE_SUFFIX)
    online = _ONLINE_SUFFIX if value.endswith(_ONLINE_SUFFIX) else ""
    return f"{_PATH_PREFIX}{place(folder) if folder else ''}{online}"


def parse_tracker(value: Any) -> Any:
    """Return the `TrackerChoice` of what a user wrote, anything but text as it is.

    Raises:
        ValueError: It is none of `TRACKER_FORMS`.
    """
    if not isinstance(value, str):
        return value
    if value in ("lk", "cotracker3", "cotracker3-online"):
        return TrackerChoice(kind=value)
    folder = value.removeprefix(_PATH_PREFIX).removesuffix(_ONLINE_SUFFIX)
    if value.startswith(_PATH_PREFIX) and folder:
        online = value.endswith(_ONLINE_SUFFIX)
        return TrackerChoice(
            kind="cotracker3-online" if online else "cotracker3",
            checkout=Path(folder),
        )
    raise ValueError(f"use {TRACKER_FORMS}")


def parse_track_grid(value: Any) -> Any:
    """Return the columns and rows of a grid written `50x50`, anything but text as it is.

    Raises:
        ValueError: It is no COLUMNSxROWS.
    """
    if not isinstance(value, str):
        return value
    found = _GRID.fullmatch(value.strip())
    if found is None or not all(2 <= int(number) <= 256 for number in found.groups()):
        raise ValueError("use COLUMNSxROWS, each from 2 to 256, as in 50x50")
    return TrackGrid(columns=int(found[1]), rows=int(found[2]))


TrackerSetting = Annotated[TrackerChoice, BeforeValidator(parse_tracker)]
TrackGridSetting = Annotated[TrackGrid, BeforeValidator(parse_track_grid)]


class Tracking(BaseModel):
    """How points are tracked; None stands for the earlier video's or the preset's choice."""

    tracker: TrackerSetting | None = None
    track_grid: TrackGridSetting | None = None
    accept_noncommercial: bool = False
