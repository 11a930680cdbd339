"""Released files are loaded whole or refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from longvie_cli.errors import MissingResourceError
from longvie_cli.models.longvie import LongVieTransformer3DModel
from longvie_cli.models.weights.load import load_released_transformer, load_released_vae
from longvie_cli.models.weights.names import (
    CONTROL_NAMES,
    DIT_NAMES,
    IMAGE_ENCODER_NAMES,
    WeightNameError,
    vae_names,
)
from small_models import let_controls_act, small_transformer, small_vae


@pytest.fixture
def source() -> LongVieTransformer3DModel:
    transformer = small_transformer()
    let_controls_act(transformer)
    return transformer


def released(transformer: LongVieTransformer3DModel) -> list[dict[str, Tensor]]:
    """Return base, control and self-attention weights under released names."""
    own = transformer.state_dict()
    base = DIT_NAMES.release({n: value for n, value in own.items() if DIT_NAMES.owns(n)})
    control = CONTROL_NAMES.release({n: value for n, value in own.items() if CONTROL_NAMES.owns(n)})
    assert len(base) + len(control) == len(own)
    return [base, control, {n: value for n, value in base.items() if ".self_attn." in n}]


def test_overlay_replaces_the_base(source: LongVieTransformer3DModel) -> None:
    base, control, attention = released(source)
    # Never read, so that what is in it cannot show.
    base |= {name: torch.full_like(value, torch.nan) for name, value in attention.items()}
    target = small_transformer()
    load_released_transformer(target, base, control, attention)
    own = target.state_dict()
    for name, value in source.state_dict().items():
        assert torch.equal(own[name], value), name


def test_missing_unknown_and_misshapen_tensors_are_named(
    source: LongVieTransformer3DModel,
) -> None:
    base, control, attention = released(source)
    lacking = {name: value for name, value in base.items() if name != "head.head.bias"}
    with pytest.raises(MissingResourceError, match=r"1 missing \(head\.head\.bias\)"):
        load_released_transformer(source, lacking, control, attention)
    with pytest.raises(MissingResourceError, match=r"1 unknown \(camera\.weight\)"):
        load_released_transformer(
            source, base | {"camera.weight": torch.zeros(1)}, control, attention
        )
    reshaped = base | {"head.head.bias": torch.zeros(3)}
    with pytest.raises(MissingResourceError, match=r"head\.head\.bias \[3\] instead of \[6\]"):
        load_released_transformer(source, reshaped, control, attention)
    whole = base | {"head.head.bias": torch.zeros(6, dtype=torch.int8)}
    with pytest.raises(MissingResourceError, match=r"head\.head\.bias of type torch\.int8"):
        load_released_transformer(source, whole, control, attention)
    twice = control | {
        "module.control_t_mod.bias": control["control_t_mod.bias"],
    }
    with pytest.raises(MissingResourceError, match=r"1 repeated \(module\.control_t_mod\.bias\)"):
        load_released_transformer(source, base, twice, attention)
    with pytest.raises(MissingResourceError, match="self-attention weights: 30 missing"):
        load_released_transformer(source, base, control, {})


def test_nothing_is_loaded_from_refused_files(source: LongVieTransformer3DModel) -> None:
    base, control, attention = released(source)
    target = small_transformer()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    del attention["blocks.2.self_attn.o.bias"]
    with pytest.raises(MissingResourceError, match=r"blocks\.2\.self_attn\.o\.bias"):
        load_released_transformer(
            target, {name: value + 1 for name, value in base.items()}, control, attention
        )
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_vae_loads_by_released_names() -> None:
    source, target = small_vae(), small_vae()
    names = vae_names(len(source.config.dim_mult), source.config.num_res_blocks)
    weights = {n: value + 1 for n, value in names.release(source.state_dict()).items()}
    load_released_vae(target, weights)
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value + 1)


def test_fused_names_go_both_ways() -> None:
    names = IMAGE_ENCODER_NAMES
    fused = "visual.transformer.3.attn.to_qkv.weight"
    ours = tuple(f"encoder.layers.3.self_attn.{part}_proj.weight" for part in "qkv")
    assert names.parts(f"module.{fused}") == ours
    assert {names.to_released(name) for name in ours} == {fused}
    with pytest.raises(WeightNameError):
        names.to_ours(fused)
    # In any order: the release stacks query, key and value.
    values = {ours[index]: torch.full((4, 4), float(index)) for index in (2, 0, 1)}
    values["embeddings.class_embedding"] = torch.arange(4.0)
    released_values = names.release(values)
    assert released_values[fused].shape == (12, 4)
    assert released_values["visual.cls_embedding"].shape == (1, 1, 4)
    for name, value in values.items():
        whole = released_values[names.to_released(name)]
        assert tuple(whole.shape) == names.released_shape(name, value.shape)
        assert torch.equal(names.take(name, whole), value)


@pytest.mark.parametrize("name", ["blocks.0.self_attn.x.weight", "blocks.self_attn.q", "head", ""])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(WeightNameError):
        DIT_NAMES.to_ours(name)
