"""What a run does where its source goes over to another scene: refuse, begin anew, or go on."""

from __future__ import annotations

from collections.abc import Sequence

from longvie_cli.errors import InputError, UsageError
from longvie_cli.media.scenes import SceneChange
from longvie_cli.progress import Progress
from longvie_cli.settings.requests import AtCut
from longvie_cli.sources.source import Source
from longvie_cli.timeline import timecode

# More are counted, not listed.
_LISTED = 8


def cuts_to_honour(
    source: Source,
    num_frames: int,
    at_cut: AtCut | None,
    *,
    fps: int,
    notes: list[str],
    progress: Progress,
) -> tuple[int, ...]:
    """Return the frames of a run, counted from the source's `first_frame`, that begin clips anew.

    Args:
        source: Looked through once, decoding what the run shows of it.
        num_frames: Frames of the source that the run shows.
        at_cut: What was asked for; None is `refuse` for a video, and `restart` for controls that
            were extracted so.
        fps: Of the preset.
        notes: Gets what is done about the cuts, in a line.
        progress: Told of the pass.

    Raises:
        InputError: There are cuts and they are refused; names their times.
        UsageError: They cannot be honoured in a source that is played back and forth.
        DamagedVideoError: A frame that is needed is damaged.
    """
    changes = source.scene_changes(num_frames, progress)
    if not changes:
        return ()
    what = f"{source.name}: {describe_changes(changes, source.first_frame, fps)}"
    if at_cut is None:
        at_cut = "restart" if source.kind == "controls" else "refuse"
    if at_cut == "refuse":
        seconds = max(changes[0].start / fps, 1 / fps)
        raise InputError(
            f"{what}; a clip would carry the old scene into the new one.",
            hint="Pass --at-cut restart to begin anew at each, --at-cut ignore to go on over them, "
            f"or --seconds {int(seconds * 100) / 100:g} to stop before the first.",
        )
    if at_cut == "ignore":
        notes.append(f"{what}; ignored, clips go on over them (--at-cut ignore).")
        return ()
    if source.pingpong:
        raise UsageError(
            f"--at-cut restart: {what}, and it is played back and forth.",
            hint="Drop --repeat pingpong, or pass --at-cut ignore.",
        )
    notes.append(f"{what}; the clip after each begins anew (--at-cut restart).")
    return tuple(change.frame for change in changes)


def describe_changes(changes: Sequence[SceneChange], first_frame: int, fps: int) -> str:
    """Return how many changes of scene there are, how they go and where, in time of the source."""
    if len(changes) == 1:
        return f"a {_described(changes[0], first_frame, fps)}"
    listed, all_cuts = changes[:_LISTED], all(change.kind == "cut" for change in changes)
    more = f" and {len(changes) - _LISTED} more" if len(changes) > _LISTED else ""
    if all_cuts:
        times = ", ".join(timecode((first_frame + change.frame) / fps) for change in listed)
        return f"{len(changes)} scene cuts, at {times}{more}"
    each = ", ".join(_described(change, first_frame, fps) for change in listed)
    return f"{len(changes)} changes of scene: {each}{more}"


def _described(change: SceneChange, first_frame: int, fps: int) -> str:
    end = timecode((first_frame + change.frame) / fps)
    if change.kind == "cut":
        return f"scene cut at {end}"
    return f"{change.kind} from {timecode((first_frame + change.start) / fps)} to {end}"
