"""Offloaded, the pipeline makes the frames of a resident one; which placement a machine gets."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from torch import Tensor, nn

from longvie_cli.engine.clip_generator import ClipGenerator
from longvie_cli.engine.eight_bit_products import product_errors
from longvie_cli.engine.loader import load_pipeline, load_preset_text_encoder
from longvie_cli.engine.machine import MachineMemory, machine_memory
from longvie_cli.engine.memory import GIB, MemoryPlan, Phase
from longvie_cli.engine.placement import (
    Plans,
    check_offload,
    choose_plan,
    place,
    quantize_transformer,
    resolve_attention,
    use_attention,
)
from longvie_cli.engine.waiting_weights import used_once
from longvie_cli.errors import InputError, MissingResourceError, UsageError
from longvie_cli.kernels.eight_bit_linear import EightBitLinear
from longvie_cli.kernels.quantized_linear import QUANTIZED_TYPES, QuantizedLinear, quantize_rows
from longvie_cli.models.attention import LongVieAttnProcessor
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.settings.presets import Preset, TrackGrid
from longvie_cli.settings.sampling import Attention, Offload, Quantize, Sampling
from small_models import EVEN_HEADS, small_pipeline, small_transformer

PRESET = Preset(
    name="small",
    num_frames=9,
    fps=16,
    height=32,
    width=48,
    num_inference_steps=2,
    guidance_scale=2.0,
    flow_shift=5.0,
    max_text_tokens=20,
    track_grid=TrackGrid(columns=4, rows=3),
)


def control(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (9, 32, 48, 3), dtype=np.uint8)


def two_clips(pipeline: LongViePipeline, **arguments: object) -> np.ndarray:
    sampling = Sampling.of(PRESET, seed=5)
    generator = ClipGenerator(pipeline, PRESET, sampling, **arguments)  # type: ignore[arg-type]
    first = generator.generate(
        0, "a hill", image=control(9)[0], dense=control(1), sparse=control(2)
    )
    second = generator.generate(1, "a lake", history=first.tail(8), dense=control(3))
    return np.concatenate((first.frames, second.frames))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small")
    small_pipeline().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def resident(folder: Path) -> np.ndarray:
    return two_clips(load_pipeline(PRESET, weights=folder))


@pytest.mark.parametrize("offload", ["once", "model", "group"])
def test_offloading_changes_no_frame(folder: Path, resident: np.ndarray, offload: Offload) -> None:
    pipeline = load_pipeline(PRESET, weights=folder, offload=offload)
    assert np.array_equal(two_clips(pipeline), resident)


@pytest.mark.parametrize("offload", ["once", "model", "group"])
def test_offloading_without_the_text_encoder_changes_no_frame(
    folder: Path, resident: np.ndarray, offload: Offload
) -> None:
    sampling = Sampling.of(PRESET, offload=offload)
    tokenizer, text_encoder = load_preset_text_encoder(PRESET, sampling, weights=folder)
    reader = small_pipeline()
    reader.tokenizer, reader.text_encoder = tokenizer, text_encoder
    with torch.no_grad():
        embeds = {text: reader.encode_prompt([text]) for text in ("a hill", "a lake", "")}
    pipeline = load_pipeline(PRESET, weights=folder, offload=offload, text_encoder=False)
    assert pipeline.text_encoder is None and pipeline.tokenizer is None
    assert np.array_equal(two_clips(pipeline, prompt_embeds=embeds), resident)
    with pytest.raises(InputError, match="without its text encoder"):
        ClipGenerator(pipeline, PRESET, sampling).generate(0, "a hill", image=control(9)[0])


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_quantized_and_streamed_is_quantized(folder: Path, kind: Quantize) -> None:
    frames = {}
    for offload in ("none", "once", "model", "group"):
        pipeline = load_pipeline(PRESET, weights=folder, quantize=kind, offload=offload)
        block = pipeline.transformer.dense_blocks[1]
        assert type(block.attn2.to_q) is QuantizedLinear
        assert type(pipeline.transformer.control_proj_out[0]) is torch.nn.Linear
        assert pipeline.transformer.dtype == torch.float32
        frames[offload] = two_clips(pipeline)
    assert np.array_equal(frames["none"], frames["once"])
    assert np.array_equal(frames["none"], frames["model"])
    assert np.array_equal(frames["none"], frames["group"])


@pytest.mark.parametrize("kind", ["int8-w8a8", "fp8-w8a8"])
def test_layers_that_stand_it_multiply_in_8_bits(folder: Path, kind: Quantize) -> None:
    pipeline = small_pipeline()
    transformer = small_transformer(**EVEN_HEADS)
    exact = transformer.blocks[0].attn1.to_q.weight.detach().clone()
    # One value of each row is so large that in 8 bits the others are nothing; yet they are all that
    # the layer looks at.
    widen, _, narrow = transformer.blocks[1].ffn.net
    with torch.no_grad():
        widen.proj.bias[0] = 1e6
        narrow.weight[:, 0] = 0
    pipeline.transformer = transformer
    sampling = Sampling.of(PRESET, quantize=kind)
    quantize_transformer(pipeline, sampling)
    stored = QUANTIZED_TYPES[kind.removesuffix("-w8a8")]
    layer = transformer.blocks[0].attn1.to_q
    assert type(layer) is EightBitLinear and layer.weight.dtype == stored
    restored = layer.weight.float() * layer.scale
    assert (restored - exact).norm() < 0.04 * exact.norm()
    # That one, the control branches and what no GPU multiplies are stored so, and all else is kept.
    assert type(transformer.blocks[1].ffn.net[2]) is QuantizedLinear
    assert type(transformer.dense_blocks[0].attn1.to_q) is QuantizedLinear
    assert type(transformer.proj_out) is type(transformer.control_proj_out[0]) is nn.Linear
    # Measured on the same noise each time, so that a run that goes on has the same layers.
    again = small_transformer(**EVEN_HEADS)
    errors = [product_errors(again, "int8", torch.device("cpu")) for _ in range(2)]
    assert errors[0] == errors[1] and len(errors[0]) > 20
    assert not any(module._forward_hooks for module in transformer.modules())


def test_only_what_computes_is_on_the_device_when_blocks_are_streamed() -> None:
    # Seen from outside, through the storages: on the CPU both places are the same device.
    pipeline = place(small_pipeline(), "cpu", "group")
    hooked = [
        name
        for name, module in pipeline.transformer.named_modules()
        if hasattr(module, "_diffusers_hook")
        and module._diffusers_hook.get_hook("group_offloading") is not None
    ]
    assert {name.split(".")[0] for name in hooked if name} == {
        "blocks",
        "dense_blocks",
        "sparse_blocks",
        "control_proj_out",
    }


def test_what_is_used_once_a_clip_is_on_the_device_only_then() -> None:
    pipeline = place(small_pipeline(), "cpu", "once")
    layers = list(used_once(pipeline.transformer, pipeline.image_encoder))
    # Four of each of 3 + 2 + 2 blocks, and two of the image encoder.
    assert len(layers) == 30
    at_home = {id(layer): [tensor.data_ptr() for tensor in layer.parameters()] for layer in layers}
    there: list[nn.Module] = []
    calls: Counter[int] = Counter()

    def come(layer: nn.Module, _: object) -> None:
        # A copy, as on another device; one layer at a time.
        for tensor, address in zip(layer.parameters(), at_home[id(layer)], strict=True):
            assert tensor.data_ptr() != address
        assert not there
        there.append(layer)
        calls.update([id(layer)])

    for layer in layers:
        layer.register_forward_pre_hook(come)
        layer.register_forward_hook(lambda *_: there.clear())
    two_clips(pipeline)
    for layer in layers:
        assert [tensor.data_ptr() for tensor in layer.parameters()] == at_home[id(layer)]
    # Two clips of two steps with two prompts. In the second there is no sparse control.
    text = pipeline.transformer.blocks[0].attn2
    assert (calls[id(text.to_k)], calls[id(text.add_v_proj)]) == (4, 2)
    assert calls[id(pipeline.transformer.sparse_blocks[1].attn2.to_v)] == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("offload", ["once", "model", "group"])
def test_offloading_changes_no_frame_on_a_gpu(folder: Path, offload: Offload) -> None:
    stays = two_clips(load_pipeline(PRESET, weights=folder, device="cuda"))
    moves = two_clips(load_pipeline(PRESET, weights=folder, device="cuda", offload=offload))
    assert np.array_equal(stays, moves)


def test_offloading_from_the_cpu_is_refused() -> None:
    check_offload("auto", "cpu")
    check_offload("none", "cpu")
    check_offload("group", "cuda:1")
    with pytest.raises(UsageError, match="--offload group: on the CPU"):
        check_offload("group", "cpu")


def test_attention_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_attention("auto", "cuda", "bfloat16") == "native"
    assert resolve_attention("native", "cpu", "float32") == "native"
    assert resolve_attention("cudnn", "cuda", "bfloat16") == "cudnn"
    with pytest.raises(UsageError, match="--attention sage: runs on CUDA devices only, not on cpu"):
        resolve_attention("sage", "cpu", "bfloat16")
    with pytest.raises(UsageError, match="computes in 16 bits"):
        resolve_attention("flash", "cuda", "float32")
    for name in ("flash", "flash3", "sage", "xformers"):
        try:
            resolve_attention(name, "cuda", "bfloat16")
        except MissingResourceError as error:
            assert error.hint.startswith("pip install "), name
            assert error.exit_code == 3


def stands_in(monkeypatch: pytest.MonkeyPatch, attend: Callable[..., Tensor]) -> None:
    """Put a double in the place of cuDNN's attention, which needs a GPU."""
    name = AttentionBackendName._NATIVE_CUDNN
    monkeypatch.setitem(_AttentionBackendRegistry._backends, name, attend)
    arguments = {"query", "key", "value"}
    monkeypatch.setitem(_AttentionBackendRegistry._supported_arg_names, name, arguments)
    monkeypatch.setitem(_AttentionBackendRegistry._constraints, name, [])
    monkeypatch.setattr(_AttentionBackendRegistry, "_checks_enabled", False)


