"""What a stage trained, out to the released files and back through the strict loader."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_run import train

from longvie_cli.errors import MissingResourceError, OutputConflictError
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.models.weights.load import load_weights
from longvie_cli.models.weights.names import DIT_NAMES
from longvie_cli.models.weights.sources import find_released_files
from longvie_cli.training.checkpoints import finished_checkpoints
from longvie_cli.training.export import export_trained, load_trained
from longvie_cli.training.loop import load_average
from released_checkpoints import random_pipeline, write_configs, write_original_base


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[LongViePipeline, Path]:
    """A pipeline after a run of stage `history`, its averaged weights in it, and its files."""
    folder = tmp_path_factory.mktemp("exported")
    pipeline = random_pipeline()
    train(folder / "run", steps=3, pipeline=pipeline)
    load_average(pipeline.transformer, finished_checkpoints(folder / "run" / "checkpoints")[-1])
    export_trained(pipeline.transformer, folder / "LongVie2", dtype=torch.float32)
    return pipeline, folder


def test_exported_files_load_strictly_beside_the_base(
    trained: tuple[LongViePipeline, Path],
) -> None:
    pipeline, folder = trained
    configs = write_configs(pipeline, folder / "configs")
    # This base has another self-attention; the exported one must stand in its place.
    write_original_base(pipeline, folder / "Wan2.1-I2V-14B-480P")
    files = find_released_files(folder, configs=configs)
    assert files.control == folder / "LongVie2" / "control.safetensors"
    loaded = load_weights(files, dtype=torch.float32).transformer.state_dict()
    for name, value in pipeline.transformer.state_dict().items():
        assert torch.equal(loaded[name], value), name


def test_exported_files_are_bfloat16_and_hold_nothing_else(
    trained: tuple[LongViePipeline, Path], tmp_path: Path
) -> None:
    pipeline, _ = trained
    export_trained(pipeline.transformer, tmp_path)
    control = load_file(tmp_path / "control.safetensors")
    attention = load_file(tmp_path / "dit.safetensors")
    assert {value.dtype for value in (*control.values(), *attention.values())} == {torch.bfloat16}
    # Ten a block: two norms, and weight and bias of four linears.
    assert len(attention) == 10 * pipeline.transformer.config.num_layers
    own = pipeline.transformer.state_dict()
    assert len(control) == len(own) - sum(DIT_NAMES.owns(name) for name in own)
    with pytest.raises(OutputConflictError, match="exists already"):
        export_trained(pipeline.transformer, tmp_path)


def test_the_next_stage_goes_on_from_them(trained: tuple[LongViePipeline, Path]) -> None:
    pipeline, folder = trained
    other = random_pipeline()
    load_trained(other.transformer, folder / "LongVie2")
    for name, value in other.transformer.state_dict().items():
        assert torch.equal(value, pipeline.transformer.state_dict()[name]), name
    with pytest.raises(MissingResourceError, match="control weights"):
        load_trained(random_pipeline(control_ffn_dim=24).transformer, folder / "LongVie2")
    (folder / "half").mkdir()
    (folder / "half" / "control.safetensors").write_bytes(
        (folder / "LongVie2" / "control.safetensors").read_bytes()
    )
    with pytest.raises(MissingResourceError, match=r"dit\.safetensors"):
        load_trained(other.transformer, folder / "half")
