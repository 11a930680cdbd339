"""Where the models' weights lie and how attention is computed; applied to a pipeline from outside.

`none` and both ways of offloading compute the same frames: they only move weights. Quantized
weights and another attention backend do not, so these two belong to what decides a run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers.hooks import apply_group_offloading
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _check_attention_backend_requirements,
)
from torch import nn

from longvie_cli.engine.attention_check import attention_fault
from longvie_cli.engine.compilation import check_compile
from longvie_cli.engine.eight_bit_products import LIMITS, MULTIPLIED_CHILDREN, product_errors
from longvie_cli.engine.machine import MachineMemory
from longvie_cli.engine.memory import GIB, QUANTIZED_CHILDREN, MemoryPlan
from longvie_cli.engine.waiting_weights import keep_waiting
from longvie_cli.errors import MissingResourceError, UsageError
from longvie_cli.kernels.eight_bit_linear import multiply_in_8_bits
from longvie_cli.kernels.quantized_linear import quantize_linears
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.settings.sampling import Attention, Offload, Sampling

logger = logging.getLogger(__name__)

# `auto` keeps this much of what is free: the plan does not see fragmentation and workspaces.
AUTO_MARGIN = 0.08

# diffusers' names, and the package of each backend that PyTorch does not bring. FlashAttention 3
# has no wheel on PyPI.
_BACKENDS: dict[str, AttentionBackendName] = {
    "native": AttentionBackendName.NATIVE,
    "cudnn": AttentionBackendName._NATIVE_CUDNN,
    "flash": AttentionBackendName.FLASH,
    "flash3": AttentionBackendName._FLASH_3,
    "sage": AttentionBackendName.SAGE,
    "xformers": AttentionBackendName.XFORMERS,
}
_INSTALL = {
    "flash": "pip install flash-attn --no-build-isolation",
    "flash3": "pip install 'git+https://github.com/Dao-AILab/flash-attention#subdirectory=hopper'",
    "sage": "pip install sageattention",
    "xformers": "pip install xformers",
}

Plans = Mapping[Offload, MemoryPlan]


def resolve_placement(said: Mapping[str, Any], device: str, offload: str) -> dict[str, Any]:
    """Return where and in which type a model is run, by the names of `Sampling`.

    Args:
        said: What is said of the sampling, `FrameSettings.said`.
        device: A `--device` value.
        offload: An `--offload` value.

    Raises:
        UsageError: The machine has no such device, or it cannot run the model so.
        MissingResourceError: The package of an attention backend, or a compiler, is missing.
    """
    device = resolve_device(device)
    dtype = resolve_dtype(said.get("dtype", "auto"), device)
    attention = resolve_attention(said.get("attention", "auto"), device, dtype)
    check_offload(offload, device)
    check_compile(said.get("compile", "none"), device, offload)
    return {"device": device, "dtype": dtype, "attention": attention, "offload": offload}


def resolve_attention(name: str, device: str, dtype: str) -> Attention:
    """Return the backend of an `--attention` value; `auto` is PyTorch's own everywhere.

    It is not the fastest one installed: then the same command would give other frames after a
    `pip install`.

    Raises:
        UsageError: The backend does not run on this device or in this type.
        MissingResourceError: Its package is not installed.
    """
    if name in ("auto", "native"):
        return "native"
    if torch.device(device).type != "cuda":
        raise UsageError(
            f"--attention {name}: runs on CUDA devices only, not on {device}.",
            hint="Pass --attention native.",
        )
    if dtype == "float32":
        raise UsageError(
            f"--attention {name}: computes in 16 bits, but --dtype is float32.",
            hint="Pass --dtype bfloat16 or --attention native.",
        )
    try:
        _check_attention_backend_requirements(_BACKENDS[name])
    except (RuntimeError, ImportError) as error:
        raise MissingResourceError(
            f"--attention {name}: its package is not installed.", hint=_INSTALL.get(name, "")
        ) from error
    return name  # type: ignore[return-value]


def check_offload(name: str, device: str) -> None:
    """Do nothing if weights can be offloaded from this device as asked.

    Raises:
        UsageError: They would wait where they are.
    """
    if name in ("once", "model", "group") and torch.device(device).type == "cpu":
        raise UsageError(
            f"--offload {name}: on the CPU the weights are in the machine's memory already.",
            hint="Leave --offload away, or pass --device cuda.",
        )


def choose_plan(
    asked: str,
    plans: Plans,
    memory: MachineMemory,
    *,
    device: str,
    others: Callable[..., Plans],
) -> MemoryPlan:
    """Return the plan of an `--offload` value; `auto` is the fastest placement that fits.

    Fastest first: everything on the device; all but what is used once a clip (a quarter of LongVie
    2's transformer crosses the bus for that); whole models in turn (all of it does, once a clip);
    blocks streamed (all of it, once a step). A named placement is taken if
    its estimate fits, `auto` leaves `AUTO_MARGIN` free where it can.

    Args:
        asked: `auto`, `none`, `once`, `model` or `group`.
        plans: The placements possible on the device, fastest first.
        memory: Of this machine.
        device: As the user knows it.
        others: Returns the plans for another `--quantize`; called only where nothing fits, for
            the hint.

    Raises:
        UsageError: The machine is too small for it; the hint names flags that fit.
    """
    candidates = [plans[asked]] if asked in plans else list(plans.values())  # type: ignore[index]
    for margin in (AUTO_MARGIN, 0.0):
        for plan in candidates:
            if fits(plan, memory, margin=margin):
                return plan
    raise UsageError(_shortage(candidates[-1], memory, device), hint=_hint(plans, memory, others))


def fits(plan: MemoryPlan, memory: MachineMemory, *, margin: float = 0.0) -> bool:
    """Whether both kinds of memory suffice; what the system does not tell suffices.

    With everything on a GPU the host only passes the files through, and the system drops their
    pages when it needs them, so there the host is not counted.
    """
    device_ok = memory.device_free is None or (
        plan.peak_device_bytes <= memory.device_free * (1 - margin)
    )
    passes_through = memory.device_free is not None and plan.offload == "none"
    host_ok = (
        passes_through or memory.host_free is None or (plan.peak_host_bytes <= memory.host_free)
    )
    return device_ok and host_ok


def stays_where_loaded(sampling: Sampling) -> bool:
    """Whether weights stay where and as they are loaded: neither offloaded nor quantized."""
    return sampling.offload == "none" and sampling.quantize == "none"


def quantize_transformer(pipeline: LongViePipeline, sampling: Sampling) -> None:
    """Store the linears of the transformer's blocks in 8 bits, quantized on the device they run on.

    What a LoRA adds to weights has to be in them before; its pairs stay as they are. Where layers
    multiply in 8 bits, those that are off by too much are only stored so.
    """
    kind = sampling.eight_bit_type
    if kind is None:
        return
    transformer, device = pipeline.transformer, torch.device(sampling.device)
    if sampling.multiplies_in_8_bits:
        kept = multiply_in_8_bits(
            transformer,
            kind,
            within=MULTIPLIED_CHILDREN,
            errors=product_errors(transformer, kind, device),
            limit=LIMITS[kind],
            device=device,
        )
        logger.info("%d layers of the main blocks do not multiply in 8 bits: %s", len(kept), kept)
    quantize_linears(transformer, kind, within=QUANTIZED_CHILDREN, device=device)


def use_attention(
    pipeline: LongViePipeline,
    sampling: Sampling,
    *,
    warn: Callable[[str], None] = logger.warning,
) -> None:
    """Make the transformer attend by a backend that `resolve_attention` returned.

    The backend is compared with PyTorch's own first; if it cannot compute or is wrong, PyTorch's
    own stays.

    Args:
        pipeline: Its weights may be anywhere.
        sampling: Says which backend, where and in which type.
        warn: Told that the backend is not used, and why.
    """
    name = sampling.attention
    if name == "native":
        return
    config = pipeline.transformer.config
    fault = attention_fault(
        _BACKENDS[name],
        heads=config.num_attention_heads,
        head_width=config.attention_head_dim,
        device=torch.device(sampling.device),
        dtype=getattr(torch, sampling.dtype),
    )
    if fault is not None:
        warn(f"--attention {name}: {fault} PyTorch's own attention is used instead.")
        return
    diffusers_logger = logging.getLogger("diffusers.models.modeling_utils")
    level = diffusers_logger.level
    diffusers_logger.setLevel(logging.ERROR)  # It warns that the interface is experimental.
    try:
        pipeline.transformer.set_attention_backend(_BACKENDS[name].value)
    finally:
        diffusers_logger.setLevel(level)


def place(pipeline: LongViePipeline, device: str, offload: Offload) -> LongViePipeline:
    """Put a loaded pipeline where it computes, its weights where they wait.

    Args:
        pipeline: On the CPU, quantized already if at all.
        device: Where it computes. Offloading from the CPU to itself moves nothing and costs time,
            but runs through the same hooks.
        offload: `none`: all weights on the device. `once`: all but those that are used
            once a clip, see `waiting_weights`. `model`: diffusers' model offload; each model
            comes whole when it is called. `group`: diffusers' group offload of the transformer's
            blocks, each fetched from pinned memory while the one before it computes; the small
            models stay on the device.
    """
    target = torch.device(device)
    if target.type == "cuda":
        # One video at a time: five at once take 16 GiB for LongVie 2 and are no faster there.
        pipeline.vae.enable_slicing()
    if offload == "none":
        return pipeline.to(target)
    if offload == "model":
        pipeline.enable_model_cpu_offload(device=target)
        return pipeline
    if offload == "once":
        keep_waiting(pipeline, target)
        return pipeline
    for name, model in pipeline.components.items():
        if isinstance(model, nn.Module) and name not in ("transformer", "text_encoder"):
            model.to(target)
    if pipeline.text_encoder is not None:
        place_text_encoder(pipeline.text_encoder, device, offload)
    pipeline.transformer.to("cpu")
    streams = target.type == "cuda"
    if streams:
        _pin(pipeline.transformer)
    pipeline.transformer.enable_group_offload(
        onload_device=target,
        offload_device=torch.device("cpu"),
        offload_type="block_level",
        num_blocks_per_group=1,
        use_stream=streams,
        record_stream=streams,
    )
    return pipeline


def place_text_encoder(text_encoder: nn.Module, device: str, offload: Offload) -> None:
    """Put a text encoder where it computes; under `group` it comes layer by layer."""
    if offload == "group":
        apply_group_offloading(
            text_encoder,
            onload_device=torch.device(device),
            offload_device=torch.device("cpu"),
            offload_type="leaf_level",
        )
    else:
        text_encoder.to(device)


def _pin(model: nn.Module) -> None:
    """Pin a model's memory tensor by tensor; diffusers would hold all of it twice for a while."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.pin_memory()


def _shortage(plan: MemoryPlan, memory: MachineMemory, device: str) -> str:
    free, needed = memory.device_free, plan.peak_device_bytes
    where = device
    if free is None or needed <= free:
        where, free, needed = "this machine", memory.host_free or 0, plan.peak_host_bytes
    quantized = "" if plan.sampling.quantize == "none" else f" --quantize {plan.sampling.quantize}"
    return (
        f"{where} has {free / GIB:.1f} GiB free; --offload {plan.offload}{quantized} needs about "
        f"{needed / GIB:.1f} GiB (estimated)."
    )


def _hint(plans: Plans, memory: MachineMemory, others: Callable[..., Plans]) -> str:
    ways = [f"--offload {plan.offload}" for plan in plans.values() if fits(plan, memory)][:1]
    if not _quantized(plans):
        fitting = [plan for plan in others(quantize="int8").values() if fits(plan, memory)]
        ways += [f"--quantize int8 --offload {plan.offload}" for plan in fitting[:1]]
    if not ways:
        return "No placement of this preset fits; free some memory or use a larger machine."
    return f"Pass {', or '.join(ways)}."


def _quantized(plans: Plans) -> bool:
    return any(plan.sampling.quantize != "none" for plan in plans.values())


DTYPES = ("float32", "bfloat16", "float16")


def resolve_device(name: str) -> str:
    """Return the real device of a `--device` value; `auto` is CUDA where there is any, else cpu.

    Raises:
        UsageError: no such device on this machine.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(
            f"--device {name}: not a device.", hint="Pass auto, cpu, cuda or cuda:N."
        ) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices.",
            hint="Pass --device auto or cpu.",
        )
    return name


def resolve_dtype(name: str, device: str) -> str:
    """Return the real type of a `--dtype` value; `auto` is bfloat16 on CUDA, else float32.

    Raises:
        UsageError: no such floating-point type.
    """
    if name == "auto":
        return "bfloat16" if torch.device(device).type == "cuda" else "float32"
    if name not in DTYPES:
        raise UsageError(f"--dtype {name}: not a type.", hint=f"Pass auto, {', '.join(DTYPES)}.")
    return name
