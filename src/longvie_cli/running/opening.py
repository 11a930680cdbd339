"""Opening a run folder: one process, one request, never somebody else's files."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import longvie_cli
from longvie_cli.disk.durable import part_path, storage_error
from longvie_cli.errors import OutputConflictError, UsageError
from longvie_cli.progress import Progress
from longvie_cli.run_folder.commit import stored_clips
from longvie_cli.run_folder.events import append_event
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.lock import RunLock
from longvie_cli.run_folder.manifest import (
    Redo,
    RunManifest,
    differences,
    fingerprint,
    mend_manifest,
    read_manifest,
    write_manifest,
)
from longvie_cli.settings.recorded import recorded
from longvie_cli.timeline import ClipSpec
from longvie_cli.sources.depth_choice import DepthChoice
from longvie_cli.planning.job import Job, model_hashes, output_taken

# Packages whose version can change a frame.
_SHAPING_PACKAGES = ("torch", "diffusers", "transformers", "numpy", "opencv-python-headless")


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


@contextmanager
def opened_run(
    job: Job, progress: Progress, *, change: Change | None = None, resuming: bool = False
) -> Iterator[RunFolder]:
    """Hold the run folder of a job, new or begun by the same request.

    Args:
        job: The job.
        progress: Told of what had to be mended.
        change: A redo to write down first.
        resuming: Never start anew.

    Raises:
        OutputConflictError: Another process holds it, another request began it and made something
            (and --overwrite is not given), it is a folder of something else, or the run is new and
            the output is there already.
        UsageError: `--from-clip` cannot be followed.
    """
    folder, from_clip = job.folder, job.delivery.from_clip
    _check_ours(folder)
    folder.check_no_links()
    begun = folder.is_begun
    if from_clip is not None and not begun:
        raise UsageError(f"--from-clip {from_clip}: there is no run in {folder.root} to take on.")
    if not begun and job.output.exists() and not job.delivery.overwrite:
        raise output_taken(job.output)
    with RunLock(folder):
        folder.check_no_links()
        begun = folder.is_begun
        if begun:
            if trouble := mend_manifest(folder):
                progress.warning(trouble)
            manifest = read_manifest(folder.run_json)
            check_request(folder, manifest)
            changed = changed_settings(job if change is None else change.before)
            if changed and from_clip is not None and change is None:
                _take_on(job, manifest, from_clip)
            elif changed and (resuming or not (job.delivery.overwrite or _is_untouched(folder))):
                raise _begun_otherwise(job, manifest, changed)
            elif changed:
                _forget(folder)
                begun = False
            elif change is not None:
                _begin_redo(job, manifest, change.redo)
        if not begun:
            write_manifest(folder.run_json, _manifest(job))
        yield folder


def check_request(folder: RunFolder, manifest: RunManifest) -> None:
    """Do nothing if the settings in `run.json` are those the run was begun with.

    Raises:
        OutputConflictError: They were changed: clips of two requests are no video.
    """
    settings = manifest.request.get("settings")
    if not isinstance(settings, dict) or fingerprint(settings) != manifest.fingerprint:
        raise OutputConflictError(
            f"{folder.run_json}: its settings were changed by hand; the clips are of others.",
            hint="Put it back, or begin anew with the command that began it and another -o.",
        )


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
                hint=f"longvie resume {shlex.quote(str(folder.root))} mends it.",
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


def _begun_otherwise(job: Job, manifest: RunManifest, changed: list[str]) -> OutputConflictError:
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
    resume = f"longvie resume {shlex.quote(str(job.folder.root))}"
    return OutputConflictError(
        f"{job.folder.root}: this run was started with {shown}. {affected}",
        hint=f"Repeat the first command, or `{resume}`, to go on. Pass {offer}another -o, or "
        "--overwrite to start anew.",
    )


def _begin_redo(job: Job, manifest: RunManifest, redo: Redo) -> None:
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


def _take_on(job: Job, manifest: RunManifest, from_clip: int) -> None:
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
    taken_on = _manifest(job).model_copy(
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


def _is_untouched(folder: RunFolder) -> bool:
    """Return whether a run stopped before it made anything, as one with an unusable input does."""
    rooms = (folder.controls_dir, folder.clips_dir, folder.tails_dir)
    files = (folder.earlier_video, folder.first_picture)
    return not any(any(room.iterdir()) for room in rooms) and not any(map(Path.exists, files))


def _check_ours(folder: RunFolder) -> None:
    if not folder.root.is_dir() or folder.is_begun:
        return
    # What a process makes before its run.json is there, if it is killed until then.
    ours = {
        folder.controls_dir,
        folder.clips_dir,
        folder.tails_dir,
        folder.prompts_dir,
        folder.lock,
        folder.lock_holder,
        part_path(folder.lock_holder),
        part_path(folder.run_json),
    }
    for path in folder.root.iterdir():
        if path not in ours:
            raise OutputConflictError(
                f"{folder.root}: this folder is no run of longvie (it holds {path.name}).",
                hint="Pass another --run-dir.",
            )


def _forget(folder: RunFolder) -> None:
    """Remove what an earlier request left in its run folder, all but its run.json.

    That is replaced by the new one in one step: a folder without one is nobody's.
    """
    files = (
        *(folder.delivery, folder.joined_video, folder.joined_sound, folder.first_picture),
        *(folder.earlier_record, folder.earlier_video, *folder.root.glob("first_*.png")),
    )
    try:
        for path in files:
            path.unlink(missing_ok=True)
        for room in (folder.clips_dir, folder.tails_dir, folder.controls_dir, folder.prompts_dir):
            shutil.rmtree(room)
    except OSError as reason:
        raise storage_error(folder.root, reason) from reason
    folder.create()


def _manifest(job: Job) -> RunManifest:
    source_path: Path | None = getattr(job.source, "path", None)
    depth: DepthChoice | None = getattr(job.source, "depth", None)
    return RunManifest(
        request={
            "command": job.command,
            "settings": dict(job.settings),
            # Only here, where it stays on this machine: `extend` goes on with the same source.
            "source": None if source_path is None else str(source_path.absolute()),
            "weights": None if job.preset.weights is None else str(job.preset.weights.absolute()),
            "lora_paths": [str(lora.path.absolute()) for lora in job.sampling.loras],
            "depth": None if depth is None else depth.recorded(),
            "source_kind": job.source.kind,
            # From this `resume` and `redo` make the job again.
            "request": recorded(job.delivery),
        },
        fingerprint=fingerprint(job.settings),
        plan=job.specs,
        seed=job.sampling.seed,
        preset=job.preset.name,
        model_hashes=model_hashes(job.preset),
        versions={"longvie": longvie_cli.__version__} | _package_versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _package_versions() -> dict[str, str]:
    versions = {}
    for package in _SHAPING_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "unknown"
    return versions
