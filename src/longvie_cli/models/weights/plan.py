"""Fills modules with tensors of files: every tensor planned and checked first, then copied."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import PreTrainedModel

from longvie_cli.errors import MissingResourceError
from longvie_cli.models.weights.files import FETCH_HINT, TensorFiles, tensor_info
from longvie_cli.models.weights.kinds import describe_kind
from longvie_cli.models.weights.names import NameMap, WeightNameError


@dataclass(frozen=True)
class WeightPlan:
    """Which tensor of a file fills which of ours; complete, and every shape checked.

    Args:
        tensors: Of the file, or in memory.
        names: Translates them.
        copies: (ours, theirs), in the order in which the file holds them.
        twins: (theirs, theirs) that must hold the same values, as one of ours is read from both.
    """

    tensors: Mapping[str, Tensor]
    names: NameMap
    copies: tuple[tuple[str, str], ...]
    twins: tuple[tuple[str, str], ...] = ()

    def without(self, is_left_out: Callable[[str], bool]) -> WeightPlan:
        """Return the plan without those of our names that something else will fill."""
        kept = tuple(copy for copy in self.copies if not is_left_out(copy[0]))
        return WeightPlan(self.tensors, self.names, kept, self.twins)

    def read(self) -> Iterator[tuple[str, Tensor]]:
        """Yield our name and a view on its values, file by file.

        Raises:
            MissingResourceError: two copies of one tensor hold different values.
        """
        self.check_twins()
        for ours, theirs in self.copies:
            yield ours, self.names.take(ours, self.tensors[theirs])
        self.close()

    def check_twins(self) -> None:
        """Do nothing if tensors that should be the same are.

        Raises:
            MissingResourceError: two copies of one tensor hold different values.
        """
        for first, second in self.twins:
            if not torch.equal(self.tensors[first], self.tensors[second]):
                raise MissingResourceError(
                    f"{self.tensors}: {first} and {second} should be the same.", hint=FETCH_HINT
                )

    def close(self) -> None:
        """Unmap what files are mapped."""
        if isinstance(self.tensors, TensorFiles):
            self.tensors.close()


@dataclass
class _Findings:
    """What is wrong with a file, each kind with the names it was found at."""

    missing: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "; ".join(
            f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for kind, names in vars(self).items()
            if names
        )


def plan_weights(
    tensors: Mapping[str, Tensor],
    names: NameMap,
    expected: Mapping[str, Sequence[int]],
    what: str,
) -> WeightPlan:
    """Return how the tensors fill exactly the parameters expected; nothing is read yet.

    Args:
        tensors: Of one file or model.
        names: Translates them.
        expected: Our names and shapes.
        what: What they should be, for the error: `control weights`.

    Raises:
        MissingResourceError: a tensor is missing, unknown, there twice, of another shape or not
            of a floating-point type. The message names the first three of each kind and says what
            the file looks like.
    """
    wrong = _Findings()
    found, twins = _match(tensors, names, expected, wrong)
    absent = (names.to_released(ours) for ours in expected if ours not in found)
    wrong.missing = list(dict.fromkeys(absent))
    for ours, theirs in found.items():
        info = tensor_info(tensors, theirs)
        shape = names.released_shape(ours, expected[ours])
        if info.shape != shape:
            wrong.misshapen.append(f"{theirs} {list(info.shape)} instead of {list(shape)}")
        elif not info.dtype.is_floating_point:
            wrong.misshapen.append(f"{theirs} of type {info.dtype}")
    wrong.misshapen = list(dict.fromkeys(wrong.misshapen))
    if problems := str(wrong):
        shapes = {name: tensor_info(tensors, name).shape for name in tensors}
        kind = describe_kind(shapes)
        where = f"{tensors}: " if isinstance(tensors, TensorFiles) else ""
        raise MissingResourceError(
            f"{where}{what}: {problems}, of {len(expected)} tensors expected"
            + (f"; it looks like {kind}." if kind else "."),
            hint="This file belongs to another model or place. " + FETCH_HINT,
        )
    return WeightPlan(tensors, names, tuple(found.items()), tuple(twins))


def _match(
    tensors: Iterable[str], names: NameMap, expected: Container[str], wrong: _Findings
) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Return which of theirs holds each of ours, and which two of theirs are the same tensor."""
    found: dict[str, str] = {}
    twins: list[tuple[str, str]] = []
    for theirs in tensors:
        if names.ignores(theirs):
            continue
        try:
            parts = names.parts(theirs)
        except WeightNameError:
            parts = ()
        if not parts or any(ours not in expected for ours in parts):
            wrong.unknown.append(theirs)
        elif parts[0] not in found:
            found |= dict.fromkeys(parts, theirs)
        elif names.aliases.keys() & {theirs, found[parts[0]]}:
            twins.append((found[parts[0]], theirs))
        else:
            wrong.repeated.append(theirs)
    return found, twins


