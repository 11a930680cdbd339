"""LongVie 2's weights in every published format: found, loaded strictly, converted, exported.

    files = find_released_files([folder_of_wan, folder_of_longvie2])
    pipeline = load_released_pipeline(files, dtype=torch.bfloat16, device="cuda")

The base is `Wan-AI/Wan2.1-I2V-14B-480P` (original names, `.pth` encoders) or
`Wan-AI/Wan2.1-I2V-14B-480P-Diffusers`; `Vchitect/LongVie2` adds `control.safetensors` and
`dit.safetensors`, the self-attention that replaces the base's (spec 2). Our own layout is that of
diffusers, with both laid in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedTokenizerBase,
    UMT5Config,
    UMT5EncoderModel,
)

from longvie_cli.errors import MissingResourceError
from longvie_cli.hub.installed import locate_weights
from longvie_cli.models.longvie import LongVieTransformer3DModel
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.models.weights.files import (
    FETCH_HINT,
    TensorFiles,
    find_shards,
)
from longvie_cli.models.weights.names import (
    CONTROL_NAMES,
    DIT_NAMES,
    IMAGE_ENCODER_NAMES,
    TEXT_ENCODER_NAMES,
    NameMap,
    SameNames,
    diffusers_transformer_names,
    transformers_image_encoder_names,
    transformers_text_encoder_names,
    vae_names,
)
from longvie_cli.models.weights.plan import (
    WeightPlan,
    fill_module,
    plan_weights,
    without_weights,
)
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.settings.presets import Preset, preset_folder

DIFFUSERS_STEM = "diffusion_pytorch_model"

# Component: the stem of its safetensors files in a diffusers folder, the file of the original
# repository (spec 2.4), and what it is called.
COMPONENTS: dict[str, tuple[str, str | None, str]] = {
    "text_encoder": ("model", "models_t5_umt5-xxl-enc-bf16.pth", "text encoder weights"),
    "image_encoder": (
        "model",
        "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
        "image encoder weights",
    ),
    "vae": (DIFFUSERS_STEM, "Wan2.1_VAE.pth", "VAE weights"),
    "transformer": (DIFFUSERS_STEM, None, "base transformer weights"),
}
_ORIGINAL_TOKENIZER = "google/umt5-xxl"

Plans = dict[str, list[WeightPlan]]


def _longvie2_configs() -> Path:
    return preset_folder("longvie2")


@dataclass(frozen=True)
class ReleasedFiles:
    """Where the published files of one model lie.

    Args:
        base: Folder of the Wan base, original or diffusers repository.
        control: `control.safetensors` of LongVie2.
        attention: `dit.safetensors` of LongVie2.
        configs: Folder of the component configs in diffusers layout, which say the sizes.
    """

    base: Path
    control: Path
    attention: Path
    configs: Path = field(default_factory=_longvie2_configs)


def find_released_files(
    folders: Path | Sequence[Path], *, configs: Path | None = None
) -> ReleasedFiles:
    """Return the published files found in some folders and in the folders directly below them.

    Of several files that would do, the first is taken, in the order of `folders`.

    Raises:
        MissingResourceError: files are missing; the message lists each one.
    """
    given = [folders] if isinstance(folders, Path) else list(folders)
    places = [place for folder in given for place in (folder, *_subfolders(folder))]
    missing = []
    base = next((place for place in places if _is_base(place)), None)
    if base is None:
        missing.append("the Wan base (Wan2.1-I2V-14B-480P, either repository)")
    else:
        missing += base_sources(base)[2]
    found = {
        name: next((place / name for place in places if (place / name).is_file()), None)
        for name in ("control.safetensors", "dit.safetensors")
    }
    missing += [f"{name} (LongVie2)" for name, path in found.items() if path is None]
    control, attention = found["control.safetensors"], found["dit.safetensors"]
    if missing or base is None or control is None or attention is None:
        raise MissingResourceError(
            f"{', '.join(map(str, given))}: missing {'; '.join(missing)}.", hint=FETCH_HINT
        )
    return ReleasedFiles(base, control, attention, configs or _longvie2_configs())


def is_converted(folder: Path) -> bool:
    """Return whether a folder holds a `LongViePipeline` in diffusers layout."""
    try:
        index = json.loads((folder / "model_index.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(index, dict) and index.get("_class_name") == LongViePipeline.__name__


def load_released_pipeline(
    files: ReleasedFiles,
    *,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
    text_encoder: bool = True,
    progress: Progress | None = None,
) -> LongViePipeline:
    """Return the pipeline of the published files, on the device, in evaluation mode.

    All files are checked before the first tensor is read. Host memory then holds what is loaded so
    far and one shard.

    Args:
        files: As `find_released_files` returns them.
        dtype: Of transformer and text encoder, but for the parameters that `parameter_dtype`
            keeps in float32. VAE and image encoder are float32.
        device: Where the models are put.
        text_encoder: False leaves text encoder and tokenizer out.
        progress: Receives one unit a tensor, stage `weights`.

    Raises:
        MissingResourceError: a file is missing, damaged or of another model.
    """
    modules = empty_modules(files.configs, _parts(text_encoder=text_encoder))
    tokenizer, plans = plan_released(files, modules)
    return _assemble(files.configs, modules, tokenizer, plans, dtype, device, progress)


def load_converted_pipeline(
    folder: Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
    text_encoder: bool = True,
    progress: Progress | None = None,
) -> LongViePipeline:
    """Return the pipeline of a folder in our layout; as strict as `load_released_pipeline`.

    `LongViePipeline.from_pretrained(folder)` reads the same folder, but fills what is missing with
    random values.

    Raises:
        MissingResourceError: a file is missing, damaged or of another model.
    """
    modules = empty_modules(folder, _parts(text_encoder=text_encoder))
    tokenizer, plans = _plan_converted(folder, modules)
    return _assemble(folder, modules, tokenizer, plans, dtype, device, progress)


def load_text_encoder(
    source: ReleasedFiles | Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
) -> tuple[PreTrainedTokenizerBase, UMT5EncoderModel]:
    """Return tokenizer and text encoder alone, of published files or of a folder in our layout.

    Raises:
        MissingResourceError: a file is missing, damaged or of another model.
    """
    part = ("text_encoder",)
    if isinstance(source, ReleasedFiles):
        modules = empty_modules(source.configs, part)
        tokenizer, plans = plan_released(source, modules)
    else:
        modules = empty_modules(source, part)
        tokenizer, plans = _plan_converted(source, modules)
    _fill(modules, plans, dtype, device, None)
    assert tokenizer is not None
    return tokenizer, modules["text_encoder"]


def load_released_transformer(
    transformer: LongVieTransformer3DModel,
    base: Mapping[str, Tensor],
    control: Mapping[str, Tensor],
    attention: Mapping[str, Tensor],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> None:
    """Fill a transformer from the tensors of base, control and self-attention files.

    Args:
        transformer: Filled in place.
        base: The whole Wan DiT, names of the original or of the diffusers repository. Its
            self-attention is checked but never copied.
        control: `control.safetensors`, with or without wrapper prefixes.
        attention: `dit.safetensors`, likewise: the self-attention of every block.
        dtype: As in `load_released_pipeline`.
        device: Where the parameters are put.

    Raises:
        MissingResourceError: a tensor is missing, unknown or of another shape.
    """
    plans = _plan_transformer(transformer, base, control, attention)
    fill_module(transformer, plans, dtype=dtype, device=device)


def load_released_vae(vae: AutoencoderKLWan, released: Mapping[str, Tensor]) -> None:
    """Fill the VAE, in float32, from a file of the public Wan 2.1 checkpoint's names.

    Raises:
        MissingResourceError: a tensor is missing, unknown or of another shape.
    """
    plan = _plan_component("vae", vae, released, is_original=True)
    fill_module(vae, [plan], dtype=torch.float32, device="cpu")


# Finding


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _is_original(folder: Path) -> bool:
    return bool(find_shards(folder, DIFFUSERS_STEM)[0])


def _is_base(folder: Path) -> bool:
    if (folder / "model_index.json").is_file() or (folder / "transformer").is_dir():
        return not is_converted(folder)
    return _is_original(folder)


def base_sources(base: Path) -> tuple[dict[str, list[Path]], Path, list[str]]:
    """Return the weight files of each component, the tokenizer's folder, and what is missing."""
    original = _is_original(base)
    sources: dict[str, list[Path]] = {}
    missing: list[str] = []
    for name, (stem, archive, _) in COMPONENTS.items():
        if original and archive is not None:
            sources[name] = [base / archive]
            absent = [path for path in sources[name] if not path.is_file()]
        else:
            sources[name], absent = find_shards(base if original else base / name, stem)
            if not sources[name]:
                absent = [base / name / f"{stem}.safetensors"]
        missing += [str(path.relative_to(base)) for path in absent]
    tokenizer = base / (_ORIGINAL_TOKENIZER if original else "tokenizer")
    if not (tokenizer / "tokenizer_config.json").is_file():
        missing.append(f"{tokenizer.relative_to(base)}/tokenizer_config.json")
    return sources, tokenizer, missing


