"""LoRA files in every naming, against weights merged by hand."""

from __future__ import annotations

import copy
import json
import logging
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from longvie_cli.errors import InputError, MissingResourceError
from longvie_cli.models import lora_files
from longvie_cli.models.longvie import LongVieTransformer3DModel
from longvie_cli.models.lora import add_loras
from longvie_cli.models.lora_files import judge_lora
from longvie_cli.models.lora_layers import translate_lora
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.models.weights.names import CONTROL_NAMES, DIT_NAMES
from small_models import let_controls_act, small_pipeline, small_transformer

RANK, ALPHA = 2, 1.0
# Every kind of main-block layer that LoRA files touch, and some outside the blocks.
LAYERS = (
    *(f"blocks.{n}.attn1.{leaf}" for n in range(3) for leaf in ("to_q", "to_k", "to_v")),
    *(f"blocks.{n}.attn1.to_out.0" for n in range(3)),
    *(f"blocks.{n}.attn2.{leaf}" for n in range(3) for leaf in ("to_q", "to_k", "to_v")),
    *(f"blocks.{n}.attn2.to_out.0" for n in range(3)),
    *(f"blocks.{n}.attn2.{leaf}" for n in range(3) for leaf in ("add_k_proj", "add_v_proj")),
    *(f"blocks.{n}.ffn.net.0.proj" for n in range(3)),
    *(f"blocks.{n}.ffn.net.2" for n in range(3)),
)
OUTSIDE = (
    "condition_embedder.time_proj",
    "condition_embedder.text_embedder.linear_1",
    "condition_embedder.time_embedder.linear_2",
    "condition_embedder.image_embedder.ff.net.0.proj",
    "proj_out",
)
CONTROL = ("dense_blocks.1.attn1.to_q", "sparse_proj_in", "control_proj_out.0")

Pairs = dict[str, tuple[Tensor, Tensor]]


def pairs_for(transformer: nn.Module, layers: tuple[str, ...], seed: int = 0) -> Pairs:
    generator = torch.Generator().manual_seed(seed)
    pairs = {}
    for layer in layers:
        rows, columns = transformer.get_submodule(layer).weight.shape
        pairs[layer] = (
            torch.randn(RANK, columns, generator=generator) * 0.3,
            torch.randn(rows, RANK, generator=generator) * 0.3,
        )
    return pairs


def released(layer: str) -> str:
    names = DIT_NAMES if DIT_NAMES.owns(layer) else CONTROL_NAMES
    return names.to_released(layer)


def as_diffusers(pairs: Pairs) -> dict[str, Tensor]:
    named = {}
    for layer, (down, up) in pairs.items():
        # Without alpha the product counts as it is.
        named[f"transformer.{layer}.lora_A.weight"] = down * ALPHA / RANK
        named[f"transformer.{layer}.lora_B.weight"] = up
    return named


def as_peft(pairs: Pairs) -> dict[str, Tensor]:
    return {
        key.replace("transformer.", "base_model.model."): value
        for key, value in as_diffusers(pairs).items()
    }


def as_wan(pairs: Pairs) -> dict[str, Tensor]:
    named = {}
    for layer, (down, up) in pairs.items():
        name = f"diffusion_model.{released(layer)}"
        named[f"{name}.lora_down.weight"] = down
        named[f"{name}.lora_up.weight"] = up
        named[f"{name}.alpha"] = torch.tensor(ALPHA)
    return named


def as_wan_ab(pairs: Pairs) -> dict[str, Tensor]:
    named = {}
    for layer, (down, up) in pairs.items():
        named[f"diffusion_model.{released(layer)}.lora_A.weight"] = down * ALPHA / RANK
        named[f"diffusion_model.{released(layer)}.lora_B.weight"] = up
    return named


