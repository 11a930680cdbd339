"""What the compiler makes of the Triton kernels for the GPUs they are meant for.

No GPU is needed, and none is timed. What is held: nothing is spilled, two programs fit a
multiprocessor at once (so that one computes while the other waits), every access is as wide as the
values that a thread holds, and there is not one access too many.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from interpreted import require_triton
from torch import Tensor

require_triton()

import triton  # noqa: E402
from ahead_of_time import TARGETS, Code, compile_for, launch_of  # noqa: E402
from block_traffic import traffic_picture  # noqa: E402

from longvie_cli.kernels.fused import gelu, guide_step, query_key, residual_norm  # noqa: E402
from longvie_cli.kernels.fused.rows import blocks_of  # noqa: E402

TOKENS, HEAD_WIDTH = 16, 128
# Of a multiprocessor or compute unit: registers of 32 bits.
REGISTERS = {"cuda": 65536, "hip": 131072}


@dataclass(frozen=True)
class Case:
    """A call at a size of LongVie 2, and which rows one program reads and writes once."""

    call: Callable[[], object]
    reads: list[tuple[int, int]]
    """Pairs of a width and bytes a value."""
    writes: list[tuple[int, int]]
    tables: int = 0
    """Rows of a head's width, float32."""
    flat: bool = False
    """Whether the widths are values of a thread, in any number of programs, and no rows."""


def zeros(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


def norm(width: int, kind: str | None = None, *, steered: bool = False) -> Case:
    """Residual, gate and modulation; or, `steered`, a control addend and an affine norm."""
    x, y = zeros(1, TOKENS, width), zeros(1, TOKENS, width)
    gate, scale, shift = (zeros(1, 1, width, dtype=torch.float32) for _ in range(3))
    addend, gate = (x, None) if steered else (None, gate)
    vectors = [(width, 4)] * (2 if steered else 3)
    return Case(
        lambda: residual_norm.residual_norm(
            x, y, gate, scale, shift, 1e-6, not steered, addend, 0, kind
        ),
        [(width, 2)] * (3 if steered else 2) + vectors,
        [(width, 2), (width, 2 if kind is None else 1)] + [(1, 4)] * (kind is not None),
    )


def queries_and_keys(heads: int) -> Case:
    width = heads * HEAD_WIDTH
    cos = sin = zeros(1, TOKENS, 1, HEAD_WIDTH, dtype=torch.float32)
    qkv, weight = zeros(1, TOKENS, 3 * width), zeros(width)
    return Case(
        lambda: query_key.query_key(qkv, weight, weight, cos, sin, heads, 1e-6),
        [(width, 2)] * 2,
        [(width, 2)],
        tables=2,
    )


def bent(width: int, kind: str) -> Case:
    x = zeros(1, TOKENS, width)
    return Case(
        lambda: gelu.gelu_quantized(x, kind),
        [(width, 2)],
        [(width, 1), (1, 4)],
    )


CASES = {
    "residual_norm 5120": norm(5120),
    "residual_norm 5120 fp8": norm(5120, "fp8"),
    "residual_norm 5120 int8": norm(5120, "int8"),
    "residual_norm 5120, addend, affine": norm(5120, steered=True),
    "residual_norm 2560": norm(2560),
    "query_key 40 x 128": queries_and_keys(40),
    "query_key 20 x 128": queries_and_keys(20),
    "gelu 13824 fp8": bent(13824, "fp8"),
    "gelu 13824 int8": bent(13824, "int8"),
    "gelu 6912 int8": bent(6912, "int8"),
    "gelu": Case(lambda: gelu.gelu(zeros(TOKENS, 13824)), [(16, 2)], [(16, 2)], flat=True),
    "guide_step": Case(
        lambda: guide_step.guide_step(
            zeros(16, 64, dtype=torch.float32), zeros(16, 64), zeros(16, 64), 5.0, -0.02
        ),
        [(8, 4), (8, 2), (8, 2)],
        [(8, 4)],
        flat=True,
    ),
}
# float8 as NVIDIA and OCP define it is in hardware from sm_89 on; CDNA 3 has another.
WITHOUT_FP8 = ("sm_80", "gfx942")
DEFAULT = {
    ("residual_norm 5120", "sm_90"),
    ("query_key 40 x 128", "sm_90"),
    ("gelu 13824 int8", "sm_80"),
    ("residual_norm 5120", "gfx942"),
}
PAIRS = [
    (name, target)
    for name in CASES
    for target in TARGETS
    if not (name.endswith("fp8") and target in WITHOUT_FP8)
]


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))


