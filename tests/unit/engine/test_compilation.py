"""Compiled blocks: how many graphs, that nothing breaks one or waits, and what they compute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode

from longvie_cli.engine.compilation import check_compile, compile_blocks
from longvie_cli.engine.memory import plans_of_preset
from longvie_cli.errors import MissingResourceError, UsageError
from longvie_cli.kernels.eight_bit_linear import multiply_in_8_bits
from longvie_cli.kernels.kernel_set import KernelSet, kernel_set_for
from longvie_cli.kernels.quantized_linear import quantize_linears
from longvie_cli.models.clip_context import ClipContext
from longvie_cli.models.longvie import LongVieTransformer3DModel
from longvie_cli.settings.presets import load_preset
from longvie_cli.settings.sampling import Sampling
from small_models import drawn, let_controls_act, prompt, small_transformer

# Other sums of the same float32 terms; outputs are around 3.
ROUNDING = 2e-5


@pytest.fixture(autouse=True)
def compiled_anew() -> Iterator[None]:
    """Forget the graphs of other tests, and leave none."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def transformer_of(layers: int = 3, **changes: Any) -> LongVieTransformer3DModel:
    transformer = small_transformer(num_layers=layers, **changes)
    let_controls_act(transformer)
    transformer.use_kernels(kernel_set_for("cpu"))
    transformer.pack_projections()
    return transformer


@torch.no_grad()
def clip_of(
    transformer: LongVieTransformer3DModel, history_frames: int, lengths: Sequence[int] = (7, 3)
) -> list[Tensor]:
    """Return the velocities of two steps of a clip, of prompts of these lengths."""
    clip = ClipContext(evaluations=len(lengths))
    prompts = [prompt(length, seed) for seed, length in enumerate(lengths, start=5)]
    given: dict[str, Any] = {
        "encoder_hidden_states_image": drawn(1, 5, 16, seed=4),
        "dense": drawn(1, 16, 3, 4, 6, seed=1),
        "sparse": drawn(1, 16, 3, 4, 6, seed=2),
        "depth_strength": 0.7,
    }
    if history_frames:
        given["history"] = drawn(1, 16, history_frames, 4, 6, seed=3)
    return [
        transformer(
            drawn(1, 16, 3, 4, 6, seed=20 + step),
            torch.tensor([900.0 - 250 * step]),
            embeds,
            **given,
            clip=clip,
        ).sample
        for step in range(2)
        for embeds in prompts
    ]


def largest_difference(ours: list[Tensor], expected: list[Tensor]) -> float:
    pairs = zip(ours, expected, strict=True)
    return max((one - other).abs().max().item() for one, other in pairs)


def multiply_all(transformer: LongVieTransformer3DModel) -> None:
    errors = {f"blocks.{name}": 0.0 for name, _ in transformer.blocks.named_modules()}
    multiply_in_8_bits(transformer, "int8", within=("blocks",), errors=errors, limit=0.0)