def as_musubi(pairs: Pairs) -> dict[str, Tensor]:
    named = {}
    for layer, (down, up) in pairs.items():
        name = "lora_unet_" + released(layer).replace(".", "_")
        named[f"{name}.lora_down.weight"] = down
        named[f"{name}.lora_up.weight"] = up
        named[f"{name}.alpha"] = torch.tensor(ALPHA)
    return named


NAMINGS = (as_diffusers, as_peft, as_wan, as_wan_ab, as_musubi)


@pytest.fixture
def pipeline() -> LongViePipeline:
    return small_pipeline()


def saved(path: Path, tensors: dict[str, Tensor], **metadata: object) -> Path:
    stored = {"lora_adapter_metadata": json.dumps(metadata)} if metadata else None
    save_file({key: value.contiguous() for key, value in tensors.items()}, path, stored)
    return path


def output_of(transformer: LongVieTransformer3DModel) -> Tensor:
    generator = torch.Generator().manual_seed(9)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    with torch.no_grad():
        return transformer(
            draw(1, 16, 2, 3, 4),
            torch.tensor([500.0]),
            draw(1, 20, 16),
            draw(1, 5, 16),
            dense=draw(1, 16, 2, 3, 4),
            sparse=draw(1, 16, 2, 3, 4),
            return_dict=False,
        )[0]


@torch.no_grad()
def merged(
    transformer: LongVieTransformer3DModel, *adapters: tuple[Pairs, float]
) -> LongVieTransformer3DModel:
    changed = copy.deepcopy(transformer)
    for pairs, scale in adapters:
        for layer, (down, up) in pairs.items():
            weight = changed.get_submodule(layer).weight
            weight += scale * ALPHA / RANK * up @ down
    return changed


def assert_same(ours: Tensor, expected: Tensor) -> None:
    assert (ours - expected).abs().max() < 1e-5


# Quickly every naming and every scale; a scale does not ask for the naming.
@pytest.mark.parametrize(
    ("scale", "naming"),
    [
        pytest.param(
            scale, naming, marks=[] if scale == 0.7 or naming is as_wan else pytest.mark.slow
        )
        for scale in (1.0, 0.7, -0.5)
        for naming in NAMINGS
    ],
)
def test_every_naming_is_the_merged_weights(
    pipeline: LongViePipeline,
    tmp_path: Path,
    naming: Callable[[Pairs], dict[str, Tensor]],
    scale: float,
) -> None:
    pairs = pairs_for(pipeline.transformer, LAYERS + OUTSIDE)
    before = output_of(pipeline.transformer)
    expected = output_of(merged(pipeline.transformer, (pairs, scale)))
    path = saved(tmp_path / "a.safetensors", naming(pairs))
    assert judge_lora(path, pipeline.transformer) == ()
    assert add_loras(pipeline, [(path, scale)]) == []
    assert_same(output_of(pipeline.transformer), expected)
    assert (before - expected).abs().max() > 1e-2, "the adapter does something"


def test_scale_nought_is_no_lora(pipeline: LongViePipeline, tmp_path: Path) -> None:
    tensors = as_wan(pairs_for(pipeline.transformer, LAYERS))
    tensors["diffusion_model.blocks.0.norm3.diff_b"] = torch.randn(24)
    before = output_of(pipeline.transformer)
    assert add_loras(pipeline, [(saved(tmp_path / "a.safetensors", tensors), 0.0)]) == []
    assert torch.equal(output_of(pipeline.transformer), before)


def test_two_loras_add(pipeline: LongViePipeline, tmp_path: Path) -> None:
    first = pairs_for(pipeline.transformer, LAYERS, seed=1)
    second = pairs_for(pipeline.transformer, LAYERS[:12] + OUTSIDE, seed=2)
    expected = output_of(merged(pipeline.transformer, (first, 0.5), (second, 1.5)))
    files = [
        (saved(tmp_path / "a.safetensors", as_wan(first)), 0.5),
        (saved(tmp_path / "b.safetensors", as_musubi(second)), 1.5),
    ]
    assert add_loras(pipeline, files) == []
    assert_same(output_of(pipeline.transformer), expected)


