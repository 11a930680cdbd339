"""What a stage trains, by name, and where the control branches start."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from longvie_cli.errors import InputError
from longvie_cli.models.longvie import LongVieTransformer3DModel
from longvie_cli.models.weights.components import empty_transformer
from longvie_cli.settings.presets import preset_folder
from longvie_cli.training.stages import freeze_for, half_of, start_branches, trained_names
from small_models import small_transformer

ATTENTION = [
    *("norm_q.weight", "norm_k.weight"),
    *(f"to_{name}.{leaf}" for name in "qkv" for leaf in ("weight", "bias")),
    *("to_out.0.weight", "to_out.0.bias"),
]
BLOCK = {
    "scale_shift_table",
    *(f"attn1.{name}" for name in ATTENTION),
    *(f"attn2.{name}" for name in ATTENTION),
    *(f"attn2.add_{name}_proj.{leaf}" for name in "kv" for leaf in ("weight", "bias")),
    "attn2.norm_added_k.weight",
    *("norm2.weight", "norm2.bias"),
    *(f"ffn.net.{part}.{leaf}" for part in ("0.proj", "2") for leaf in ("weight", "bias")),
}
LINEARS = (
    *("dense_proj_in", "sparse_proj_in", "control_text_proj", "control_time_proj"),
    *("control_proj_out.0", "control_proj_out.1"),
)
CONTROL = {f"{name}.{leaf}" for name in LINEARS for leaf in ("weight", "bias")} | {
    f"{branch}_blocks.{index}.{name}"
    for branch in ("dense", "sparse")
    for index in range(2)
    for name in BLOCK
}
SELF_ATTENTION = {f"blocks.{index}.attn1.{name}" for index in range(3) for name in ATTENTION}


@pytest.mark.parametrize("stage", ("control", "degradation"))
def test_stages_one_and_two_train_the_control_branches_alone(stage: str) -> None:
    assert set(trained_names(small_transformer(), stage)) == CONTROL  # type: ignore[arg-type]


def test_stage_three_trains_all_self_attention_of_the_base_with_them() -> None:
    names = trained_names(small_transformer(), "history")
    assert set(names) == CONTROL | SELF_ATTENTION


def test_the_base_stage_trains_all_but_the_control_branches() -> None:
    transformer = small_transformer()
    names = set(trained_names(transformer, "base"))
    assert names == {name for name, _ in transformer.named_parameters()} - CONTROL


def test_released_tensor_counts_at_full_size() -> None:
    transformer = empty_transformer(preset_folder("longvie2"))
    control = trained_names(transformer, "control")
    history = trained_names(transformer, "history")
    assert len(control) == 800
    assert len(set(history) - set(control)) == 400
    assert len(trained_names(transformer, "base")) == 1303


def test_only_what_a_stage_trains_gets_a_gradient() -> None:
    transformer = small_transformer()
    names = freeze_for(transformer, "history")
    assert {n for n, p in transformer.named_parameters() if p.requires_grad} == set(names)
    freeze_for(transformer, "control")
    assert {n for n, p in transformer.named_parameters() if p.requires_grad} == CONTROL


def wide_transformer() -> LongVieTransformer3DModel:
    return small_transformer(
        num_attention_heads=4, added_kv_proj_dim=48, control_num_attention_heads=2
    )


def run(transformer: LongVieTransformer3DModel, *, control: bool) -> Tensor:
    torch.manual_seed(5)
    latents, picture = torch.randn(1, 16, 3, 4, 4), torch.randn(1, 16, 3, 4, 4)
    text, image = torch.randn(1, 20, 16), torch.randn(1, 5, 16)
    with torch.no_grad():
        output: Tensor = transformer(
            latents,
            torch.tensor([500.0]),
            text,
            image,
            dense=picture if control else None,
            sparse=picture.flip(2) if control else None,
        ).sample
    return output


@pytest.mark.parametrize("start", ("half_copy", "random"))
def test_a_started_model_equals_its_base_exactly(start: str) -> None:
    transformer = wide_transformer()
    start_branches(transformer, start, seed=3)  # type: ignore[arg-type]
    assert torch.equal(run(transformer, control=True), run(transformer, control=False))


def test_half_copies_hold_whole_heads_and_every_second_channel() -> None:
    transformer = wide_transformer()
    start_branches(transformer, "half_copy")
    base = transformer.blocks[1]
    for first, branch in ((0, transformer.dense_blocks[1]), (1, transformer.sparse_blocks[1])):
        heads = [head * 12 + channel for head in (first, first + 2) for channel in range(12)]
        channels = list(range(first, 48, 2))
        hidden = list(range(first, 32, 2))
        query, out = base.attn1.to_q.weight, base.attn2.to_out[0].weight
        assert torch.equal(branch.attn1.to_q.weight, query[heads][:, channels])
        assert torch.equal(branch.attn1.norm_q.weight, base.attn1.norm_q.weight[heads])
        assert torch.equal(branch.attn2.to_out[0].weight, out[channels][:, heads])
        assert torch.equal(branch.attn2.to_out[0].bias, base.attn2.to_out[0].bias[channels])
        added = base.attn2.add_k_proj.weight
        assert torch.equal(branch.attn2.add_k_proj.weight, added[heads][:, channels])
        up, down = base.ffn.net[0].proj.weight, base.ffn.net[2].weight
        assert torch.equal(branch.ffn.net[0].proj.weight, up[hidden][:, channels])
        assert torch.equal(branch.ffn.net[2].weight, down[channels][:, hidden])
        table = base.scale_shift_table
        assert torch.equal(branch.scale_shift_table, table[..., channels])
        assert torch.equal(branch.norm2.weight, base.norm2.weight[channels])


def test_both_halves_together_are_the_base() -> None:
    bias = torch.arange(48.0)
    halves = [half_of(bias, "attn1.to_q.bias", first, 12) for first in (0, 1)]
    assert sorted(torch.cat(halves).tolist()) == bias.tolist()
    assert halves[0].tolist() == [*range(12), *range(24, 36)]


def test_a_start_depends_on_its_seed_alone() -> None:
    first, second, other = (wide_transformer() for _ in range(3))
    before = torch.random.get_rng_state()
    start_branches(first, "random", seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    start_branches(second, "random", seed=3)
    start_branches(other, "random", seed=4)
    name = "dense_blocks.0.attn1.to_q.weight"
    assert torch.equal(first.state_dict()[name], second.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


def test_branches_that_are_not_half_as_wide_are_named() -> None:
    transformer = small_transformer(control_ffn_dim=24)
    with pytest.raises(InputError, match=r"24 feed-forward channels, half of the base's 32 is 16"):
        start_branches(transformer, "half_copy")
