"""Which kernel set a device gets, and that Triton is needed for nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest
from interpreted import triton_is_installed

from longvie_cli.kernels.cpu_kernel_set import CpuKernelSet
from longvie_cli.kernels.kernel_set import KernelSet, kernel_set_for


def test_the_cpu_computes_by_pytorch() -> None:
    assert isinstance(kernel_set_for("cpu", warn=pytest.fail), CpuKernelSet)
    assert type(kernel_set_for("meta", warn=pytest.fail)) is KernelSet


@pytest.mark.skipif(not triton_is_installed(), reason="triton is not installed")
def test_a_gpu_gets_the_triton_kernels() -> None:
    assert type(kernel_set_for("cuda:1", warn=pytest.fail)).__name__ == "TritonKernelSet"


@pytest.mark.slow
def test_without_triton_a_gpu_goes_without_and_it_is_said() -> None:
    program = """
import sys
sys.modules["triton"] = None
from longvie_cli.kernels.kernel_set import KernelSet, kernel_set_for
assert not [name for name in sys.modules if name.startswith("longvie_cli.kernels.fused")]
said = []
assert type(kernel_set_for("cuda", warn=said.append)) is KernelSet
print(*said, sep="\\n")
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    (line,) = said.stdout.splitlines()
    assert line.endswith("Install it with: pip install triton")
