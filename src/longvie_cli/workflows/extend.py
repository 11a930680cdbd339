"""`extend`: more of a video, from its last frames on; its own frames are copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longvie_cli.hub.installed import go_offline
from longvie_cli.planning.extend import decide
from longvie_cli.planning.paths import check_places
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.result import JobResult
from longvie_cli.running.carry_out import carry_out
from longvie_cli.running.dry_run import describe
from longvie_cli.settings.requests import ExtendRequest

if TYPE_CHECKING:
    pass


def extend(request: ExtendRequest, progress: Progress | None = None) -> JobResult:
    """Continue a video, going on where an earlier call with the same request stopped.

    Raises:
        LongVieError: See `longvie_cli.errors`; everything made so far is saved.
    """
    progress = progress or SilentProgress()
    check_places(request)
    if request.no_clobber and request.output.exists():
        progress.message(f"{request.output}: exists, skipped (--no-clobber).")
        return JobResult("skipped", request.output)
    if request.offline:
        go_offline()
    return carry_out(decide(request, progress, to_run=True), progress)


def plan(request: ExtendRequest, progress: Progress | None = None) -> JobResult:
    """Say what `extend` would do; writes nothing."""
    progress = progress or SilentProgress()
    check_places(request)
    if request.offline:
        go_offline()
    return describe(decide(request, progress), progress)
