"""What may change within a run: redos, and a request that another takes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from longvie_cli.disk.durable import storage_error
from longvie_cli.disk.hashing import fingerprint
from longvie_cli.errors import OutputConflictError, UsageError
from longvie_cli.planning.deciding import (
    model_hashes,
    new_manifest,
    prompt_settings,
    seed_settings,
)
from longvie_cli.planning.job import Job
from longvie_cli.progress import command_line
from longvie_cli.run_folder.commit import stored_clips
from longvie_cli.run_folder.events import append_event
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.manifest import (
    Redo,
    RunManifest,
    differences,
    read_manifest,
    write_manifest,
)
from longvie_cli.timeline import ClipSpec

if TYPE_CHECKING:
    pass


def redone(job: Job, redos: Sequence[Redo]) -> Job:
    """Return a job with what redos since its request say of prompts and seeds.

    A new prompt holds for the clip and for those after it that shared its prompt up to then, so
    that a run of one prompt goes on with the new one; a new seed likewise.
    """
    prompts, seeds = list(job.prompts), list(job.seeds)
    for redo in redos_of_request(redos):
        if redo.prompt is not None:
            _put(prompts, redo.clip, redo.prompt)
        if redo.seed is not None:
            _put(seeds, redo.clip, redo.seed)
    if (tuple(prompts), tuple(seeds)) == (job.prompts, job.seeds):
        return job
    kept = {
        key: value
        for key, value in job.settings.items()
        if key not in ("prompt", "prompts", "seeds")
    }
    settings = kept | prompt_settings(prompts) | seed_settings(job.sampling, seeds)
    return replace(job, prompts=tuple(prompts), seeds=tuple(seeds), settings=settings)


def redos_of_request(redos: Sequence[Redo]) -> Sequence[Redo]:
    """Return the redos that were ordered since the run's request was last replaced."""
    begins = max((index + 1 for index, redo in enumerate(redos) if redo.new_request), default=0)
    return redos[begins:]


_Value = TypeVar("_Value", str, int)


def _put(values: list[_Value], first: int, new: _Value) -> None:
    if first >= len(values):
        return
    old, index = values[first], first
    while index < len(values) and values[index] == old:
        values[index] = new
        index += 1


# Settings that may differ from clip to clip of one file; the others shape the file, the source or
# the cutting into clips, and belong to all clips.
_MAY_CHANGE = {
    *("prompt", "prompts", "seed", "seeds", "seed_per_clip", "steps", "guidance"),
    *("negative_prompt", "depth_strength", "track_strength", "control_start", "control_end"),
    *("dtype", "quantize", "attention", "lora", "retries"),
}


_ONLY_OF_THE_FILE = {"audio", "audio_start", "earlier_sound", "embed_metadata"}


_MAY_CHANGE |= _ONLY_OF_THE_FILE


_BY_CLIP = {"prompt", "prompts", "seed", "seeds", "seed_per_clip"}


@dataclass(frozen=True)
class Change:
    """A redo that a run begins with.

    Args:
        before: The job as the run stands.
        redo: What is ordered.
    """

    before: Job
    redo: Redo


def changed_settings(job: Job) -> list[str]:
    """Return in words how the request that began this run differs from the job, best first.

    Raises:
        OutputConflictError: run.json is damaged or was written by a newer version.
    """
    stored = read_manifest(job.folder.run_json)
    changed = differences(stored.request.get("settings") or {}, job.settings)
    if stored.model_hashes != model_hashes(job.preset):
        changed.append(f"other weights of the preset {job.preset.name}")
    return changed


def check_clips_before(folder: RunFolder, manifest: RunManifest, clip: int) -> None:
    """Do nothing if every clip before this one can be kept.

    Raises:
        OutputConflictError: One is damaged, removed, or not made yet.
    """
    for stored in stored_clips(folder, manifest.plan[:clip], manifest.redos):
        index = stored.spec.index
        if stored.damage and not folder.clip_video(index).exists():
            raise OutputConflictError(
                f"{folder.root}: clip {index} cannot be kept: it is no longer there "
                "(--no-keep-clips removes the clips of a finished run).",
                hint="Begin with --clip 0, or make the video anew with --keep-clips.",
            )
        if stored.damage:
            raise OutputConflictError(
                f"{folder.root}: clip {index} cannot be kept: {stored.damage}.",
                hint=f"{command_line(['longvie', 'resume', folder.root])} mends it.",
            )
        if stored.record is None:
            raise OutputConflictError(
                f"{folder.root}: clip {index} is not made yet.",
                hint=f"Begin with clip {index} or an earlier one.",
            )


