"""The component configs of preset longvie2 describe the published models (spec 1 and 2)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import pytest
import torch
from torch import Tensor, nn

from longvie_cli.models.weights.components import empty_modules
from longvie_cli.models.weights.names import (
    CONTROL_NAMES,
    DIT_NAMES,
    IMAGE_ENCODER_NAMES,
    TEXT_ENCODER_NAMES,
    vae_names,
)
from longvie_cli.models.weights.plan import without_weights
from longvie_cli.settings.presets import load_preset, preset_folder

# Spec 1.2.
LATENTS_MEAN = (
    "-0.7571 -0.7089 -0.9113 0.1075 -0.1745 0.9653 -0.1517 1.5508 "
    "0.4134 -0.0715 0.5517 -0.3632 -0.1922 -0.9497 0.2503 -0.2921"
)
LATENTS_STD = (
    "2.8184 1.4541 2.3275 2.6558 1.2196 1.7708 2.6052 2.0743 "
    "3.2687 2.1526 2.8652 1.5579 1.6382 1.1253 2.8251 1.9160"
)


@pytest.fixture(scope="module")
def modules() -> Mapping[str, nn.Module]:
    return empty_modules(preset_folder("longvie2"))


def count(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def test_no_memory_is_taken(modules: Mapping[str, nn.Module]) -> None:
    for module in modules.values():
        assert all(parameter.is_meta for parameter in module.parameters())
        assert not any(buffer.is_meta for buffer in module.buffers())


def test_transformer_has_the_published_counts(modules: Mapping[str, nn.Module]) -> None:
    own = modules["transformer"].state_dict()
    control = {name: value for name, value in own.items() if CONTROL_NAMES.owns(name)}
    base = {name: value for name, value in own.items() if DIT_NAMES.owns(name)}
    overlay = {name: value for name, value in base.items() if re.match(r"blocks\.\d+\.attn1", name)}
    assert len(control) + len(base) == len(own)
    assert (len(control), count(control.values())) == (800, 2_633_637_888)
    assert (len(overlay), count(overlay.values())) == (400, 4_195_532_800)
    assert len(base) == 1303
    assert round(count(base.values()) / 1e9, 2) == 16.39


def test_sizes_in_released_names(modules: Mapping[str, nn.Module]) -> None:
    """A few shapes of each published file, as the model cards and the public code give them."""
    vae = modules["vae"].config
    expected = {
        ("transformer", DIT_NAMES): {
            "patch_embedding.weight": (5120, 36, 1, 2, 2),
            "text_embedding.0.weight": (5120, 4096),
            "img_emb.proj.1.weight": (1280, 1280),
            "blocks.39.ffn.0.weight": (13824, 5120),
            "head.head.weight": (64, 5120),
        },
        ("transformer", CONTROL_NAMES): {
            "control_initial_combine_linear_dense.weight": (2560, 5120),
            "control_combine_linears.11.weight": (5120, 2560),
            "control_blocks_sparse.11.modulation": (1, 6, 2560),
            "control_blocks_dense.0.ffn.0.weight": (6912, 2560),
        },
        ("text_encoder", TEXT_ENCODER_NAMES): {
            "token_embedding.weight": (256384, 4096),
            "blocks.23.attn.q.weight": (4096, 4096),
            "blocks.23.pos_embedding.embedding.weight": (32, 64),
            "blocks.0.ffn.gate.0.weight": (10240, 4096),
            "blocks.0.ffn.fc2.weight": (4096, 10240),
            "norm.weight": (4096,),
        },
        ("image_encoder", IMAGE_ENCODER_NAMES): {
            "visual.cls_embedding": (1, 1, 1280),
            "visual.pos_embedding": (1, 257, 1280),
            "visual.patch_embedding.weight": (1280, 3, 14, 14),
            "visual.transformer.31.attn.to_qkv.weight": (3840, 1280),
            "visual.transformer.31.mlp.0.weight": (5120, 1280),
        },
        ("vae", vae_names(len(vae.dim_mult), vae.num_res_blocks)): {
            "conv1.weight": (32, 32, 1, 1, 1),
            "encoder.conv1.weight": (96, 3, 3, 3, 3),
            "decoder.conv1.weight": (384, 16, 3, 3, 3),
            "decoder.head.2.weight": (3, 96, 3, 3, 3),
        },
    }
    for (component, names), shapes in expected.items():
        own = modules[component].state_dict()
        for released, shape in shapes.items():
            ours = names.parts(released)[0]
            assert names.released_shape(ours, own[ours].shape) == shape, released


def test_numbers_that_no_shape_shows(modules: Mapping[str, nn.Module]) -> None:
    text, image = modules["text_encoder"].config, modules["image_encoder"].config
    assert (text.num_heads, text.d_kv, text.relative_attention_max_distance) == (64, 64, 128)
    assert (text.dense_act_fn, text.is_gated_act, text.layer_norm_epsilon) == (
        "gelu_new",
        True,
        1e-6,
    )
    assert (image.num_hidden_layers, image.num_attention_heads) == (32, 16)
    assert (image.hidden_act, image.layer_norm_eps) == ("gelu", 1e-5)
    transformer, vae = modules["transformer"].config, modules["vae"].config
    assert transformer.text_tokens == load_preset("longvie2").max_text_tokens
    assert (vae.scale_factor_temporal, vae.scale_factor_spatial) == (4, 8)
    assert len(vae.latents_mean) == len(vae.latents_std) == vae.z_dim == 16
    assert " ".join(f"{value:.4f}" for value in vae.latents_mean) == LATENTS_MEAN
    assert " ".join(f"{value:.4f}" for value in vae.latents_std) == LATENTS_STD


def test_buffers_are_real_in_modules_without_weights() -> None:
    with without_weights():
        module = nn.BatchNorm1d(3)
    assert module.weight.is_meta and torch.equal(module.running_var, torch.ones(3))