def attended(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    parts = (tensor.transpose(1, 2) for tensor in (query, key, value))
    return F.scaled_dot_product_attention(*parts).transpose(1, 2)


def backends_of(pipeline: LongViePipeline) -> set[object]:
    processors = pipeline.transformer.attn_processors.values()
    return {processor._attention_backend for processor in processors}


def attending(name: Attention, dtype: str) -> Sampling:
    return Sampling.of(PRESET, attention=name, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_right_backend_reaches_every_attention_layer(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], dtype: str
) -> None:
    stands_in(monkeypatch, attended)
    pipeline = small_pipeline()
    capfd.readouterr()
    use_attention(pipeline, attending("native", dtype), warn=pytest.fail)
    assert backends_of(pipeline) == {None}
    use_attention(pipeline, attending("cudnn", dtype), warn=pytest.fail)
    try:
        assert backends_of(pipeline) == {AttentionBackendName._NATIVE_CUDNN}
        assert LongVieAttnProcessor._attention_backend is None
        assert capfd.readouterr().err == ""
    finally:
        pipeline.transformer.set_attention_backend("native")


def in_float8(tensor: Tensor) -> Tensor:
    """Return what is left of a tensor in float8 without a scale: 448 is its largest value."""
    return tensor.clamp(-448, 448).to(torch.float8_e4m3fn).to(tensor.dtype)


def in_int8(tensor: Tensor) -> Tensor:
    codes, scale = quantize_rows(tensor.flatten(0, 2), "int8")
    return (codes * scale).to(tensor.dtype).view_as(tensor)


def refuses(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    raise RuntimeError("no kernel image is available for execution on the device")


@pytest.mark.parametrize(
    ("attend", "reason"),
    [
        (
            lambda query, key, value: attended(query, key, in_float8(value)),
            r"on large-value numbers it is \d\d\.\d% off",
        ),
        (
            lambda query, key, value: attended(in_float8(query), key, value),
            r"on large-query numbers it is \d\d\.\d% off",
        ),
        # Keys past the last whole tile are left out.
        (
            lambda query, key, value: attended(query, key[:, :320], value[:, :320]),
            r"numbers it is \d\d\.\d% off",
        ),
        (lambda query, key, value: attended(query, key, value) / 0, "numbers it is (nan|inf)% off"),
        (refuses, r"does not run on cpu in torch.bfloat16 \(no kernel image"),
    ],
)
def test_a_wrong_backend_is_not_used_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, attend: Callable[..., Tensor], reason: str
) -> None:
    stands_in(monkeypatch, attend)
    pipeline, said = small_pipeline(), []
    use_attention(pipeline, attending("cudnn", "bfloat16"), warn=said.append)
    assert backends_of(pipeline) == {None}
    (line,) = said
    assert re.match(rf"--attention cudnn: .*{reason}", line), line
    assert line.endswith("PyTorch's own attention is used instead.")


def test_8_bits_of_queries_and_keys_are_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    stands_in(monkeypatch, lambda query, key, value: attended(in_int8(query), in_int8(key), value))
    pipeline = small_pipeline()
    use_attention(pipeline, attending("cudnn", "bfloat16"), warn=pytest.fail)
    assert backends_of(pipeline) == {AttentionBackendName._NATIVE_CUDNN}
    pipeline.transformer.set_attention_backend("native")


def plans(
    none: float, once: float, model: float, group: float, quantize: Quantize = "none"
) -> Plans:
    gigabytes: dict[Offload, float] = {"none": none, "once": once, "model": model, "group": group}
    return {
        offload: MemoryPlan(
            Sampling.of(PRESET, quantize=quantize, offload=offload),
            (),
            (Phase("denoise", int(size * GIB), 20 * GIB),),
        )
        for offload, size in gigabytes.items()
    }


FULL, HALF = plans(44.1, 33.1, 39.6, 8.6), plans(26.8, 20.3, 22.4, 8.0, "int8")


def machine(device_gib: float, host_gib: float = 64) -> MachineMemory:
    device, host = int(device_gib * GIB), int(host_gib * GIB)
    return MachineMemory(device, device, host, host)


@pytest.mark.parametrize(
    ("free", "expected"),
    # 46: fits with the margin not kept whole, so what keeps it is taken. 9: group fits without.
    [(79, "none"), (46, "once"), (40, "once"), (23.6, "group"), (9, "group")],
)
def test_auto_takes_the_fastest_that_fits(free: float, expected: str) -> None:
    chosen = choose_plan("auto", FULL, machine(free), device="cuda:0", others=lambda **_: HALF)
    assert chosen.offload == expected


def test_a_small_card_is_told_which_flags_fit() -> None:
    with pytest.raises(UsageError) as caught:
        choose_plan("none", FULL, machine(23.6), device="cuda:0", others=lambda **_: HALF)
    assert caught.value.message == (
        "cuda:0 has 23.6 GiB free; --offload none needs about 44.1 GiB (estimated)."
    )
    assert caught.value.hint == "Pass --offload group, or --quantize int8 --offload once."
    assert caught.value.exit_code == 2
    with pytest.raises(UsageError, match=r"needs about 8\.6 GiB") as caught:
        choose_plan("auto", FULL, machine(6), device="cuda:0", others=lambda **_: HALF)
    assert caught.value.hint.startswith("No placement of this preset fits")


def test_the_machines_own_memory_counts_where_weights_wait_there() -> None:
    chosen = choose_plan("none", FULL, machine(80, 16), device="cuda:0", others=lambda **_: HALF)
    assert chosen.offload == "none", "the files only pass through"
    with pytest.raises(UsageError, match=r"this machine has 16\.0 GiB free.*group needs about 20"):
        choose_plan("group", FULL, machine(24, 16), device="cuda:0", others=lambda **_: HALF)
    on_cpu = MachineMemory(None, None, 8 * GIB, 8 * GIB)
    with pytest.raises(UsageError, match=r"this machine has 8\.0 GiB free"):
        choose_plan("auto", {"none": FULL["none"]}, on_cpu, device="cpu", others=lambda **_: {})
    unknown = MachineMemory(None, None, None, None)
    assert choose_plan("auto", FULL, unknown, device="cpu", others=lambda **_: {}).offload == "none"


def test_this_machines_memory() -> None:
    memory = machine_memory("cpu")
    assert memory.device_free is None
    if memory.host_free is not None:
        assert memory.host_total is not None
        assert 0 < memory.host_free <= memory.host_total