def accesses(case: Case, rows: list[tuple[int, int]], threads: int) -> Counter[int]:
    """Return the accesses of a thread, by bits, that read or write rows once and no wider."""
    counted: Counter[int] = Counter()
    for width, size in rows:
        if width == 1:
            counted[8 * size] += 1
        for block in blocks_of(width * threads if case.flat else width) if width > 1 else ():
            bits = 8 * size * block // threads
            counted[min(bits, 128)] += math.ceil(bits / 128)
    return counted


@functools.cache
def code_of(name: str, target: str) -> tuple[Code, int]:
    """Return the code of a case and the threads of one of its programs."""
    launch = launch_of(CASES[name].call, TARGETS[target])
    return compile_for(launch, TARGETS[target]), launch.warps * TARGETS[target].warp_size


@pytest.mark.parametrize(
    ("name", "target"),
    [
        pytest.param(*pair, marks=[] if pair in DEFAULT else [pytest.mark.slow], id=" ".join(pair))
        for pair in PAIRS
    ],
)
def test_code(name: str, target: str) -> None:
    case, (code, threads) = CASES[name], code_of(name, target)
    assert code.spilled_bytes == 0
    # Registers are given out by eights.
    rounded = -(-code.registers // 8) * 8
    assert 2 * rounded * threads <= REGISTERS[TARGETS[target].backend]
    # Whatever is not in 8 bits is read and written 128 bits at a time.
    rows = [row for row in case.reads + case.writes if row[1] > 1 and row[0] > 1]
    assert accesses(case, rows, threads).keys() == {128}
    reads = accesses(case, case.reads, threads)
    if case.tables:
        reads[32 * max(1, HEAD_WIDTH // threads)] += case.tables
    assert code.loads == reads
    assert code.stores == accesses(case, case.writes, threads)
    # A tile on its way from one layout to another, never a row.
    assert code.shared_bytes <= 8192


DOCS = Path(__file__).parents[3] / "docs" / "engine.md"


def code_table() -> str:
    """Return the table of the documentation: what `test_code` holds, in numbers."""
    lines = [
        f"| kernel | threads | registers of {', '.join(TARGETS)} | spilled | loads | stores |",
        "|---|---|---|---|---|---|",
    ]
    for name in CASES:
        codes = {target: code_of(name, target) for target in TARGETS if (name, target) in PAIRS}
        registers = [str(codes[t][0].registers) if t in codes else "-" for t in TARGETS]
        spilled = sum(code.spilled_bytes for code, _ in codes.values())
        code, threads = codes["sm_90"]
        loads, stores = (
            ", ".join(f"{count} x {bits}" for bits, count in sorted(widths.items(), reverse=True))
            for widths in (code.loads, code.stores)
        )
        cells = (name, str(threads), " / ".join(registers), str(spilled), loads, stores)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


@pytest.mark.slow
def test_the_table_of_the_documentation_is_this_code() -> None:
    if f"Triton {triton.__version__}" not in DOCS.read_text():
        pytest.skip(f"the table is not of Triton {triton.__version__}")
    assert code_table() in DOCS.read_text(), code_table()


def test_the_picture_of_the_documentation_is_counted() -> None:
    assert traffic_picture() in DOCS.read_text(), traffic_picture()


if __name__ == "__main__":
    print(code_table())
