"""The group of the processes that train together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

from longvie_cli.parallel.processes import Place

# One process validates and writes checkpoints while the others wait.
_LONGEST_WAIT = timedelta(hours=2)


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
