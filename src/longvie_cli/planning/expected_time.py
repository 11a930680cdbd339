"""How long a run will take, from what this machine was seen to do.

Every clip made notes its seconds in the user's state folder, under what decides them: preset, size,
device, type, placement. So the figure is a measurement of this machine, not a promise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from longvie_cli.disk.documents import MAX_JSON_BYTES, parse_json, read_document
from longvie_cli.disk.durable import write_atomic
from longvie_cli.disk.hashing import fingerprint
from longvie_cli.errors import LongVieError
from longvie_cli.planning.job import Job
from longvie_cli.progress import duration
from longvie_cli.settings.sampling import Offload

if TYPE_CHECKING:
    from longvie_cli.engine.clip_generator import ClipTimings

# So many machines, presets and sizes are remembered; the oldest are forgotten first.
_MAX_REMEMBERED = 200


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
    found = _read().get(_key(job, offload))
    if num_clips == 0 or not isinstance(found, dict):
        return None
    try:
        seconds = float(found["rest_seconds"]) + _passes(job) * float(found["pass_seconds"])
        measured = datetime.fromisoformat(found["measured"]).date().isoformat()
    except (KeyError, TypeError, ValueError):
        return None
    if not math.isfinite(seconds) or seconds <= 0:
        return None
    return ExpectedTime(num_clips * seconds, seconds, measured)


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
        "pass_seconds": timings.step_seconds / _passes_a_step(job),
        "rest_seconds": max(0.0, seconds - steps),
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    known = [
        (key, value)
        for key, value in _read().items()
        if isinstance(value, dict) and isinstance(value.get("measured"), str)
    ]
    known.sort(key=lambda item: item[1]["measured"])
    kept = dict(known[-_MAX_REMEMBERED + 1 :]) | {_key(job, offload): new}
    path = _path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(kept, indent=1).encode())
    except (OSError, LongVieError):
        return  # A note that cannot be kept costs an estimate, not the run.


def _passes_a_step(job: Job) -> int:
    # Guidance other than 1 runs the model a second time, without the prompt.
    return 1 if job.sampling.guidance_scale == 1 else 2


def _passes(job: Job) -> int:
    return job.sampling.num_inference_steps * _passes_a_step(job)


def _key(job: Job, offload: Offload) -> str:
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
        "dtype": sampling.dtype,
        "quantize": sampling.quantize,
        "attention": sampling.attention,
        "offload": offload,
        "controls": job.source.kind != "none",
    }
    return fingerprint(facts)


def _path() -> Path:
    return Path(platformdirs.user_state_path("longvie")) / "clip_times.json"


def _read() -> Mapping[str, Any]:
    try:
        found = parse_json(read_document(_path(), MAX_JSON_BYTES))
    except (OSError, ValueError):
        return {}  # Nothing noted.
    return found if isinstance(found, dict) else {}