# Planning: which tensor goes where, all checked before anything is read


def _parts(*, text_encoder: bool) -> tuple[str, ...]:
    return tuple(name for name in COMPONENTS if text_encoder or name != "text_encoder")


def empty_modules(configs: Path, parts: Sequence[str] = tuple(COMPONENTS)) -> dict[str, nn.Module]:
    """Return components that have weights, without memory for them, as `configs` says."""
    makers: dict[str, Callable[[], nn.Module]] = {
        "text_encoder": lambda: UMT5EncoderModel(
            UMT5Config.from_pretrained(configs / "text_encoder", local_files_only=True)
        ),
        "image_encoder": lambda: CLIPVisionModel(
            CLIPVisionConfig.from_pretrained(configs / "image_encoder", local_files_only=True)
        ),
        "vae": lambda: AutoencoderKLWan.from_config(
            AutoencoderKLWan.load_config(configs / "vae", local_files_only=True)
        ),
        "transformer": lambda: empty_transformer(configs),
    }
    with _config_errors(configs), without_weights():
        return {name: makers[name]() for name in parts}


def empty_transformer(configs: Path) -> LongVieTransformer3DModel:
    kind = LongVieTransformer3DModel
    with _config_errors(configs), without_weights():
        return kind.from_config(kind.load_config(configs / "transformer", local_files_only=True))