class RandomPlan:
    """Fills a module with random numbers instead of those of files.

    Args:
        module: Gives names and shapes.
        device: Where the numbers are drawn.
        seed: They are drawn from; on one device always the same.
    """

    def __init__(self, module: nn.Module, device: torch.device | str, seed: int) -> None:
        self.copies = [(name, parameter.shape) for name, parameter in module.named_parameters()]
        self._device = device
        self._seed = seed

    def read(self) -> Iterator[tuple[str, Tensor]]:
        """Yield names and values: norms and biases as fresh ones, else of variance 1 / fan-in."""
        generator = torch.Generator(self._device).manual_seed(self._seed)
        for name, shape in self.copies:
            values = torch.empty(shape, device=self._device)
            if sum(side > 1 for side in shape) > 1:
                values.normal_(std=shape[1:].numel() ** -0.5, generator=generator)
            else:
                values.fill_(0.0 if name.endswith("bias") else 1.0)
            yield name, values


def parameter_dtype(module: nn.Module, name: str, dtype: torch.dtype) -> torch.dtype:
    """Return the type in which a parameter is kept in a module loaded as `dtype`.

    As `from_pretrained` decides: a diffusers model keeps what its class lists in
    `_keep_in_fp32_modules` in float32 (of the Wan transformer: block norms, modulation tables and
    the time embedder's MLP, spec 2.3); a transformers model does so only under float16 (of the
    UMT5 encoder: the last linear of each feed-forward layer, which overflows).
    """
    kept = set(getattr(module, "_keep_in_fp32_modules", None) or ())
    if isinstance(module, PreTrainedModel) and dtype != torch.float16:
        kept = set()
    if dtype in (torch.float16, torch.bfloat16) and kept & set(name.split(".")):
        return torch.float32
    return dtype


@contextmanager
def without_weights() -> Iterator[None]:
    """Make modules whose parameters take no memory; buffers are real."""
    with init_empty_weights(include_buffers=False):
        yield


def fill_module(
    module: nn.Module,
    plans: Sequence[WeightPlan | RandomPlan],
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    on_tensor: Callable[[str], None] = lambda _name: None,
) -> None:
    """Fill a module made under `without_weights` (or any other) tensor by tensor.

    Each tensor is copied from its mapped file straight to its type and device, so that host memory
    holds the filled part of the module and one shard, never the model twice.

    Args:
        module: Filled in place; evaluation mode afterwards.
        plans: Together they fill every parameter that is not tied to another.
        dtype: Target type; exceptions as in `parameter_dtype`.
        device: Target device.
        on_tensor: Called with our name after each tensor.

    Raises:
        MissingResourceError: two copies of one tensor hold different values.
    """
    with torch.no_grad():
        for name, values in chain.from_iterable(plan.read() for plan in plans):
            target = torch.empty(
                values.shape, dtype=parameter_dtype(module, name, dtype), device=device
            )
            target.copy_(values)
            path, _, leaf = name.rpartition(".")
            owner = module.get_submodule(path)
            trained = getattr(owner, leaf).requires_grad
            setattr(owner, leaf, nn.Parameter(target, requires_grad=trained))
            on_tensor(name)
    if isinstance(module, PreTrainedModel):
        module.tie_weights()
    for name, buffer in list(module.named_buffers()):
        path, _, leaf = name.rpartition(".")
        module.get_submodule(path)._buffers[leaf] = buffer.to(device)
    unfilled = [
        name
        for name, value in chain(module.named_parameters(), module.named_buffers())
        if value.is_meta
    ]
    assert not unfilled, unfilled
    module.eval()
