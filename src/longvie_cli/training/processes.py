"""Processes that train together, as torchrun starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

# One process validates and writes checkpoints while the others wait.
_LONGEST_WAIT = timedelta(hours=2)


@dataclass(frozen=True)
class Place:
    """A process among those that train together.

    Args:
        rank: Counted over all machines; 0 speaks and writes.
        count: Of all processes.
        local_rank: Counted on this machine; its GPU.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0


def place_of_process() -> Place:
    """Return where torchrun put this process; alone without it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Place()
    rank, count, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    return Place(rank, count, local)


@contextmanager
def joined(place: Place, device: str) -> Iterator[str]:
    """Join the processes of a group, and give the device that this one computes on.

    Args:
        place: As `place_of_process` returns it.
        device: `cpu` (gloo) or `cuda` (NCCL, one GPU a process).
    """
    is_cuda = torch.device(device).type == "cuda"
    if place.count == 1:
        yield device
        return
    if is_cuda:
        device = f"cuda:{place.local_rank}"
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if is_cuda else "gloo", timeout=_LONGEST_WAIT)
    try:
        yield device
    finally:
        distributed.destroy_process_group()