@contextmanager
def _config_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise MissingResourceError(
            f"{folder}: its configs are missing or damaged ({error}).", hint=FETCH_HINT
        ) from error


def plan_released(
    files: ReleasedFiles, modules: Mapping[str, nn.Module]
) -> tuple[PreTrainedTokenizerBase | None, Plans]:
    sources, tokenizer_folder, missing = base_sources(files.base)
    if missing:
        raise MissingResourceError(f"{files.base}: missing {'; '.join(missing)}.", hint=FETCH_HINT)
    original = _is_original(files.base)
    plans: Plans = {}
    for name, module in modules.items():
        tensors = TensorFiles(sources[name])
        if name == "transformer":
            plans[name] = _plan_transformer(
                module, tensors, TensorFiles([files.control]), TensorFiles([files.attention])
            )
        else:
            plans[name] = [_plan_component(name, module, tensors, is_original=original)]
    return _tokenizer_of(modules, tokenizer_folder), plans


def _plan_converted(
    folder: Path, modules: Mapping[str, nn.Module]
) -> tuple[PreTrainedTokenizerBase | None, Plans]:
    plans = {name: plan_same(folder, name, module) for name, module in modules.items()}
    return _tokenizer_of(modules, folder / "tokenizer"), plans


def _tokenizer_of(modules: Mapping[str, nn.Module], folder: Path) -> PreTrainedTokenizerBase | None:
    """Return the tokenizer in a folder where the text encoder it belongs to is wanted."""
    text_encoder = modules.get("text_encoder")
    return None if text_encoder is None else _load_tokenizer(folder, text_encoder.config)


def plan_same(folder: Path, name: str, module: nn.Module) -> list[WeightPlan]:
    """Return how a component's own folder fills it."""
    paths, absent = find_shards(folder / name, COMPONENTS[name][0])
    if absent or not paths:
        missing = absent or [folder / name / f"{COMPONENTS[name][0]}.safetensors"]
        raise MissingResourceError(
            f"{folder}: missing {'; '.join(str(path.relative_to(folder)) for path in missing)}.",
            hint=FETCH_HINT,
        )
    tensors = TensorFiles(paths)
    if name == "transformer":
        shapes = shapes_of(module)
        return [plan_weights(tensors, SameNames(shapes), shapes, "transformer weights")]
    return [_plan_component(name, module, tensors, is_original=False)]


def _plan_component(
    name: str, module: nn.Module, tensors: Mapping[str, Tensor], *, is_original: bool
) -> WeightPlan:
    """Return how a file of the base fills the VAE or one of the encoders."""
    shapes = shapes_of(module)
    names: NameMap
    if name == "vae":
        config: Any = module.config
        original = vae_names(len(config.dim_mult), config.num_res_blocks)
        names = original if is_original else SameNames(shapes)
    elif name == "text_encoder":
        names = TEXT_ENCODER_NAMES if is_original else transformers_text_encoder_names(shapes)
    else:
        names = IMAGE_ENCODER_NAMES if is_original else transformers_image_encoder_names(shapes)
    return plan_weights(tensors, names, shapes, COMPONENTS[name][2])


