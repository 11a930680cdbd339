"""Released files are loaded whole or refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from longvie_cli.errors import MissingResourceError
from longvie_cli.models.longvie import LongVieTransformer3DModel
from longvie_cli.models.weight_names import CONTROL_NAMES, DIT_NAMES, WeightNameError, vae_names
from longvie_cli.models.weights import load_released_transformer, load_released_vae
from small_models import let_controls_act, small_transformer, small_vae


@pytest.fixture
def source() -> LongVieTransformer3DModel:
    transformer = small_transformer()
    let_controls_act(transformer)
    return transformer


def released(transformer: LongVieTransformer3DModel) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return base and control weights under released names."""
    own = transformer.state_dict()
    base = {DIT_NAMES.to_released(n): value for n, value in own.items() if DIT_NAMES.owns(n)}
    control = {
        CONTROL_NAMES.to_released(n): value for n, value in own.items() if CONTROL_NAMES.owns(n)
    }
    assert len(base) + len(control) == len(own)
    return base, control


def test_released_files_fill_the_whole_model(source: LongVieTransformer3DModel) -> None:
    base, control = released(source)
    wrapped = {f"pipe.dual_controller.{name}": value for name, value in control.items()}
    attention = {f"pipe.dit.{n}": value + 1 for n, value in base.items() if ".self_attn." in n}
    target = small_transformer()
    load_released_transformer(target, base, wrapped, attention=attention)
    own = target.state_dict()
    for name, value in source.state_dict().items():
        overlaid = name.startswith("blocks.") and ".attn1." in name
        assert torch.equal(own[name], value + 1 if overlaid else value), name


def test_missing_unknown_and_misshapen_tensors_are_named(
    source: LongVieTransformer3DModel,
) -> None:
    base, control = released(source)
    lacking = {name: value for name, value in base.items() if name != "head.head.bias"}
    with pytest.raises(MissingResourceError, match=r"1 missing \(head\.head\.bias\)"):
        load_released_transformer(source, lacking, control)
    with pytest.raises(MissingResourceError, match=r"1 unknown \(camera\.weight\)"):
        load_released_transformer(source, base | {"camera.weight": torch.zeros(1)}, control)
    reshaped = base | {"head.head.bias": torch.zeros(3)}
    with pytest.raises(MissingResourceError, match=r"head\.head\.bias \[3\] instead of \[6\]"):
        load_released_transformer(source, reshaped, control)
    with pytest.raises(MissingResourceError, match="self-attention weights"):
        load_released_transformer(source, base, control, attention=base)


def test_nothing_is_loaded_from_a_refused_file(source: LongVieTransformer3DModel) -> None:
    base, control = released(source)
    target = small_transformer()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    changed = {name: value + 1 for name, value in base.items() if name != "head.head.bias"}
    with pytest.raises(MissingResourceError):
        load_released_transformer(target, changed, control)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_vae_loads_by_released_names() -> None:
    source, target = small_vae(), small_vae()
    names = vae_names(len(source.config.dim_mult), source.config.num_res_blocks)
    weights = {names.to_released(n): value + 1 for n, value in source.state_dict().items()}
    load_released_vae(target, weights)
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value + 1)


@pytest.mark.parametrize("name", ["blocks.0.self_attn.x.weight", "blocks.self_attn.q", "head", ""])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(WeightNameError):
        DIT_NAMES.to_ours(name)
