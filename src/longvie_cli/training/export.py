"""What a stage has trained: the files of `Vchitect/LongVie2`, or a whole folder in our layout."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from longvie_cli.disk.durable import make_folder, part_path, storage_error
from longvie_cli.errors import OutputConflictError
from longvie_cli.models.longvie import LongVieTransformer3DModel
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.models.weights.components import is_self_attention, shapes_of
from longvie_cli.models.weights.files import TensorFiles, write_safetensors
from longvie_cli.models.weights.names import CONTROL_NAMES, DIT_NAMES
from longvie_cli.models.weights.plan import WeightPlan, parameter_dtype, plan_weights
from longvie_cli.settings.presets import Preset

CONTROL_FILE = "control.safetensors"
ATTENTION_FILE = "dit.safetensors"
_PARTS = (
    (CONTROL_FILE, CONTROL_NAMES, CONTROL_NAMES.owns, "control weights"),
    (ATTENTION_FILE, DIT_NAMES, is_self_attention, "self-attention weights"),
)


def export_trained(
    transformer: LongVieTransformer3DModel, folder: Path, *, dtype: torch.dtype = torch.bfloat16
) -> None:
    """Write `control.safetensors` and `dit.safetensors`: 800 and 400 tensors at full size.

    Beside the Wan base they load as the published ones do. Memory beyond the model is that of one
    file in its new type. What stage `base` trains besides is not in them.

    Args:
        transformer: As it is now; `load_average` puts the averaged weights into it before.
        folder: Made if needed.
        dtype: Of the files (released: bfloat16).

    Raises:
        OutputConflictError: One of the files exists, or the folder cannot be written.
        ResumableError: The disk is full.
    """
    for file, *_ in _PARTS:
        if (folder / file).exists():
            raise OutputConflictError(f"{folder / file}: exists already.")
    for file, names, belongs, _ in _PARTS:
        held = {
            name: parameter.detach().to("cpu", dtype).contiguous()
            for name, parameter in transformer.named_parameters()
            if belongs(name)
        }
        write_safetensors(folder / file, names.release(held))


def export_preset(
    pipeline: LongViePipeline, preset: Preset, folder: Path, *, dtype: torch.dtype = torch.bfloat16
) -> None:
    """Write all components and `preset.json`, as `generate --weights` and `preset:` take them.

    Args:
        pipeline: As it is now; its transformer and text encoder are brought to the new type in
            place, so that memory does not hold them twice. Not to be trained on afterwards.
        preset: Its numbers.
        folder: Replaced if it exists, once all is written.
        dtype: Of transformer and text encoder; what the transformer's class keeps in float32 stays.

    Raises:
        OutputConflictError: The folder cannot be written.
        ResumableError: The disk is full.
    """
    for module in (pipeline.transformer, pipeline.text_encoder):
        for name, parameter in module.named_parameters():
            parameter.data = parameter.data.to(parameter_dtype(module, name, dtype))
    with replaced(folder) as part:
        pipeline.save_pretrained(part)
        (part / "preset.json").write_text(preset.model_dump_json(indent=1) + "\n", "utf-8")


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Give the folder to write in, which then takes the name of `folder` and its place.

    Raises:
        OutputConflictError: It cannot be written.
        ResumableError: The disk is full.
    """
    part = part_path(folder)
    try:
        make_folder(folder.parent)
        shutil.rmtree(part, ignore_errors=True)
        yield part
        if folder.exists():
            shutil.rmtree(folder)
        os.rename(part, folder)
    except OSError as reason:
        raise storage_error(folder, reason) from reason


@torch.no_grad()
def load_trained(transformer: LongVieTransformer3DModel, folder: Path) -> None:
    """Put what an earlier stage exported into a transformer, in the transformer's own types.

    Raises:
        MissingResourceError: A file is missing, damaged or of another model; nothing was changed.
    """
    shapes = shapes_of(transformer)
    plans: list[WeightPlan] = [
        plan_weights(
            TensorFiles([folder / file]),
            names,
            {name: shape for name, shape in shapes.items() if belongs(name)},
            what,
        )
        for file, names, belongs, what in _PARTS
    ]
    parameters = dict(transformer.named_parameters())
    for plan in plans:
        for name, values in plan.read():
            parameters[name].copy_(values)