def _plan_transformer(
    transformer: nn.Module,
    base: Mapping[str, Tensor],
    control: Mapping[str, Tensor],
    attention: Mapping[str, Tensor],
) -> list[WeightPlan]:
    shapes = shapes_of(transformer)
    own_base = {name: shape for name, shape in shapes.items() if DIT_NAMES.owns(name)}
    own_control = {name: shape for name, shape in shapes.items() if name not in own_base}
    overlaid = {name: shape for name, shape in own_base.items() if is_self_attention(name)}
    is_diffusers = any(".attn1." in name for name in base)
    names = diffusers_transformer_names(own_base) if is_diffusers else DIT_NAMES
    return [
        plan_weights(base, names, own_base, COMPONENTS["transformer"][2]).without(
            is_self_attention
        ),
        plan_weights(control, CONTROL_NAMES, own_control, "control weights"),
        plan_weights(attention, DIT_NAMES, overlaid, "self-attention weights"),
    ]


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return our names and shapes of all that must come from files."""
    tied = getattr(module, "_tied_weights_keys", None) or {}
    return {
        name: tuple(value.shape) for name, value in module.state_dict().items() if name not in tied
    }


def is_self_attention(name: str) -> bool:
    """Return whether one of our names belongs to the overlay: a main block's self-attention."""
    return name.startswith("blocks.") and ".attn1." in name


# Reading and writing


def _assemble(
    configs: Path,
    modules: dict[str, nn.Module],
    tokenizer: PreTrainedTokenizerBase | None,
    plans: Plans,
    dtype: torch.dtype,
    device: torch.device | str,
    progress: Progress | None,
) -> LongViePipeline:
    """Return the pipeline of the modules, filled as planned."""
    with _config_errors(configs):
        index = LongViePipeline.load_config(configs, local_files_only=True)
        scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(
            configs, subfolder="scheduler", local_files_only=True
        )
    _fill(modules, plans, dtype, device, progress)
    filled: dict[str, Any] = {"text_encoder": None} | modules
    return LongViePipeline(
        tokenizer=tokenizer,
        scheduler=scheduler,
        timestep_dtype=index.get("timestep_dtype", "float32"),
        **filled,
    )


def _fill(
    modules: Mapping[str, nn.Module],
    plans: Plans,
    dtype: torch.dtype,
    device: torch.device | str,
    progress: Progress | None,
) -> None:
    step = progress_steps(progress, "weights", plans)
    for name, module in modules.items():
        # VAE and image encoder take little time, and the VAE's rounding would be handed from clip
        # to clip.
        kept = torch.float32 if name in ("vae", "image_encoder") else dtype
        fill_module(module, plans[name], dtype=kept, device=device, on_tensor=step)
    if progress is not None:
        progress.finish("weights")


def progress_steps(progress: Progress | None, stage: str, plans: Plans) -> Callable[[str], None]:
    receiver = progress or SilentProgress()
    total = sum(len(plan.copies) for component in plans.values() for plan in component)
    receiver.start(stage, total)
    return lambda _name: receiver.advance(stage)


def _load_tokenizer(folder: Path, config: Any) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise MissingResourceError(
            f"{folder}: holds no complete tokenizer ({error}).", hint=FETCH_HINT
        ) from error
    known = config.vocab_size
    if len(tokenizer) > known:
        raise MissingResourceError(
            f"{folder}: {len(tokenizer)} tokens, but the text encoder knows {known}.",
            hint="These files belong to different models. " + FETCH_HINT,
        )
    return tokenizer


def transformer_of(preset: Preset) -> LongVieTransformer3DModel:
    """Return a preset's transformer without memory for its weights, which need not be here."""
    try:
        source = find_weights(preset)
    except MissingResourceError:
        if preset.weights is not None:
            raise
        return empty_transformer(preset_folder(preset.name))
    return empty_transformer(source.configs if isinstance(source, ReleasedFiles) else source)


def find_weights(preset: Preset, weights: Path | None = None) -> Path | ReleasedFiles:
    """Return a folder in our layout, or where the preset's published files are.

    Args:
        preset: Its own `weights` count where the next is not given.
        weights: As for `load_pipeline`.

    Raises:
        MissingResourceError: they have not been fetched, or are not in the folder named.
    """
    if weights is None and not preset.models and preset.weights is None:
        return preset_folder(preset.name)
    folders = locate_weights(preset) if weights is None else [weights]
    # An embedded preset has no published files: its folder is one of ours or wrong.
    if len(folders) == 1 and (is_converted(folders[0]) or not preset.models):
        return folders[0]
    return find_released_files(folders, configs=preset_folder(preset.name))
