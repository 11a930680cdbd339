"""The Triton kernels compute what `KernelSet` says, on the CPU under Triton's interpreter.

Statistics of a row are sums in another order than PyTorch's, so that their results differ by
float32 rounding, and once in many thousand values by a unit of the stored type. Where the exact
result is compared with, it is computed in float64.
"""

from __future__ import annotations

import pytest
import torch
from interpreted import interpreted, require_triton, traffic
from torch import Tensor

require_triton()

from longvie_cli.kernels.eight_bit_linear import (  # noqa: E402
    EightBitLinear,
    QuantizedRows,
    multiply_in_8_bits,
)
from longvie_cli.kernels.fused import gelu, guide_step, query_key, residual_norm  # noqa: E402
from longvie_cli.kernels.fused.triton_kernel_set import TritonKernelSet  # noqa: E402
from longvie_cli.kernels.kernel_set import KernelSet  # noqa: E402
from small_models import small_transformer  # noqa: E402

EAGER, FUSED = KernelSet(), TritonKernelSet()
EPS = 1e-6
# A row of D float32 values and its eager twin: both statistics and two products, each rounded.
ROUNDING = 8 * torch.finfo(torch.float32).eps


def drawn(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def tables(num_tokens: int, head_width: int) -> tuple[Tensor, Tensor]:
    angle = 6 * drawn(num_tokens, head_width // 2, seed=7)
    cos = angle.cos().repeat_interleave(2, -1)
    sin = torch.stack((-angle.sin(), angle.sin()), -1).flatten(-2)
    return cos[None, :, None], sin[None, :, None]


def error(result: Tensor, exact: Tensor) -> float:
    return ((result.double() - exact).norm() / exact.norm()).item()


def assert_as_good(fused: Tensor, eager: Tensor, exact: Tensor) -> None:
    """Fail if the fused result is farther from the exact one than the eager one is."""
    assert fused.dtype == eager.dtype and fused.shape == eager.shape
    # A tenth more for results that are rounded alike; in float32 as much as rounding gives.
    allowed = max(1.1 * error(eager, exact), ROUNDING)
    assert error(fused, exact) <= allowed, (error(fused, exact), allowed)


FULL = pytest.param(5120, marks=pytest.mark.slow), pytest.param(2560, marks=pytest.mark.slow)
TYPES = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("width", [37, pytest.param(384, marks=pytest.mark.slow), *FULL])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("batch", [1, 2])
@interpreted
def test_residual_gate_norm_modulate(batch: int, dtype: torch.dtype, width: int) -> None:
    x, y = (drawn(batch, 6, width, seed=seed, dtype=dtype) for seed in range(2))
    gate, scale, shift = drawn(batch, 6, width, seed=2).chunk(6, dim=1)[:3]
    x_out, h = FUSED.residual_norm(x, y, gate, scale=scale, shift=shift, eps=EPS)
    # As a block of diffusers writes it: the product is rounded before it is added.
    assert torch.equal(x_out, (x.float() + y.float() * gate).to(dtype))
    eager_x, _ = EAGER.residual_norm(x, y, gate, scale=scale, shift=shift, eps=EPS)
    torch.testing.assert_close(x_out, eager_x, atol=1e-6, rtol=torch.finfo(dtype).eps)
    _, eager = EAGER.residual_norm(x_out, scale=scale, shift=shift, eps=EPS)
    row = x_out.double()
    centred = row - row.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + EPS).sqrt()
    assert_as_good(h, eager, normed * (1 + scale.double()) + shift.double())
    assert (h != eager).double().mean() < 1e-3 or dtype == torch.float32


@pytest.mark.parametrize("start", [0, 3])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("batch", [1, 2])
@interpreted
def test_addend_behind_the_history_and_affine_norm(
    batch: int, dtype: torch.dtype, start: int
) -> None:
    x, y = (drawn(batch, 6, 40, seed=seed, dtype=dtype) for seed in range(2))
    addend = drawn(batch, 6 - start, 40, seed=2, dtype=dtype)
    weight, bias = (drawn(40, seed=seed, dtype=dtype) for seed in (3, 4))
    arguments = {
        "scale": weight,
        "shift": bias,
        "eps": EPS,
        "one_plus": False,
        "addend": addend,
        "addend_start": start,
    }
    for branch in (y, None):
        x_out, h = FUSED.residual_norm(x, branch, **arguments)
        eager_x, eager = EAGER.residual_norm(x, branch, **arguments)
        assert torch.equal(x_out, eager_x)
        torch.testing.assert_close(h, eager, atol=ROUNDING, rtol=2 * torch.finfo(dtype).eps)


@interpreted
def test_only_what_is_asked_for_is_computed() -> None:
    x, y = drawn(2, 5, 24, seed=0), drawn(2, 5, 24, seed=1)
    x_out, h = FUSED.residual_norm(x, y, scale=None, shift=None, eps=EPS)
    assert h is x_out and torch.equal(x_out, x + y)
    x_out, h = FUSED.residual_norm(x, scale=None, shift=None, eps=EPS)
    assert x_out is x and h is x
    x_out, h = FUSED.residual_norm(x, scale=y[0, 0], shift=y[0, 1], eps=EPS)
    assert x_out is x
    _, eager = EAGER.residual_norm(x, scale=y[0, 0], shift=y[0, 1], eps=EPS)
    torch.testing.assert_close(h, eager, atol=ROUNDING, rtol=ROUNDING)


@interpreted
def test_rows_that_do_not_lie_together() -> None:
    stream, vectors = drawn(2, 9, 40, seed=0), drawn(2, 1, 40, 3, seed=1)
    x, y = stream[:, 4:], drawn(2, 40, 5, seed=2).transpose(1, 2)
    gate, scale, shift = vectors.unbind(-1)
    results = [
        kernels.residual_norm(x, y, gate, scale=scale, shift=shift, eps=EPS)
        for kernels in (FUSED, EAGER)
    ]
    torch.testing.assert_close(*results, atol=ROUNDING, rtol=ROUNDING)


HEADS = [
    (3, 12),
    pytest.param((4, 64), marks=pytest.mark.slow),
    pytest.param((40, 128), marks=pytest.mark.slow),
    (5, 16),
]


@pytest.mark.parametrize("heads", [*HEADS, pytest.param((20, 128), marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("batch", [1, 2])
@interpreted
def test_query_key(batch: int, dtype: torch.dtype, heads: tuple[int, int]) -> None:
    num_heads, head_width = heads
    width = num_heads * head_width
    qkv = drawn(batch, 5, 3 * width, seed=0, dtype=dtype)
    weights = [1 + 0.2 * drawn(width, seed=seed) for seed in (1, 2)]
    weights = [weight.to(dtype) for weight in weights]
    rotary = tables(5, head_width)
    fused = FUSED.query_key(qkv, *weights, rotary, num_heads, EPS)
    eager = EAGER.query_key(qkv, *weights, rotary, num_heads, EPS)
    exact = EAGER.query_key(
        qkv.double(),
        *(weight.double() for weight in weights),
        (rotary[0].double(), rotary[1].double()),
        num_heads,
        EPS,
    )
    for one, other, right in zip(fused, eager, exact, strict=True):
        assert_as_good(one, other, right)


@interpreted
def test_queries_and_keys_of_some_tokens() -> None:
    qkv, rotary = drawn(2, 8, 3 * 24, seed=0), tables(8, 12)
    weights = drawn(24, seed=1), drawn(24, seed=2)
    tail = rotary[0][:, 3:], rotary[1][:, 3:]
    fused = FUSED.query_key(qkv[:, 3:], *weights, tail, 2, EPS)
    whole = FUSED.query_key(qkv, *weights, rotary, 2, EPS)
    for part, all_tokens in zip(fused, whole, strict=True):
        assert torch.equal(part, all_tokens[:, 3:])


@pytest.mark.parametrize("dtype", TYPES)
@interpreted
def test_gelu(dtype: torch.dtype) -> None:
    x = torch.cat((3 * drawn(4000, seed=0), torch.tensor([0.0, -0.0, 90.0, -90.0, 1e4, -1e4])))
    x = x.to(dtype)
    fused, eager = FUSED.gelu(x), EAGER.gelu(x)
    # The sum 1 + tanh loses digits where the sigmoid does not, so both are held to the exact one.
    assert_as_good(fused, eager, EAGER.gelu(x.double()))
    torch.testing.assert_close(fused, eager, atol=1e-6, rtol=2 * torch.finfo(dtype).eps)
    strided = x[:4000].view(2, 20, 100).transpose(1, 2)
    assert torch.equal(FUSED.gelu(strided), FUSED.gelu(strided.contiguous()))


@pytest.mark.parametrize("dtype", TYPES)
@interpreted
def test_guide_step(dtype: torch.dtype) -> None:
    latents = drawn(1, 16, 3, 7, 11, seed=0)
    velocity, negative = (drawn(1, 16, 3, 7, 11, seed=seed, dtype=dtype) for seed in (1, 2))
    for other in (negative, None):
        fused = FUSED.guide_step(latents, velocity, other, 5.0, -0.02)
        eager = EAGER.guide_step(latents, velocity, other, 5.0, -0.02)
        torch.testing.assert_close(fused, eager, atol=1e-6, rtol=1e-6)


def assert_codes_are_right(codes: Tensor, scales: Tensor, exact: Tensor, kind: str) -> None:
    """Fail unless every code is that of the exact row; both neighbours of a tie pass for it."""
    largest = {"fp8": 448.0, "int8": 127.0}[kind]
    top = exact.abs().amax(-1, keepdim=True)
    torch.testing.assert_close(scales.double(), top / largest, rtol=4 * ROUNDING, atol=0)

    def rounded(values: Tensor) -> Tensor:
        if kind == "int8":
            return values.round()
        return values.float().to(torch.float8_e4m3fn).double()

    scaled, values = exact * largest / top, codes.double()
    slack = 8 * ROUNDING * (scaled.abs() + scaled.abs().mean())
    near = torch.minimum(
        (rounded(scaled - slack) - values).abs(), (rounded(scaled + slack) - values).abs()
    )
    assert near.max() == 0
    assert (rounded(scaled) == values).double().mean() > 0.9999
    assert values.abs().amax(-1).eq(largest).all()


KINDS = ["fp8", "int8"]


@pytest.mark.parametrize("width", [37, *FULL])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kind", KINDS)
@interpreted
def test_norm_in_8_bits(kind: str, dtype: torch.dtype, width: int) -> None:
    x, y = (drawn(2, 3, width, seed=seed, dtype=dtype) for seed in range(2))
    gate, scale, shift = (drawn(2, 1, width, seed=seed) for seed in (2, 3, 4))
    x_out, codes, scales = residual_norm.residual_norm(
        x, y, gate, scale, shift, EPS, True, None, 0, kind
    )
    expected, _, none = residual_norm.residual_norm(x, y, gate, scale, shift, EPS, True, None, 0)
    assert torch.equal(x_out, expected) and none.numel() == 0
    row = x_out.double()
    centred = row - row.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + EPS).sqrt()
    assert_codes_are_right(codes, scales, normed * (1 + scale.double()) + shift.double(), kind)


WIDE = [pytest.param(width, marks=pytest.mark.slow) for width in (1000, 13824, 6912)]


@pytest.mark.parametrize("width", [37, *WIDE])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kind", KINDS)
@interpreted
def test_gelu_in_8_bits(kind: str, dtype: torch.dtype, width: int) -> None:
    x = 2 * drawn(1, 3, width, seed=0, dtype=dtype)
    codes, scales = gelu.gelu_quantized(x, kind)
    assert_codes_are_right(codes, scales, EAGER.gelu(x.double()), kind)


@pytest.mark.parametrize("kind", KINDS)
@interpreted
def test_a_row_of_zeros_is_zero_in_8_bits(kind: str) -> None:
    codes, scales = gelu.gelu_quantized(torch.zeros(2, 40), kind)
    assert torch.equal(codes.float() * scales, torch.zeros(2, 40))


@pytest.mark.parametrize("kind", KINDS)
@interpreted
def test_a_linear_takes_the_codes_of_a_kernel(kind: str) -> None:
    x, scale, shift = drawn(2, 20, 64, seed=0), drawn(64, seed=1), drawn(64, seed=2)
    linear = torch.nn.Linear(64, 32).requires_grad_(False)
    layer = EightBitLinear.of(linear, kind)
    for kernels in (FUSED, EAGER):
        x_out, rows = kernels.residual_norm(x, scale=scale, shift=shift, eps=EPS, kind=kind)
        _, normed = FUSED.residual_norm(x, scale=scale, shift=shift, eps=EPS)
        assert x_out is x and isinstance(rows, QuantizedRows)
        # The same codes but for a tie here and there, which is one step in one of 64 products.
        torch.testing.assert_close(layer(rows), layer(normed), atol=0.02, rtol=0)
        codes = kernels.gelu_quantized(x, kind)
        torch.testing.assert_close(layer(codes), layer(FUSED.gelu(x)), atol=0.02, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@interpreted
@torch.no_grad()
def test_a_model_in_8_bits_is_given_their_codes(kind: str) -> None:
    wide = {"attention_head_dim": 16, "ffn_dim": 64, "added_kv_proj_dim": 32}
    transformer = small_transformer(**wide, control_ffn_dim=32)
    errors = {f"blocks.{name}": 0.0 for name, _ in transformer.blocks.named_modules()}
    multiply_in_8_bits(transformer, kind, within=("blocks",), errors=errors, limit=0.0)
    given = drawn(1, 16, 2, 2, 4, seed=0), torch.tensor([500.0]), drawn(1, 20, 16, seed=1)
    velocities = []
    for kernels in (EAGER, FUSED):
        transformer.use_kernels(kernels)
        velocities.append(transformer(*given, drawn(1, 5, 16, seed=2)).sample)
    # A code here and there is its neighbour: far less than 8 bits are off by.
    assert 0 < error(velocities[1], velocities[0]) < 2e-3


@interpreted
def test_every_byte_is_moved_once() -> None:
    batch, num_tokens, width, start = 2, 6, 96, 2
    x, y = (drawn(batch, num_tokens, width, seed=s, dtype=torch.bfloat16) for s in range(2))
    addend = drawn(batch, num_tokens - start, width, seed=2, dtype=torch.bfloat16)
    vectors = [drawn(batch, 1, width, seed=seed) for seed in (3, 4, 5)]
    with traffic() as moved:
        x_out, codes, scales = residual_norm.residual_norm(
            x, y, *vectors, EPS, True, addend, start, "fp8"
        )
    for tensor in (x, y, addend):
        assert moved.times("read", tensor) == {1}
    for tensor in (x_out, codes, scales):
        assert moved.times("written", tensor) == {1}
    # Once for each four tokens of a video, of which there are two groups here: from the L2 cache.
    assert [moved.times("read", vector) for vector in vectors] == [{2}] * 3
    rows = (x, y, addend, x_out, codes, scales)
    assert moved.total() == sum(t.nbytes for t in rows) + 2 * sum(v.nbytes for v in vectors)

    heads, head_width = 6, 16
    qkv = drawn(batch, num_tokens, 3 * width, seed=0, dtype=torch.bfloat16)
    weights, rotary = (drawn(width, seed=1), drawn(width, seed=2)), tables(num_tokens, head_width)
    with traffic() as moved:
        query, key = query_key.query_key(qkv, *weights, *rotary, heads, EPS)
    for tensor in (query, key):
        assert moved.times("written", tensor) == {1}
    # A third of it, the values, is not touched. Weights and tables come from the caches.
    small = batch * num_tokens * (2 * width * 4 + 4 * head_width * 4)
    assert moved.times("read", qkv) == {0, 1}
    assert moved.total() == qkv.nbytes * 2 // 3 + query.nbytes + key.nbytes + small

    wide = drawn(3, 5000, seed=0, dtype=torch.bfloat16)
    with traffic() as moved:
        bent = gelu.gelu(wide)
    assert moved.total() == wide.nbytes + bent.nbytes
    with traffic() as moved:
        codes, scales = gelu.gelu_quantized(wide, "int8")
    assert moved.total() == wide.nbytes + codes.nbytes + scales.nbytes
    latents = drawn(1, 3000, seed=0)
    with traffic() as moved:
        result = guide_step.guide_step(latents, wide[:1, :3000], wide[1:2, :3000], 2.0, -0.1)
    assert moved.total() == latents.nbytes + result.nbytes + 2 * 3000 * 2


def gradients(kernels: KernelSet, dtype: torch.dtype, addend_start: int) -> list[Tensor]:
    """Return the gradients of everything that a block's kernels are given."""
    width, heads = 36, 3

    def leaf(*shape: int, seed: int, dtype: torch.dtype = dtype) -> Tensor:
        return drawn(*shape, seed=seed, dtype=dtype).requires_grad_()

    x, y = leaf(2, 5, width, seed=0), leaf(2, 5, width, seed=1)
    addend = leaf(2, 5 - addend_start, width, seed=2)
    gate, scale = (leaf(2, 1, width, seed=seed, dtype=torch.float32) for seed in (3, 4))
    shift = leaf(1, 1, width, seed=5, dtype=torch.float32)
    weight, bias = (leaf(width, seed=seed) for seed in (6, 7))
    into_qkv = drawn(width, 3 * width, seed=8, dtype=dtype) / width**0.5
    query_weight, key_weight = leaf(width, seed=9), leaf(width, seed=10)

    x_out, h = kernels.residual_norm(
        x, y, gate, scale=scale, shift=shift, eps=EPS, addend=addend, addend_start=addend_start
    )
    qkv = h @ into_qkv
    query, key = kernels.query_key(qkv, query_weight, key_weight, tables(5, 12), heads, EPS)
    value = kernels.gelu(qkv[..., 2 * width :])
    branch = (query + key).flatten(2) + value
    x_out, h = kernels.residual_norm(
        x_out, branch, scale=weight, shift=bias, eps=EPS, one_plus=False
    )
    x_out, _ = kernels.residual_norm(x_out, h, gate, scale=None, shift=None, eps=EPS)
    loss = (x_out * drawn(2, 5, width, seed=11)).sum()
    given = [x, y, addend, gate, scale, shift, weight, bias, query_weight, key_weight]
    return list(torch.autograd.grad(loss, given))


@pytest.mark.parametrize("addend_start", [0, 2])
@interpreted
def test_gradients_are_those_of_the_plain_form(addend_start: int) -> None:
    for fused, eager in zip(
        gradients(FUSED, torch.float32, addend_start),
        gradients(EAGER, torch.float32, addend_start),
        strict=True,
    ):
        torch.testing.assert_close(fused, eager, atol=2e-5 * eager.abs().max().item(), rtol=0)


@pytest.mark.slow
@interpreted
def test_gradients_in_bfloat16_are_as_good() -> None:
    exact = gradients(EAGER, torch.float32, 2)
    eager, fused = (gradients(kernels, torch.bfloat16, 2) for kernels in (EAGER, FUSED))
    for one, other, right in zip(fused, eager, exact, strict=True):
        assert one.dtype == other.dtype
        # Both are noisy estimates of the exact one, a few percent off; twice is not by chance.
        assert error(one, right.double()) <= 2 * error(other, right.double())


@pytest.mark.slow
@interpreted
def test_the_transformer_computes_the_same_by_them() -> None:
    from small_models import let_controls_act, small_transformer

    transformer = small_transformer()
    let_controls_act(transformer)
    latents, history = drawn(2, 16, 2, 3, 4, seed=0), drawn(2, 16, 1, 3, 4, seed=1)
    text, image = drawn(2, 20, 16, seed=2), drawn(2, 5, 16, seed=3)
    velocities = []
    for kernels in (EAGER, FUSED):
        transformer.use_kernels(kernels)
        with torch.no_grad():
            velocities.append(
                transformer(
                    latents,
                    torch.tensor([500.0]),
                    text,
                    image,
                    dense=latents + 1,
                    sparse=latents - 1,
                    history=history,
                ).sample
            )
    # Three blocks and two streams of two, each of a few float32 roundings.
    torch.testing.assert_close(*velocities, atol=1e-5, rtol=0)


def given_to_ops() -> dict[str, tuple[object, tuple[object, ...]]]:
    ops = torch.ops.longvie
    x, y, addend = drawn(2, 3, 24, seed=0), drawn(2, 3, 24, seed=1), drawn(2, 2, 24, seed=2)
    vectors = drawn(2, 1, 24, seed=3), drawn(2, 1, 24, seed=4), drawn(2, 1, 24, seed=5)
    leaves = [tensor.clone().requires_grad_() for tensor in (x, y, *vectors, addend)]
    qkv = drawn(2, 3, 72, seed=6).requires_grad_()
    weights = [drawn(24, seed=seed).requires_grad_() for seed in (7, 8)]
    norm, in_8_bits = (EPS, True, None, 0), (EPS, False, None, 0, "fp8")
    return {
        "all": (ops.residual_norm.default, (*leaves[:5], EPS, True, leaves[5], 1)),
        "norm": (ops.residual_norm.default, (leaves[0], None, None, *leaves[3:5], *norm)),
        "sum": (ops.residual_norm.default, (*leaves[:2], None, None, None, *norm)),
        "codes": (ops.residual_norm.default, (x, None, None, *vectors[1:], *in_8_bits)),
        "query_key": (ops.query_key.default, (qkv, *weights, *tables(3, 12), 2, EPS)),
        "gelu": (ops.gelu.default, (leaves[0],)),
        "gelu_quantized": (ops.gelu_quantized.default, (x, "int8")),
        "guide_step": (ops.guide_step.default, (x, y, x + y, 2.0, -0.1)),
    }


# The dearest first: a case that has everything.
SLOW_OPS = ["norm", "sum", "codes", "query_key", "gelu", "gelu_quantized", "guide_step"]


@pytest.mark.parametrize(
    "case", ["all", *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW_OPS)]
)
@interpreted
def test_ops_are_registered_right(case: str) -> None:
    torch.library.opcheck(*given_to_ops()[case])


@interpreted
def test_there_is_no_gradient_through_codes() -> None:
    x, scale = drawn(1, 2, 24, seed=0), drawn(24, seed=1).requires_grad_()
    *_, scales = residual_norm.residual_norm(x, None, None, scale, scale, EPS, True, None, 0, "fp8")
    with pytest.raises(NotImplementedError, match="no gradient through fp8 codes"):
        scales.sum().backward()


@pytest.mark.parametrize("backend", [pytest.param("eager", marks=pytest.mark.slow), "aot_eager"])
@interpreted
def test_they_compile_to_one_graph(backend: str) -> None:
    rotary = tables(5, 12)

    def block(x: Tensor, y: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        gate, scale, shift = vectors.unbind(1)
        x, h = FUSED.residual_norm(x, y, gate, scale=scale, shift=shift, eps=EPS)
        qkv = torch.cat((h, h, h), -1)
        query, key = FUSED.query_key(qkv, scale[0, 0], shift[0, 0], rotary, 2, EPS)
        with torch.no_grad():
            stepped = FUSED.guide_step(x, y, h, 3.0, -0.5)
        return FUSED.gelu(query + key).flatten(2) + x, stepped

    results = []
    for function in (block, torch.compile(block, backend=backend, fullgraph=True)):
        given = [drawn(2, 5, 24, seed=0), drawn(2, 5, 24, seed=1), drawn(2, 3, 1, 24, seed=2)]
        leaves = [tensor.requires_grad_() for tensor in given]
        out, stepped = function(*leaves)
        results.append((out, stepped, *torch.autograd.grad(out.square().sum(), leaves)))
    torch.testing.assert_close(results[1], results[0], atol=0, rtol=0)


@interpreted
def test_the_interpreter_rounds_as_torch_does() -> None:
    import triton
    import triton.language as tl

    @triton.jit
    def cast(x, out, BLOCK: tl.constexpr):
        place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        tl.store(out + place, tl.load(x + place).to(out.dtype.element_ty))

    # A bfloat16 number in seven, each as it is and with what is cut off below, at and above a tie.
    heads = torch.arange(-(2**15), 2**15, 7) * 2**16
    bits = heads[:, None] + torch.tensor([0, 0x7FFF, 0x8000, 0x8001])
    x = bits.flatten().to(torch.int32).view(torch.float32)
    x = x[x.isfinite()][: 36 * 1024]
    for dtype, integer in (
        (torch.bfloat16, torch.int16),
        (torch.float16, torch.int16),
        (torch.float8_e4m3fn, torch.uint8),
    ):
        out = torch.empty(x.shape, dtype=dtype)
        cast[(36,)](x, out, BLOCK=1024)
        wanted = x.clamp(-448.0, 448.0) if integer == torch.uint8 else x
        assert torch.equal(out.view(integer), wanted.to(dtype).view(integer)), dtype
