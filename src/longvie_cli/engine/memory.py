"""What a preset needs of the machine's memory, worked out before anything is loaded.

Weights are exact: the models are built from their configs on the meta device, in the types the
loader gives them. Activations are the bytes alive while the models' own code runs on the meta
device at the clip's size, so they follow every change of that code. What no such run can see is
added as a constant or left out, and said: the CUDA context and cuBLAS (`CUDA_OVERHEAD_BYTES`), the
interpreter and its libraries (`PROCESS_BYTES`); left out are workspaces of cuDNN and the
allocator's fragmentation. Attention counts as one pass without a score matrix, as every fused
backend computes it. No figure was measured on a GPU: all of this is an estimate.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

from longvie_cli.engine.eight_bit_products import MULTIPLIED_CHILDREN
from longvie_cli.engine.waiting_weights import used_once
from longvie_cli.kernels.eight_bit_linear import is_multiplied, multiply_in_8_bits
from longvie_cli.kernels.quantized_linear import plain_linears, quantize_linears
from longvie_cli.models.autoencoders import VideoAutoencoder, empty_autoencoder
from longvie_cli.models.clip_context import ClipContext
from longvie_cli.models.depth_colours import DEPTH_MAPS
from longvie_cli.models.longvie import LongVieTransformer3DModel
from longvie_cli.models.sketcher import Sketcher
from longvie_cli.models.weights.sources import is_converted
from longvie_cli.models.whole_video import decode_videos, encode_videos, suit_cpu
from longvie_cli.settings.presets import Preset, preset_folder
from longvie_cli.settings.sampling import Offload, Sampling

GIB = 1 << 30
# A CUDA context with the cuBLAS and cuDNN handles; from public reports of 0.5 to 0.8 GiB.
CUDA_OVERHEAD_BYTES = 7 * GIB // 10
# Python with torch, diffusers and transformers imported, and a clip's frames: about 0.7 GiB here.
PROCESS_BYTES = 7 * GIB // 10
# The children of the transformer whose linears may be stored in 8 bits; everything around the
# blocks (embeddings, input, output and injection linears) is 3 % of the weights and stays.
QUANTIZED_CHILDREN = ("blocks", "dense_blocks", "sparse_blocks")


# On a GPU, fastest first.
_PLACEMENTS: tuple[Offload, ...] = ("none", "once", "model", "group")


@dataclass(frozen=True)
class Component:
    """One model of a pipeline.

    Args:
        name: As in the pipeline.
        parameters: How many it has.
        weight_bytes: Of parameters and buffers as they lie in memory.
    """

    name: str
    parameters: int
    weight_bytes: int


@dataclass(frozen=True)
class Phase:
    """The memory of one part of a run, in bytes.

    Args:
        name: `load`, `text`, `encode`, `denoise` or `decode`.
        device_bytes: On the GPU; 0 on a machine that computes on the CPU.
        host_bytes: In the machine's own memory, pinned memory included.
    """

    name: str
    device_bytes: int
    host_bytes: int


@dataclass(frozen=True)
class MemoryPlan:
    """Estimated memory of a preset in one placement; see this module for what is exact.

    Args:
        sampling: Where the models run and in which types, and where their weights wait.
        components: The weights.
        phases: In the order of a run.
    """

    sampling: Sampling
    components: tuple[Component, ...]
    phases: tuple[Phase, ...]

    @property
    def offload(self) -> Offload:
        """Where weights wait: see `placement.place`."""
        assert self.sampling.offload != "auto", "a plan is of one placement"
        return self.sampling.offload

    @property
    def peak_device_bytes(self) -> int:
        """The most that any phase takes on the GPU."""
        return max(phase.device_bytes for phase in self.phases)

    @property
    def peak_host_bytes(self) -> int:
        """The most that any phase takes in the machine's memory."""
        return max(phase.host_bytes for phase in self.phases)

    def as_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return {
            "estimated": True,
            **self.sampling.stored,
            "weights": {part.name: part.weight_bytes for part in self.components},
            "phases": {
                phase.name: {"device_bytes": phase.device_bytes, "host_bytes": phase.host_bytes}
                for phase in self.phases
            },
            "peak_device_bytes": self.peak_device_bytes,
            "peak_host_bytes": self.peak_host_bytes,
        }


