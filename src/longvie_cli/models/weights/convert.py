"""Released files to diffusers layout and back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from torch import Tensor, nn

from longvie_cli.disk.durable import write_atomic
from longvie_cli.errors import OutputConflictError
from longvie_cli.models.weights.components import (
    empty_transformer,
    is_self_attention,
    plan_components,
    plan_converted,
    shapes_of,
)
from longvie_cli.models.weights.files import tensor_info, write_safetensors
from longvie_cli.models.weights.names import CONTROL_NAMES, DIT_NAMES
from longvie_cli.models.weights.plan import WeightPlan, parameter_dtype
from longvie_cli.models.weights.sources import ReleasedFiles, base_files, component_files
from longvie_cli.progress import Progress

_DEFAULT_SHARD_BYTES = 5_000_000_000


def convert_released(
    files: ReleasedFiles,
    out: Path,
    *,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = _DEFAULT_SHARD_BYTES,
    progress: Progress | None = None,
) -> None:
    """Write the published files as one folder in our layout, shard by shard.

    The folder loads with `LongViePipeline.from_pretrained`. Every file is written under a temporary
    name, read back and renamed; `model_index.json` comes last, so a folder that has it is complete.
    Memory holds one shard in its new type, or nothing but mapped files where no type changes.

    Args:
        files: As `find_released_files` returns them.
        out: Made where it does not exist.
        dtype: Of transformer and text encoder as in `load_released_pipeline`; None keeps each
            tensor's own type, which loses nothing. VAE and image encoder keep theirs.
        max_shard_bytes: A file's tensors are no larger together than this, unless it is one tensor.
        progress: Receives one unit a tensor, stage `convert`.

    Raises:
        MissingResourceError: a file is missing, damaged or of another model.
        OutputConflictError: `out` holds a model already, or cannot be written.
        ResumableError: the disk is full.
    """
    if (out / "model_index.json").exists():
        raise OutputConflictError(
            f"{out}: holds a model already.", hint="Name another folder, or remove this one."
        )
    components = plan_components(files)
    step = components.steps(progress, "convert")
    for name, module in components.modules.items():
        stem, plans = component_files(name).stem, components.plans[name]
        target = dtype if name in ("transformer", "text_encoder") else None
        _write_module(out / name, stem, module, plans, target, max_shard_bytes, step)
        _copy_config(files.configs / name / "config.json", out / name / "config.json")
    _copy_config(
        files.configs / "scheduler" / "scheduler_config.json",
        out / "scheduler" / "scheduler_config.json",
    )
    _copy_tokenizer(base_files(files.base).tokenizer, out / "tokenizer")
    index = json.loads((files.configs / "model_index.json").read_bytes())
    index["tokenizer"] = ["transformers", type(components.tokenizer).__name__]
    write_atomic(out / "model_index.json", json.dumps(index, indent=2).encode() + b"\n")
    if progress is not None:
        progress.finish("convert")


def export_released(folder: Path, out: Path) -> tuple[Path, Path]:
    """Write `control.safetensors` and `dit.safetensors` of a folder in our layout.

    The names are those of `Vchitect/LongVie2`, without wrapper prefixes, so that its own code reads
    them too; values and types are those of the folder.

    Returns:
        The two files.

    Raises:
        MissingResourceError: the folder's transformer is missing, damaged or of another model.
        OutputConflictError: one of the files exists, or `out` cannot be written.
        ResumableError: the disk is full.
    """
    targets = (out / "control.safetensors", out / "dit.safetensors")
    for path in targets:
        if path.exists():
            raise OutputConflictError(f"{path}: exists already.", hint="Name another folder.")
    transformer = empty_transformer(folder)
    (plan,) = plan_converted(folder, "transformer", transformer)
    wanted = ((CONTROL_NAMES, CONTROL_NAMES.owns), (DIT_NAMES, is_self_attention))
    for path, (names, belongs) in zip(targets, wanted, strict=True):
        held = {names.to_released(ours): theirs for ours, theirs in plan.copies if belongs(ours)}
        write_safetensors(path, {name: plan.tensors[theirs] for name, theirs in held.items()})
    return targets


def _write_module(
    folder: Path,
    stem: str,
    module: nn.Module,
    plans: Sequence[WeightPlan],
    dtype: torch.dtype | None,
    max_shard_bytes: int,
    step: Callable[[str], None],
) -> None:
    """Write a component's tensors under our names, in shards and with their index."""
    shapes = shapes_of(module)
    sources: dict[str, tuple[WeightPlan, str]] = {}
    shown: dict[str, Tensor] = {}
    for plan in plans:
        plan.check_twins()
        for ours, theirs in plan.copies:
            own = tensor_info(plan.tensors, theirs).dtype
            kept = own if dtype is None else parameter_dtype(module, ours, dtype)
            sources[ours] = (plan, theirs)
            shown[ours] = torch.empty(shapes[ours], dtype=kept, device="meta")
    # In the order of the plans, so each source file is read through about once.
    shards = split_torch_state_dict_into_shards(
        shown, filename_pattern=f"{stem}{{suffix}}.safetensors", max_shard_size=max_shard_bytes
    )
    for file, names in shards.filename_to_tensors.items():
        tensors = {}
        for ours in names:
            plan, theirs = sources[ours]
            tensors[ours] = plan.names.take(ours, plan.tensors[theirs]).to(shown[ours].dtype)
        write_safetensors(folder / file, tensors)
        for ours in names:
            step(ours)
    for plan in plans:
        plan.close()
    if shards.is_sharded:
        index = {"metadata": shards.metadata, "weight_map": shards.tensor_to_filename}
        write_atomic(
            folder / f"{stem}.safetensors.index.json", json.dumps(index, indent=2).encode() + b"\n"
        )


def _copy_config(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, source.read_bytes())


def _copy_tokenizer(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for file in _files(source):
        shutil.copyfile(file, target / file.name)


def _files(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())
