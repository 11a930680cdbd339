"""`status`: where a run stands, read from its folder; writes nothing and takes no lock."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from longvie_cli.disk.hashing import hash_file
from longvie_cli.progress import command_line, duration
from longvie_cli.result import ReportResult
from longvie_cli.run_folder.events import read_events
from longvie_cli.run_folder.find import find_run, output_of
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.lock import Holder, read_holder
from longvie_cli.run_folder.manifest import manifest_trouble
from longvie_cli.run_folder.run import Run, StoredClip
from longvie_cli.settings.presets import load_preset
from longvie_cli.settings.requests import RunRequest

WATCH_SECONDS = 2.0
_EVENTS_SHOWN = 5


def status(request: RunRequest) -> ReportResult:
    """Return where a run stands.

    Raises:
        InputError: There is no run.
        OutputConflictError: Its run.json is damaged or of a newer version.
    """
    return _report(find_run(request.run), _Hashes())


def watch(request: RunRequest, draw: Callable[[ReportResult], None]) -> ReportResult:
    """Return where a run stands once it is finished; `draw` is told what it is until then.

    Raises:
        InputError: There is no run.
        OutputConflictError: Its run.json is damaged or of a newer version.
    """
    folder, hashes = find_run(request.run), _Hashes()
    while True:
        report = _report(folder, hashes)
        if report.fields["state"] == "finished":
            return report
        draw(report)
        time.sleep(WATCH_SECONDS)


class _Hashes:
    """Hashes of files, each read once as long as its size and time stay."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, int, int], str]] = {}

    def __call__(self, path: Path) -> str:
        found = path.stat()
        mark = (found.st_ino, found.st_size, found.st_mtime_ns)
        known = self._known.get(path)
        if known is None or known[0] != mark:
            known = self._known[path] = (mark, hash_file(path))
        return known[1]


def _report(folder: RunFolder, hashes: _Hashes) -> ReportResult:
    run = Run.read(folder)
    manifest, output = run.manifest, output_of(run)
    trouble = []
    if broken := manifest_trouble(folder):
        trouble.append(f"{broken} Its copy stands for it.")
    if run.delivery_trouble is not None:
        trouble.append(run.delivery_trouble.message)
    delivered = (
        run.delivery is not None
        and run.is_delivered
        and output.is_file()
        and hashes(output) == run.delivery.output_hash
    )
    stored = run.clips(hasher=hashes)
    # After --no-keep-clips only the records stay, and the finished file stands for the clips.
    tidied = delivered and not any(folder.clip_video(c.spec.index).exists() for c in stored)
    damaged = [] if tidied else [clip for clip in stored if clip.damage]
    done = len(stored) if tidied else sum(clip.record is not None for clip in stored)
    holder = _holder(folder)
    finished = delivered and not damaged
    state = "finished" if finished else "stopped" if holder is None else "running"
    left = len(stored) - done
    times = [clip.record.seconds for clip in stored if clip.record is not None]
    weights = manifest.inputs.weights
    fps = load_preset(manifest.preset, None if weights is None else Path(weights)).fps
    frames = sum(spec.added_frames for spec in manifest.plan)
    clips = [_clip(clip) for clip in stored]
    fields: dict[str, Any] = {
        "state": state,
        "run_dir": str(folder.root),
        "output": str(output),
        "command": manifest.command,
        "preset": manifest.preset,
        "seed": manifest.seed,
        "created": manifest.created,
        "clips_done": done,
        "clips_total": len(stored),
        "frames_done": frames if tidied else sum(c["frames"] for c in clips if c["made"]),
        "frames_total": frames,
        "video_seconds": frames / fps,
        "work_seconds": round(sum(times), 3),
        "left_seconds": round(statistics.median(times) * left, 1) if times and left else None,
        "holder": None if holder is None else holder.process,
        "holder_host": None if holder is None else holder.host,
        "delivered": delivered,
        "damaged": [{"clip": clip.spec.index, "damage": clip.damage} for clip in damaged],
        "trouble": trouble,
        "redos": run.revision,
        "clips": clips,
        "events": read_events(folder.events)[-_EVENTS_SHOWN:],
    }
    return ReportResult(_table(fields), fields)


def _clip(stored: StoredClip) -> dict[str, Any]:
    record = stored.record
    return {
        "index": stored.spec.index,
        "made": record is not None,
        "frames": stored.spec.added_frames,
        "seconds": None if record is None else round(record.seconds, 3),
        "seed": None if record is None else record.seed,
        "prompt": None if record is None else record.prompt,
        "attempts": None if record is None else record.attempts,
        "warnings": [] if record is None else list(record.warnings),
    }


def _holder(folder: RunFolder) -> Holder | None:
    """Return the process that works on a run; None if none does.

    A process that was killed leaves its number behind, so it is asked whether it lives; on another
    machine it cannot be asked.
    """
    holder = read_holder(folder)
    if holder is None or holder.is_elsewhere:
        return holder
    try:
        os.kill(holder.process, 0)
    except PermissionError:
        return holder  # It lives, but is somebody else's.
    except (OSError, OverflowError):
        return None
    return holder


def _table(fields: dict[str, Any]) -> list[str]:
    lines = [
        f"{fields['output']}: {fields['state']}, {fields['clips_done']} of "
        f"{fields['clips_total']} clips, {fields['frames_done']} of {fields['frames_total']} "
        f"frames ({fields['video_seconds']:.2f} s of video)"
    ]
    times = f"{duration(fields['work_seconds'])} of work so far"
    if fields["left_seconds"] is not None:
        times += f", about {duration(fields['left_seconds'])} left"
    lines.append(times)
    if fields["holder"] is not None:
        words = Holder(fields["holder"], fields["holder_host"]).words
        lines.append(f"{words} works on it")
    elif fields["state"] == "stopped":
        lines.append(f"to go on: {command_line(['longvie', 'resume', fields['run_dir']])}")
    lines += [f"clip {item['clip']} is damaged: {item['damage']}" for item in fields["damaged"]]
    lines += fields["trouble"]
    lines.append(f"{'clip':>5} {'frames':>6} {'seconds':>8} {'seed':>10}  prompt")
    for clip in fields["clips"]:
        if clip["made"]:
            lines.append(
                f"{clip['index']:>5} {clip['frames']:>6} {clip['seconds']:>8.1f} "
                f"{clip['seed']:>10}  {_short(clip['prompt'])}"
            )
            lines += [f"{'':>5} warning: {warning}" for warning in clip["warnings"]]
    if fields["events"]:
        lines.append("last events:")
    for event in fields["events"]:
        facts = " ".join(
            f"{key}={value}" for key, value in event.items() if key not in ("time", "event")
        )
        lines.append(f"  {event.get('time', '')} {event.get('event', '')} {facts}".rstrip())
    return lines


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 60 else flat[:57] + "..."
