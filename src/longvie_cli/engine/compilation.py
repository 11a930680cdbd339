"""The blocks of the transformer as graphs of `torch.compile`.

Regional: the blocks are equal, so one graph serves all that see the same shapes, and compiling
takes as long as for one block of each kind. What the evaluations of a clip share is looked up
outside of them (`LongVieTransformer3DModel._run`), so a graph has no break and waits for nothing.
"""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch

from longvie_cli.errors import MissingResourceError, UsageError
from longvie_cli.models.longvie import LongVieTransformer3DModel
from longvie_cli.settings.sampling import Compile, Offload

# For two widths: first picture, first clip, later clips; each with a first block, blocks with a
# control addition, others, and the last. PyTorch gives up at 8 otherwise.
_MOST_GRAPHS = 32


def compile_blocks(
    transformer: LongVieTransformer3DModel,
    kind: Compile = "blocks",
    *,
    backend: str | Callable[..., Any] = "inductor",
) -> None:
    """Make every block a graph for each shape that it sees.

    Args:
        transformer: With its kernels, adapters and quantized weights as they stay.
        kind: `graphs` also records them as CUDA graphs.
        backend: Of `torch.compile`.
    """
    options: dict[str, Any] = {"backend": backend, "fullgraph": True, "dynamic": False}
    if kind == "graphs":
        options["mode"] = "reduce-overhead"
    if "recompile_limit" in inspect.signature(torch.compile).parameters:
        options["recompile_limit"] = _MOST_GRAPHS
    else:
        limit = torch._dynamo.config.recompile_limit
        torch._dynamo.config.recompile_limit = max(limit, _MOST_GRAPHS)
    transformer.compile_repeated_blocks(**options)
    transformer.compiled = True


def check_compile(kind: Compile, device: str, offload: Offload | str) -> None:
    """Do nothing if blocks can be compiled on this machine.

    Raises:
        UsageError: They cannot in this placement, or be CUDA graphs on this device.
        MissingResourceError: There is no compiler.
    """
    if kind == "none":
        return
    is_cuda = torch.device(device).type == "cuda"
    if kind == "graphs" and not is_cuda:
        raise UsageError(
            f"--compile graphs: CUDA graphs are for CUDA devices, not for {device}.",
            hint="Pass --compile blocks.",
        )
    if offload == "group":
        raise UsageError(
            f"--compile {kind}: blocks that come and go (--offload group) cannot be compiled.",
            hint="Leave one of the two away.",
        )
    names = [os.environ.get("CXX", ""), "g++", "clang++", "c++"]
    if not any(name and shutil.which(name) for name in names):
        raise MissingResourceError(
            f"--compile {kind}: it needs a C++ compiler, and there is none on this machine.",
            hint="apt install g++",
        )
