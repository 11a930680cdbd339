"""Opening a run folder: one process, one request, never somebody else's files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import longvie_cli
from longvie_cli.errors import OutputConflictError
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.lock import RunLock
from longvie_cli.run_folder.manifest import (
    RunManifest,
    differences,
    fingerprint,
    read_manifest,
    write_manifest,
)
from longvie_cli.workflows.depth import DepthChoice
from longvie_cli.workflows.job import Job, model_hashes, output_taken

# Packages whose version can change a frame.
_SHAPING_PACKAGES = ("torch", "diffusers", "transformers", "numpy", "opencv-python-headless")


@contextmanager
def opened_run(job: Job) -> Iterator[RunFolder]:
    """Hold the run folder of a job, new or begun by the same request.

    Raises:
        OutputConflictError: Another process holds it, another request began it and made something
            (and --overwrite is not given), it is a folder of something else, or the run is new and
            the output is there already.
    """
    folder = job.folder
    _check_ours(folder)
    if not folder.run_json.is_file() and job.output.exists() and not job.delivery.overwrite:
        raise output_taken(job.output)
    with RunLock(folder):
        if folder.run_json.is_file():
            changed = changed_settings(job)
            if changed and not job.delivery.overwrite and not _is_untouched(folder):
                raise _begun_otherwise(folder, changed)
            if changed:
                _forget(folder)
        if not folder.run_json.is_file():
            write_manifest(folder.run_json, _manifest(job))
        yield folder


def changed_settings(job: Job) -> list[str]:
    """Return in words how the request that began this run differs from the job, best first.

    Raises:
        OutputConflictError: run.json is damaged or was written by a newer version.
    """
    stored = read_manifest(job.folder.run_json)
    changed = differences(stored.request["settings"], job.settings)
    if stored.model_hashes != model_hashes(job.preset):
        changed.append(f"other weights of the preset {job.preset.name}")
    return changed


def _begun_otherwise(folder: RunFolder, changed: list[str]) -> OutputConflictError:
    shown = "; ".join(changed[:3]) + (f"; and {len(changed) - 3} more" if len(changed) > 3 else "")
    return OutputConflictError(
        f"{folder.root}: this run was started with {shown}.",
        hint="Repeat the first command to go on, pass another -o, or --overwrite to start anew.",
    )


def _is_untouched(folder: RunFolder) -> bool:
    """Return whether a run stopped before it made anything, as one with an unusable input does."""
    rooms = (folder.controls_dir, folder.clips_dir, folder.tails_dir)
    files = (folder.earlier_video, folder.first_picture)
    return not any(any(room.iterdir()) for room in rooms) and not any(map(Path.exists, files))


def _check_ours(folder: RunFolder) -> None:
    if not folder.root.is_dir() or folder.run_json.is_file():
        return
    ours = (
        folder.controls_dir,
        folder.clips_dir,
        folder.tails_dir,
        folder.prompts_dir,
        folder.lock,
        folder.lock_holder,
    )
    run_json_part = folder.run_json.name + ".part"
    for path in folder.root.iterdir():
        if path not in ours and path.name != run_json_part:
            raise OutputConflictError(
                f"{folder.root}: this folder is no run of longvie (it holds {path.name}).",
                hint="Pass another --run-dir.",
            )


def _forget(folder: RunFolder) -> None:
    """Remove what an earlier request left in its run folder, its run.json last."""
    for path in (folder.delivery, folder.joined_video, folder.first_picture, folder.earlier_video):
        path.unlink(missing_ok=True)
    for path in folder.root.glob("first_*.png"):
        path.unlink()
    for room in (folder.clips_dir, folder.tails_dir, folder.controls_dir, folder.prompts_dir):
        shutil.rmtree(room)
    folder.run_json.unlink()
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
