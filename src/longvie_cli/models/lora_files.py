"""LoRA files: what is in them, and whether it fits."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from longvie_cli.disk.documents import reason_of
from longvie_cli.errors import InputError, MissingResourceError
from longvie_cli.models.weights.names import CONTROL_NAMES, DIT_NAMES, WeightNameError

_ADAPTER = r"(?:\.default)?"


_KINDS = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("down", rf"\.(?:lora_A|lora_down|lora\.down){_ADAPTER}\.weight$"),
        ("up", rf"\.(?:lora_B|lora_up|lora\.up){_ADAPTER}\.weight$"),
        ("up_bias", rf"\.lora_B{_ADAPTER}\.bias$"),
        ("alpha", r"\.alpha$"),
        ("weight", r"\.diff$"),
        ("bias", r"\.diff_b$"),
        ("modulation", r"\.diff_m$"),
    )
)


_PREFIX = re.compile(r"^(?:base_model\.model\.|diffusion_model\.|transformer\.|model\.)+")


_MUSUBI_PREFIX = "lora_unet_"


_NAMED_AS_OURS = re.compile(r"\.attn[12]\.|condition_embedder\.|_blocks\.\d+\.|proj_out\b")


# How many tensors a message names.
_SHOWN = 3


@dataclass
class _Entry:
    """What a file says of one layer: tensors by kind, with the keys they had in the file."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LoraTensors:
    """A LoRA file in our names, checked against a transformer.

    Args:
        pairs: (A [rank, in], B [out, rank]) of each linear layer; alpha is in A already.
        deltas: What is added to parameters at scale 1, by parameter.
        notices: What the user should know, one sentence each.
    """

    pairs: Mapping[str, tuple[Tensor, Tensor]]
    deltas: Mapping[str, Tensor]
    notices: tuple[str, ...]


def check_lora(path: Path) -> None:
    """Check that a file is a LoRA and can be used here, without reading its tensors.

    Raises:
        InputError: no such file, no safetensors file, or nothing of a LoRA in it.
        MissingResourceError: peft is not installed.
    """
    require_peft()
    with _opened(path) as file:
        keys = list(file.keys())
    if not any(_kind_of(key)[0] for key in keys):
        raise InputError(
            f"{path.name}: not a LoRA this program knows; its tensors are named like "
            f"{', '.join(keys[:_SHOWN])}."
        )


def require_peft() -> None:
    """Raises MissingResourceError where peft, which only LoRA needs, is not installed."""
    if importlib.util.find_spec("peft") is None:
        raise MissingResourceError(
            "--lora: the package peft is missing.", hint="pip install 'longvie[lora]'"
        )


def translate_lora(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    transformer: nn.Module,
    *,
    name: str,
) -> LoraTensors:
    """Return the tensors of a LoRA file by our layers, checked against a transformer.

    Args:
        tensors: By their names in the file.
        metadata: Of a peft adapter config, for files without `.alpha`; may be empty.
        transformer: Whose layers they are for; not changed.
        name: What messages call the file.

    Raises:
        InputError: the file is for a model of other sizes, or nothing of it can be applied.
    """
    parameters = _parameters(transformer)
    entries, unapplied = _entries(tensors, parameters)
    fitting = _Fitting(parameters, unapplied)
    for layer, entry in entries.items():
        fitting.take(layer, entry, metadata)
    notices = _notices(name, len(tensors), fitting)
    return LoraTensors(fitting.pairs, fitting.deltas, notices)