@dataclass(frozen=True)
class Models:
    """The models of a preset on the meta device: shapes and types, no numbers."""

    text_encoder: UMT5EncoderModel
    image_encoder: CLIPVisionModel
    transformer: LongVieTransformer3DModel
    vae: VideoAutoencoder
    sketcher: Sketcher | None = None

    def components(self) -> tuple[Component, ...]:
        """Return what each weighs."""
        return tuple(
            Component(name, sum(p.numel() for p in model.parameters()), weight_bytes(model))
            for name, model in vars(self).items()
            if model is not None
        )


@dataclass(frozen=True)
class Activations:
    """Bytes beyond the weights that each phase has alive at its fullest."""

    text: int
    encode: int
    denoise: int
    decode: int


def models_of_folder(folder: Path) -> Models:
    """Return the models of a folder in diffusers layout; only its configs are read.

    Raises:
        OSError: A config is missing or unreadable.
    """
    sketches = (folder / "sketcher" / "config.json").is_file()
    for name in ("text_encoder", "image_encoder", "transformer", "vae"):
        # Asked for a folder that is not there, transformers would ask the hub.
        if not (folder / name / "config.json").is_file():
            raise FileNotFoundError(f"{folder / name / 'config.json'}: no such file")
    with torch.device("meta"):
        return Models(
            text_encoder=UMT5EncoderModel(UMT5Config.from_pretrained(folder / "text_encoder")),
            image_encoder=CLIPVisionModel(
                CLIPVisionConfig.from_pretrained(folder / "image_encoder")
            ),
            transformer=LongVieTransformer3DModel.from_config(
                LongVieTransformer3DModel.load_config(folder / "transformer")
            ),
            vae=empty_autoencoder(folder / "vae"),
            sketcher=Sketcher.from_config(Sketcher.load_config(folder / "sketcher"))
            if sketches
            else None,
        )


def prepare_models(models: Models, sampling: Sampling) -> Models:
    """Give models on the meta device the types and the form that the loader gives real ones."""
    half = getattr(torch, sampling.dtype)
    # As transformers and diffusers do when they load: the first keeps its list under float16 only.
    _cast(models.text_encoder, half, ("wo",) if half == torch.float16 else ())
    _cast(models.transformer, half, models.transformer._keep_in_fp32_modules)
    if (kind := sampling.eight_bit_type) is not None:
        if sampling.multiplies_in_8_bits:
            # As if all layers did: which do is measured on real weights, and this needs the most.
            layers = plain_linears(models.transformer, MULTIPLIED_CHILDREN)
            multiply_in_8_bits(
                models.transformer,
                kind,
                within=MULTIPLIED_CHILDREN,
                errors={path: 0.0 for path, _, _, linear in layers if is_multiplied(linear)},
                limit=0.0,
            )
        quantize_linears(models.transformer, kind, within=QUANTIZED_CHILDREN)
    if sampling.on_cpu:
        suit_cpu(models.vae, half)
    else:
        models.vae.enable_slicing()
    return models


def trace_activations(models: Models, preset: Preset) -> Activations:
    """Return what the models' code has alive for a clip of the preset with both controls."""
    return replace(_trace_around(models, preset), denoise=_trace_denoising(models, preset))


def _trace_around(models: Models, preset: Preset) -> Activations:
    """Trace all but the transformer, whose part is 0."""
    config = models.transformer.config

    def text() -> Any:
        tokens = torch.zeros((1, config.text_tokens), dtype=torch.int64, device="meta")
        return models.text_encoder(tokens)

    def image() -> Any:
        size = models.image_encoder.config.image_size
        square = torch.empty((1, 3, size, size), device="meta", dtype=torch.float32)
        return models.image_encoder(square, output_hidden_states=True)

    def encode() -> Any:
        # The image, each control and its first frame: the most that a clip can have.
        size = (5, 3, preset.num_frames, preset.height, preset.width)
        pixels = torch.empty(size, device="meta", dtype=models.vae.dtype)
        return encode_videos(models.vae, pixels, (None, None, 1, None, 1))

    def decode() -> Any:
        latents = _latents(models, preset, models.vae.config.z_dim, preset.num_frames)
        return decode_videos(models.vae, latents.to(models.vae.dtype))

    encoded = max(peak_bytes(models.vae, encode), peak_bytes(models.image_encoder, image))
    if (sketcher := models.sketcher) is not None:
        maps = torch.empty((1, DEPTH_MAPS, preset.height, preset.width), device="meta")
        shares = torch.empty((1, sum(sketcher.config.word_classes)), device="meta")
        encoded = max(encoded, peak_bytes(sketcher, lambda: sketcher(maps, shares)))
    return Activations(
        text=peak_bytes(models.text_encoder, text),
        encode=encoded,
        denoise=0,
        decode=peak_bytes(models.vae, decode),
    )


