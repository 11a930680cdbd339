"""A job whose clips are denoised by all processes that torchrun started."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from longvie_cli.parallel.processes import place_of_process
from longvie_cli.result import JobResult

if TYPE_CHECKING:
    from longvie_cli.engine.together import Leader

# Helpers wait while the first process extracts controls of a long video.
_LONGEST_WAIT = timedelta(days=7)


def with_helpers(work: Callable[[Leader | None], JobResult], asked: Path) -> JobResult:
    """Do a job in the first process and help it in the others; alone without torchrun.

    Args:
        work: The job. It is given what tells the others, None where there are none.
        asked: The output or the run that was asked for, for the result of a helper.

    Raises:
        OtherProcessEnded: Another process has ended before the job was done.
        LongVieError: What the job raises.
    """
    place = place_of_process()
    if place.count == 1:
        return work(None)
    from longvie_cli.engine.together import Leader, help_first_process
    from longvie_cli.parallel.group import group_of

    with group_of(place, longest_wait=_LONGEST_WAIT):
        if place.rank:
            help_first_process(place)
            return JobResult("helped", asked)
        leader = Leader(place)
        result = work(leader)
        leader.release()
        return result