def distilled(transformer: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What step-distillation files hold besides pairs: keys of the file, and parameter deltas."""
    deltas = {
        "diffusion_model.blocks.0.self_attn.q.diff_b": "blocks.0.attn1.to_q.bias",
        "diffusion_model.blocks.1.cross_attn.k_img.diff_b": "blocks.1.attn2.add_k_proj.bias",
        "diffusion_model.blocks.1.ffn.2.diff_b": "blocks.1.ffn.net.2.bias",
        "diffusion_model.blocks.0.norm3.diff": "blocks.0.norm2.weight",
        "diffusion_model.blocks.0.norm3.diff_b": "blocks.0.norm2.bias",
        "diffusion_model.blocks.2.self_attn.norm_q.diff": "blocks.2.attn1.norm_q.weight",
        "diffusion_model.blocks.2.cross_attn.norm_k_img.diff": "blocks.2.attn2.norm_added_k.weight",
        "diffusion_model.img_emb.proj.0.diff": "condition_embedder.image_embedder.norm1.weight",
        "diffusion_model.img_emb.proj.4.diff_b": "condition_embedder.image_embedder.norm2.bias",
        "diffusion_model.time_projection.1.diff_b": "condition_embedder.time_proj.bias",
        "diffusion_model.text_embedding.0.diff_b": (
            "condition_embedder.text_embedder.linear_1.bias"
        ),
        "diffusion_model.head.head.diff": "proj_out.weight",
        "diffusion_model.head.head.diff_b": "proj_out.bias",
        "diffusion_model.patch_embedding.diff_b": "patch_embedding.bias",
        "diffusion_model.blocks.1.diff_m": "blocks.1.scale_shift_table",
        "diffusion_model.blocks.2.modulation.diff": "blocks.2.scale_shift_table",
        "diffusion_model.head.modulation.diff": "scale_shift_table",
    }
    parameters = dict(transformer.named_parameters())
    generator = torch.Generator().manual_seed(3)
    drawn = {
        key: torch.randn(parameters[name].shape, generator=generator) * 0.2
        for key, name in deltas.items()
    }
    return drawn, {deltas[key]: delta for key, delta in drawn.items()}


@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_norms_biases_and_the_output_layer_of_distillation_files_count(
    pipeline: LongViePipeline, tmp_path: Path, scale: float
) -> None:
    transformer = pipeline.transformer
    pairs = pairs_for(transformer, LAYERS)
    in_file, deltas = distilled(transformer)
    # A convolution's pair, as the files have it for the patch embedding.
    down, up = torch.randn(RANK, 16, 1, 1, 1) * 0.2, torch.randn(24, RANK, 1, 1, 1) * 0.2
    in_file["diffusion_model.patch_embedding.lora_down.weight"] = down
    in_file["diffusion_model.patch_embedding.lora_up.weight"] = up
    in_file["diffusion_model.patch_embedding.alpha"] = torch.tensor(ALPHA)
    expected = merged(transformer, (pairs, scale))
    with torch.no_grad():
        for name, delta in deltas.items():
            expected.get_parameter(name).add_(scale * delta)
        product = (up.flatten(1) @ down.flatten(1)).reshape(24, 16, 1, 1, 1)
        expected.patch_embedding.weight.add_(scale * ALPHA / RANK * product)
    before = output_of(transformer)
    path = saved(tmp_path / "fast.safetensors", as_wan(pairs) | in_file)
    assert add_loras(pipeline, [(path, scale)]) == []
    assert_same(output_of(transformer), output_of(expected))

    # Off, on, rescaled and gone: each restores what was there, to the bit once gone.
    pipeline.disable_lora()
    assert torch.equal(output_of(transformer), before)
    pipeline.enable_lora()
    assert_same(output_of(transformer), output_of(expected))
    pipeline.set_adapters("lora_0", 0.0)
    assert torch.equal(output_of(transformer), before)
    pipeline.unload_lora_weights()
    assert torch.equal(output_of(transformer), before)
    assert not any("lora" in name for name, _ in transformer.named_parameters())


def test_a_file_of_deltas_alone_needs_no_pairs(pipeline: LongViePipeline, tmp_path: Path) -> None:
    in_file, _ = distilled(pipeline.transformer)
    before = output_of(pipeline.transformer)
    assert add_loras(pipeline, [(saved(tmp_path / "d.safetensors", in_file), 1.0)]) == []
    assert not torch.equal(output_of(pipeline.transformer), before)
    pipeline.delete_adapters("lora_0")
    assert torch.equal(output_of(pipeline.transformer), before)


def test_deleting_one_of_two_leaves_the_other(pipeline: LongViePipeline) -> None:
    first = pairs_for(pipeline.transformer, LAYERS, seed=1)
    second = pairs_for(pipeline.transformer, LAYERS, seed=2)
    delta = {"diffusion_model.head.head.diff_b": torch.ones(6)}
    expected = output_of(merged(pipeline.transformer, (first, 0.5)))
    pipeline.load_lora_weights(as_wan(first), adapter_name="one")
    pipeline.load_lora_weights(as_wan(second) | delta, adapter_name="two")
    pipeline.set_adapters(["one", "two"], [0.5, 1.0])
    assert not torch.allclose(output_of(pipeline.transformer), expected)
    pipeline.delete_adapters("two")
    assert_same(output_of(pipeline.transformer), expected)


def test_loading_makes_the_new_one_the_active_one(pipeline: LongViePipeline) -> None:
    first = pairs_for(pipeline.transformer, LAYERS, seed=1)
    second = pairs_for(pipeline.transformer, LAYERS, seed=2)
    expected = output_of(merged(pipeline.transformer, (second, 1.0)))
    pipeline.load_lora_weights(as_wan(first))
    pipeline.load_lora_weights(as_wan(second))
    assert_same(output_of(pipeline.transformer), expected)


def test_alpha_in_the_files_metadata_counts(pipeline: LongViePipeline, tmp_path: Path) -> None:
    pairs = pairs_for(pipeline.transformer, LAYERS)
    expected = output_of(merged(pipeline.transformer, (pairs, 2.0)))
    tensors = {
        f"transformer.{layer}.lora_{letter}.weight": tensor
        for layer, pair in pairs.items()
        for letter, tensor in zip("AB", pair, strict=True)
    }
    path = saved(
        tmp_path / "a.safetensors",
        tensors,
        **{"transformer.r": RANK, "transformer.lora_alpha": 2 * ALPHA},
    )
    assert add_loras(pipeline, [(path, 1.0)]) == []
    assert_same(output_of(pipeline.transformer), expected)


@pytest.mark.parametrize("naming", NAMINGS)
def test_control_branches_are_touched_only_where_the_file_names_them(
    naming: Callable[[Pairs], dict[str, Tensor]],
) -> None:
    transformer = small_transformer()
    let_controls_act(transformer)
    main = translate_lora(
        naming(pairs_for(transformer, LAYERS)), {}, transformer, name="main.safetensors"
    )
    assert set(main.pairs) == set(LAYERS)
    layers = LAYERS + CONTROL
    both = translate_lora(
        naming(pairs_for(transformer, layers)), {}, transformer, name="both.safetensors"
    )
    assert set(both.pairs) == set(layers) and both.notices == ()


def test_no_adapter_layer_is_put_into_the_control_branches(pipeline: LongViePipeline) -> None:
    pipeline.load_lora_weights(as_wan(pairs_for(pipeline.transformer, LAYERS + OUTSIDE)))
    adapted = {
        name.partition(".lora_")[0]
        for name, _ in pipeline.transformer.named_parameters()
        if ".lora_" in name
    }
    assert adapted == set(LAYERS + OUTSIDE)


def test_a_control_lora_is_the_merged_weights(pipeline: LongViePipeline) -> None:
    pairs = pairs_for(pipeline.transformer, CONTROL)
    expected = output_of(merged(pipeline.transformer, (pairs, 1.0)))
    pipeline.load_lora_weights(as_wan(pairs))
    assert_same(output_of(pipeline.transformer), expected)


def test_a_text_to_video_lora_is_applied_and_said_to_be_one(pipeline: LongViePipeline) -> None:
    text_layers = tuple(layer for layer in LAYERS if "add_" not in layer)
    pairs = pairs_for(pipeline.transformer, text_layers)
    expected = output_of(merged(pipeline.transformer, (pairs, 1.0)))
    tensors = as_wan(pairs)
    tensors["diffusion_model.patch_embedding.lora_down.weight"] = torch.ones(RANK, 6, 1, 1, 1)
    tensors["diffusion_model.patch_embedding.lora_up.weight"] = torch.ones(24, RANK, 1, 1, 1)
    notices = pipeline.add_lora(tensors, {}, name="style.safetensors")
    assert "text-to-video model" in notices[0]
    assert "patch_embedding.lora_down.weight is [2, 6, 1, 1, 1], not [2, 16, 1, 1, 1]" in notices[1]
    assert len(notices) == 2
    assert_same(output_of(pipeline.transformer), expected)


def test_what_cannot_be_applied_is_counted_and_named(
    pipeline: LongViePipeline, caplog: pytest.LogCaptureFixture
) -> None:
    tensors = as_wan(pairs_for(pipeline.transformer, LAYERS))
    for key in ("blocks.9.self_attn.q.diff_b", "blocks.0.self_attn.q.dora_scale", "vae.x.diff"):
        tensors[f"diffusion_model.{key}"] = torch.ones(24)
    tensors["diffusion_model.blocks.1.self_attn.o.lora_down.weight"] = tensors.pop(
        "diffusion_model.blocks.0.self_attn.o.lora_down.weight"
    )
    with caplog.at_level(logging.WARNING, "longvie_cli"):
        pipeline.load_lora_weights(tensors)
    (said,) = caplog.messages
    assert said.startswith(f"LoRA: 5 of {len(tensors)} tensors are not applied: ")
    assert "and 2 more" in said


def test_a_lora_of_another_width_is_refused_with_the_first_tensors(
    pipeline: LongViePipeline,
) -> None:
    other = small_transformer(num_attention_heads=4, added_kv_proj_dim=48)
    before = output_of(pipeline.transformer)
    with pytest.raises(InputError) as caught:
        pipeline.add_lora(as_wan(pairs_for(other, LAYERS)), {}, name="wide.safetensors")
    assert caught.value.message.startswith(
        "wide.safetensors: this LoRA was made for another model: "
        "diffusion_model.blocks.0.self_attn.q.lora_down.weight is [2, 48], not [2, 24]; "
    )
    assert caught.value.message.count(";") == 2
    assert torch.equal(output_of(pipeline.transformer), before)


def test_a_lora_of_another_architecture_is_refused(pipeline: LongViePipeline) -> None:
    tensors = {"unet.down_blocks.0.to_q.lora_A.weight": torch.ones(2, 4)}
    with pytest.raises(InputError, match="no layer of this model in unet"):
        pipeline.add_lora(tensors, {}, name="sd.safetensors")


def test_a_bfloat16_model_stays_bfloat16(pipeline: LongViePipeline) -> None:
    transformer = pipeline.transformer
    tensors = as_wan(pairs_for(transformer, LAYERS)) | distilled(transformer)[0]
    transformer.to(torch.bfloat16)
    pipeline.load_lora_weights({key: value.half() for key, value in tensors.items()})
    outside = {p.dtype for name, p in transformer.named_parameters() if ".lora_" not in name}
    assert outside == {torch.bfloat16}
    frames = pipeline(
        "a hill", num_frames=5, height=32, width=48, num_inference_steps=1, guidance_scale=1.0
    ).frames
    assert frames.shape == (5, 32, 48, 3)


def test_a_file_of_another_kind_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transformer = small_transformer()
    good = saved(tmp_path / "a.safetensors", as_wan(pairs_for(transformer, LAYERS)))
    judge_lora(good, transformer)
    (tmp_path / "half.safetensors").write_bytes(good.read_bytes()[:-100])
    for name, content in {
        "empty.safetensors": b"",
        "page.safetensors": b"\n<!DOCTYPE html><title>Log in</title>",
        "pointer.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
        "text.safetensors": b"no tensors",
        "huge.safetensors": (1 << 40).to_bytes(8, "little") + b"{}",
    }.items():
        (tmp_path / name).write_bytes(content)
    torch.save({"x": torch.ones(1)}, tmp_path / "zip.pt")
    torch.save({"x": torch.ones(1)}, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    os.mkfifo(tmp_path / "pipe.safetensors")
    saved(tmp_path / "none.safetensors", {})
    saved(tmp_path / "other.safetensors", {"conv.weight": torch.ones(1)})
    for name, reason in {
        "nowhere.safetensors": "no such LoRA file",
        "": "a folder, not a LoRA file",
        "empty.safetensors": "an empty file",
        "page.safetensors": "a web page",
        "pointer.safetensors": "a pointer of Git LFS",
        "text.safetensors": "no safetensors file",
        "huge.safetensors": "no safetensors file",
        "half.safetensors": "it is cut off",
        "zip.pt": "a PyTorch file",
        "old.ckpt": "a Python pickle",
        "pipe.safetensors": "no regular file",
        "none.safetensors": "it holds no tensors",
        "other.safetensors": r"not a LoRA .* named like conv\.weight",
    }.items():
        with pytest.raises(InputError, match=reason) as caught:
            judge_lora(tmp_path / name, transformer)
        assert name in caught.value.message
    monkeypatch.setattr(lora_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingResourceError, match="peft is missing") as missing:
        judge_lora(good, transformer)
    assert missing.value.hint == "pip install 'peft>=0.17'"


LAYER = "diffusion_model.blocks.0.self_attn.q"


def one_pair(rank: int = 2, name: str = LAYER, **more: Tensor) -> dict[str, Tensor]:
    return {
        f"{name}.lora_down.weight": torch.ones(rank, 24),
        f"{name}.lora_up.weight": torch.ones(24, rank),
        **{f"{name}.{key}": value for key, value in more.items()},
    }


@pytest.mark.parametrize(
    ("tensors", "metadata", "reason"),
    [
        (one_pair(0), {}, "of rank 0"),
        (one_pair() | {f"{LAYER}.lora_up.weight": torch.ones(24, 4)}, {}, "rank 2, but .* rank 4"),
        (one_pair() | {f"{LAYER}.lora_down.weight": torch.ones(())}, {}, "no matrix"),
        (one_pair(alpha=torch.tensor(math.nan)), {}, "alpha holds values that are no numbers"),
        (one_pair(alpha=torch.tensor(1e30)), {}, "no weight can be scaled by"),
        (one_pair(alpha=torch.ones(2)), {}, r"alpha is \[2\], not one number"),
        (one_pair(), {"lora_alpha": "four"}, "lora_alpha is 'four', not a number"),
        (one_pair(), {"lora_alpha": [4]}, r"lora_alpha is \[4\], not a number"),
        (one_pair(), {"lora_alpha": True}, "lora_alpha is True, not a number"),
        (one_pair(), {"alpha_pattern": [1]}, "alpha_pattern in its metadata is no mapping"),
        (one_pair(), {"alpha_pattern": {"(.+)+x": 1}}, "is no layer"),
        (one_pair(), {"use_rslora": "yes"}, "use_rslora"),
        ({key: value.to(torch.int8) for key, value in one_pair().items()}, {}, "of type I8"),
        (one_pair() | {f"{LAYER}.lora_up.weight": torch.full((24, 2), math.inf)}, {}, "no numbers"),
        (one_pair() | one_pair(name="lora_unet_blocks_0_self_attn_q"), {}, "twice, as"),
        ({f"{LAYER}.lora_A.{n}.weight": torch.ones(2, 24) for n in "ab"}, {}, "several adapters"),
        ({f"{LAYER}.lokr_w1": torch.ones(2, 2)}, {}, "a LoKr adapter"),
        (one_pair(hada_w1_a=torch.ones(2, 2)), {}, "a LoHa adapter"),
        (one_pair(name="lora_te_layers_0_q"), {}, "for a text encoder only"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_by_its_header(
    tmp_path: Path, tensors: dict[str, Tensor], metadata: dict[str, object], reason: str
) -> None:
    path = saved(tmp_path / "bad.safetensors", tensors, **metadata)
    with pytest.raises(InputError, match=reason) as caught:
        judge_lora(path, small_transformer().to("meta"))
    assert caught.value.message.startswith("bad.safetensors: ")


@pytest.mark.parametrize("text", ["not json", "[1]", '{"r": 1, "r": 2}', "[" * 100_000])
def test_hostile_metadata_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.safetensors"
    save_file(one_pair(), path, {"lora_adapter_metadata": text})
    with pytest.raises(InputError, match=r"bad\.safetensors: lora_adapter_metadata"):
        judge_lora(path, small_transformer())
    named = saved(tmp_path / "adapter_model.safetensors", one_pair())
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(InputError, match=r"adapter_config\.json beside it"):
        judge_lora(named, small_transformer())


@pytest.mark.parametrize(
    "keys",
    [
        ("lora_unet_blocks_0.self_attn.q.lora_down", "lora_unet_blocks_0.self_attn.q.lora_up"),
        ("transformer.blocks.0.attn1.to_q.lora_A.my", "transformer.blocks.0.attn1.to_q.lora_B.my"),
        ("blocks.0.self_attn.q.lora_A.default_0", "blocks.0.self_attn.q.lora_B.default_0"),
        ("pipe.dit.blocks.0.self_attn.q.lora_A", "pipe.dit.blocks.0.self_attn.q.lora_B"),
    ],
)
def test_namings_between_the_usual_ones_are_resolved(
    pipeline: LongViePipeline, tmp_path: Path, keys: tuple[str, str]
) -> None:
    pairs = pairs_for(pipeline.transformer, LAYERS[:1])
    (down, up) = pairs[LAYERS[0]]
    expected = output_of(merged(pipeline.transformer, (pairs, 1.0)))
    # As convolutions of one pixel, as some trainers write linear layers.
    tensors = {f"{keys[0]}.weight": down * ALPHA / RANK, f"{keys[1]}.weight": up[..., None, None]}
    path = saved(tmp_path / "a.safetensors", tensors)
    assert judge_lora(path, pipeline.transformer) == ()
    add_loras(pipeline, [(path, 1.0)])
    assert_same(output_of(pipeline.transformer), expected)


def test_alpha_by_layer_in_the_metadata_counts_in_both_namings(pipeline: LongViePipeline) -> None:
    pairs = pairs_for(pipeline.transformer, LAYERS[:2])
    for pattern in ("^blocks\\.0\\.attn1\\.to_q$", "blocks.0.self_attn.q"):
        metadata = {"lora_alpha": RANK, "alpha_pattern": {pattern: 3 * RANK}}
        tensors = as_wan(pairs)
        plain = {key: value for key, value in tensors.items() if not key.endswith(".alpha")}
        lora = translate_lora(plain, metadata, pipeline.transformer, name="a")
        assert torch.equal(lora.pairs[LAYERS[0]][0], 3 * pairs[LAYERS[0]][0])
        assert torch.equal(lora.pairs[LAYERS[1]][0], pairs[LAYERS[1]][0])
