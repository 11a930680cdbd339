"""Whether the timestamps of a video can be true: one damaged byte can make hours of a second.

Frames are resampled by their timestamps, so these decide how many there will be and what ffmpeg
holds of them. They are judged before anything is decoded, by what the file itself stores: no frame
lasts longer than `_MAX_SECONDS`, and none that is far out of line with the others most of the film.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median_low

from longvie_cli.errors import MediaError
from longvie_cli.media.packets import VideoPackets
from longvie_cli.timeline import timecode

_MAX_HOURS = 24
# A slide show has pictures that stay, but not for longer than this.
_MAX_SECONDS = 600
# A picture that stays this long, and so many times as long as is usual in its video, is taken for
# damage where it fills more than half of it: recordings of a screen have shorter rests, and GIFs.
_LONG_SECONDS = 10
_TIMES_USUAL = 100
_MAX_FPS = 1000
# More frames are never held back to be shown later, by no codec.
_MAX_REORDERED = 16
# Frames at one instant, of all, from which on timestamps are taken for damaged.
_MAX_AT_ONCE = 1 / 4
# Intervals of a constant rate differ by the rounding of container times, at most a millisecond.
_ROUNDING_SECONDS = Fraction(2, 1000)

_HINT = (
    "Write it anew with a player or editor that repairs timestamps, at a constant frame rate; or "
    "copy or download it again."
)


@dataclass(frozen=True)
class Timing:
    """How long the frames of a video are shown.

    Args:
        duration: Seconds from the first frame to the end of the last.
        longest: Seconds the longest frame is shown.
        variable_fps: Lowest and highest rate between two frames, None where all are alike.
        not_believed: Seconds that the last frame claims to last, where the others contradict it:
            then it lasts as long as they do. None where it is believed.
    """

    duration: Fraction
    longest: Fraction
    variable_fps: tuple[float, float] | None
    not_believed: Fraction | None


def timing_of(path: Path, packets: VideoPackets) -> Timing:
    """Return the timing of a video whose timestamps can be true.

    Raises:
        MediaError: They cannot; says which frames contradict the others.
    """
    tick, times = packets.time_base, packets.timestamps
    steps = [later - earlier for earlier, later in pairwise(times)]
    _check_order(path, packets, steps)
    usual = median_low([step for step in steps if step] or [packets.end - times[-1]])
    last = packets.end - times[-1]
    span = times[-1] - times[0]
    for number, step in enumerate(steps):
        if _is_damage(step * tick, usual * tick, (span + min(last, usual)) * tick):
            raise MediaError(
                f"{path}: its timestamps are damaged: frame {number}, at "
                f"{timecode(float((times[number] - times[0]) * tick))}, would stay for "
                f"{float(step * tick):.0f} s, the others for {float(usual * tick):.3g} s.",
                hint=_HINT,
            )
    not_believed = None
    contradicted = bool(steps) and packets.usual_duration > 2 * usual + _ROUNDING_SECONDS / tick
    if last > usual and (
        contradicted or _is_damage(last * tick, usual * tick, (span + last) * tick)
    ):
        if not steps:
            raise MediaError(
                f"{path}: its only frame would stay for {float(last * tick):.0f} s.", hint=_HINT
            )
        not_believed, last = last * tick, usual
    duration = (span + last) * tick
    _check_length(path, packets, duration)
    longest = max([*steps, last]) * tick
    return Timing(duration, longest, _variable_fps(steps, tick), not_believed)


def _is_damage(seconds: Fraction, usual: Fraction, whole: Fraction) -> bool:
    """Return whether a frame cannot last so long in a video of `whole` seconds."""
    if seconds > _MAX_SECONDS:
        return True
    far_out = seconds > _LONG_SECONDS and seconds > _TIMES_USUAL * usual
    return far_out and 2 * seconds > whole


def _check_order(path: Path, packets: VideoPackets, steps: list[int]) -> None:
    at_once = sum(not step for step in steps)
    if packets.delay > _MAX_REORDERED or at_once > max(_MAX_REORDERED, _MAX_AT_ONCE * len(steps)):
        raise MediaError(
            f"{path}: its timestamps are damaged: they jump back, so that many frames would be "
            "shown at once or in another order.",
            hint=_HINT,
        )


def _check_length(path: Path, packets: VideoPackets, duration: Fraction) -> None:
    count = len(packets.timestamps)
    if duration > _MAX_HOURS * 3600:
        raise MediaError(
            f"{path}: its timestamps span {float(duration) / 3600:.0f} hours with {count} frames; "
            f"more than {_MAX_HOURS} hours is refused.",
            hint=_HINT,
        )
    average = packets.average_fps
    if count > 2 and (average is None or average > _MAX_FPS):
        raise MediaError(
            f"{path}: its timestamps are damaged: its {count} frames would begin within "
            f"{float((packets.timestamps[-1] - packets.timestamps[0]) * packets.time_base):.2g} s.",
            hint=_HINT,
        )


def _variable_fps(steps: list[int], tick: Fraction) -> tuple[float, float] | None:
    steps = [step for step in steps if step]
    if not steps:
        return None
    shortest, longest = min(steps) * tick, max(steps) * tick
    if longest - shortest <= max(_ROUNDING_SECONDS, tick * 2):
        return None
    return float(1 / longest), float(1 / shortest)
