"""`extend`: more of a video, from its last frames on; its own frames are copied."""

from __future__ import annotations

from longvie_cli.planning.extend import decide
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.result import JobResult
from longvie_cli.running.whole import look_through, run_through
from longvie_cli.settings.requests import ExtendRequest


def extend(request: ExtendRequest, progress: Progress | None = None) -> JobResult:
    """Continue a video, going on where an earlier call with the same request stopped.

    Raises:
        LongVieError: See `longvie_cli.errors`; everything made so far is saved.
    """
    return run_through(request, decide, progress or SilentProgress())


def plan(request: ExtendRequest, progress: Progress | None = None) -> JobResult:
    """Say what `extend` would do; writes nothing.

    Raises:
        LongVieError: What `extend` would raise before its first clip.
    """
    return look_through(request, decide, progress or SilentProgress())
