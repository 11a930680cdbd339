"""Where the weights of a model lie: published files in every format, or one folder of ours.

The base is `Wan-AI/Wan2.1-I2V-14B-480P` (original names, `.pth` encoders) or
`Wan-AI/Wan2.1-I2V-14B-480P-Diffusers`; `Vchitect/LongVie2` adds `control.safetensors` and
`dit.safetensors`, the self-attention that replaces the base's (spec 2). Our own layout is that of
diffusers, with both laid in.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from longvie_cli.errors import MissingResourceError
from longvie_cli.hub.installed import locate_weights
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.models.weights.files import FETCH_HINT, find_shards
from longvie_cli.settings.presets import Preset, preset_folder

_DIFFUSERS_STEM = "diffusion_pytorch_model"
_ORIGINAL_TOKENIZER = "google/umt5-xxl"


class ComponentFiles(NamedTuple):
    """What the files of a component are called.

    Args:
        stem: Of its safetensors files in a diffusers folder.
        archive: File of the original repository (spec 2.4); None: it is safetensors there too.
        what: The component in words.
    """

    stem: str
    archive: str | None
    what: str


COMPONENTS = {
    "text_encoder": ComponentFiles(
        "model", "models_t5_umt5-xxl-enc-bf16.pth", "text encoder weights"
    ),
    "image_encoder": ComponentFiles(
        "model",
        "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
        "image encoder weights",
    ),
    "vae": ComponentFiles(_DIFFUSERS_STEM, "Wan2.1_VAE.pth", "VAE weights"),
    "transformer": ComponentFiles(_DIFFUSERS_STEM, None, "base transformer weights"),
}
"""The components that every pipeline has weights of, in the order in which they are loaded."""

_OPTIONAL = {"sketcher": ComponentFiles(_DIFFUSERS_STEM, None, "sketcher weights")}


def component_files(name: str) -> ComponentFiles:
    """Return what the files of a component are called."""
    return (COMPONENTS | _OPTIONAL)[name]


def _longvie2_configs() -> Path:
    return preset_folder("longvie2")


@dataclass(frozen=True)
class ReleasedFiles:
    """Where the published files of one model lie.

    Args:
        base: Folder of the Wan base, original or diffusers repository.
        control: `control.safetensors` of LongVie2; None: the base alone, its control branches
            then are zero.
        attention: `dit.safetensors` of LongVie2; None where `control` is.
        configs: Folder of the component configs in diffusers layout, which say the sizes.
    """

    base: Path
    control: Path | None
    attention: Path | None
    configs: Path = field(default_factory=_longvie2_configs)


def components_of(source: ReleasedFiles | Path) -> list[str]:
    """Return the components with weights that a source has, in the order in which they are loaded.

    Published files have those that every pipeline has; a folder in our layout may have more.
    """
    if isinstance(source, ReleasedFiles):
        return list(COMPONENTS)
    there = [name for name in _OPTIONAL if (source / name / "config.json").is_file()]
    return [*COMPONENTS, *there]


class BaseFiles(NamedTuple):
    """The files of a Wan base.

    Args:
        is_original: Whether it is the original repository, not that of diffusers.
        weights: Files of each component.
        tokenizer: Folder of the tokenizer.
        missing: What is not there, by names in the base's folder.
    """

    is_original: bool
    weights: dict[str, list[Path]]
    tokenizer: Path
    missing: list[str]


def find_weights(preset: Preset, weights: Path | None = None) -> Path | ReleasedFiles:
    """Return a folder in our layout, or where the preset's published files are.

    Args:
        preset: Its own `weights` count where the next is not given.
        weights: As for `engine.loader.load_pipeline`.

    Raises:
        MissingResourceError: they have not been fetched, or are not in the folder named.
    """
    if weights is None and not preset.models and preset.weights is None:
        return preset_folder(preset.name)
    folders = locate_weights(preset) if weights is None else [weights]
    # An embedded preset has no published files: its folder is one of ours or wrong.
    if len(folders) == 1 and (is_converted(folders[0]) or not preset.models):
        return folders[0]
    return find_released_files(folders, configs=preset_folder(preset.name))


def find_released_files(
    folders: Path | Sequence[Path], *, configs: Path | None = None, base_will_do: bool = False
) -> ReleasedFiles:
    """Return the published files found in some folders and in the folders directly below them.

    Of several files that would do, the first is taken, in the order of `folders`.

    Args:
        folders: Where to look.
        configs: As in `ReleasedFiles`; None: those of `longvie2`.
        base_will_do: A Wan base alone is enough, as training starts from one.

    Raises:
        MissingResourceError: files are missing; the message lists each one.
    """
    given = [folders] if isinstance(folders, Path) else list(folders)
    places = [place for folder in given for place in (folder, *_subfolders(folder))]
    missing = []
    base = next((place for place in places if _is_base(place)), None)
    if base is None:
        missing.append("the Wan base (Wan2.1-I2V-14B-480P, either repository)")
    else:
        missing += base_files(base).missing
    found = {
        name: next((place / name for place in places if (place / name).is_file()), None)
        for name in ("control.safetensors", "dit.safetensors")
    }
    if not base_will_do or any(found.values()):
        missing += [f"{name} (LongVie2)" for name, path in found.items() if path is None]
    control, attention = found["control.safetensors"], found["dit.safetensors"]
    if missing or base is None:
        raise MissingResourceError(
            f"{', '.join(map(str, given))}: missing {'; '.join(missing)}.", hint=FETCH_HINT
        )
    return ReleasedFiles(base, control, attention, configs or _longvie2_configs())


def is_converted(folder: Path) -> bool:
    """Return whether a folder holds a `LongViePipeline` in diffusers layout."""
    try:
        index = json.loads((folder / "model_index.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(index, dict) and index.get("_class_name") == LongViePipeline.__name__


def base_files(base: Path) -> BaseFiles:
    """Return where the files of a Wan base lie.

    Raises:
        MissingResourceError: an index of shards is damaged.
    """
    original = _is_original(base)
    weights: dict[str, list[Path]] = {}
    missing: list[str] = []
    for name, (stem, archive, _) in COMPONENTS.items():
        if original and archive is not None:
            weights[name] = [base / archive]
            absent = [path for path in weights[name] if not path.is_file()]
        else:
            weights[name], absent = find_shards(base if original else base / name, stem)
            if not weights[name]:
                absent = [base / name / f"{stem}.safetensors"]
        missing += [str(path.relative_to(base)) for path in absent]
    tokenizer = base / (_ORIGINAL_TOKENIZER if original else "tokenizer")
    if not (tokenizer / "tokenizer_config.json").is_file():
        missing.append(f"{tokenizer.relative_to(base)}/tokenizer_config.json")
    return BaseFiles(original, weights, tokenizer, missing)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _is_original(folder: Path) -> bool:
    return bool(find_shards(folder, _DIFFUSERS_STEM)[0])


def _is_base(folder: Path) -> bool:
    if (folder / "model_index.json").is_file() or (folder / "transformer").is_dir():
        return not is_converted(folder)
    return _is_original(folder)