def _first_other_clip(stored: dict[str, Any], job: Job) -> int:
    """Return the first clip that the job makes otherwise than the request that began the run."""
    keys = {key for key in {*stored, *job.settings} if stored.get(key) != job.settings.get(key)}
    count = len(job.specs)
    if keys and keys <= _ONLY_OF_THE_FILE:
        return count
    if not keys or not keys <= _BY_CLIP | _ONLY_OF_THE_FILE:
        return 0
    prompts = stored.get("prompts") or [stored.get("prompt")] * count
    seed, counted = stored.get("seed") or 0, bool(stored.get("seed_per_clip"))
    seeds = stored.get("seeds") or [seed + (i if counted else 0) for i in range(count)]
    ours = list(zip(job.prompts, job.seeds, strict=True))
    theirs = list(zip(prompts, seeds, strict=False))
    return next((i for i, clip in enumerate(ours) if clip != theirs[i]), count)


def _fixed_settings(stored: dict[str, Any], job: Job) -> list[str]:
    keys = {key for key in {*stored, *job.settings} if stored.get(key) != job.settings.get(key)}
    return sorted(keys - _MAY_CHANGE)


def begun_otherwise(job: Job, manifest: RunManifest, changed: list[str]) -> OutputConflictError:
    shown = "; ".join(changed[:3]) + (f"; and {len(changed) - 3} more" if len(changed) > 3 else "")
    stored, count = manifest.request.get("settings") or {}, len(job.specs)
    if fixed := _fixed_settings(stored, job):
        affected = f"No clip can be kept: {', '.join(fixed)} cannot change within a run."
        offer = ""
    else:
        first = _first_other_clip(stored, job)
        if first == count:
            affected, offer = "All clips can be kept.", f"--from-clip {count} to keep them, "
        elif first == 0:
            affected = "All clips would be others."
            offer = "--from-clip K to keep the clips before K all the same, "
        else:
            affected = f"Clips {first} to {count - 1} would be others."
            offer = f"--from-clip {first} to keep those before, "
    resume = command_line(["longvie", "resume", job.folder.root])
    return OutputConflictError(
        f"{job.folder.root}: this run was started with {shown}. {affected}",
        hint=f"Repeat the first command, or `{resume}`, to go on. Pass {offer}another -o, or "
        "--overwrite to start anew.",
    )


def begin_redo(job: Job, manifest: RunManifest, redo: Redo) -> None:
    folder = job.folder
    check_clips_before(folder, manifest, redo.clip)
    write_manifest(
        folder.run_json,
        manifest.model_copy(
            update={
                "request": manifest.request | {"settings": dict(job.settings)},
                "fingerprint": fingerprint(job.settings),
                "redos": (*manifest.redos, redo),
            }
        ),
    )
    _forget_clips(folder, manifest.plan, redo.clip)
    append_event(folder.events, "redo", clip=redo.clip, prompt=redo.prompt, seed=redo.seed)


def take_on(job: Job, manifest: RunManifest, from_clip: int) -> None:
    """Make the job's request the run's, keeping the clips before one.

    Raises:
        UsageError: The clips cannot stand in one file with those of the new settings.
    """
    folder, count = job.folder, len(job.specs)
    flag = f"--from-clip {from_clip}"
    if fixed := _fixed_settings(manifest.request.get("settings") or {}, job):
        raise UsageError(
            f"{flag}: {', '.join(fixed)} cannot change within a run.",
            hint="Pass another -o, or --overwrite to start anew.",
        )
    if manifest.plan != job.specs or from_clip > count:
        raise UsageError(f"{flag}: the run has {count} clips, 0 to {count - 1}.")
    check_clips_before(folder, manifest, from_clip)
    redo = Redo(clip=from_clip, new_request=True)
    taken_on = new_manifest(job).model_copy(
        update={"created": manifest.created, "redos": (*manifest.redos, redo)}
    )
    write_manifest(folder.run_json, taken_on)
    _forget_clips(folder, manifest.plan, from_clip)
    append_event(folder.events, "taken_on", clip=from_clip)


def _forget_clips(folder: RunFolder, plan: Sequence[ClipSpec], first: int) -> None:
    # Only tidying: since run.json says so, their records no longer count.
    for spec in plan[first:]:
        for path in (
            folder.clip_record(spec.index),
            folder.clip_video(spec.index),
            folder.tail(spec.index),
        ):
            try:
                path.unlink(missing_ok=True)
            except OSError as reason:
                raise storage_error(path, reason) from reason
