"""A transformer cut over the processes of a group (FSDP2).

Each process holds a part of every parameter, and only of that part a gradient, moments and an
average; the blocks are put together one by one while they compute. What works on single numbers
(AdamW, the average) works on the parts, as plain tensors. All processes must evaluate the model
equally often.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from longvie_cli.models.longvie import LongVieTransformer3DModel


def shard(transformer: LongVieTransformer3DModel) -> None:
    """Cut a transformer over all processes, block by block, in its own type.

    On a GPU it may be in host memory before; each block goes to the GPU on its own.
    """
    kind = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    mesh = init_device_mesh(kind, (distributed.get_world_size(),))
    for blocks in (transformer.blocks, transformer.dense_blocks, transformer.sparse_blocks):
        for block in blocks:
            fully_shard(block, mesh=mesh)
    # The rest too leaves after each use: the average may take its place in between.
    fully_shard(transformer, mesh=mesh, reshard_after_forward=True)


@torch.no_grad()
def own_parts(parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    """Return this process's part of each parameter, on the same memory; whole ones as they are."""
    return [
        nn.Parameter(parameter.to_local()) if isinstance(parameter, DTensor) else parameter
        for parameter in parameters
    ]


def put_together(part: Tensor, parameter: Tensor) -> Tensor:
    """Return a part of this process as one of a tensor that is cut as `parameter` is."""
    assert isinstance(parameter, DTensor), "only what is cut has parts"
    return DTensor.from_local(
        part.detach(),
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


def hand_over_gradients(parameters: Sequence[nn.Parameter], parts: Sequence[nn.Parameter]) -> None:
    """Give each part its gradient, the sum over all samples; zero where there is none.

    FSDP2 gives means over the processes; the loss of a sample is its share of the batch already.
    """
    for parameter, part in zip(parameters, parts, strict=True):
        gradient = parameter.grad
        if gradient is None:
            part.grad = torch.zeros_like(part)
        elif isinstance(gradient, DTensor):
            part.grad = gradient.to_local() * distributed.get_world_size()
        else:
            part.grad = gradient


def norm_of_parts(parts: Sequence[nn.Parameter]) -> Tensor:
    """Return the norm of the whole gradient, from the parts of all processes."""
    squares = torch.stack([part.grad.square().sum() for part in parts if part.grad is not None])
    total = squares.sum()
    distributed.all_reduce(total)
    return total.sqrt()


def most_of_all(count: int, device: torch.device) -> int:
    """Return the largest count of all processes."""
    shared = torch.tensor(count, device=device)
    distributed.all_reduce(shared, distributed.ReduceOp.MAX)
    return int(shared)
