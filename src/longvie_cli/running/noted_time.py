"""What a clip took, noted for the plans to come."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from longvie_cli.disk.durable import write_atomic
from longvie_cli.errors import LongVieError
from longvie_cli.planning.expected_time import (
    clip_times_path,
    evaluations,
    read_clip_times,
    time_key,
)
from longvie_cli.planning.job import Job
from longvie_cli.settings.sampling import Offload

if TYPE_CHECKING:
    from longvie_cli.engine.clip_generator import ClipTimings

# So many machines, presets and sizes are remembered; the oldest are forgotten first.
_MAX_REMEMBERED = 200


def note_clip(job: Job, seconds: float, timings: ClipTimings, *, offload: Offload) -> None:
    """Remember what a clip took; a single step cannot be told from the rest and is not noted.

    Args:
        job: The run it belongs to.
        seconds: All of it, from reading its controls to its record.
        timings: Of the model's part.
        offload: Placement it was made in.
    """
    if timings.step_seconds is None:
        return
    steps = job.sampling.num_inference_steps * timings.step_seconds
    new = {
        "pass_seconds": steps / evaluations(job),
        "rest_seconds": max(0.0, seconds - steps),
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    known = [
        (key, value)
        for key, value in read_clip_times().items()
        if isinstance(value, dict) and isinstance(value.get("measured"), str)
    ]
    known.sort(key=lambda item: item[1]["measured"])
    kept = dict(known[-_MAX_REMEMBERED + 1 :]) | {time_key(job, offload): new}
    path = clip_times_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(kept, indent=1).encode())
    except (OSError, LongVieError):
        return  # A note that cannot be kept costs an estimate, not the run.
