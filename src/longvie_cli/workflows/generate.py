"""`generate`: a prompt and a source of controls become one mp4."""

from __future__ import annotations

from longvie_cli.planning.generate import decide
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.result import JobResult
from longvie_cli.running.whole import look_through, run_through
from longvie_cli.settings.requests import GenerateRequest


def generate(request: GenerateRequest, progress: Progress | None = None) -> JobResult:
    """Make a video, going on where an earlier call with the same request stopped.

    The frames depend on the request, the weights and the kind of device alone: stopped and
    continued any number of times, the video is the same.

    Raises:
        LongVieError: See `longvie_cli.errors`; everything made so far is saved.
    """
    return run_through(request, decide, progress or SilentProgress())


def plan(request: GenerateRequest, progress: Progress | None = None) -> JobResult:
    """Say what `generate` would do; writes nothing.

    Raises:
        LongVieError: What `generate` would raise before its first clip.
    """
    return look_through(request, decide, progress or SilentProgress())
