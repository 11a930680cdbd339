"""What the kernels share: a row in registers, and how it is read, written and quantized.

A row of D values is cut into a few blocks, because a Triton block has a power of two of elements
and 5120 in one block of 8192 would leave 37 % of the lanes idle. 5120 is 4096 + 1024, 2560 is
2048 + 512, and both fill every lane. A row is a tuple of float32 blocks; where the last block is
longer than what is left of the row, its tail is zero.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

# Launch options of every kernel. Products and sums are rounded one by one, as PyTorch's are: that
# makes the residual stream bit-equal to the eager one, and kernels that wait for memory have the
# time. Triton 3.10 makes it the default.
EXACT = {"enable_fp_fusion": False}

# A thread reads 16 bytes at a time: 8 values of bfloat16.
VALUES_A_THREAD = 8

# The largest value of each 8-bit type.
LARGEST = {"fp8": 448.0, "int8": 127.0}


def blocks_of(length: int, *, smallest: int = 16) -> tuple[int, ...]:
    """Return at most three powers of two that cover a length, the last one possibly beyond it."""
    blocks: list[int] = []
    while len(blocks) < 2 and (block := 1 << (length.bit_length() - 1)) >= smallest:
        blocks.append(block)
        length -= block
        if not length:
            return tuple(blocks)
    return (*blocks, triton.next_power_of_2(max(length, smallest)))


def warps_for(smallest_block: int, device: torch.device) -> int:
    """Return how many warps read the smallest block of a row with one 16-byte access a thread."""
    return max(1, min(8, smallest_block // (lanes_of(device) * VALUES_A_THREAD)))


def flat_block(device: torch.device) -> int:
    """Return how many values of no particular shape a program of four warps takes."""
    return 4 * lanes_of(device) * VALUES_A_THREAD


def lanes_of(device: torch.device) -> int:
    """Return the threads of a warp: 32 on NVIDIA's GPUs, 64 on AMD's for data centres."""
    return torch.cuda.get_device_properties(device).warp_size if device.type == "cuda" else 32


@triton.constexpr_function
def start_of(blocks, index):
    return sum(blocks[:index])


@triton.jit
def with_block(row, block):
    """Return a row with one more block at its end."""
    return row + (block,)  # noqa: RUF005 - Triton's language has no `(*row, block)`.


@triton.jit
def columns(BLOCKS: tl.constexpr, index: tl.constexpr):
    """Return the columns of a row that lie in one of its blocks."""
    return start_of(BLOCKS, index) + tl.arange(0, BLOCKS[index])


@triton.jit
def load_row(pointer, WIDTH: tl.constexpr, BLOCKS: tl.constexpr, EVICTION: tl.constexpr):
    """Return a row of memory in float32."""
    row = ()
    for i in tl.static_range(len(BLOCKS)):
        column = columns(BLOCKS, i)
        # No mask where there is nothing to mask: one more test of every address.
        if start_of(BLOCKS, i + 1) > WIDTH:
            block = tl.load(
                pointer + column, mask=column < WIDTH, other=0.0, eviction_policy=EVICTION
            )
        else:
            block = tl.load(pointer + column, eviction_policy=EVICTION)
        row = with_block(row, block.to(tl.float32))
    return row


@triton.jit
def store_row(pointer, row, WIDTH: tl.constexpr, BLOCKS: tl.constexpr):
    """Round a row to the type of `pointer` and write it."""
    for i in tl.static_range(len(BLOCKS)):
        column = columns(BLOCKS, i)
        value = row[i].to(pointer.dtype.element_ty)
        if start_of(BLOCKS, i + 1) > WIDTH:
            tl.store(pointer + column, value, mask=column < WIDTH)
        else:
            tl.store(pointer + column, value)


@triton.jit
def plus(row, other):
    """Return the sum of two rows."""
    result = ()
    for i in tl.static_range(len(row)):
        result = with_block(result, row[i] + other[i])
    return result


@triton.jit
def times(row, other):
    """Return the product of two rows."""
    result = ()
    for i in tl.static_range(len(row)):
        result = with_block(result, row[i] * other[i])
    return result


@triton.jit
def normalised(row, eps, WIDTH: tl.constexpr, BLOCKS: tl.constexpr):
    """Return a row less its mean, over its standard deviation; the variance is of what is left."""
    total = 0.0
    for i in tl.static_range(len(BLOCKS)):
        total += tl.sum(row[i], 0)
    centred = ()
    square = 0.0
    for i in tl.static_range(len(BLOCKS)):
        # The zeros behind the end of the row are not part of it.
        block = tl.where(columns(BLOCKS, i) < WIDTH, row[i] - total / WIDTH, 0.0)
        square += tl.sum(block * block, 0)
        centred = with_block(centred, block)
    inverse = tl.rsqrt(square / WIDTH + eps)
    result = ()
    for i in tl.static_range(len(BLOCKS)):
        result = with_block(result, centred[i] * inverse)
    return result


@triton.jit
def rounded(row, dtype: tl.constexpr):
    """Return a row as it would come back after being stored in `dtype`."""
    result = ()
    for i in tl.static_range(len(row)):
        result = with_block(result, row[i].to(dtype).to(tl.float32))
    return result


@triton.jit
def store_quantized_row(
    pointer, scale_pointer, row, LARGEST: tl.constexpr, WIDTH: tl.constexpr, BLOCKS: tl.constexpr
):
    """Write a row in 8 bits and the scale that undoes it, so that its largest value is `LARGEST`.

    A row of zeros stays zero. float8 is rounded by the cast, int8 here.
    """
    largest = 1e-30
    for i in tl.static_range(len(BLOCKS)):
        largest = tl.maximum(largest, tl.max(tl.abs(row[i]), 0))
    tl.store(scale_pointer, tl.div_rn(largest, LARGEST))
    factor = tl.div_rn(LARGEST, largest)
    codes = ()
    for i in tl.static_range(len(BLOCKS)):
        code = row[i] * factor
        if pointer.dtype.element_ty == tl.int8:
            # Adding 1.5 * 2^23 leaves no fraction bits: rounded to the nearest, ties to even.
            code = (code + 12582912.0) - 12582912.0
        codes = with_block(codes, code)
    store_row(pointer, codes, WIDTH, BLOCKS)