def _trace_denoising(models: Models, preset: Preset) -> int:
    """Trace the transformer."""
    config, half = models.transformer.config, models.transformer.dtype

    def latents(num_frames: int, dtype: torch.dtype = half) -> Tensor:
        return _latents(models, preset, config.in_channels, num_frames, dtype)

    def denoise() -> Any:
        # Held in float32 over all steps: both controls, the image condition, the latents, history.
        held = [latents(preset.num_frames, torch.float32) for _ in range(3)]
        held.append(latents(preset.history_frames, torch.float32))
        images = None
        if config.image_dim is not None:
            images = torch.empty((1, _image_tokens(models), config.image_dim), device="meta")
        given = {
            "hidden_states": latents(preset.num_frames),
            "timestep": torch.empty(1, device="meta"),
            "encoder_hidden_states_image": None if images is None else images.to(half),
            "dense": latents(preset.num_frames),
            "sparse": latents(preset.num_frames),
            "history": latents(preset.history_frames),
        }
        # Under guidance, the most that is kept of a clip: two prompts, and none of them padded.
        clip = ClipContext(evaluations=2)
        size = (1, config.text_tokens, config.text_dim)
        prompts = [torch.empty(size, device="meta", dtype=half) for _ in range(clip.evaluations)]
        velocities = [
            models.transformer(**given, encoder_hidden_states=prompt, clip=clip).sample
            for prompt in prompts
        ]
        return held, given, clip, velocities

    return peak_bytes(models.transformer, denoise)


