"""How long a run will take, from what this machine was seen to do.

Every clip made notes its seconds in the user's state folder, under what decides them: preset, size,
device, type, placement. So the figure is a measurement of this machine, not a promise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import platformdirs

from longvie_cli.disk.documents import MAX_JSON_BYTES, parse_json, read_document
from longvie_cli.disk.hashing import fingerprint
from longvie_cli.planning.job import Job
from longvie_cli.progress import duration
from longvie_cli.settings.sampling import Offload


@dataclass(frozen=True)
class ExpectedTime:
    """What clips still to be made will take.

    Args:
        seconds: All of them together, controls and joining not counted.
        clip_seconds: One clip.
        measured: Day on which the clip it is taken from was made, `2026-11-24`.
    """

    seconds: float
    clip_seconds: float
    measured: str

    @property
    def text(self) -> str:
        """The time in words."""
        return (
            f"about {duration(self.seconds)} for the clips ({self.clip_seconds:.1f} s each, as on "
            f"this machine on {self.measured})"
        )


def expected_time(job: Job, num_clips: int, *, offload: Offload) -> ExpectedTime | None:
    """Return what `num_clips` of a job will take; None where this machine never made such clips."""
    found = read_clip_times().get(time_key(job, offload))
    if num_clips == 0 or not isinstance(found, dict):
        return None
    try:
        seconds = float(found["rest_seconds"]) + evaluations(job) * float(found["pass_seconds"])
        measured = datetime.fromisoformat(found["measured"]).date().isoformat()
    except (KeyError, TypeError, ValueError):
        return None
    if not math.isfinite(seconds) or seconds <= 0:
        return None
    return ExpectedTime(num_clips * seconds, seconds, measured)


def evaluations(job: Job) -> int:
    """Return how often the model runs in a clip."""
    # Imports torch, which a plan without models does without.
    from longvie_cli.models.step_cache import plan_of

    return plan_of(job.sampling).evaluations


def time_key(job: Job, offload: Offload) -> str:
    """Return under what the time of a clip is noted: what decides it."""
    import torch

    sampling, preset = job.sampling, job.preset
    device: list[str | int] = [sampling.device.split(":")[0]]
    if device[0] == "cuda":
        device.append(torch.cuda.get_device_name(sampling.device))
    else:
        device.append(torch.get_num_threads())
    facts: dict[str, Any] = {
        "preset": preset.name,
        "size": [preset.width, preset.height, preset.num_frames],
        "device": device,
        **replace(sampling, offload=offload).placed,
        "controls": job.source.kind != "none",
    }
    return fingerprint(facts)


def clip_times_path() -> Path:
    """Return where times are noted."""
    return Path(platformdirs.user_state_path("longvie")) / "clip_times.json"


def read_clip_times() -> Mapping[str, Any]:
    """Return what is noted, by key; nothing where that cannot be read."""
    try:
        found = parse_json(read_document(clip_times_path(), MAX_JSON_BYTES))
    except (OSError, ValueError):
        return {}  # Nothing noted.
    return found if isinstance(found, dict) else {}
