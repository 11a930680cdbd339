"""What decides the frames of a run, as it stands in its run folder."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longvie_cli.disk.hashing import fingerprint, hash_file
from longvie_cli.hub.installed import weight_hashes
from longvie_cli.planning.job import Job, Sound, Start
from longvie_cli.run_folder.manifest import (
    RunManifest,
)
from longvie_cli.settings.presets import Preset, load_preset, preset_folder
from longvie_cli.settings.recorded import recorded
from longvie_cli.settings.requests import Delivery
from longvie_cli.settings.sampling import Sampling
from longvie_cli.sources.depth_choice import DepthChoice
from longvie_cli.sources.source import Source
from longvie_cli.timeline import ClipSpec
from longvie_cli.version import __version__

if TYPE_CHECKING:
    pass


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
    *,
    preset: Preset,
    specs: Sequence[ClipSpec],
    prompts: Sequence[str],
    seeds: Sequence[int],
    source: Source,
    start: Start,
    fit: str,
    sampling: Sampling,
    delivery: Delivery,
    sound: Sound | None,
) -> dict[str, Any]:
    """Return everything that decides the output, named as in the flags where there is one."""
    # Named only where they are not the default, which earlier versions did not know.
    kernels: dict[str, str] = {}
    if sampling.quantize != "none":
        kernels["quantize"] = sampling.quantize
    if sampling.attention != "native":
        kernels["attention"] = sampling.attention
    restarts = [spec.first_frame for spec in specs if spec.starts_scene]
    return {
        "preset": preset.name,
        "frames": sum(spec.added_frames for spec in specs),
        **prompt_settings(prompts),
        "first_frame": start.label,
        **source.facts(),
        # Only where there are any: without cuts a run is what it was before they were looked for.
        **({"at_cut": "restart", "cuts": restarts} if restarts else {}),
        **_size_settings(preset),
        "fit": fit,
        "seed": sampling.seed,
        "steps": sampling.num_inference_steps,
        "guidance": sampling.guidance_scale,
        "negative_prompt": sampling.negative_prompt,
        "depth_strength": sampling.depth_strength,
        "track_strength": sampling.track_strength,
        "dtype": sampling.dtype,
        **kernels,
        "crf": delivery.crf,
        "embed_metadata": delivery.embed_metadata,
        "audio": None if sound is None else f"{sound.path.name} {hash_file(sound.path)}",
        **_unusual_settings(sampling, delivery),
        **seed_settings(sampling, seeds),
    }


def _size_settings(preset: Preset) -> dict[str, Any]:
    return {} if preset.size == load_preset(preset.name).size else {"size": preset.size.label}


def prompt_settings(prompts: Sequence[str]) -> dict[str, Any]:
    return {"prompt": prompts[0]} if len(set(prompts)) == 1 else {"prompts": list(prompts)}


def seed_settings(sampling: Sampling, seeds: Sequence[int]) -> dict[str, Any]:
    return {"seeds": list(seeds)} if any(seed != sampling.seed for seed in seeds) else {}


def _unusual_settings(sampling: Sampling, delivery: Delivery) -> dict[str, Any]:
    """Return settings that are named only where they are used: runs begun before still go on."""
    settings: dict[str, Any] = {}
    if sampling.control_start != 0:
        settings["control_start"] = sampling.control_start
    if sampling.control_end != 1:
        settings["control_end"] = sampling.control_end
    if sampling.seed_per_clip:
        settings["seed_per_clip"] = True
    if delivery.retries:
        settings["retries"] = delivery.retries
    if sampling.loras:
        settings["lora"] = [
            {"name": lora.path.name, "hash": hash_file(lora.path), "scale": lora.scale}
            for lora in sampling.loras
        ]
    return settings


# Packages whose version can change a frame.
_SHAPING_PACKAGES = ("torch", "diffusers", "transformers", "numpy", "opencv-python-headless")


def new_manifest(job: Job) -> RunManifest:
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
