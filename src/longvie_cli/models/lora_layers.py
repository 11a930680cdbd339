"""The tensors of a LoRA file by our layers, in whatever naming, and whether they fit."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from longvie_cli.errors import InputError
from longvie_cli.models.weights.names import CONTROL_NAMES, DIT_NAMES, WeightNameError

# peft puts the name of the adapter there, which may be any.
_ADAPTER = r"(?:\.(?P<adapter>[^.]+))?"
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
# Kinds of adapters that are no pair of matrices.
_OTHER_ADAPTERS = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("LoHa", r"\.hada_\w+$"),
        ("LoKr", r"\.lokr_\w+$"),
        ("OFT", r"\.b?oft_\w+$"),
        ("(IA)^3", r"\.(?:on_input|ia3_l)\b"),
        ("GLoRA", r"\.[ab][12]\.weight$"),
        ("Tucker LoCon", r"\.lora_mid\.weight$"),
    )
)
_PREFIX = re.compile(
    r"^(?:base_model\.model\.|diffusion_model\.|transformer\.|model\.|pipe\.|dit\.)+"
)
# Of names whose dots, all or some of them, are underscores.
_FLAT_PREFIX = re.compile(r"^(?:lora_unet_|lora_transformer_|lycoris_)")
_NAMED_AS_OURS = re.compile(r"\.attn[12]\.|condition_embedder\.|_blocks\.\d+\.|proj_out\b")
_TEXT_ENCODER = re.compile(r"^(?:lora_te\d?_|te\d?\.|text_encoders?(?:_\d)?\.|cond_stage_model\.)")
# A name in `alpha_pattern`, which peft takes as a regular expression; people and diffusers write
# names, and nobody's expression is run here.
_LAYER_NAME = re.compile(r"\^?((?:\w|\\?\.)+)\$?")
_LARGEST_ALPHA = 1e6
# How many tensors a message names.
_SHOWN = 3


@dataclass
class _Entry:
    """What a file says of one layer: its name there, tensors by kind, the keys of those."""

    module: str
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


def translate_lora(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    transformer: nn.Module,
    *,
    name: str,
) -> LoraTensors:
    """Return the tensors of a LoRA file by our layers, checked against a transformer.

    Only their shapes, and the values of alphas, are looked at: all else may be on the meta device.

    Args:
        tensors: By their names in the file.
        metadata: Of a peft adapter config, for files without `.alpha`; may be empty.
        transformer: Whose layers they are for; not changed.
        name: What messages call the file.

    Raises:
        InputError: the file is for a model of other sizes, nothing of it can be applied, or it
            contradicts itself.
    """
    parameters = _parameters(transformer)
    try:
        _check_is_lora(tensors)
        entries, unapplied = _entries(tensors, parameters)
        fitting = _Fitting(parameters, _Scales(metadata), unapplied)
        for layer, entry in entries.items():
            fitting.take(layer, entry)
    except ValueError as error:
        raise InputError(f"{name}: {error}.") from error
    notices = _notices(name, len(tensors), fitting)
    return LoraTensors(fitting.pairs, fitting.deltas, notices)


def _check_is_lora(keys: Mapping[str, Tensor]) -> None:
    """Raises ValueError for a file of another kind, which it names."""
    for kind, pattern in _OTHER_ADAPTERS:
        found = [key for key in keys if pattern.search(key)]
        if found:
            raise ValueError(f"a {kind} adapter, which is not read, only LoRA: {_listed(found)}")
    if not any(_kind_of(key)[0] for key in keys):
        named = f"its tensors are named like {_listed([*keys])}" if keys else "it holds no tensors"
        raise ValueError(f"not a LoRA this program knows; {named}")
    adapters = {adapter: key for key in keys if (adapter := _adapter_of(key)) is not None}
    if len(adapters) > 1:
        raise ValueError(f"it holds several adapters: {_listed([*adapters.values()])}")


class _Scales:
    """What B A is multiplied by, layer by layer.

    Args:
        metadata: Of a peft adapter config.

    Raises:
        ValueError: It says something else than numbers.
    """

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self._alpha = _alpha(metadata.get("lora_alpha"), "lora_alpha")
        patterns = metadata.get("alpha_pattern") or {}
        if not isinstance(patterns, dict):
            raise ValueError("alpha_pattern in its metadata is no mapping")
        self._patterns: dict[str, float | None] = {}
        for pattern, alpha in patterns.items():
            named = _LAYER_NAME.fullmatch(pattern)
            if named is None:
                raise ValueError(f"alpha_pattern in its metadata: {pattern!r:.60} is no layer")
            layer = named[1].replace("\\.", ".")
            self._patterns[layer] = _alpha(alpha, f"alpha_pattern of {layer}")
        rank_stabilized = metadata.get("use_rslora")
        if not isinstance(rank_stabilized, bool | None):
            raise ValueError(f"use_rslora in its metadata is {rank_stabilized!r:.60}")
        self._rank_stabilized = bool(rank_stabilized)

    def of(self, names: Sequence[str], rank: int, alpha: float | None) -> float:
        """Return the scale of a layer: alpha / rank, 1 where there is no alpha.

        Args:
            names: What the layer is called: here and in the file.
            rank: Of its pair.
            alpha: What the file says of this very layer.
        """
        if alpha is not None:
            return alpha / rank
        for pattern, value in self._patterns.items():
            if any(f".{name}".endswith(f".{pattern}") for name in names):
                alpha = value
                break
        else:
            alpha = self._alpha
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(rank) if self._rank_stabilized else rank)


class _Fitting:
    """Fits the layers of a file to the parameters of a transformer, one after another.

    Args:
        parameters: Of the transformer, by name.
        scales: What pairs are multiplied by.
        unapplied: Keys of the file that belong to no layer; those that fit nothing are added.
    """

    def __init__(
        self, parameters: Mapping[str, Tensor], scales: _Scales, unapplied: list[str]
    ) -> None:
        self.parameters = parameters
        self.scales = scales
        self.unapplied = unapplied
        self.misfits: list[str] = []
        self.pairs: dict[str, tuple[Tensor, Tensor]] = {}
        self.deltas: dict[str, Tensor] = {}

    def take(self, layer: str, entry: _Entry) -> None:
        """Fit what the file says of one layer.

        Raises:
            ValueError: Its tensors do not belong together.
        """
        found, keys = entry.tensors, entry.keys
        scale = 1.0
        if "down" in found and "up" in found:
            rank = self._rank(entry)
            alpha = None if "alpha" not in found else _alpha(found["alpha"], keys["alpha"])
            scale = self.scales.of([layer, entry.module], rank, alpha)
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

    @staticmethod
    def _rank(entry: _Entry) -> int:
        (down, up), keys = (entry.tensors[kind] for kind in ("down", "up")), entry.keys
        for kind, tensor in (("down", down), ("up", up)):
            if tensor.ndim < 2 or tensor.numel() == 0:
                raise ValueError(f"{keys[kind]} is {list(tensor.shape)}, of rank 0 or no matrix")
        if down.shape[0] != up.shape[1]:
            raise ValueError(
                f"{keys['down']} has rank {down.shape[0]}, but {keys['up']} has rank {up.shape[1]}"
            )
        return down.shape[0]

    def _take_pair(self, layer: str, entry: _Entry, scale: float) -> None:
        keys = entry.keys
        weight = self.parameters.get(f"{layer}.weight")
        if weight is None:
            self.unapplied += [keys["down"], keys["up"]]
            return
        down, up = (_of_rank(entry.tensors[kind], weight.ndim) for kind in ("down", "up"))
        if down.shape[1:] != weight.shape[1:]:
            self._misfit(keys["down"], down, (down.shape[0], *weight.shape[1:]))
        elif up.shape[0] != weight.shape[0] or up[0, 0].numel() != 1:
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


def _of_rank(tensor: Tensor, ndim: int) -> Tensor:
    """Return a matrix of a pair with the dimensions of its layer's weight, in a type peft takes.

    Trainers write those of linear layers as convolutions of one pixel as well.
    """
    if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        tensor = tensor.float()
    extra = tensor.shape[ndim:]
    return tensor.flatten(ndim - 1) if extra and all(size == 1 for size in extra) else tensor


def _notices(name: str, total: int, fitting: _Fitting) -> tuple[str, ...]:
    """Return what the user should know; raises InputError for a file of another model."""
    # The patch embedding of a text-to-video model has fewer channels; the rest of its file fits.
    pairs, misfits, unapplied = fitting.pairs, fitting.misfits, fitting.unapplied
    first_layer = [line for line in misfits if "patch_embedding" in line]
    if len(misfits) > len(first_layer) or not (pairs or fitting.deltas):
        if not misfits and unapplied and all(map(_TEXT_ENCODER.match, unapplied)):
            raise InputError(
                f"{name}: this LoRA is for a text encoder only, which is not changed here: "
                f"{_listed(unapplied)}.",
                hint="Pass one for the video model.",
            )
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
    """Return the tensors by our layer and by kind, and the keys that belong to no layer.

    Raises:
        ValueError: The file says the same of one layer twice, under two names.
    """
    layer_of = _layer_names(tensors, parameters)
    entries: dict[str, _Entry] = {}
    unapplied: list[str] = []
    for key, tensor in tensors.items():
        kind, module = _kind_of(key)
        layer = layer_of(f"{module}.modulation" if kind == "modulation" else module)
        if kind is None or layer is None:
            unapplied.append(key)
            continue
        entry = entries.setdefault(layer, _Entry(module))
        if kind in entry.keys:
            raise ValueError(f"{layer} is in it twice, as {entry.keys[kind]} and {key}")
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
    flat = {layer.replace(".", "_"): layer for layer in layers}
    # Over ours, where a name is in both: files with flat names are of tools with the released ones.
    for layer, names in itertools.product(layers, (DIT_NAMES, CONTROL_NAMES)):
        if names.owns(layer):
            flat[names.to_released(layer).replace(".", "_")] = layer
    named_as_ours = any(_NAMED_AS_OURS.search(_PREFIX.sub("", key)) for key in keys)

    def layer_of(name: str) -> str | None:
        name = _PREFIX.sub("", name)
        if _FLAT_PREFIX.match(name):
            return flat.get(_FLAT_PREFIX.sub("", name).replace(".", "_"))
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


def _adapter_of(key: str) -> str | None:
    """Return the name of the adapter that a tensor belongs to, None where it names none."""
    for _, pattern in _KINDS:
        if match := pattern.search(key):
            return match.groupdict().get("adapter")
    return None


def _alpha(value: Any, where: str) -> float | None:
    """Return an alpha as a number; None where there is none.

    Raises:
        ValueError: It is something else, or no scale.
    """
    if value is None:
        return None
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"{where} is {list(value.shape)}, not one number")
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{where} is {value!r:.60}, not a number")
    if not abs(value) <= _LARGEST_ALPHA:
        raise ValueError(f"{where} is {value:g}, which no weight can be scaled by")
    return float(value)


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
