"""What decides the frames of a run, as it stands in its run folder."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from longvie_cli.disk.hashing import fingerprint, hash_file, input_state
from longvie_cli.hub.installed import weight_hashes
from longvie_cli.planning.job import Choice, Job
from longvie_cli.run_folder.manifest import RunInputs, RunManifest
from longvie_cli.settings.presets import Preset, preset_folder
from longvie_cli.settings.request_json import request_json
from longvie_cli.settings.sampling import Sampling
from longvie_cli.timeline import ClipSpec
from longvie_cli.version import __version__


def model_hashes(preset: Preset) -> dict[str, str]:
    """Return the hash of every weights and settings file of a preset, by its name there.

    Of fetched models the hash is the one recorded when they were fetched.

    Raises:
        MissingResourceError: Weights were not fetched, or are damaged.
    """
    folder = preset_folder(preset.name)
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".safetensors", ".json"))
    own = {path.relative_to(folder).as_posix(): hash_file(path) for path in files}
    return own | weight_hashes(preset)


def deciding_settings(
    choice: Choice, specs: Sequence[ClipSpec], prompts: Sequence[str], seeds: Sequence[int]
) -> dict[str, Any]:
    """Return everything that decides the output, named as in the flags where there is one."""
    preset, sampling, delivery = choice.preset, choice.sampling, choice.request
    restarts = [spec.first_frame for spec in specs if spec.starts_scene]
    sound, earlier = choice.sound, choice.earlier
    settings: dict[str, Any] = {
        "preset": preset.name,
        "size": None if preset.trained_size is None else preset.size.label,
        "frames": sum(spec.added_frames for spec in specs),
        **prompt_settings(prompts),
        **seed_settings(sampling, seeds),
        "first_frame": choice.start.label,
        **choice.source.facts(),
        "at_cut": "restart" if restarts else None,
        "cuts": restarts,
        "scenes": choice.start.scenes_label if restarts and earlier is not None else None,
        "fit": choice.fit,
        **sampling.deciding(),
        "lora": [
            {"name": lora.path.name, "hash": hash_file(lora.path), "scale": lora.scale}
            for lora in sampling.loras
        ],
        "retries": delivery.retries,
        "crf": delivery.crf,
        "embed_metadata": delivery.embed_metadata,
        "audio": None if sound is None else f"{sound.path.name} {hash_file(sound.path)}",
    }
    if earlier is not None:
        settings["audio_start"] = None if sound is None else round(sound.start, 6)
        settings["earlier_sound"] = earlier.sound is not None
    return settings


def prompt_settings(prompts: Sequence[str]) -> dict[str, Any]:
    """Return the prompts of all clips as deciding settings: one where they share it."""
    return {"prompt": prompts[0]} if len(set(prompts)) == 1 else {"prompts": list(prompts)}


def seed_settings(sampling: Sampling, seeds: Sequence[int]) -> dict[str, Any]:
    """Return the seeds of all clips as deciding settings; nothing where they share the run's."""
    return {"seeds": list(seeds)} if any(seed != sampling.seed for seed in seeds) else {}


# Packages whose version can change a frame.
_SHAPING_PACKAGES = ("torch", "diffusers", "transformers", "numpy", "opencv-python-headless")


def new_manifest(job: Job) -> RunManifest:
    """Return the `run.json` of a run that begins now."""
    source = job.source
    return RunManifest(
        run_id=uuid.uuid4().hex,
        command=job.command,
        settings=dict(job.settings),
        fingerprint=fingerprint(job.settings),
        request=request_json(job.delivery),
        asked=job.asked,
        inputs=RunInputs(
            source=None if source.location is None else str(source.location.absolute()),
            source_kind=source.kind,
            weights=None if job.preset.weights is None else str(job.preset.weights.absolute()),
            lora_paths=tuple(str(lora.path.absolute()) for lora in job.sampling.loras),
            depth=None if source.depth_choice is None else source.depth_choice.stored(),
            states={str(path.absolute()): input_state(path) for _, path in job.inputs},
        ),
        plan=job.specs,
        seed=job.sampling.seed,
        preset=job.preset.name,
        model_hashes=model_hashes(job.preset),
        versions={"longvie": __version__} | _package_versions(),
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