def test_graphs_of_the_clips_of_a_run() -> None:
    transformer = transformer_of(num_control_layers=1)
    expected = [clip_of(transformer, frames) for frames in (0, 2)]
    # It counts what Dynamo makes; a break in a graph is an error there (`fullgraph`).
    counter = CompileCounterWithBackend("eager")
    compile_blocks(transformer, backend=counter)
    counts = []
    for frames in (0, 2, 2):
        found = clip_of(transformer, frames)
        assert largest_difference(found, expected[frames // 2]) <= ROUNDING
        counts.append(counter.frame_count)
    # First clip: the first block of each width, one with a control addition, one without. Later
    # clips have more tokens in the main blocks, whose last one leaves out history.
    assert counts == [4, 7, 7]
    # Longer and shorter prompts are no other shape.
    clip_of(transformer, 2, lengths=(20, 1))
    assert counter.frame_count == 7


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "prepare"),
    [
        ({}, lambda transformer: None),
        ({}, lambda transformer: transformer.use_kernels(KernelSet())),
        ({}, lambda transformer: quantize_linears(transformer, "int8", within=("blocks",))),
        ({"attention_head_dim": 16, "added_kv_proj_dim": 32}, multiply_all),
        ({"image_dim": 16, "added_kv_proj_dim": None}, lambda transformer: None),
    ],
    ids=["as it is", "plain kernels", "quantized", "products in 8 bits", "image read as text"],
)
def test_compiled_is_equal(changes: dict[str, Any], prepare: Any) -> None:
    transformer = transformer_of(5, **changes)
    prepare(transformer)
    expected = [clip_of(transformer, frames) for frames in (0, 2)]
    counter = CompileCounterWithBackend("aot_eager")
    compile_blocks(transformer, backend=counter)
    found = [clip_of(transformer, frames) for frames in (0, 2)]
    for ours, theirs in zip(found, expected, strict=True):
        assert largest_difference(ours, theirs) <= ROUNDING
    # Both widths with and without the shared self-attention; an addition; the last of later clips.
    assert counter.frame_count == 9


@pytest.mark.slow
# Of its parts of old, and that complex numbers are left to PyTorch itself.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_by_the_compiler_itself() -> None:
    transformer = transformer_of()
    expected = [clip_of(transformer, frames) for frames in (0, 2)]
    compile_blocks(transformer)
    for frames in (0, 2):
        found = clip_of(transformer, frames)
        assert largest_difference(found, expected[frames // 2]) <= ROUNDING


class _Traced(TorchDispatchMode):
    """Notes what is computed, and what of it is not on the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.in_host_memory: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.names.add(func.overloadpacket.__name__)
        results = made if isinstance(made, tuple | list) else [made]
        if any(isinstance(result, Tensor) and not result.is_meta for result in results):
            self.in_host_memory.append(str(func))
        return made


@torch.no_grad()
def test_a_step_waits_for_nothing() -> None:
    """So a GPU can record it: no number is read back, nothing moved, no shape depends on data."""
    transformer = small_transformer(num_layers=5).to("meta")
    transformer.compiled = True
    clip = ClipContext(evaluations=2)
    prompts = [torch.empty(1, 20, 16, device="meta") for _ in range(2)]
    control = torch.empty(1, 16, 3, 4, 6, device="meta")
    given: dict[str, Any] = {
        "encoder_hidden_states_image": torch.empty(1, 5, 16, device="meta"),
        "dense": control,
        "sparse": torch.empty_like(control),
        "history": torch.empty(1, 16, 2, 4, 6, device="meta"),
        "clip": clip,
    }

    def step() -> None:
        latents, timestep = torch.empty_like(control), torch.empty(1, device="meta")
        velocity, negative = (
            transformer(latents, timestep, embeds, **given).sample for embeds in prompts
        )
        transformer.kernels.guide_step(latents[:, :6].float(), velocity, negative, 3.0, -0.1)

    step()
    with _Traced() as traced:
        step()
    assert "addmm" in traced.names or "linear" in traced.names
    assert not traced.names & {"_local_scalar_dense", "nonzero", "masked_select", "item", "equal"}
    assert traced.in_host_memory == []


def test_what_cannot_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    check_compile("none", "cpu", "group")
    check_compile("blocks", "cuda", "model")
    with pytest.raises(UsageError, match="CUDA graphs are for CUDA devices, not for cpu"):
        check_compile("graphs", "cpu", "none")
    with pytest.raises(UsageError, match="blocks that come and go"):
        check_compile("blocks", "cuda", "group")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(MissingResourceError, match=r"needs a C\+\+ compiler, and there is none"):
        check_compile("blocks", "cpu", "none")


def test_compiled_blocks_are_not_streamed() -> None:
    tiny = load_preset("tiny")
    plain = Sampling.of(tiny, device="cuda")
    compiled = replace(plain, compile="blocks")
    assert "group" in plans_of_preset(tiny, plain)
    assert "group" not in plans_of_preset(tiny, compiled)
