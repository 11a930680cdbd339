"""The models of a pipeline without memory, and which tensor of which file fills each parameter.

All of it is checked before the first tensor is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from longvie_cli.models.autoencoders import empty_autoencoder
from longvie_cli.models.longvie import LongVieTransformer3DModel
from longvie_cli.models.sketcher import Sketcher
from longvie_cli.models.weights.files import FETCH_HINT, TensorFiles, find_shards
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
from longvie_cli.models.weights.plan import WeightPlan, plan_weights, without_weights
from longvie_cli.models.weights.sources import (
    COMPONENTS,
    ReleasedFiles,
    base_files,
    component_files,
    components_of,
    find_weights,
)
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.settings.presets import Preset, preset_folder


@dataclass(frozen=True)
class Components:
    """Models that take no memory yet, and how files fill them.

    Args:
        configs: Folder of their configs.
        modules: By name.
        plans: Of each module; together they fill it.
        tokenizer: Of the text encoder; None where that is not among them.
    """

    configs: Path
    modules: Mapping[str, nn.Module]
    plans: Mapping[str, list[WeightPlan]]
    tokenizer: PreTrainedTokenizerBase | None

    def steps(self, progress: Progress | None, stage: str) -> Callable[[str], None]:
        """Begin a stage of one unit a tensor; return what is to be called after each."""
        receiver = progress or SilentProgress()
        receiver.start(stage, sum(len(p.copies) for plans in self.plans.values() for p in plans))
        return lambda _name: receiver.advance(stage)


def plan_components(source: ReleasedFiles | Path, parts: Sequence[str] | None = None) -> Components:
    """Return components of published files or of a folder in our layout, planned; all where None.

    Raises:
        MissingResourceError: a file is missing, damaged or of another model.
    """
    configs = source.configs if isinstance(source, ReleasedFiles) else source
    modules = empty_modules(configs, parts or components_of(source))
    if isinstance(source, ReleasedFiles):
        plans, tokenizer = _plan_released(source, modules)
    else:
        plans = {name: plan_converted(source, name, module) for name, module in modules.items()}
        tokenizer = source / "tokenizer"
    text_encoder = modules.get("text_encoder")
    return Components(
        configs,
        modules,
        plans,
        None if text_encoder is None else _load_tokenizer(tokenizer, text_encoder.config),
    )


def empty_modules(configs: Path, parts: Sequence[str] | None = None) -> dict[str, nn.Module]:
    """Return components that have weights, without memory for them, as `configs` says."""
    makers: dict[str, Callable[[], nn.Module]] = {
        "text_encoder": lambda: UMT5EncoderModel(
            UMT5Config.from_pretrained(configs / "text_encoder", local_files_only=True)
        ),
        "image_encoder": lambda: CLIPVisionModel(
            CLIPVisionConfig.from_pretrained(configs / "image_encoder", local_files_only=True)
        ),
        "vae": lambda: empty_autoencoder(configs / "vae"),
        "transformer": lambda: empty_transformer(configs),
        "sketcher": lambda: Sketcher.from_config(
            Sketcher.load_config(configs / "sketcher", local_files_only=True)
        ),
    }
    with config_errors(configs), without_weights():
        return {name: makers[name]() for name in parts or components_of(configs)}


def empty_transformer(configs: Path) -> LongVieTransformer3DModel:
    kind = LongVieTransformer3DModel
    with config_errors(configs), without_weights():
        return kind.from_config(kind.load_config(configs / "transformer", local_files_only=True))


def transformer_of(preset: Preset) -> LongVieTransformer3DModel:
    """Return a preset's transformer without memory for its weights, which need not be here.

    Raises:
        MissingResourceError: `--weights` names a folder that holds none.
    """
    try:
        source = find_weights(preset)
    except MissingResourceError:
        if preset.weights is not None:
            raise
        return empty_transformer(preset_folder(preset.name))
    return empty_transformer(source.configs if isinstance(source, ReleasedFiles) else source)


@contextmanager
def config_errors(folder: Path) -> Iterator[None]:
    """Turn what reading configs raises into an error that names their folder."""
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise MissingResourceError(
            f"{folder}: its configs are missing or damaged ({error}).", hint=FETCH_HINT
        ) from error


def _plan_released(
    files: ReleasedFiles, modules: Mapping[str, nn.Module]
) -> tuple[dict[str, list[WeightPlan]], Path]:
    """Return how published files fill each module, and the tokenizer's folder."""
    base = base_files(files.base)
    if base.missing:
        raise MissingResourceError(
            f"{files.base}: missing {'; '.join(base.missing)}.", hint=FETCH_HINT
        )
    plans: dict[str, list[WeightPlan]] = {}
    for name, module in modules.items():
        tensors = TensorFiles(base.weights[name])
        if name == "transformer":
            plans[name] = plan_transformer(
                module,
                tensors,
                None if files.control is None else TensorFiles([files.control]),
                None if files.attention is None else TensorFiles([files.attention]),
            )
        else:
            plans[name] = [plan_component(name, module, tensors, is_original=base.is_original)]
    return plans, base.tokenizer


def plan_converted(folder: Path, name: str, module: nn.Module) -> list[WeightPlan]:
    """Return how a component's own folder fills it."""
    paths, absent = find_shards(folder / name, component_files(name).stem)
    if absent or not paths:
        missing = absent or [folder / name / f"{component_files(name).stem}.safetensors"]
        raise MissingResourceError(
            f"{folder}: missing {'; '.join(str(path.relative_to(folder)) for path in missing)}.",
            hint=FETCH_HINT,
        )
    tensors = TensorFiles(paths)
    if name == "transformer":
        shapes = shapes_of(module)
        return [plan_weights(tensors, SameNames(shapes), shapes, "transformer weights")]
    return [plan_component(name, module, tensors, is_original=False)]


def plan_component(
    name: str, module: nn.Module, tensors: Mapping[str, Tensor], *, is_original: bool
) -> WeightPlan:
    """Return how a file of the base fills the VAE or one of the encoders."""
    shapes = shapes_of(module)
    names: NameMap
    if name == "sketcher":
        names = SameNames(shapes)
    elif name == "vae":
        config: Any = module.config
        names = SameNames(shapes)
        if is_original:
            names = vae_names(len(config.dim_mult), config.num_res_blocks)
    elif name == "text_encoder":
        names = TEXT_ENCODER_NAMES if is_original else transformers_text_encoder_names(shapes)
    else:
        names = IMAGE_ENCODER_NAMES if is_original else transformers_image_encoder_names(shapes)
    return plan_weights(tensors, names, shapes, component_files(name).what)


def plan_transformer(
    transformer: nn.Module,
    base: Mapping[str, Tensor],
    control: Mapping[str, Tensor] | None,
    attention: Mapping[str, Tensor] | None,
) -> list[WeightPlan]:
    """Return how base, control and self-attention files fill a transformer; the base alone without.

    Raises:
        MissingResourceError: a tensor is missing, unknown or of another shape.
    """
    shapes = shapes_of(transformer)
    own_base = {name: shape for name, shape in shapes.items() if DIT_NAMES.owns(name)}
    own_control = {name: shape for name, shape in shapes.items() if name not in own_base}
    overlaid = {name: shape for name, shape in own_base.items() if is_self_attention(name)}
    is_diffusers = any(".attn1." in name for name in base)
    names = diffusers_transformer_names(own_base) if is_diffusers else DIT_NAMES
    base_plan = plan_weights(base, names, own_base, COMPONENTS["transformer"].what)
    if control is None or attention is None:
        return [base_plan]
    return [
        base_plan.without(is_self_attention),
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
