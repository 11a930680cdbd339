"""Compiles the launches of an op for GPUs that are not here, and reads what the compiler made.

The launches are the ops' own: their kernels are called with tensors of the CPU, and what would go
to a GPU is taken down instead. Triton's wheel brings NVIDIA's assembler and disassembler, and
AMD's compiler.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_89": GPUTarget("cuda", 89, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}

_TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.float8_e4m3fn: "*fp8e4nv",
    torch.int8: "*i8",
}
_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass(frozen=True)
class Launch:
    """A kernel and what it was called with."""

    kernel: JITFunction
    arguments: dict[str, Any]
    warps: int
    fuses: bool


@dataclass(frozen=True)
class Code:
    """What of a compiled kernel tells how fast it can be."""

    registers: int
    spilled_bytes: int
    loads: Counter[int]
    """How many instructions read global memory, by the bits a thread reads at once."""
    stores: Counter[int]
    shared_bytes: int


def launch_of(call: Callable[[], object], target: GPUTarget) -> Launch:
    """Return the one launch of a call of an op on a target; it does not happen."""
    taken: list[Launch] = []

    def take(
        kernel: JITFunction,
        *arguments: Any,
        grid: Any,
        warmup: bool,
        num_warps: int = 4,
        enable_fp_fusion: bool,
        **constants: Any,
    ) -> None:
        named = dict(zip(kernel.arg_names, arguments, strict=False)) | constants
        taken.append(Launch(kernel, named, num_warps, enable_fp_fusion))

    lanes = "longvie_cli.kernels.fused.rows.lanes_of"
    with (
        mock.patch.object(JITFunction, "run", take),
        mock.patch(lanes, lambda device: target.warp_size),
    ):
        call()
    (launch,) = taken
    return launch


def compile_for(launch: Launch, target: GPUTarget) -> Code:
    """Return the code of a launch on a target."""
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes = {}
    for place, parameter in enumerate(launch.kernel.params):
        name, value = parameter.name, launch.arguments[parameter.name]
        # As the launcher of Triton specialises: None and 1 are constants, what 16 divides is said.
        if parameter.is_constexpr or value is None or (type(value) is int and value == 1):
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name] = _TYPES[value.dtype]
            if value.data_ptr() % 16 == 0:
                attributes[(place,)] = [["tt.divisibility", 16]]
        elif type(value) is int:
            signature[name] = "i32"
            if value % 16 == 0:
                attributes[(place,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "fp32"
    source = ASTSource(launch.kernel, signature, constants, attributes)
    options = {"num_warps": launch.warps, "enable_fp_fusion": launch.fuses}
    compiled = triton.compile(source, target=target, options=options)
    read = _nvidia_code if target.backend == "cuda" else _amd_code
    return read(compiled)


def _nvidia_code(compiled: Any) -> Code:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage, listing = (
            subprocess.run(
                [_TOOLS / tool, option, file.name], capture_output=True, text=True, check=True
            ).stdout
            for tool, option in (("cuobjdump", "--dump-resource-usage"), ("nvdisasm", "-c"))
        )
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage)
    assert found is not None, usage
    registers, stack, local = map(int, found.groups())

    def widths(instruction: str) -> Counter[int]:
        """A suffix of bits or of a small type says how wide; there is none for 32 bits."""
        found = re.findall(rf"\b{instruction}\.\S*?(?:\.(64|128|256)|\.[US](8|16))?(?=\s)", listing)
        return Counter(int(wide or small or 32) for wide, small in found)

    return Code(
        registers,
        stack + local + len(re.findall(r"\b(?:STL|LDL)\b", listing)),
        widths("LDG"),
        widths("STG"),
        compiled.metadata.shared,
    )


def _amd_code(compiled: Any) -> Code:
    listing = compiled.asm["amdgcn"]

    def number(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", listing)
        assert found is not None, name
        return int(found.group(1))

    def widths(kind: str) -> Counter[int]:
        sizes = {"dwordx4": 128, "dwordx3": 96, "dwordx2": 64, "dword": 32, "short": 16, "byte": 8}
        found = re.findall(rf"\b(?:global|buffer)_{kind}_(\w+)", listing)
        return Counter(sizes[suffix] for suffix in found)

    spilled = number("vgpr_spill_count") + number("sgpr_spill_count")
    return Code(
        number("vgpr_count"),
        spilled + number("private_segment_fixed_size"),
        widths("load"),
        widths("store"),
        compiled.metadata.shared,
    )
