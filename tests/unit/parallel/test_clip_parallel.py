"""One clip on several processes of a gloo group, against one process."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from gloo import together
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from longvie_cli.engine.compilation import compile_blocks
from longvie_cli.errors import UsageError
from longvie_cli.models.clip_context import ClipContext
from longvie_cli.models.conditioning import Conditioning
from longvie_cli.models.longvie import LongVieTransformer3DModel
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.parallel.clip_parallel import ClipParallel, Degrees
from small_models import (
    EVEN_HEADS,
    drawn,
    let_controls_act,
    prompt,
    small_pipeline,
    small_transformer,
)

# Other sums of the same float32 terms; outputs are around 3.
ROUNDING = 1e-5
# 15 tokens a frame: neither history nor clip can be cut evenly.
GRID = (3, 5)


def transformer_of_heads() -> LongVieTransformer3DModel:
    transformer = small_transformer(**EVEN_HEADS)
    let_controls_act(transformer)
    return transformer


CONTROLS = {"dense": drawn(1, 16, 3, *GRID, seed=1), "sparse": drawn(1, 16, 3, *GRID, seed=2)}
CASES = list(product((0, 1, 2), ((), ("dense",), ("dense", "sparse")), (True, False)))


@torch.no_grad()
def evaluate(transformer: LongVieTransformer3DModel, cases: list[Any]) -> dict[Any, list[Tensor]]:
    """Return the velocities of two prompts in every case, and at another step of a clip."""
    found = {}
    for history, controls, keeps in cases:
        clip = ClipContext(evaluations=2) if keeps else None
        given: dict[str, Any] = {name: CONTROLS[name] for name in controls}
        if history:
            given["history"] = drawn(1, 16, history, *GRID, seed=3)
        prompts, image = [prompt(7, 5), prompt(3, 6)], drawn(1, 5, 16, seed=4)
        found[history, controls, keeps] = [
            transformer(
                drawn(1, 16, 3, *GRID, seed=20 + step),
                torch.tensor([900.0 - 250 * step]),
                embeds,
                image,
                **given,
                depth_strength=0.7,
                clip=clip,
            ).sample
            for step in range(2 if keeps and history == 2 else 1)
            for embeds in prompts
        ]
    return found


def evaluate_together(cases: list[Any]) -> dict[Any, list[Tensor]]:
    transformer = transformer_of_heads()
    parallel = ClipParallel(Degrees(1, torch.distributed.get_world_size()))
    assert parallel.sequence is not None
    transformer.use_parallel(parallel.sequence)
    return evaluate(transformer, cases)


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_tokens_shared_by_processes_give_the_velocities_of_one(count: int, tmp_path: Path) -> None:
    # In two processes those of the fused engine; in four, which take longer, all.
    cases = CASES if count == 4 else [case for case in CASES if case[2] and len(case[1]) != 1]
    alone = evaluate(transformer_of_heads(), cases)
    for found in together(count, tmp_path, evaluate_together, cases):
        for case, velocities in alone.items():
            for ours, expected in zip(found[case], velocities, strict=True):
                assert expected.abs().max() > 0.5
                assert (ours - expected).abs().max() <= ROUNDING, case


def pipeline_of_heads() -> LongViePipeline:
    pipeline = small_pipeline()
    pipeline.transformer = transformer_of_heads()
    return pipeline


def given(history_frames: int) -> Conditioning:
    return Conditioning(
        prompt_embeds=prompt(7, 5),
        negative_prompt_embeds=prompt(3, 6),
        image_embeds=drawn(1, 5, 16, seed=4),
        image_condition=drawn(1, 10, 3, *GRID, seed=7),
        **CONTROLS,
        history_latents=drawn(1, 6, history_frames, *GRID, seed=8) if history_frames else None,
    )


def denoise(pipeline: LongViePipeline) -> list[Tensor]:
    """Return the latents of a first and a later clip, and of one whose steps are foretold."""
    numbers = {"num_inference_steps": 2, "guidance_scale": 3.0}
    noise = drawn(1, 6, 3, *GRID, seed=9)
    return [
        pipeline.denoise(noise, given(history), **(numbers | more))
        for history, more in (
            (0, {}),
            (2, {"control_start": 0.5}),
            (2, {"fast": "both", "num_inference_steps": 8}),
            (1, {"guidance_scale": 1.0}),
        )
    ]


def denoise_together(degrees: Degrees) -> list[Tensor]:
    pipeline = pipeline_of_heads()
    pipeline.use_parallel(ClipParallel(degrees))
    return denoise(pipeline)


def test_halves_of_guidance_apart_change_no_bit(tmp_path: Path) -> None:
    alone = denoise(pipeline_of_heads())
    for found in together(2, tmp_path, denoise_together, Degrees(2, 1)):
        for ours, expected in zip(found, alone, strict=True):
            assert torch.equal(ours, expected)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["fused", "reference"])
def test_four_processes_are_two_halves_of_two(
    engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LongViePipeline, "engine", engine)
    alone = denoise(pipeline_of_heads())
    everywhere = together(4, tmp_path, denoise_together, Degrees(2, 2))
    for found in everywhere:
        for ours, expected, of_first in zip(found, alone, everywhere[0], strict=True):
            # Over eight steps the differences of the velocities add up.
            assert (ours - expected).abs().max() <= 8 * ROUNDING
            # Were they different, processes would go on from different latents.
            assert torch.equal(ours, of_first)


@pytest.mark.parametrize(
    ("count", "guided", "heads", "degrees"),
    [
        # LongVie 2 on eight GPUs.
        (8, True, (40, 20), (2, 4)),
        (2, True, (40, 20), (2, 1)),
        (4, False, (40, 20), (1, 4)),
        (5, True, (40, 20), (1, 5)),
        # Halves of six would need a third of the heads.
        (2, False, (4, 2), (1, 2)),
        (4, True, (4, 2), (2, 2)),
    ],
)
def test_what_processes_do(
    count: int, guided: bool, heads: tuple[int, ...], degrees: tuple[int, int]
) -> None:
    assert Degrees.of(count, guided=guided, heads=heads) == Degrees(*degrees)


@pytest.mark.parametrize(
    ("count", "guided", "heads", "able"),
    [
        (8, False, (40, 20), "2, 4, 5, 10, 20"),
        (3, True, (40, 20), "2, 4, 5, 8, 10, 20, 40"),
        (3, False, (3, 2), "one"),
        (3, True, (3, 2), "2"),
    ],
)
def test_heads_that_cannot_be_shared(
    count: int, guided: bool, heads: tuple[int, ...], able: str
) -> None:
    with pytest.raises(UsageError) as refused:
        Degrees.of(count, guided=guided, heads=heads)
    assert f"{count} processes" in refused.value.message
    assert refused.value.hint.endswith(f"use {able}.")


def share_too_few() -> list[str]:
    parallel = ClipParallel(Degrees(1, 2)).sequence
    assert parallel is not None
    messages = []
    for history, clip in ((1, 8), (0, 1)):
        with pytest.raises(ValueError, match="cannot be shared") as refused:
            parallel.shares(history, clip)
        messages.append(str(refused.value))
    return messages


def test_every_process_needs_a_token(tmp_path: Path) -> None:
    for messages in together(2, tmp_path, share_too_few):
        assert ["1 history tokens" in messages[0], "1 of the clip" in messages[1]] == [True, True]


def evaluate_compiled_together() -> tuple[list[Tensor], int]:
    """Return the velocities of a first and of two later clips, and the number of graphs."""
    transformer = transformer_of_heads()
    parallel = ClipParallel(Degrees(1, 2)).sequence
    assert parallel is not None
    transformer.use_parallel(parallel)
    counter = CompileCounterWithBackend("aot_eager")
    compile_blocks(transformer, backend=counter)
    return evaluate_clips(transformer), counter.frame_count


@torch.no_grad()
def evaluate_clips(transformer: LongVieTransformer3DModel) -> list[Tensor]:
    velocities = []
    for frames in (0, 2, 2):
        given = dict(CONTROLS)
        if frames:
            given["history"] = drawn(1, 16, frames, *GRID, seed=3)
        clip = ClipContext(evaluations=2)
        for embeds in (prompt(7, 5), prompt(3, 6)):
            latents, image = drawn(1, 16, 3, *GRID, seed=20), drawn(1, 5, 16, seed=4)
            timestep = torch.tensor([900.0])
            output = transformer(latents, timestep, embeds, image, **given, clip=clip)
            velocities.append(output.sample)
    return velocities


@pytest.mark.slow
def test_compiled_blocks_exchange_within_their_graphs(tmp_path: Path) -> None:
    alone = evaluate_clips(transformer_of_heads())
    for velocities, graphs in together(2, tmp_path, evaluate_compiled_together):
        # As many as in one process: none of them is cut where processes exchange.
        assert graphs == 7
        for ours, expected in zip(velocities, alone, strict=True):
            assert (ours - expected).abs().max() <= ROUNDING
