"""Operations from configs are those that PyTorch counts while the models run."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from longvie_cli.benchmarking.flops import (
    clip_flops,
    evaluation_bytes,
    evaluation_flops,
    tokens_of,
)
from longvie_cli.engine.memory import Models, models_of_preset
from longvie_cli.settings.presets import Preset, load_preset


def counted(models: Models, preset: Preset, history: int) -> int:
    config, vae = models.transformer.config, models.vae.config
    tokens = tokens_of(config, models, preset, history)
    side = vae.scale_factor_spatial

    def latents(frames: int) -> torch.Tensor:
        frames = (frames - 1) // vae.scale_factor_temporal + 1
        size = (1, config.in_channels, frames, preset.height // side, preset.width // side)
        return torch.empty(size, device="meta")

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        models.transformer(
            latents(preset.num_frames),
            torch.empty(1, device="meta"),
            torch.empty(1, config.text_tokens, config.text_dim, device="meta"),
            torch.empty(1, tokens.image, config.image_dim, device="meta"),
            dense=latents(preset.num_frames),
            sparse=latents(preset.num_frames),
            history=latents(history) if history else None,
            return_dict=False,
        )
    return int(counter.get_total_flops())


@pytest.mark.parametrize("name", ["tiny", pytest.param("longvie2", marks=pytest.mark.slow)])
@pytest.mark.parametrize("has_history", [False, True])
def test_an_evaluation_takes_what_pytorch_counts(name: str, has_history: bool) -> None:
    preset = load_preset(name)
    models = models_of_preset(preset)
    history = preset.history_frames if has_history else 0
    config = models.transformer.config
    stages = evaluation_flops(config, tokens_of(config, models, preset, history))
    assert sum(stages.values()) == counted(models, preset, history)


@pytest.mark.slow
def test_the_full_size_is_the_one_known_from_elsewhere() -> None:
    # 996.6 and 897.6 TFLOP an evaluation, 92.1 an encoded video, 155 to decode: counted apart
    # from this code, on the meta device.
    preset = load_preset("longvie2")
    models = models_of_preset(preset)
    flops = clip_flops(models, preset, evaluations=100, history=preset.history_frames)
    evaluations = sum(flops.values()) - flops["encode"] - flops["decode"]
    assert evaluations / 100 == pytest.approx(996.6e12, rel=1e-4)
    assert flops["encode"] == pytest.approx(5 * 92.1e12 + 6.0e12, rel=1e-3)
    assert flops["decode"] == pytest.approx(155.0e12, rel=1e-3)
    first = clip_flops(models, preset, evaluations=1, history=0)
    evaluation = sum(first.values()) - first["encode"] - first["decode"]
    assert evaluation == pytest.approx(897.6e12, rel=1e-4)


def test_large_products_are_bound_by_arithmetic_and_glue_by_memory() -> None:
    preset = load_preset("longvie2")
    models = models_of_preset(preset)
    config = models.transformer.config
    tokens = tokens_of(config, models, preset, preset.history_frames)
    flops = evaluation_flops(config, tokens)
    moved = evaluation_bytes(config, tokens, 2)
    # An H100 does 266 operations for each byte it can fetch.
    for stage in ("self_attention", "ffn", "control_branches"):
        assert flops[stage] / moved[stage] > 1000
    assert flops["glue"] / moved["glue"] < 266
    assert evaluation_bytes(config, tokens, 4) == {key: 2 * value for key, value in moved.items()}
