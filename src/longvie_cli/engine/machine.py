"""How much memory this machine has free."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class MachineMemory:
    """Bytes of memory; None where the system does not say.

    Args:
        device_free: Free on the GPU; None on a machine that computes on the CPU.
        device_total: All of the GPU's.
        host_free: What a new process can have without swapping.
        host_total: All of the machine's, or of the container's.
    """

    device_free: int | None
    device_total: int | None
    host_free: int | None
    host_total: int | None


def peak_host_bytes() -> int:
    """Return the most memory this process has had at once, its libraries included."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def machine_memory(device: str) -> MachineMemory:
    """Return the memory of this machine, as seen by a run on `device`."""
    device_free, device_total = (None, None)
    if device.startswith("cuda"):
        import torch

        device_free, device_total = torch.cuda.mem_get_info(device)
    host_free, host_total = _host_memory()
    limit, used = _container_limit()
    if limit is not None:
        host_total = limit if host_total is None else min(limit, host_total)
        left = max(0, limit - used)
        host_free = left if host_free is None else min(left, host_free)
    return MachineMemory(device_free, device_total, host_free, host_total)


def _host_memory() -> tuple[int | None, int | None]:
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if " kB" in line}
        return kilobytes["MemAvailable"] * 1024, kilobytes["MemTotal"] * 1024
    except (OSError, KeyError, ValueError):
        pass  # No Linux: what is free is unknown, what there is often is not.
    try:
        return None, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None, None


def _container_limit(root: Path = Path("/sys/fs/cgroup")) -> tuple[int | None, int]:
    """Return the limit of this container (control groups v2) and what counts against it."""
    try:
        limit = (root / "memory.max").read_text("ascii").strip()
        if limit == "max":
            return None, 0
        used = int((root / "memory.current").read_text("ascii"))
        statistics = dict(
            line.split() for line in (root / "memory.stat").read_text("ascii").splitlines()
        )
        # Cached files are given up when memory is asked for.
        return int(limit), max(0, used - int(statistics.get("inactive_file", 0)))
    except (OSError, ValueError):
        return None, 0
