"""Where a stage starts: found and checked first, loaded later.

A checkpoint holds what its stage trained and no more. So the start of a later stage is a folder of
weights with the averaged weights of every stage since laid over it, in the order they were trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from longvie_cli.engine.loader import give_numbers_of, without_progress_bars
from longvie_cli.errors import InputError, SettingsError
from longvie_cli.kernels.causal_conv3d import use_stacked_causal_convolutions
from longvie_cli.models.longvie import LongVieTransformer3DModel
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.models.weights.components import plan_components
from longvie_cli.models.weights.load import load_weights
from longvie_cli.models.weights.sources import (
    ReleasedFiles,
    find_released_files,
    find_weights,
    is_converted,
)
from longvie_cli.progress import Progress
from longvie_cli.settings.presets import (
    PRESET_NAMES,
    Preset,
    load_preset,
    preset_folder,
    read_preset,
)
from longvie_cli.settings.training import Stage
from longvie_cli.settings.training_config import FROM_NOTHING, TrainingConfig, place_named
from longvie_cli.training.checkpoints import checkpoint_step, finished_checkpoints
from longvie_cli.training.loop import load_average
from longvie_cli.training.run_record import Origin, read_record
from longvie_cli.training.stages import check_halves, start_branches, trained_names

_FROM_PRESET = "preset"


@dataclass(frozen=True)
class Start:
    """What a stage starts from.

    Args:
        preset: Its numbers.
        source: Where weights and configs of all components lie.
        origin: What the run folder says of it.
        sizes: Config of the transformer.
        trained: Parameters of it that the stage trains.
        parameters: All of the transformer.
        others: Parameters of autoencoder and encoders.
    """

    preset: Preset
    source: Path | ReleasedFiles
    origin: Origin
    sizes: Mapping[str, Any]
    trained: int
    parameters: int
    others: int

    def memory_bytes(self, num_parts: int = 1) -> int:
        """Return what training holds in each process, activations not counted.

        Everything in float32; of what is trained also its gradient, AdamW's two moments and the
        average.

        Args:
            num_parts: Processes that the transformer is cut over.
        """
        return 4 * ((self.parameters + 4 * self.trained) // num_parts + self.others)

    @property
    def checkpoint_bytes(self) -> int:
        """The size of a checkpoint: weights, two moments and the average of what is trained."""
        return 4 * 4 * self.trained


def find_preset(config: TrainingConfig, file: Path) -> Preset:
    """Return the preset that a training file names: one of ours, or that of a folder.

    Raises:
        SettingsError: There is none.
    """
    if config.preset in PRESET_NAMES:
        return load_preset(config.preset)
    folder = place_named(file, "preset", config.preset)
    if not (folder / "preset.json").is_file():
        raise SettingsError(
            f"{file.name}: preset: {config.preset}: there is no such preset, and no folder with a "
            "preset.json.",
            hint=f"Use {', '.join(PRESET_NAMES)}, or such a folder.",
        )
    preset = read_preset(folder / "preset.json", folder.name)
    # One that only changes numbers has the weights of its name.
    has_weights = (folder / "model_index.json").is_file()
    return preset.model_copy(update={"weights": folder}) if has_weights else preset


def find_origin(config: TrainingConfig, file: Path, stage: Stage) -> Origin:
    """Return where a run of this file starts, an earlier run's newest checkpoint included.

    Raises:
        SettingsError: `start_from` is not possible in this stage, or leads out of the folder.
        InputError: It names a run that has no checkpoint yet, or a folder that is not there.
    """
    if config.start_from is None:
        return Origin(weights=_FROM_PRESET, seed=config.seed)
    if config.start_from == FROM_NOTHING:
        if stage != "base":
            raise SettingsError(
                f"{file.name}: start_from: {FROM_NOTHING}: stage {stage} needs a trained base.",
                hint="Name the run folder of stage base, or leave it out for the preset's weights.",
            )
        return Origin(weights=FROM_NOTHING, seed=config.seed)
    place = place_named(file, "start_from", config.start_from)
    where = f"{file.name}: start_from: {config.start_from}"
    if not place.is_dir():
        raise InputError(f"{where}: there is no such folder.")
    run, checkpoint = place, None
    if checkpoint_step(place) is not None:
        run, checkpoint = place.absolute().parent.parent, place.absolute()
    record = read_record(run)
    if record is None:
        return Origin(weights=str(place.absolute()), seed=config.seed)
    if checkpoint is None:
        found = finished_checkpoints(run.absolute() / "checkpoints")
        if not found:
            raise InputError(
                f"{where}: this run of stage {record.stage} has no checkpoint yet.",
                hint="Let it train first.",
            )
        checkpoint = found[-1]
    earlier = record.origin
    return earlier.model_copy(update={"checkpoints": (*earlier.checkpoints, checkpoint)})


def find_start(
    preset: Preset, origin: Origin, stage: Stage, *, config: TrainingConfig, file: Path
) -> Start:
    """Return what a run starts from; every tensor's name and shape is checked, none is read.

    Raises:
        MissingResourceError: Weights are missing, damaged or of another model.
        InputError: A checkpoint is gone, or the start has no control branches and the stage needs
            them, or they cannot be half copies of the base.
    """
    for checkpoint in origin.checkpoints:
        if not checkpoint.is_dir():
            raise InputError(
                f"{checkpoint}: this checkpoint, which the run starts from, is gone.",
                hint="Start from the `preset` folder of a finished run instead.",
            )
    if origin.weights in (_FROM_PRESET, FROM_NOTHING):
        source = find_weights(preset)
    else:
        source = _weights_in(Path(origin.weights), preset)
    components = plan_components(source)
    transformer = components.modules["transformer"]
    assert isinstance(transformer, LongVieTransformer3DModel)
    if transformer.config.text_tokens != preset.max_text_tokens:
        raise InputError(
            f"{file.name}: the model to start from reads {transformer.config.text_tokens} text "
            f"tokens, preset {preset.name} says {preset.max_text_tokens}.",
            hint="Name the preset it belongs to.",
        )
    if stage in ("degradation", "history") and not _has_branches(source, origin):
        raise InputError(
            f"{file.name}: start_from: stage {stage} trains control branches, and there are none.",
            hint="Train stage control first and name its run folder.",
        )
    if stage == "control" and config.branches == "half_copy":
        check_halves(transformer)
    counts = {name: value.numel() for name, value in transformer.named_parameters()}
    return Start(
        preset,
        source,
        origin,
        dict(transformer.config),
        trained=sum(counts[name] for name in trained_names(transformer, stage)),
        parameters=sum(counts.values()),
        others=sum(
            parameter.numel()
            for name, module in components.modules.items()
            if name != "transformer"
            for parameter in module.parameters()
        ),
    )


def load_start(
    start: Start,
    stage: Stage,
    *,
    config: TrainingConfig,
    device: str,
    progress: Progress | None = None,
) -> LongViePipeline:
    """Return the pipeline that a stage begins with, its transformer in float32.

    Args:
        start: As `find_start` returns it.
        stage: What is trained.
        config: Of the run. What it shards stays in host memory until it is cut.
        device: Where the models are put.
        progress: Told of the stage `weights`.

    Raises:
        InputError: A checkpoint is damaged or of another model, or control branches add nothing.
    """
    place = "cpu" if config.sharded else device
    with without_progress_bars():
        pipeline = load_weights(start.source, dtype=torch.float32, device=place, progress=progress)
    give_numbers_of(start.preset, pipeline)
    if torch.device(device).type == "cpu":
        use_stacked_causal_convolutions(pipeline.vae)
    else:
        # As at inference; of it nothing is trained.
        pipeline.text_encoder.to(device, torch.bfloat16)
        for module in (pipeline.vae, pipeline.image_encoder):
            module.to(device)
    if start.origin.weights == FROM_NOTHING:
        pipeline.register_modules(
            transformer=_random_transformer(start.sizes, start.origin.seed).to(place)
        )
    for checkpoint in start.origin.checkpoints:
        load_average(pipeline.transformer, checkpoint)
    if stage == "control":
        start_branches(pipeline.transformer, config.branches, seed=config.seed)
    elif stage in ("degradation", "history") and not any(
        bool(linear.weight.any()) for linear in pipeline.transformer.control_proj_out
    ):
        raise InputError(
            f"{start.source}: its control branches add nothing yet, as before stage control.",
            hint="Train stage control first and name its run folder at start_from.",
        )
    return pipeline


def _weights_in(folder: Path, preset: Preset) -> Path | ReleasedFiles:
    if not folder.is_dir():
        raise InputError(f"{folder}: the weights that the run starts from are gone.")
    if is_converted(folder):
        return folder
    own = preset.weights
    has_configs = own is not None and (own / "transformer" / "config.json").is_file()
    configs = own if has_configs else preset_folder(preset.name)
    return find_released_files(folder, configs=configs, base_will_do=True)


def _has_branches(source: Path | ReleasedFiles, origin: Origin) -> bool:
    records = [read_record(checkpoint.parent.parent) for checkpoint in origin.checkpoints]
    if any(record is not None and record.stage != "base" for record in records):
        return True
    if origin.weights == FROM_NOTHING:
        return False
    return not isinstance(source, ReleasedFiles) or source.control is not None


def _random_transformer(sizes: Mapping[str, Any], seed: int) -> LongVieTransformer3DModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer: LongVieTransformer3DModel = LongVieTransformer3DModel.from_config(dict(sizes))
    return transformer
