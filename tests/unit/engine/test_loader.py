"""Loading a preset's folder, and the words for devices and types."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from longvie_cli.engine.loader import load_pipeline
from longvie_cli.engine.placement import resolve_device, resolve_dtype
from longvie_cli.errors import MissingResourceError, UsageError
from longvie_cli.kernels.causal_conv3d import StackedCausalConv3d
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.settings.presets import Preset, TrackGrid
from small_models import small_pipeline


def small_preset(*, max_text_tokens: int = 20) -> Preset:
    return Preset(
        name="small",
        num_frames=9,
        fps=16,
        height=32,
        width=48,
        num_inference_steps=2,
        guidance_scale=2.0,
        flow_shift=3.0,
        timestep_dtype="bfloat16",
        max_text_tokens=max_text_tokens,
        track_grid=TrackGrid(columns=4, rows=3),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small")
    small_pipeline().to(torch.float16).save_pretrained(path)
    return path


def test_preset_overrules_the_saved_numbers(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    pipeline = load_pipeline(small_preset(), weights=folder)
    assert pipeline.scheduler.shift == 3.0
    assert pipeline.config.timestep_dtype == "bfloat16"
    assert isinstance(pipeline.vae.encoder.conv_in, StackedCausalConv3d)
    assert all(p.dtype == torch.float32 for p in pipeline.transformer.parameters())
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


def test_norms_and_image_encoder_stay_float32(folder: Path) -> None:
    pipeline = load_pipeline(small_preset(), weights=folder, dtype="bfloat16")
    assert pipeline.transformer.dtype == torch.bfloat16
    assert pipeline.transformer.dense_blocks[0].scale_shift_table.dtype == torch.float32
    assert pipeline.text_encoder.dtype == torch.bfloat16
    assert pipeline.image_encoder.dtype == torch.float32
    # The CPU's own rule (`suit_cpu`).
    assert pipeline.vae.dtype == torch.bfloat16
    frames = pipeline(
        "a hill", num_frames=5, height=32, width=48, num_inference_steps=1, guidance_scale=1.0
    ).frames
    assert frames.shape == (5, 32, 48, 3)


def test_the_reference_engine_leaves_everything_apart(folder: Path) -> None:
    fused = load_pipeline(small_preset(), weights=folder)
    reference = load_pipeline(small_preset(), weights=folder, engine="reference")
    streamed = load_pipeline(small_preset(), weights=folder, offload="group")
    assert [model.engine for model in (fused, reference, streamed)] == [
        "fused",
        "reference",
        "fused",
    ]

    def in_one_memory(pipeline: LongViePipeline) -> bool:
        attn = pipeline.transformer.dense_blocks[0].attn1
        storages = {
            linear.weight.untyped_storage().data_ptr()
            for linear in (attn.to_q, attn.to_k, attn.to_v)
        }
        return len(storages) == 1

    assert in_one_memory(fused)
    assert not in_one_memory(reference)
    assert not in_one_memory(streamed), "blocks that move would part again"


def test_incomplete_and_foreign_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingResourceError, match="configs are missing or damaged"):
        load_pipeline(small_preset(), weights=tmp_path)
    with pytest.raises(MissingResourceError, match=r"reads 20 text tokens, preset\.json says 64"):
        load_pipeline(small_preset(max_text_tokens=64), weights=folder)


def test_device_and_type_by_name() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_dtype("auto", "cpu") == "float32"
    assert resolve_dtype("auto", "cuda:1") == "bfloat16"
    assert resolve_dtype("float16", "cpu") == "float16"
    with pytest.raises(UsageError, match="--device gpu: not a device"):
        resolve_device("gpu")
    with pytest.raises(UsageError, match="CUDA devices"):
        resolve_device("cuda:99")
    with pytest.raises(UsageError, match="--dtype int8: not a type"):
        resolve_dtype("int8", "cpu")
