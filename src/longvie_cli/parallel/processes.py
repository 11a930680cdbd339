"""Processes that work together, as torchrun starts them."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """A process among those that work together.

    Args:
        rank: Counted over all machines; 0 speaks and writes.
        count: Of all processes.
        local_rank: Counted on this machine; its GPU.
        local_count: Of the processes on this machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @property
    def launcher(self) -> list[str]:
        """The words before a command that start it in as many processes: `longvie` for one."""
        if self.count == 1:
            return ["longvie"]
        words = ["torchrun", "--nproc-per-node", str(self.local_count)]
        if self.count > self.local_count:
            # Typed on each machine; where these met is not told to their processes.
            machines = str(self.count // self.local_count)
            words += [
                "--nnodes",
                machines,
                "--rdzv-backend",
                "c10d",
                "--rdzv-endpoint",
                "HOST:PORT",
            ]
        return [*words, "-m", "longvie_cli"]


def place_of_process() -> Place:
    """Return where torchrun put this process; alone without it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Place()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return Place(*(int(os.environ[name]) for name in names))