class _Fitting:
    """Fits the layers of a file to the parameters of a transformer, one after another.

    Args:
        parameters: Of the transformer, by name.
        unapplied: Keys of the file that belong to no layer; those that fit nothing are added.
    """

    def __init__(self, parameters: Mapping[str, Tensor], unapplied: list[str]) -> None:
        self.parameters = parameters
        self.unapplied = unapplied
        self.misfits: list[str] = []
        self.pairs: dict[str, tuple[Tensor, Tensor]] = {}
        self.deltas: dict[str, Tensor] = {}

    def take(self, layer: str, entry: _Entry, metadata: Mapping[str, Any]) -> None:
        """Fit what the file says of one layer."""
        found, keys = entry.tensors, entry.keys
        scale = 1.0
        if "down" in found and "up" in found:
            rank = found["down"].shape[0]
            scale = _alpha_scale(layer, rank, found.get("alpha"), metadata)
            self._take_pair(layer, entry, scale)
        else:
            self.unapplied += [keys[kind] for kind in ("down", "up", "alpha") if kind in keys]
        if "up_bias" in found:
            self._add(f"{layer}.bias", found["up_bias"].float() * scale, keys["up_bias"])
        for kind, leaf in (("bias", ".bias"), ("weight", ".weight"), ("modulation", "")):
            if kind in found:
                # A modulation is a parameter itself; some files call its change `.diff` too.
                parameter = layer if layer in self.parameters else layer + leaf
                self._add(parameter, found[kind], keys[kind])

    def _take_pair(self, layer: str, entry: _Entry, scale: float) -> None:
        (down, up), keys = (entry.tensors[kind] for kind in ("down", "up")), entry.keys
        weight = self.parameters.get(f"{layer}.weight")
        if weight is None:
            self.unapplied += [keys["down"], keys["up"]]
        elif down.shape[1:] != weight.shape[1:]:
            self._misfit(keys["down"], down, (down.shape[0], *weight.shape[1:]))
        elif up.shape[:2] != (weight.shape[0], down.shape[0]):
            self._misfit(keys["up"], up, (weight.shape[0], down.shape[0]))
        elif weight.ndim == 2:
            self.pairs[layer] = (down if scale == 1 else down.float() * scale, up)
        else:
            product = up.float().flatten(1) @ down.float().flatten(1)
            self._add(f"{layer}.weight", product * scale, keys["down"])

    def _add(self, parameter: str, delta: Tensor, key: str) -> None:
        wanted = self.parameters.get(parameter)
        if wanted is None:
            self.unapplied.append(key)
        elif delta.numel() != wanted.numel():
            self._misfit(key, delta, wanted.shape)
        else:
            delta = delta.reshape(wanted.shape)
            before = self.deltas.get(parameter)
            self.deltas[parameter] = delta if before is None else before + delta

    def _misfit(self, key: str, tensor: Tensor, wanted: Sequence[int]) -> None:
        self.misfits.append(f"{key} is {list(tensor.shape)}, not {list(wanted)}")


def _notices(name: str, total: int, fitting: _Fitting) -> tuple[str, ...]:
    """Return what the user should know; raises InputError for a file of another model."""
    # The patch embedding of a text-to-video model has fewer channels; the rest of its file fits.
    pairs, misfits, unapplied = fitting.pairs, fitting.misfits, fitting.unapplied
    first_layer = [line for line in misfits if "patch_embedding" in line]
    if len(misfits) > len(first_layer) or not (pairs or fitting.deltas):
        wrong = "; ".join(misfits[:_SHOWN]) or f"no layer of this model in {_listed(unapplied)}"
        raise InputError(
            f"{name}: this LoRA was made for another model: {wrong}.",
            hint="Pass a LoRA for this preset's model (longvie2: Wan2.1-I2V-14B).",
        )
    notices = []
    looks_at_text = any("attn2.to_k" in layer for layer in pairs)
    looks_at_images = any("add_k_proj" in layer for layer in pairs)
    if (
        looks_at_text
        and not looks_at_images
        and any("add_k_proj" in key for key in fitting.parameters)
    ):
        notices.append(
            f"{name}: a LoRA for a text-to-video model (it has nothing like "
            "blocks.0.cross_attn.k_img); the image projections stay as they are."
        )
    if first_layer:
        notices.append(f"{name}: not applied: {'; '.join(first_layer)}.")
    if unapplied:
        notices.append(
            f"{name}: {len(unapplied)} of {total} tensors are not applied: {_listed(unapplied)}."
        )
    return tuple(notices)