def _latents(
    models: Models,
    preset: Preset,
    channels: int,
    num_frames: int,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return what the VAE makes of that many frames, as a shape alone."""
    vae = models.vae.config
    frames = (num_frames - 1) // vae.scale_factor_temporal + 1
    rows, columns = (side // vae.scale_factor_spatial for side in (preset.height, preset.width))
    return torch.empty((1, channels, frames, rows, columns), device="meta", dtype=dtype)


def plan_memory(
    models: Models,
    activations: Activations,
    sampling: Sampling,
    *,
    keeps_text_encoder: bool = False,
) -> MemoryPlan:
    """Return the memory of one placement, phase by phase.

    The text encoder is loaded alone, reads all prompts and is gone before the rest is loaded.

    Args:
        models: As `prepare_models` returns them.
        activations: As `trace_activations` returns them.
        sampling: What `models` were prepared with, and the placement; on the CPU, whose memory is
            the host's, that is `none`.
        keeps_text_encoder: Whether the text encoder stays with the others, as it does in a
            pipeline that is given texts instead of embeddings.
    """
    on_cpu, offload = sampling.on_cpu, sampling.offload
    text_encoder = weight_bytes(models.text_encoder)
    image_encoder = weight_bytes(models.image_encoder)
    if models.sketcher is not None:
        # Used in the same phase, and where it is as long.
        image_encoder += weight_bytes(models.sketcher)
    transformer, vae = weight_bytes(models.transformer), weight_bytes(models.vae)
    kept = text_encoder if keeps_text_encoder else 0
    rest = image_encoder + transformer + vae + kept
    # Read in the type of the files before it is quantized.
    loading = max(text_encoder, rest + _unquantized_bytes(models.transformer) - transformer)
    if on_cpu:
        host = {
            "load": loading,
            "text": text_encoder + activations.text + (rest - kept if kept else 0),
            "encode": rest + activations.encode,
            "denoise": rest + activations.denoise,
            "decode": rest + activations.decode,
        }
        device = dict.fromkeys(host, 0)
    elif offload == "none":
        device = {
            "load": rest,
            "text": (rest if kept else text_encoder) + activations.text,
            "encode": rest + activations.encode,
            "denoise": rest + activations.denoise,
            "decode": rest + activations.decode,
        }
        host = {"load": loading} | dict.fromkeys(("text", "encode", "denoise", "decode"), 0)
    elif offload == "once":
        waiting = list(used_once(models.transformer, models.image_encoder))
        stays = rest - sum(map(weight_bytes, waiting))
        # One layer at a time, for the picture and in the first evaluations of a clip.
        layer = max(map(weight_bytes, waiting), default=0)
        device = {
            "load": stays,
            "text": (stays if kept else text_encoder) + activations.text,
            "encode": stays + layer + activations.encode,
            "denoise": stays + layer + activations.denoise,
            "decode": stays + activations.decode,
        }
        pinned = sum(map(pinned_bytes, waiting))
        host = {"load": max(loading, pinned), "text": text_encoder} | dict.fromkeys(
            ("encode", "denoise", "decode"), pinned
        )
    elif offload == "model":
        # A model leaves when its successor in the pipeline's order comes: the VAE, which comes
        # before the transformer, stays beside it, the image encoder does not.
        device = {
            "load": 0,
            "text": text_encoder + activations.text,
            "encode": image_encoder + vae + activations.encode,
            "denoise": transformer + vae + activations.denoise,
            "decode": vae + activations.decode,
        }
        host = {"load": loading, "text": text_encoder} | dict.fromkeys(
            ("encode", "denoise", "decode"), rest
        )
    else:
        small = image_encoder + vae
        device = {
            "load": small,
            "text": _largest_leaf_bytes(models.text_encoder) + activations.text,
            "encode": small + activations.encode,
            "denoise": small + _streamed_bytes(models.transformer) + activations.denoise,
            "decode": small + activations.decode,
        }
        pinned = pinned_bytes(models.transformer) + kept
        host = {"load": max(loading, pinned), "text": text_encoder} | dict.fromkeys(
            ("encode", "denoise", "decode"), pinned
        )
    overhead = 0 if on_cpu else CUDA_OVERHEAD_BYTES
    phases = tuple(
        Phase(name, device[name] + overhead, host[name] + PROCESS_BYTES) for name in host
    )
    return MemoryPlan(sampling.of_memory, models.components(), phases)


def plans_of_preset(preset: Preset, sampling: Sampling) -> Mapping[Offload, MemoryPlan]:
    """Return the plans of a preset's own models in every placement the device has, fastest first.

    Args:
        preset: The preset.
        sampling: Of it count the device, the type and how the blocks are stored; compiled ones
            are not streamed.

    Raises:
        OSError: Its configs are not there.
    """
    plans = _plans(preset, replace(sampling.of_memory, offload="none"))
    if sampling.compile == "none":
        return plans
    return {offload: plan for offload, plan in plans.items() if offload != "group"}


@lru_cache(maxsize=8)
def _plans(preset: Preset, sampling: Sampling) -> Mapping[Offload, MemoryPlan]:
    models = prepare_models(models_of_preset(preset), sampling)
    activations = replace(
        _around_of_preset(preset, device=sampling.device, dtype=sampling.dtype),
        denoise=_trace_denoising(models, preset),
    )
    placements: tuple[Offload, ...] = ("none",) if sampling.on_cpu else _PLACEMENTS
    return {
        offload: plan_memory(models, activations, replace(sampling, offload=offload))
        for offload in placements
    }


@lru_cache(maxsize=8)
def _around_of_preset(preset: Preset, *, device: str, dtype: str) -> Activations:
    """Trace a preset's models but for the transformer, the only one whose weights are quantized.

    Seconds of work for a large preset; where nothing fits, two kinds of weights are asked for.
    """
    plain = Sampling.of(preset, device=device, dtype=dtype)
    return _trace_around(prepare_models(models_of_preset(preset), plain), preset)


def models_of_preset(preset: Preset) -> Models:
    """Return a preset's models on the meta device.

    Raises:
        OSError: Its configs are not there.
    """
    return models_of_folder(config_folder(preset))


def config_folder(preset: Preset) -> Path:
    """Return the folder whose configs say how large the models are."""
    own = preset.weights
    return own if own is not None and is_converted(own) else preset_folder(preset.name)


def weight_bytes(model: nn.Module) -> int:
    """Return the bytes of a model's parameters and buffers, shared ones once."""
    return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(model))


