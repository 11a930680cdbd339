"""What may change within a run: redos, and a request that another takes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

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
from longvie_cli.run_folder.events import append_event
from longvie_cli.run_folder.manifest import Redo, differences
from longvie_cli.run_folder.run import Run
from longvie_cli.settings.sampling import FrameSettings


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
_MAY_CHANGE = {"prompt", "prompts", "seeds", "lora", "retries", *FrameSettings.flags()}


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


def changed_settings(run: Run, job: Job) -> list[str]:
    """Return in words how the request that began a run differs from the job, best first."""
    changed = differences(run.manifest.settings, job.settings)
    if run.manifest.model_hashes != model_hashes(job.preset):
        changed.append(f"other weights of the preset {job.preset.name}")
    return changed


def check_clips_before(run: Run, clip: int) -> None:
    """Do nothing if every clip before this one can be kept.

    Raises:
        OutputConflictError: One is damaged, removed, or not made yet.
    """
    folder = run.folder
    for stored in run.clips()[:clip]:
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


def _first_other_clip(run: Run, job: Job) -> int:
    """Return the first clip that the job makes otherwise than the request that began the run."""
    keys = _changed_keys(run, job)
    count = len(job.specs)
    if keys and keys <= _ONLY_OF_THE_FILE:
        return count
    if not keys or not keys <= _BY_CLIP | _ONLY_OF_THE_FILE:
        return 0
    ours = zip(job.prompts, job.seeds, strict=True)
    theirs = zip(run.manifest.clip_prompts, run.manifest.clip_seeds, strict=True)
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((index for index, (our, their) in pairs if our != their), count)


def _changed_keys(run: Run, job: Job) -> set[str]:
    stored, wanted = run.manifest.settings, job.settings
    return {key for key in {*stored, *wanted} if stored.get(key) != wanted.get(key)}


def _fixed_settings(run: Run, job: Job) -> list[str]:
    return sorted(_changed_keys(run, job) - _MAY_CHANGE)


def begun_otherwise(run: Run, job: Job, changed: list[str]) -> OutputConflictError:
    """Return the error for a run that another request began, with what can be kept of it."""
    shown = "; ".join(changed[:3]) + (f"; and {len(changed) - 3} more" if len(changed) > 3 else "")
    count = len(job.specs)
    if fixed := _fixed_settings(run, job):
        affected = f"No clip can be kept: {', '.join(fixed)} cannot change within a run."
        offer = ""
    else:
        first = _first_other_clip(run, job)
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


def begin_redo(run: Run, job: Job, redo: Redo) -> None:
    """Write down that clips are made again, and forget them.

    Raises:
        OutputConflictError: A clip before them cannot be kept.
        ResumableError: The disk is full.
    """
    check_clips_before(run, redo.clip)
    settings = dict(job.settings)
    run.rewrite(
        run.manifest.model_copy(
            update={
                "settings": settings,
                "fingerprint": fingerprint(settings),
                "redos": (*run.redos, redo),
            }
        )
    )
    _forget_clips(run, redo.clip)
    append_event(run.folder.events, "redo", clip=redo.clip, prompt=redo.prompt, seed=redo.seed)


def take_on(run: Run, job: Job, from_clip: int) -> None:
    """Make the job's request the run's, keeping the clips before one.

    Raises:
        UsageError: The clips cannot stand in one file with those of the new settings.
        OutputConflictError: One of them cannot be kept.
    """
    count = len(job.specs)
    flag = f"--from-clip {from_clip}"
    if fixed := _fixed_settings(run, job):
        raise UsageError(
            f"{flag}: {', '.join(fixed)} cannot change within a run.",
            hint="Pass another -o, or --overwrite to start anew.",
        )
    before = run.manifest
    if before.plan != job.specs or from_clip > count:
        raise UsageError(f"{flag}: the run has {count} clips, 0 to {count - 1}.")
    check_clips_before(run, from_clip)
    redo = Redo(
        clip=from_clip,
        new_request=True,
        kept_prompts=before.clip_prompts[:from_clip],
        kept_seeds=before.clip_seeds[:from_clip],
    )
    kept = {"run_id": before.run_id, "created": before.created, "redos": (*run.redos, redo)}
    run.rewrite(new_manifest(job).model_copy(update=kept))
    _forget_clips(run, from_clip)
    append_event(run.folder.events, "taken_on", clip=from_clip)


def _forget_clips(run: Run, first: int) -> None:
    # Only tidying: since run.json says so, their records no longer count.
    folder = run.folder
    for spec in run.manifest.plan[first:]:
        for path in (
            folder.clip_record(spec.index),
            folder.clip_video(spec.index),
            folder.tail(spec.index),
        ):
            try:
                path.unlink(missing_ok=True)
            except OSError as reason:
                raise storage_error(path, reason) from reason
