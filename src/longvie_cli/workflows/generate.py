"""`generate`: a prompt and a source of controls become one mp4."""

from __future__ import annotations

from longvie_cli.hub.installed import go_offline, locate_weights
from longvie_cli.planning.generate import decide
from longvie_cli.planning.paths import check_places
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.result import JobResult
from longvie_cli.running.carry_out import carry_out
from longvie_cli.running.dry_run import describe
from longvie_cli.settings.requests import GenerateRequest


def generate(request: GenerateRequest, progress: Progress | None = None) -> JobResult:
    """Make a video, going on where an earlier call with the same request stopped.

    The frames depend on the request, the weights and the kind of device alone: stopped and
    continued any number of times, the video is the same.

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
    # Controls are looked at first: what is wrong with them is wrong whatever is fetched.
    job = decide(request, progress, to_run=True)
    locate_weights(job.preset)
    return carry_out(job, progress)


def plan(request: GenerateRequest, progress: Progress | None = None) -> JobResult:
    """Say what `generate` would do; writes nothing."""
    progress = progress or SilentProgress()
    check_places(request)
    if request.offline:
        go_offline()
    return describe(decide(request, progress), progress)
