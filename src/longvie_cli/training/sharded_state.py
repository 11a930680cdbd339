"""What is cut over processes, in a checkpoint: shards of `torch.distributed.checkpoint`.

Any number of processes reads what any other number wrote. Beside the shards lies a state without
tensors of that kind: step, settings, and the numbers of optimizer and average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW holds of each number of a parameter."""


def write_shards(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write the parts of this process; all processes do so together."""
    save(dict(tensors), checkpoint_id=folder)


def read_shards(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Fill the parts of this process in place; all processes do so together."""
    load(dict(tensors), checkpoint_id=folder)


def read_whole(folder: Path, kind: str, shapes: Mapping[str, list[int]]) -> list[Tensor]:
    """Return whole tensors of a kind (`trained`, `average`), in this process alone.

    Args:
        folder: Of the shards.
        kind: As they are named.
        shapes: By parameter.
    """
    found = {f"{kind}.{name}": torch.empty(shape) for name, shape in shapes.items()}
    load(found, checkpoint_id=folder, no_dist=True)
    return list(found.values())


def without_parts(state: dict[str, Any], shapes: Mapping[str, list[int]]) -> dict[str, Any]:
    """Return a state without the cut tensors, with the shapes of what is trained in their place."""
    optimizer, average = state["optimizer"], state["average"]
    left = {
        index: {name: value for name, value in held.items() if name not in MOMENTS}
        for index, held in optimizer["state"].items()
    }
    return state | {
        "trained": dict(shapes),
        "optimizer": optimizer | {"state": left},
        "average": average and average | {"shadow_params": []},
    }


def with_empty_parts(state: dict[str, Any], parts: Sequence[nn.Parameter]) -> dict[str, Any]:
    """Return a state with room for the cut tensors that `without_parts` left out."""
    optimizer, average = state["optimizer"], state["average"]
    filled = {
        index: held | {name: torch.zeros_like(parts[index]) for name in MOMENTS}
        for index, held in optimizer["state"].items()
    }
    shadows = [torch.zeros_like(part) for part in parts]
    return state | {
        "optimizer": optimizer | {"state": filled},
        "average": average and average | {"shadow_params": shadows},
    }
