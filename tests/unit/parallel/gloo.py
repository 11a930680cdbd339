"""Processes of a gloo group that compute something together, for a test to look at."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing


def together(count: int, folder: Path, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Return what `work(*arguments)` returns in each of `count` processes of one group.

    They are forked: what is imported here is so there.

    Args:
        count: Of the processes.
        folder: Where they find each other and leave what they found.
        work: What each does.
        arguments: What it is given.
    """
    multiprocessing.start_processes(
        _work, (count, folder, work, arguments), nprocs=count, start_method="fork"
    )
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(count)]


def _work(rank: int, count: int, folder: Path, work: Callable[..., Any], arguments: Any) -> None:
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/found",
        rank=rank,
        world_size=count,
        timeout=timedelta(minutes=2),
    )
    torch.save(work(*arguments), folder / f"{rank}.pt")
    distributed.destroy_process_group()
