"""Steps that are foretold: which, from what, and that nothing else changes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from longvie_cli.errors import UsageError
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.models.step_cache import StepCache, StepPlan, plan_of, plan_steps
from longvie_cli.settings.presets import load_preset
from longvie_cli.settings.sampling import Fast, Sampling
from small_models import small_pipeline

NUM_FRAMES, HEIGHT, WIDTH = 9, 32, 48


def steps_of(flags: tuple[bool, ...]) -> list[int]:
    return [step for step, flag in enumerate(flags) if flag]


@pytest.mark.parametrize(
    ("fast", "prompt", "negative"),
    [
        ("none", range(12), range(12)),
        ("steps", [0, 1, 2, 4, 6, 8, 10], [0, 1, 2, 4, 6, 8, 10]),
        ("guidance", range(12), range(0, 12, 2)),
        ("both", [0, 1, 2, 4, 6, 8, 10], [0, 1, 2, 4, 8]),
    ],
)
def test_the_plan(fast: Fast, prompt: Any, negative: Any) -> None:
    plan = plan_steps(12, fast, guided=True)
    assert steps_of(plan.prompt) == list(prompt)
    assert steps_of(plan.negative) == list(negative)
    assert plan.evaluations == len(prompt) + len(negative)
    alone = plan_steps(12, fast, guided=False)
    assert steps_of(alone.prompt) == list(prompt) and not any(alone.negative)


def test_the_share_of_fifty_steps_with_guidance() -> None:
    longvie2 = load_preset("longvie2")
    counts = {
        fast: plan_of(Sampling.of(longvie2, fast=fast)).evaluations
        for fast in ("none", "steps", "guidance", "both")
    }
    assert counts == {"none": 100, "steps": 52, "guidance": 75, "both": 41}


def test_where_controls_end_steps_are_evaluated_anew() -> None:
    plan = plan_steps(20, "both", guided=True, controlled=range(0, 11))
    assert steps_of(plan.prompt) == [0, 1, 2, 4, 6, 8, 10, 11, 12, 13, 15, 17, 19]
    assert steps_of(plan.negative) == [0, 1, 2, 4, 8, 11, 12, 13, 15, 19]


def test_too_few_steps_are_refused() -> None:
    tiny = load_preset("tiny")
    for fast in ("steps", "both"):
        with pytest.raises(UsageError, match="--steps 8 or more"):
            Sampling.of(tiny, fast=fast, num_inference_steps=7)
    Sampling.of(tiny, fast="guidance", num_inference_steps=4)


class Line:
    """Velocities that are lines in the noise level, of prompt and negative prompt."""

    def __init__(self, sigmas: list[float]) -> None:
        self.sigmas = sigmas
        self.asked: list[tuple[int, int]] = []

    def at(self, step: int) -> list[Tensor]:
        sigma = self.sigmas[step]
        return [torch.tensor([2 * sigma + 1, -sigma]), torch.tensor([3 * sigma, 0.5 - sigma])]

    def evaluate(self, step: int, num_prompts: int) -> list[Tensor]:
        self.asked.append((step, num_prompts))
        return self.at(step)[:num_prompts]


@pytest.mark.parametrize("num_prompts", [1, 2])
def test_lines_are_foretold_exactly(num_prompts: int) -> None:
    sigmas = [1.0, 0.97, 0.9, 0.85, 0.7, 0.5, 0.3, 0.1]
    line = Line(sigmas)
    plan = plan_steps(8, "steps", guided=num_prompts > 1)
    cache = StepCache(plan, sigmas, range(8))
    for step in range(8):
        found = cache.velocities(
            step, num_prompts, lambda count, step=step: line.evaluate(step, count)
        )
        assert len(found) == num_prompts
        for each, wanted in zip(found, line.at(step), strict=False):
            assert torch.allclose(each, wanted, atol=1e-6)
    assert line.asked == [(step, num_prompts) for step in (0, 1, 2, 4, 6)]


def test_the_part_of_guidance_is_held() -> None:
    sigmas = [1.0, 0.8, 0.6, 0.4]
    line = Line(sigmas)
    cache = StepCache(plan_steps(4, "guidance", guided=True), sigmas, range(4))
    pulls = []
    for step in range(4):
        velocity, negative = cache.velocities(
            step, 2, lambda count, step=step: line.evaluate(step, count)
        )
        assert torch.equal(velocity, line.at(step)[0])
        pulls.append(velocity - negative)
    assert line.asked == [(0, 2), (1, 1), (2, 2), (3, 1)]
    assert torch.allclose(pulls[1], pulls[0]) and torch.allclose(pulls[3], pulls[2])


def test_what_was_forgotten_is_evaluated_before_anything_is_foretold() -> None:
    sigmas = [1 - step / 10 for step in range(10)]
    line = Line(sigmas)
    cache = StepCache(plan_steps(10, "both", guided=True), sigmas, range(10))
    for step in range(10):
        if step == 5:
            cache.forget()
        cache.velocities(step, 2, lambda count, step=step: line.evaluate(step, count))
    assert line.asked == [(0, 2), (1, 2), (2, 2), (4, 2), (5, 2), (6, 1), (8, 2)]


def test_an_exact_plan_keeps_nothing() -> None:
    plan = StepPlan((True, True), (True, True))
    cache = StepCache(plan, [1.0, 0.5], range(2))
    made = [torch.ones(1, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.bfloat16)]
    assert cache.velocities(0, 2, lambda _: made) is made
    assert cache._known == []


@pytest.fixture(scope="module")
def pipeline() -> LongViePipeline:
    return small_pipeline()


def frames(number: int) -> np.ndarray:
    drawn = np.random.default_rng(number).integers(0, 256, (number, HEIGHT, WIDTH, 3))
    return drawn.astype(np.uint8)


def run(pipeline: LongViePipeline, **options: Any) -> tuple[Tensor, Counter[str]]:
    counts: Counter[str] = Counter()
    hooks = [
        pipeline.transformer.register_forward_hook(lambda *_: counts.update(["evaluations"])),
        pipeline.transformer.dense_proj_in.register_forward_hook(
            lambda *_: counts.update(["controls read"])
        ),
    ]
    try:
        result = pipeline(
            "a hill",
            frames(1)[0],
            dense=frames(NUM_FRAMES),
            sparse=frames(NUM_FRAMES),
            history=frames(5),
            output_type="latent",
            return_dict=False,
            **{"num_inference_steps": 12, "guidance_scale": 3.0} | options,
        )
    finally:
        for hook in hooks:
            hook.remove()
    return result[0], counts


@pytest.mark.parametrize("engine", ["fused", "reference"])
@pytest.mark.parametrize("fast", ["steps", "guidance", "both"])
def test_fewer_evaluations_make_nearly_the_same_clip(
    pipeline: LongViePipeline, fast: Fast, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "engine", engine)
    exact, counts = run(pipeline)
    assert counts["evaluations"] == 24
    found, counts = run(pipeline, fast=fast)
    assert counts["evaluations"] == plan_steps(12, fast, guided=True).evaluations
    # Of random weights, whose velocities are no lines; what it costs a trained model is measured
    # in docs/engine.md.
    assert 0 < (found - exact).pow(2).mean().sqrt() < 0.1 * exact.std()
    again, _ = run(pipeline, fast=fast)
    assert torch.equal(again, found)


def test_both_engines_foretell_the_same(
    pipeline: LongViePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = {}
    for engine in ("fused", "reference"):
        monkeypatch.setattr(pipeline, "engine", engine)
        latents[engine], _ = run(pipeline, fast="both", control_end=0.5)
    assert (latents["fused"] - latents["reference"]).abs().max() < 1e-4
