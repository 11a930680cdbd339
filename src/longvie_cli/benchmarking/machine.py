"""What this machine is, and how fast it multiplies and copies: the roof of a roofline."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from longvie_cli.engine.machine import machine_memory

# Of a matrix product of n x n; on the CPU small enough to take a fraction of a second.
_SIDE = {"cpu": 1024, "cuda": 8192}
_COPIED_BYTES = {"cpu": 1 << 28, "cuda": 1 << 32}
_TRIES = 5


@dataclass(frozen=True)
class Roof:
    """The most a device was seen to do.

    Args:
        flops_per_second: Products of large square matrices in the type of the engine.
        bytes_per_second: Reading and writing memory, a copy counting both.
    """

    flops_per_second: float
    bytes_per_second: float


def measure_roof(device: torch.device, dtype: torch.dtype, *, fp8: bool = False) -> Roof:
    """Return the best of a few tries of a large product and of a large copy.

    Args:
        device: Where.
        dtype: Of the matrices.
        fp8: Whether they are float8 with a scale a row, where the device multiplies those.
    """
    side = _SIDE[device.type]
    first, second = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    multiply = _fp8_product(first, second) if fp8 and device.type == "cuda" else None
    seconds = _best(multiply or (lambda: first @ second), device)
    values = _COPIED_BYTES[device.type] // 4
    source = torch.zeros(values, device=device)
    target = torch.empty_like(source)
    copying = _best(lambda: target.copy_(source), device)
    return Roof(2 * side**3 / seconds, 2 * source.nbytes / copying)


def _fp8_product(first: torch.Tensor, second: torch.Tensor) -> Any:
    left, right = (matrix.to(torch.float8_e4m3fn) for matrix in (first, second))
    ones = torch.ones(len(first), 1, device=first.device)

    def multiply() -> torch.Tensor:
        return torch._scaled_mm(
            left, right.t(), scale_a=ones, scale_b=ones.t(), out_dtype=torch.bfloat16
        )

    return multiply


def _best(work: Any, device: torch.device) -> float:
    def finish() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    work()
    times = []
    for _ in range(_TRIES):
        finish()
        began = time.perf_counter()
        work()
        finish()
        times.append(time.perf_counter() - began)
    return min(times)


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return what a reader of a benchmark has to know of this machine, as JSON values."""
    memory = machine_memory(str(device))
    on_gpu = device.type == "cuda"
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": memory.host_total,
        "gpu": torch.cuda.get_device_name(device) if on_gpu else None,
        "gpu_memory_bytes": memory.device_total,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "system": platform.platform(),
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # No Linux.
    return platform.processor() or platform.machine()
