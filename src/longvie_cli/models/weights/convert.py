"""Released files to diffusers layout and back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from longvie_cli.disk.durable import write_atomic
from longvie_cli.errors import OutputConflictError
from longvie_cli.models.weights.files import (
    TensorInfo,
    tensor_info,
    write_safetensors,
)
from longvie_cli.models.weights.load import (
    COMPONENTS,
    ReleasedFiles,
    base_sources,
    empty_modules,
    empty_transformer,
    is_self_attention,
    plan_released,
    plan_same,
    progress_steps,
    shapes_of,
)
from longvie_cli.models.weights.names import (
    CONTROL_NAMES,
    DIT_NAMES,
)
from longvie_cli.models.weights.plan import (
    WeightPlan,
    parameter_dtype,
)
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
    """Write the published files as one folder in our layout, tensor by tensor.

    The folder loads with `LongViePipeline.from_pretrained`. Every file is written under a temporary
    name, read back and renamed; `model_index.json` comes last, so a folder that has it is complete.

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
    modules = empty_modules(files.configs)
    tokenizer, plans = plan_released(files, modules)
    assert tokenizer is not None
    step = progress_steps(progress, "convert", plans)
    for name, module in modules.items():
        target = dtype if name in ("transformer", "text_encoder") else None
        _write_module(out / name, name, module, plans[name], target, max_shard_bytes, step)
        _copy_config(files.configs / name / "config.json", out / name / "config.json")
    _copy_config(
        files.configs / "scheduler" / "scheduler_config.json",
        out / "scheduler" / "scheduler_config.json",
    )
    _copy_tokenizer(base_sources(files.base)[1], out / "tokenizer")
    index = json.loads((files.configs / "model_index.json").read_bytes())
    index["tokenizer"] = ["transformers", type(tokenizer).__name__]
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
    (plan,) = plan_same(folder, "transformer", transformer)
    wanted = ((CONTROL_NAMES, CONTROL_NAMES.owns), (DIT_NAMES, is_self_attention))
    for path, (names, belongs) in zip(targets, wanted, strict=True):
        held = {names.to_released(ours): theirs for ours, theirs in plan.copies if belongs(ours)}
        write_safetensors(
            path,
            {name: tensor_info(plan.tensors, theirs) for name, theirs in held.items()},
            _reader(plan.tensors, held),
        )
    return targets


def _write_module(
    folder: Path,
    name: str,
    module: nn.Module,
    plans: Sequence[WeightPlan],
    dtype: torch.dtype | None,
    max_shard_bytes: int,
    step: Callable[[str], None],
) -> None:
    """Write a component's tensors under our names, in shards and with their index."""
    shapes, infos = shapes_of(module), {}
    for plan in plans:
        for ours, theirs in plan.copies:
            source = tensor_info(plan.tensors, theirs).dtype
            kept = source if dtype is None else parameter_dtype(module, ours, dtype)
            infos[ours] = TensorInfo(shapes[ours], kept)
    shards = list(_divide(infos, max_shard_bytes))
    values = (tensor for plan in plans for tensor in plan.read())

    def read(wanted: str) -> Tensor:
        # Shards hold the tensors in the order of the plans, so each source is read through once.
        ours, tensor = next(values)
        assert ours == wanted
        step(ours)
        return tensor.to(infos[ours].dtype)

    stem = COMPONENTS[name][0]
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"{stem}.safetensors"
        if len(shards) > 1:
            file = f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(folder / file, {ours: infos[ours] for ours in shard}, read)
        where |= dict.fromkeys(shard, file)
    # Exhausts the plan, which closes its last file.
    assert next(values, None) is None
    if len(shards) > 1:
        total = sum(info.num_bytes for info in infos.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
        write_atomic(
            folder / f"{stem}.safetensors.index.json", json.dumps(index, indent=2).encode() + b"\n"
        )


def _reader(tensors: Mapping[str, Tensor], held: Mapping[str, str]) -> Callable[[str], Tensor]:
    return lambda name: tensors[held[name]]


def _divide(infos: Mapping[str, TensorInfo], max_shard_bytes: int) -> Iterator[list[str]]:
    shard: list[str] = []
    size = 0
    for name, info in infos.items():
        if shard and size + info.num_bytes > max_shard_bytes:
            yield shard
            shard, size = [], 0
        shard.append(name)
        size += info.num_bytes
    yield shard


def _copy_config(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, source.read_bytes())


def _copy_tokenizer(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for file in _files(source):
        shutil.copyfile(file, target / file.name)


def _files(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())
