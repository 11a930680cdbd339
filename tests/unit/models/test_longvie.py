"""The transformer: equal to Wan without control, control, history, training, saving, adapters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from longvie_cli.kernels.kernel_set import rotate
from longvie_cli.models.embeddings import RotaryPositions
from longvie_cli.models.longvie import LongVieTransformer3DModel
from small_models import let_controls_act, small_transformer


def inputs(transformer: LongVieTransformer3DModel, *, batch: int = 1) -> dict[str, Tensor]:
    """Return random inputs of 3 latent frames of 4x6, without control and history."""
    config = transformer.config
    generator = torch.Generator().manual_seed(5)
    return {
        "hidden_states": torch.randn(batch, config.in_channels, 3, 4, 6, generator=generator),
        "timestep": torch.full((batch,), 625.0),
        "encoder_hidden_states": torch.randn(
            batch, config.text_tokens, config.text_dim, generator=generator
        ),
        "encoder_hidden_states_image": torch.randn(batch, 5, config.image_dim, generator=generator),
    }


def controls(transformer: LongVieTransformer3DModel, *, batch: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(6)
    shape = (batch, transformer.config.in_channels, 3, 4, 6)
    return {name: torch.randn(shape, generator=generator) for name in ("dense", "sparse")}


def history(transformer: LongVieTransformer3DModel, *, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(batch, transformer.config.in_channels, 2, 4, 6, generator=generator)


@torch.no_grad()
def test_is_the_stock_model_without_control_and_history() -> None:
    # diffusers reads exactly 512 text tokens.
    ours = small_transformer(text_tokens=512, patch_size=(1, 2, 2))
    added = {"num_control_layers", "control_num_attention_heads", "control_ffn_dim", "text_tokens"}
    stock_config = {key: value for key, value in ours.config.items() if key not in added}
    stock = WanTransformer3DModel.from_config(stock_config).eval()
    stock.load_state_dict(
        {name: value for name, value in ours.state_dict().items() if name in stock.state_dict()}
    )
    given = inputs(ours, batch=2)
    # Theirs evaluates the timestep's sinusoids in float32: 2e-5 at full size.
    assert (ours(**given).sample - stock(**given).sample).abs().max() <= 2e-5


@torch.no_grad()
def test_new_control_branches_change_nothing() -> None:
    transformer = small_transformer()
    given = inputs(transformer)
    for past in (None, history(transformer)):
        plain = transformer(**given, history=past).sample
        assert torch.equal(
            transformer(**given, **controls(transformer), history=past).sample, plain
        )


@torch.no_grad()
def test_scale_zero_skips_the_branch() -> None:
    transformer = small_transformer()
    let_controls_act(transformer)
    given, control = inputs(transformer), controls(transformer)
    ran: list[str] = []
    for name in ("dense", "sparse"):
        for block in getattr(transformer, f"{name}_blocks"):
            block.register_forward_hook(lambda *_, name=name: ran.append(name))
    off = transformer(**given, **control, depth_strength=0.0, track_strength=0.0).sample
    assert ran == []
    assert torch.equal(off, transformer(**given).sample)
    dense_alone = transformer(**given, **control, track_strength=0.0).sample
    assert set(ran) == {"dense"}
    assert torch.equal(dense_alone, transformer(**given, dense=control["dense"]).sample)
    assert not torch.equal(dense_alone, transformer(**given, **control).sample)


@torch.no_grad()
def test_addition_is_linear_in_both_scales() -> None:
    # With one block the tokens before the output layer differ by the addition alone.
    transformer = small_transformer(num_layers=1, num_control_layers=1)
    let_controls_act(transformer)
    given, control = inputs(transformer), controls(transformer)
    last: list[Tensor] = []
    transformer.norm_out.register_forward_pre_hook(lambda _, args: last.append(args[0]))

    def tokens(depth_strength: float, track_strength: float) -> Tensor:
        transformer(
            **given, **control, depth_strength=depth_strength, track_strength=track_strength
        )
        return last[-1]

    plain = tokens(0.0, 0.0)
    dense, sparse = tokens(1.0, 0.0) - plain, tokens(0.0, 1.0) - plain
    assert torch.allclose(tokens(1.0, 1.0) - plain, dense + sparse, atol=1e-5)
    assert torch.allclose(tokens(0.5, 2.0) - plain, 0.5 * dense + 2 * sparse, atol=1e-5)


@torch.no_grad()
def test_batch_elements_do_not_mix() -> None:
    transformer = small_transformer()
    let_controls_act(transformer)
    given, control = inputs(transformer, batch=2), controls(transformer, batch=2)
    past = history(transformer, batch=2)
    both = transformer(**given, **control, history=past).sample
    for row in range(2):
        alone = transformer(
            **{name: value[row : row + 1] for name, value in (given | control).items()},
            history=past[row : row + 1],
        ).sample
        assert (both[row : row + 1] - alone).abs().max() <= 1e-5


def gradients(transformer: LongVieTransformer3DModel) -> dict[str, Tensor]:
    transformer.zero_grad()
    output = transformer(
        **inputs(transformer), **controls(transformer), history=history(transformer)
    ).sample
    output.square().mean().backward()
    return {name: parameter.grad for name, parameter in transformer.named_parameters()}


def test_gradients_reach_every_parameter() -> None:
    transformer = small_transformer()
    let_controls_act(transformer)
    found = gradients(transformer)
    assert not [name for name, grad in found.items() if grad is None or not grad.any()]


def test_gradient_checkpointing_keeps_gradients() -> None:
    transformer = small_transformer()
    let_controls_act(transformer)
    plain = gradients(transformer)
    transformer.enable_gradient_checkpointing()
    checkpointed = gradients(transformer)
    assert all(torch.equal(checkpointed[name], grad) for name, grad in plain.items())


def test_autocast_keeps_the_residual_stream_in_float32() -> None:
    transformer = small_transformer()
    let_controls_act(transformer)
    seen: list[torch.dtype] = []
    for block in (*transformer.blocks, *transformer.dense_blocks):
        block.register_forward_hook(lambda _m, _a, output: seen.append(output.dtype))
    given, control = inputs(transformer), controls(transformer)
    exact = transformer(**given, **control).sample
    seen.clear()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = transformer(**given, **control).sample
    assert set(seen) == {torch.float32}
    # bfloat16 keeps 8 bits; every product is rounded once, the stream is not.
    assert (rounded - exact).abs().max() <= 0.03 * exact.abs().max()


@torch.no_grad()
def test_casting_keeps_positions_and_embeddings_of_time_exact() -> None:
    transformer = small_transformer().to(torch.bfloat16)
    cos, sin = transformer.rope((3, 4, 6), torch.device("cpu"))
    expected = RotaryPositions(12)((3, 4, 6), torch.device("cpu"))
    assert torch.equal(cos, expected[0]) and torch.equal(sin, expected[1])
    features = transformer.condition_embedder.timesteps_proj(torch.tensor([937.5]))
    assert features.dtype == torch.float32


@pytest.mark.parametrize("head_dim", [12, 26, 128])
def test_rotation_is_a_complex_product(head_dim: int) -> None:
    grid = (3, 4, 5)
    heads = torch.randn(2, 60, 3, head_dim)
    rotated = rotate(heads, RotaryPositions(head_dim)(grid, heads.device))
    column = row = head_dim // 3
    angles = []
    for axis, dim in enumerate((head_dim - row - column, row, column)):
        position = torch.arange(grid[axis]).double()
        angle = torch.outer(position, 10000.0 ** -(torch.arange(0, dim, 2).double() / dim))
        shape = [-1 if axis == other else 1 for other in range(3)]
        angles.append(angle.view(*shape, dim // 2).expand(*grid, dim // 2))
    turn = torch.polar(torch.tensor(1.0).double(), torch.cat(angles, -1).flatten(0, 2))
    pairs = torch.view_as_complex(heads.double().unflatten(-1, (-1, 2)).contiguous())
    expected = torch.view_as_real(pairs * turn[None, :, None]).flatten(-2)
    assert (rotated - expected).abs().max() <= 2e-6


def test_other_text_length_is_refused() -> None:
    transformer = small_transformer()
    given = inputs(transformer)
    given["encoder_hidden_states"] = given["encoder_hidden_states"][:, :-1]
    with pytest.raises(ValueError, match="exactly 20"):
        transformer(**given)


@torch.no_grad()
def test_saved_model_is_the_same_model(tmp_path: Path) -> None:
    transformer = small_transformer()
    let_controls_act(transformer)
    transformer.save_pretrained(tmp_path)
    loaded = LongVieTransformer3DModel.from_pretrained(tmp_path)
    given, control = inputs(transformer), controls(transformer)
    assert loaded.config.num_control_layers == transformer.config.num_control_layers
    assert torch.equal(
        loaded.eval()(**given, **control).sample, transformer(**given, **control).sample
    )


@torch.no_grad()
def test_lora_adapters_reach_main_and_control_blocks() -> None:
    peft = pytest.importorskip("peft")
    transformer = small_transformer()
    let_controls_act(transformer)
    given, control = inputs(transformer), controls(transformer)
    before = transformer(**given, **control).sample
    transformer.add_adapter(
        peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    )
    adapted = [name for name, _ in transformer.named_parameters() if "lora" in name]
    assert any(name.startswith("dense_blocks") for name in adapted)
    assert any(name.startswith("blocks") for name in adapted)
    assert not torch.equal(transformer(**given, **control).sample, before)
    none = transformer(**given, **control, attention_kwargs={"scale": 0.0}).sample
    assert (none - before).abs().max() <= 1e-6
    transformer.disable_adapters()
    assert torch.equal(transformer(**given, **control).sample, before)
