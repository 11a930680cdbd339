"""The group of the processes that torchrun started, and what they compute on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

from longvie_cli.errors import OtherProcessEnded
from longvie_cli.parallel.processes import Place


@contextmanager
def group_of(place: Place, *, longest_wait: timedelta) -> Iterator[None]:
    """Join the processes that torchrun started, and tell a lost one from other failures.

    What lies on the CPU is exchanged by gloo, what lies on a GPU by NCCL. A process that is alone
    joins nothing. After a failure the group is left as it is: to take it down, this process would
    wait for others that wait for it. It ends with the process.

    Args:
        place: As `place_of_process` returns it.
        longest_wait: That one process may be ahead of another. One that has ended is noticed at
            once: its connection is closed.

    Raises:
        OtherProcessEnded: A process has ended in the middle of it.
    """
    if place.count == 1:
        yield
        return
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
    try:
        distributed.init_process_group(backend, timeout=longest_wait)
        yield
        distributed.destroy_process_group()
    except RuntimeError as error:
        if not _is_of_a_lost_process(error):
            raise
        raise OtherProcessEnded(
            "Another process of this run has ended.",
            hint="What was finished is kept; the same command goes on.",
        ) from error


def own_device(device: str, place: Place) -> str:
    """Return the device of this process: of several, each has the GPU of its local rank."""
    is_shared = place.count > 1 and torch.device(device).type == "cuda"
    return f"cuda:{place.local_rank}" if is_shared else device


def _is_of_a_lost_process(error: RuntimeError) -> bool:
    # gloo has no exception type of its own.
    return isinstance(error, distributed.DistError) or "gloo" in str(error)
