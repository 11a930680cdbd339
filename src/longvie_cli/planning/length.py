"""How many frames a run makes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from longvie_cli.errors import ControlError, UsageError
from longvie_cli.sources.source import Source

if TYPE_CHECKING:
    pass


# What a flight, or a video that goes on without controls, lasts if no length is given.
DEFAULT_SECONDS = 10.0


def frames_to_make(
    source: Source,
    wanted: int | None,
    *,
    flag: str,
    fps: int,
    shared_frames: int = 0,
    repeatable: bool = True,
) -> int:
    """Return how many frames the run adds.

    Args:
        source: Where the controls come from.
        wanted: Frames asked for; None for all that the source has.
        flag: The length as the user wrote it.
        fps: Of the preset.
        shared_frames: Frames at the start of the source that the video has already (0 or 1).
        repeatable: Whether the command could play it back and forth, for the hint.

    Raises:
        UsageError: The source is shorter; the message names the longest possible.
        ControlError: Nothing of the source is left.
    """
    available = source.frames_left(None if wanted is None else wanted + shared_frames)
    if available is None:
        return wanted if wanted is not None else round(DEFAULT_SECONDS * fps)
    available -= shared_frames
    if available < 1:
        raise ControlError(
            f"{source.name}: nothing is left of it from frame {source.first_frame} on.",
            hint="Pass --repeat pingpong, or another --video or --controls.",
        )
    if wanted is None:
        return available
    if wanted > available:
        option = flag.split()[0]
        repeat = "or --repeat pingpong, " if repeatable else ""
        raise UsageError(
            f"{flag}: {source.name} has {available} frames ({available / fps:.2f} s at {fps} fps), "
            f"but {wanted} are needed.",
            hint=f"{_longest(option, available, fps)}, {repeat}or a longer source.",
        )
    return wanted


def _longest(option: str, available: int, fps: int) -> str:
    seconds = available / fps
    if option == "--minutes":
        return f"Pass at most --minutes {math.floor(seconds / 60 * 1000) / 1000:g}"
    return f"Pass at most --seconds {math.floor(seconds * 1000) / 1000:g}"