def pinned_bytes(model: nn.Module) -> int:
    """Return the bytes a model takes in pinned memory.

    PyTorch's allocator of pinned memory rounds every tensor up to a power of two.
    """
    return sum(
        1 << (tensor.numel() * tensor.element_size() - 1).bit_length() for tensor in _tensors(model)
    )


def peak_bytes(model: nn.Module, work: Callable[[], Any]) -> int:
    """Return the most bytes of meta tensors alive while `work` runs, the model's own left out."""
    with torch.no_grad(), _OnePassAttention(), _LiveBytes(_tensors(model)) as live:
        work()
    return live.peak


# Shape, strides and type.
_Form = tuple[torch.Size, tuple[int, ...], torch.dtype]


def _empty(shape: torch.Size, stride: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty_strided(shape, stride, dtype=dtype, device="meta")


@cache
def _makes_anew(func: Any) -> bool:
    """Whether all that an operation returns is new: no view and nothing written in place."""
    schema = func._schema
    return not schema.is_mutable and all(each.alias_info is None for each in schema.returns)


def _signature(value: Any) -> Hashable:
    """Return what decides the shapes that an operation makes of its arguments.

    That of a tensor with numbers is like no other: what is made may depend on them.
    """
    if isinstance(value, Tensor):
        return (value.shape, value.stride(), value.dtype) if value.is_meta else object()
    if isinstance(value, dict):
        return tuple((name, _signature(part)) for name, part in value.items())
    return tuple(map(_signature, value)) if isinstance(value, list | tuple) else value


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages that operations make and that are still referenced."""

    def __init__(self, known: Iterator[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in known}
        # What an operation makes of such arguments: forty equal blocks are worked out once.
        self._made: dict[Hashable, list[_Form]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        key = _signature((func, args, given)) if _makes_anew(func) else None
        if key is not None and key in self._made:
            made: Any = [_empty(*form) for form in self._made[key]]
            made = made[0] if len(made) == 1 else tuple(made)
        else:
            made = func(*args, **given)
        outcome = made if isinstance(made, tuple | list) else [made]
        if not all(isinstance(tensor, Tensor) and tensor.is_meta for tensor in outcome):
            return made
        if key is not None:
            self._made[key] = [(t.shape, t.stride(), t.dtype) for t in outcome]
        for tensor in outcome:
            self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self._seen:
            return
        self._seen.add(storage._cdata)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())

    def _free(self, key: int, num_bytes: int) -> None:
        self._seen.discard(key)
        self.live -= num_bytes


class _OnePassAttention(TorchFunctionMode):
    """Makes attention give its result's shape at once; on meta it would make a score matrix."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is nn.functional.scaled_dot_product_attention:
            given = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
            return given["query"].new_empty((*given["query"].shape[:-1], given["value"].shape[-1]))
        return func(*args, **kwargs)


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _cast(model: nn.Module, dtype: torch.dtype, float32_parts: Collection[str]) -> None:
    for name, parameter in model.named_parameters():
        kept = any(part in float32_parts for part in name.split("."))
        parameter.data = parameter.data.to(torch.float32 if kept else dtype)


def _unquantized_bytes(transformer: LongVieTransformer3DModel) -> int:
    """Return what the transformer weighs before its linears are stored in 8 bits."""
    width = transformer.dtype.itemsize
    return sum(
        tensor.numel() * (width if tensor.element_size() == 1 else tensor.element_size())
        for tensor in transformer.parameters()
    )


def _streamed_bytes(transformer: LongVieTransformer3DModel) -> int:
    """Return what of the transformer is on the device when its blocks are streamed.

    All that lies outside its lists of blocks, the block that computes and the one after it.
    """
    blocks: list[int] = []
    around = weight_bytes(transformer)
    for child in transformer.children():
        if isinstance(child, nn.ModuleList):
            sizes = [weight_bytes(block) for block in child]
            blocks += sizes
            around -= sum(sizes)
    return around + sum(sorted(blocks)[-2:])


def _largest_leaf_bytes(model: nn.Module) -> int:
    return max(
        sum(t.numel() * t.element_size() for t in module.parameters(recurse=False))
        for module in model.modules()
    )


def _image_tokens(models: Models) -> int:
    config = models.image_encoder.config
    return (config.image_size // config.patch_size) ** 2 + 1