def _entries(
    tensors: Mapping[str, Tensor], parameters: Mapping[str, Tensor]
) -> tuple[dict[str, _Entry], list[str]]:
    """Return the tensors by our layer and by kind, and the keys that belong to no layer."""
    layer_of = _layer_names(tensors, parameters)
    entries: dict[str, _Entry] = {}
    unapplied: list[str] = []
    for key, tensor in tensors.items():
        kind, module = _kind_of(key)
        layer = layer_of(f"{module}.modulation" if kind == "modulation" else module)
        if kind is None or layer is None:
            unapplied.append(key)
            continue
        entry = entries.setdefault(layer, _Entry())
        entry.tensors[kind] = tensor
        entry.keys[kind] = key
    return entries, unapplied


def _layer_names(
    keys: Mapping[str, Tensor], parameters: Mapping[str, Tensor]
) -> Callable[[str], str | None]:
    """Return the function from a layer's name in a file to ours, None where we have none."""
    layers = {name.rpartition(".")[0] for name in parameters} | {
        name for name in parameters if name.endswith("scale_shift_table")
    }
    flat: dict[str, str] = {}
    for layer in layers:
        flat[layer.replace(".", "_")] = layer
        for names in (DIT_NAMES, CONTROL_NAMES):
            if names.owns(layer):
                flat[names.to_released(layer).replace(".", "_")] = layer
    named_as_ours = any(_NAMED_AS_OURS.search(_PREFIX.sub("", key)) for key in keys)

    def layer_of(name: str) -> str | None:
        if name.startswith(_MUSUBI_PREFIX):
            return flat.get(name.removeprefix(_MUSUBI_PREFIX))
        name = _PREFIX.sub("", name)
        # The norms' numbers mean different layers in the two namings (see weight_names.py).
        candidates = [name] if named_as_ours else [*_released(name), name]
        return next((candidate for candidate in candidates if candidate in layers), None)

    return layer_of


def _released(name: str) -> list[str]:
    found = []
    for names in (DIT_NAMES, CONTROL_NAMES):
        try:
            found.append(names.to_ours(name))
        except WeightNameError:
            continue
    return found


def _kind_of(key: str) -> tuple[str | None, str]:
    """Return what a tensor is to its layer (None if nothing known) and the layer's name."""
    for kind, pattern in _KINDS:
        if match := pattern.search(key):
            return kind, key[: match.start()]
    return None, key


def _alpha_scale(layer: str, rank: int, alpha: Tensor | None, metadata: Mapping[str, Any]) -> float:
    """Return what B A is multiplied by at adapter scale 1: alpha / rank, 1 where there is none."""
    value: float | None = None if alpha is None else float(alpha)
    if value is None:
        patterns = metadata.get("alpha_pattern") or {}
        value = next(
            (
                alpha
                for pattern, alpha in patterns.items()
                if re.search(rf"(?:^|\.){pattern.lstrip('^')}$", layer)
            ),
            metadata.get("lora_alpha"),
        )
    if value is None:
        return 1.0
    return value / (math.sqrt(rank) if metadata.get("use_rslora") else rank)


def _parameters(transformer: nn.Module) -> dict[str, Tensor]:
    """Return the transformer's own parameters by name, adapters left out."""
    return {
        name.replace(".base_layer.", "."): parameter
        for name, parameter in transformer.named_parameters()
        if ".lora_" not in name
    }


def named_parameter(transformer: nn.Module, name: str) -> Tensor:
    owner, _, leaf = name.rpartition(".")
    module = transformer.get_submodule(owner)
    parameter: Tensor = getattr(getattr(module, "base_layer", module), leaf)
    return parameter


def _listed(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more


def located(source: str | Path, weight_name: str | None, download: Mapping[str, Any]) -> Path:
    path = Path(source)
    if path.is_dir() and weight_name is not None:
        return path / weight_name
    if path.exists() or weight_name is None:
        return path
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(str(source), weight_name, **download))


def _opened(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"{path}: there is no such LoRA file.")
    try:
        return safe_open(path, "pt")
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path.name}: no safetensors file ({reason_of(error)}).") from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a file, and the adapter config within or beside it."""
    with _opened(path) as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        stored = json.loads((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
    metadata = {key.removeprefix("transformer."): value for key, value in stored.items()}
    beside = path.with_name("adapter_config.json")
    if not metadata and path.name.startswith("adapter_model") and beside.is_file():
        metadata = json.loads(beside.read_text("utf-8"))
    return tensors, metadata
