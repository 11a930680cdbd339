"""What is computed once a clip: the same result as computed every time, and only once."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longvie_cli.kernels.quantized_linear import quantize_linears
from longvie_cli.models.attention import (
    PackedProjections,
    padding_as_few_tokens,
)
from longvie_cli.models.clip_context import ClipContext
from longvie_cli.models.longvie import LongVieTransformer3DModel
from longvie_cli.models.pipeline import Engine, LongViePipeline
from small_models import drawn, let_controls_act, prompt, small_pipeline, small_transformer

# Other sums of the same float32 terms; outputs are around 3.
ROUNDING = 2e-5


def transformer_with_controls(**changes: object) -> LongVieTransformer3DModel:
    transformer = small_transformer(**changes)
    let_controls_act(transformer)
    return transformer


CONTROLS = {"dense": drawn(1, 16, 3, 4, 6, seed=1), "sparse": drawn(1, 16, 3, 4, 6, seed=2)}
HISTORY = drawn(1, 16, 2, 4, 6, seed=3)
IMAGE = drawn(1, 5, 16, seed=4)
PROMPTS = [prompt(7, 5), prompt(3, 6)]


@torch.no_grad()
def evaluate(
    transformer: LongVieTransformer3DModel,
    clip: ClipContext | None,
    prompts: list[Tensor],
    *,
    steps: int = 3,
    **given: Any,
) -> list[Tensor]:
    """Return the velocities of all prompts at each of some steps."""
    velocities = []
    for step in range(steps):
        latents = drawn(1, 16, 3, 4, 6, seed=20 + step)
        timestep = torch.tensor([900.0 - 250 * step])
        for embeds in prompts:
            arguments = {"encoder_hidden_states_image": IMAGE} | given
            output = transformer(latents, timestep, embeds, **arguments, clip=clip)
            velocities.append(output.sample)
    return velocities


def assert_close(ours: list[Tensor], expected: list[Tensor]) -> None:
    assert len(ours) == len(expected)
    for one, other in zip(ours, expected, strict=True):
        assert other.abs().max() > 0.1
        assert (one - other).abs().max() <= ROUNDING


@contextmanager
def counted(transformer: LongVieTransformer3DModel) -> Iterator[Counter[str]]:
    """Count how often each module runs."""
    calls: Counter[str] = Counter()
    hooks = [
        module.register_forward_hook(lambda *_, name=name: calls.update([name]))
        for name, module in transformer.named_modules()
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("history", [None, HISTORY], ids=["first clip", "later clip"])
@pytest.mark.parametrize("controls", [(), ("dense",), ("sparse",), ("dense", "sparse")])
@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS], ids=["unguided", "guided"])
def test_velocities_are_those_of_the_plain_model(
    history: Tensor | None, controls: tuple[str, ...], prompts: list[Tensor]
) -> None:
    transformer = transformer_with_controls()
    given = {"history": history, "depth_strength": 0.7, "track_strength": 1.3}
    given |= {name: CONTROLS[name] for name in controls}
    plain = evaluate(transformer, None, prompts, **given)
    clip = ClipContext(evaluations=len(prompts))
    assert_close(evaluate(transformer, clip, prompts, **given), plain)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_control_layers": 3},
        {"num_layers": 1, "num_control_layers": 1},
        {"num_control_layers": 0},
        {"image_dim": None, "added_kv_proj_dim": None},
        {"added_kv_proj_dim": None},
        {"cross_attn_norm": False},
    ],
    ids=str,
)
def test_models_of_other_forms(changes: dict[str, object]) -> None:
    transformer = transformer_with_controls(**changes)
    given: dict[str, Any] = {"history": HISTORY, **CONTROLS}
    if "image_dim" in changes:
        given["encoder_hidden_states_image"] = None
    plain = evaluate(transformer, None, PROMPTS, **given)
    assert_close(evaluate(transformer, ClipContext(evaluations=2), PROMPTS, **given), plain)


@pytest.mark.parametrize("tokens", [[20, 20], [20, 1], [0, 19], [18, 0]])
def test_prompts_of_every_length(tokens: list[int]) -> None:
    transformer = transformer_with_controls()
    prompts = [prompt(count, seed) for seed, count in enumerate(tokens)]
    plain = evaluate(transformer, None, prompts, **CONTROLS)
    assert_close(evaluate(transformer, ClipContext(evaluations=2), prompts, **CONTROLS), plain)


def test_a_batch_of_clips() -> None:
    transformer = transformer_with_controls()
    both = torch.cat(PROMPTS)
    given = {name: control.repeat(2, 1, 1, 1, 1) for name, control in CONTROLS.items()}
    given |= {
        "history": HISTORY.repeat(2, 1, 1, 1, 1),
        "encoder_hidden_states_image": IMAGE.repeat(2, 1, 1),
    }
    latents, timestep = drawn(2, 16, 3, 4, 6), torch.tensor([500.0])
    with torch.no_grad():
        plain = transformer(latents, timestep, both, **given).sample
        kept = transformer(latents, timestep, both, **given, clip=ClipContext()).sample
    assert_close([kept], [plain])


def test_what_does_not_change_is_computed_once() -> None:
    transformer = transformer_with_controls()
    steps, evaluations = 3, 2
    with counted(transformer) as calls:
        evaluate(
            transformer,
            ClipContext(evaluations=evaluations),
            PROMPTS,
            steps=steps,
            history=HISTORY,
            **CONTROLS,
        )
    blocks = ["blocks.0", "blocks.2", "dense_blocks.0", "sparse_blocks.1"]
    for block in blocks:
        for once_a_prompt in ("attn2.to_k", "attn2.norm_k", "attn2.to_v"):
            assert calls[f"{block}.{once_a_prompt}"] == evaluations
        for once_a_clip in ("attn2.add_k_proj", "attn2.norm_added_k", "attn2.add_v_proj"):
            assert calls[f"{block}.{once_a_clip}"] == 1
        assert calls[f"{block}.attn2.to_q"] == steps * evaluations
    # Until the first cross-attention the evaluations of a step are one.
    for stack in ("blocks", "dense_blocks", "sparse_blocks"):
        assert calls[f"{stack}.0.attn1"] == steps
        assert calls[f"{stack}.1.attn1"] == steps * evaluations
    # Latents at every step; history and two controls once.
    assert calls["patch_embedding"] == steps + 3
    assert calls["dense_proj_in"] == calls["sparse_proj_in"] == 1
    assert calls["condition_embedder.text_embedder"] == evaluations
    assert calls["condition_embedder.image_embedder"] == 1
    assert calls["condition_embedder.time_proj"] == steps
    assert calls["control_time_proj"] == steps
    assert calls["control_text_proj"] == evaluations


def test_sharing_the_first_self_attention_changes_no_bit() -> None:
    transformer = transformer_with_controls()
    given = {"history": HISTORY, **CONTROLS}
    shared = evaluate(transformer, ClipContext(evaluations=2), PROMPTS, **given)
    alone = [evaluate(transformer, ClipContext(), [embeds], **given) for embeds in PROMPTS]
    for step in range(3):
        for index in range(2):
            assert torch.equal(shared[2 * step + index], alone[index][step])


def test_keeping_changes_no_bit_from_step_to_step() -> None:
    transformer = transformer_with_controls()
    kept = evaluate(transformer, ClipContext(), PROMPTS[:1], **CONTROLS)
    latents = [drawn(1, 16, 3, 4, 6, seed=20 + step) for step in range(3)]
    for step in (2, 0):
        with torch.no_grad():
            anew = transformer(
                latents[step],
                torch.tensor([900.0 - 250 * step]),
                PROMPTS[0],
                IMAGE,
                **CONTROLS,
                clip=ClipContext(),
            ).sample
        assert torch.equal(anew, kept[step])


def test_behind_the_last_block_there_is_no_history() -> None:
    transformer = transformer_with_controls()
    rows: list[int] = []
    last = transformer.blocks[-1]
    for module in (last, last.attn1, last.attn2, last.ffn.net[2], transformer.blocks[1]):
        module.register_forward_hook(lambda _m, _a, output: rows.append(output.shape[1]))
    evaluate(transformer, ClipContext(), PROMPTS[:1], steps=1, history=HISTORY)
    assert rows == [5 * 24, 3 * 24, 3 * 24, 3 * 24, 3 * 24]


def test_other_inputs_are_other_values() -> None:
    transformer = transformer_with_controls()
    clip = ClipContext(evaluations=2)
    before = {"history": HISTORY, **CONTROLS}
    evaluate(transformer, clip, PROMPTS, **before)
    changes: list[tuple[list[Tensor], dict[str, Any]]] = [
        ([prompt(9, 30), PROMPTS[1]], before),
        (PROMPTS, before | {"dense": drawn(1, 16, 3, 4, 6, seed=31)}),
        (PROMPTS, before | {"history": drawn(1, 16, 2, 4, 6, seed=32)}),
        (PROMPTS, before | {"history": HISTORY[:, :, :1]}),
        (PROMPTS, before | {"history": None}),
        (PROMPTS, before | {"encoder_hidden_states_image": drawn(1, 5, 16, seed=33)}),
        (PROMPTS, before | {"track_strength": 0.0}),
        (PROMPTS, {}),
        (PROMPTS, before),
    ]
    for prompts, given in changes:
        plain = evaluate(transformer, None, prompts, **given)
        assert_close(evaluate(transformer, clip, prompts, **given), plain)


def test_changed_weights_count_after_forgetting() -> None:
    transformer = transformer_with_controls()
    clip = ClipContext(evaluations=2)
    evaluate(transformer, clip, PROMPTS, **CONTROLS)
    with torch.no_grad():
        for block in transformer.blocks:
            block.attn2.to_v.weight *= 2
    clip.forget()
    plain = evaluate(transformer, None, PROMPTS, **CONTROLS)
    assert_close(evaluate(transformer, clip, PROMPTS, **CONTROLS), plain)


def test_no_more_is_kept_than_a_clip_needs() -> None:
    transformer = transformer_with_controls()
    clip = ClipContext(evaluations=2)
    seen: list[weakref.ref[Tensor]] = []
    first = transformer.blocks[0]
    first.attn1.register_forward_hook(lambda _m, _a, output: seen.append(weakref.ref(output)))
    first.attn2.to_v.register_forward_hook(lambda _m, _a, out: seen.append(weakref.ref(out)))
    evaluate(transformer, clip, PROMPTS, steps=1)
    gc.collect()
    attended, *values = seen
    assert attended() is None, "both evaluations have had it"
    assert len(values) == 2
    seen.clear()
    evaluate(transformer, clip, [prompt(4, 40), prompt(5, 41), prompt(6, 42), prompt(7, 43)])
    # Every prompt of a sequence longer than two is new each time; two are kept.
    assert all(len(kept) <= 2 for kept in clip._kept.values())


def test_one_evaluation_a_step_shares_nothing() -> None:
    clip = ClipContext()
    clip.share("tokens", (IMAGE,), lambda: IMAGE)
    assert not clip._shared


def test_a_context_is_not_for_training() -> None:
    transformer = transformer_with_controls()
    with pytest.raises(AssertionError, match="no gradients"):
        transformer(
            drawn(1, 16, 3, 4, 6), torch.tensor([500.0]), PROMPTS[0], IMAGE, clip=ClipContext()
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tokens", [0, 1, 5, 19, 20, 300, 511, 512])
def test_few_tokens_weigh_as_much_as_all_padding(dtype: torch.dtype, tokens: int) -> None:
    total = 20 if tokens <= 20 else 512
    embeds = drawn(1, total, 16, seed=7).to(dtype)
    embeds[:, tokens:] = 0
    few, bias = padding_as_few_tokens(embeds)
    assert torch.equal(few, embeds[:, : few.shape[1]])
    if bias is None:
        assert few.shape[1] == total
        return
    assert few.shape[1] <= tokens + 4 and few.shape[1] < total
    assert torch.equal(bias.to(dtype).float(), bias), "no rounding on the way to the scores"
    assert not bias[:tokens].any()
    padding = bias[tokens:].double().exp().sum().item()
    assert padding == pytest.approx(total - tokens, rel=1e-6)

    # And so in attention: every padding row is one key and one value.
    keys, values, query = drawn(total, 8, seed=8), drawn(total, 8, seed=9), drawn(3, 8, seed=10)
    keys[tokens:], values[tokens:] = keys[-1].clone(), values[-1].clone()
    attended = F.scaled_dot_product_attention(
        query.double(),
        keys[: len(bias)].double(),
        values[: len(bias)].double(),
        attn_mask=bias.double(),
    )
    wanted = F.scaled_dot_product_attention(query.double(), keys.double(), values.double())
    assert (attended - wanted).abs().max() <= 2e-6


def test_zero_rows_before_the_end_are_not_padding() -> None:
    embeds = prompt(9, 1)
    embeds[:, 4] = 0
    few, bias = padding_as_few_tokens(embeds)
    assert bias is not None and few.shape[1] == 10
    assert bias[:9].eq(0).all()


def packed(transformer: LongVieTransformer3DModel) -> list[nn.Module]:
    return [module for name, module in transformer.named_modules() if name.endswith("attn1")]


def test_packing_changes_neither_weights_nor_results() -> None:
    transformer = transformer_with_controls()
    before = {name: value.clone() for name, value in transformer.state_dict().items()}
    given = {"history": HISTORY, **CONTROLS}
    apart = evaluate(transformer, ClipContext(evaluations=2), PROMPTS, **given)
    plain = evaluate(transformer, None, PROMPTS, **given)
    transformer.pack_projections()
    for attn in packed(transformer):
        linears = (attn.to_q, attn.to_k, attn.to_v)
        assert len({linear.weight.untyped_storage().data_ptr() for linear in linears}) == 1
    after = transformer.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    together = evaluate(transformer, ClipContext(evaluations=2), PROMPTS, **given)
    assert all(map(torch.equal, together, apart))
    assert all(map(torch.equal, evaluate(transformer, None, PROMPTS, **given), plain))


def test_packed_weights_follow_what_is_done_to_them() -> None:
    transformer = transformer_with_controls()
    transformer.pack_projections()
    reference = transformer_with_controls()
    with torch.no_grad():
        for model in (transformer, reference):
            model.blocks[1].attn1.to_k.weight.mul_(1.5)
            model.blocks[1].attn1.to_q.bias.add_(0.25)
    expected = evaluate(reference, ClipContext(), PROMPTS[:1])
    assert all(map(torch.equal, evaluate(transformer, ClipContext(), PROMPTS[:1]), expected))
    # Moved apart, as to another device and back.
    transformer.double().float()
    assert all(map(torch.equal, evaluate(transformer, ClipContext(), PROMPTS[:1]), expected))
    loaded = {name: value.clone() for name, value in small_transformer().state_dict().items()}
    transformer.load_state_dict(loaded, assign=True)
    reference.load_state_dict(loaded)
    expected = evaluate(reference, ClipContext(), PROMPTS[:1])
    assert all(map(torch.equal, evaluate(transformer, ClipContext(), PROMPTS[:1]), expected))


def test_quantized_projections_stay_apart() -> None:
    transformer = transformer_with_controls()
    quantize_linears(transformer, "int8", within=("blocks", "dense_blocks"))
    transformer.pack_projections()
    assert not PackedProjections.are_plain(transformer.blocks[0].attn1)
    given = {"history": HISTORY, **CONTROLS}
    plain = evaluate(transformer, None, PROMPTS, **given)
    assert_close(evaluate(transformer, ClipContext(evaluations=2), PROMPTS, **given), plain)


def test_adapters_of_a_packed_model_count_and_go() -> None:
    peft = pytest.importorskip("peft")
    transformer = transformer_with_controls()
    transformer.pack_projections()
    before = evaluate(transformer, ClipContext(), PROMPTS[:1], **CONTROLS)
    transformer.add_adapter(
        peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    )
    adapted = evaluate(transformer, None, PROMPTS[:1], **CONTROLS)
    assert (adapted[0] - before[0]).abs().max() > 0.01
    assert_close(evaluate(transformer, ClipContext(), PROMPTS[:1], **CONTROLS), adapted)
    transformer.unload_lora()
    after = evaluate(transformer, ClipContext(), PROMPTS[:1], **CONTROLS)
    assert all(map(torch.equal, after, before))


def test_bfloat16_is_as_near_to_float32_as_the_plain_model() -> None:
    exact = transformer_with_controls()
    rounded = transformer_with_controls().to(torch.bfloat16)
    given = {"history": HISTORY, **CONTROLS}
    halves = {name: value.bfloat16() for name, value in given.items()}
    halves["encoder_hidden_states_image"] = IMAGE.bfloat16()
    wanted = torch.stack(evaluate(exact, None, PROMPTS, **given))

    def error(clip: ClipContext | None) -> float:
        prompts = [embeds.bfloat16() for embeds in PROMPTS]
        with torch.no_grad():
            found = [
                rounded(
                    drawn(1, 16, 3, 4, 6, seed=20 + step).bfloat16(),
                    torch.tensor([900.0 - 250 * step]),
                    embeds,
                    **halves,
                    clip=clip,
                ).sample.float()
                for step in range(3)
                for embeds in prompts
            ]
        return (torch.stack(found) - wanted).square().mean().sqrt().item()

    plain = error(None)
    assert plain > 1e-3
    # Rounded at other places, not more often.
    assert error(ClipContext(evaluations=2)) <= 1.1 * plain


HEIGHT, WIDTH, NUM_FRAMES = 32, 48, 9


def frames(count: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)


RANGE = {"control_start": 0.3, "control_end": 0.7}
# Every two values together; all three together run with the slow ones.
QUICKLY = [({}, False, 1.0), ({}, True, 3.0), (RANGE, True, 1.0), (RANGE, False, 3.0)]
FORMS = list(product([{}, RANGE], [False, True], [1.0, 3.0]))


@pytest.mark.parametrize(
    ("schedule", "controlled", "guidance"),
    [pytest.param(*form, marks=[] if form in QUICKLY else pytest.mark.slow) for form in FORMS],
)
def test_frames_are_those_of_the_reference(
    guidance: float, controlled: bool, schedule: dict[str, float]
) -> None:
    pipeline = small_pipeline()
    dense, sparse = (frames(NUM_FRAMES, 1), frames(NUM_FRAMES, 2)) if controlled else (None, None)
    options: dict[str, Any] = {
        "num_frames": NUM_FRAMES,
        "num_inference_steps": 4,
        "guidance_scale": guidance,
        **schedule,
    }
    first = frames(NUM_FRAMES, 3)
    for history in (None, first[-8:]):
        made = {}
        engines: tuple[Engine, ...] = ("reference", "fused")
        for pipeline.engine in engines:
            made[pipeline.engine] = pipeline(
                "a hill", first[-1], dense, sparse, history, **options
            ).frames.astype(int)
        moved = np.abs(made["fused"] - made["reference"])
        # A value within rounding of a whole byte may be cut to its neighbour.
        assert moved.max() <= 1
        assert (moved > 0).mean() <= 1e-3


def test_an_adapter_changed_between_steps_counts_at_once() -> None:
    pytest.importorskip("peft")
    pipeline = small_pipeline()
    layers = [f"blocks.{index}.attn2.{name}" for index in range(3) for name in ("to_k", "to_v")]
    tensors = {}
    for index, layer in enumerate(layers):
        tensors[f"transformer.{layer}.lora_A.weight"] = drawn(2, 24, seed=index)
        tensors[f"transformer.{layer}.lora_B.weight"] = drawn(24, 2, seed=99 - index)
    pipeline.load_lora_weights(tensors, adapter_name="style")

    def turn_down(pipeline: LongViePipeline, step_index: int, *_: object) -> None:
        pipeline.set_adapters(["style"], [1.0 if step_index else 0.2])

    made = {}
    engines: tuple[Engine, ...] = ("reference", "fused")
    for pipeline.engine in engines:
        pipeline.set_adapters(["style"], [1.0])
        made[pipeline.engine] = pipeline(
            "a hill",
            frames(1)[0],
            frames(NUM_FRAMES, 1),
            num_inference_steps=3,
            guidance_scale=2.0,
            callback_on_step_end=turn_down,
            output_type="latent",
        ).frames
    assert (made["fused"] - made["reference"]).abs().max() <= 1e-4
