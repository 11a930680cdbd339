"""The settings of a training stage: one YAML file, every number with its source.

Defaults are the paper's (arXiv 2512.13604); where the released code differs, the field's comment
says how. Unknown keys are errors.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Stage = Literal["base", "control", "degradation", "history"]

BranchStart = Literal["half_copy", "random"]
"""Where stage `control` starts its branches; see `training.stages.start_branches`."""

Share = Annotated[float, Field(ge=0, le=1)]


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"[{pair[0]:g}, {pair[1]:g}] must be [lowest, highest]")
    return pair


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]


class Settings(BaseModel):
    """Settings that are checked when made and do not change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DenseScale(Settings):
    """Feature-level degradation of the depth branch: its strength is drawn anew.

    Args:
        probability: Share of samples (paper alpha 0.15; code 0.05).
        range: Of the factor (paper [0.05, 1]; code [0.8, 1.2]).
        at: `output` scales what the branch adds to the main stream (paper), `tokens` its tokens
            before the input linear (code).
    """

    probability: Share = 0.15
    range: Range = (0.05, 1.0)
    at: Literal["output", "tokens"] = "output"


class DepthDegradation(Settings):
    """Data-level degradation of the depth control: scales fused at random, and blur.

    Args:
        probability: Share of samples (paper beta 0.10; code 0.05, in its history data alone).
        scales: The picture at 1, 1/2, .. 1/2^scales; one of them is left out (paper n = 5).
        blur_probability: That a blur that was drawn happens (code 0.9; the paper says nothing).
        blur_kernel: Smallest and largest side, in pixels; even ones are made odd (code 3 to 15).
    """

    probability: Share = 0.10
    scales: int = Field(default=5, ge=1, le=10)
    blur_probability: Share = 0.9
    blur_kernel: tuple[int, int] = (3, 15)

    @model_validator(mode="after")
    def _ordered_kernel(self) -> Self:
        if not 1 <= self.blur_kernel[0] <= self.blur_kernel[1]:
            raise ValueError("blur_kernel must be [smallest, largest], at least 1")
        return self


class ColourDrift(Settings):
    """A tint towards a colour near the picture's mean, stronger here than there.

    Args:
        probability: Share of samples (paper: none; code 0.10 of input frames, 0.05 of histories).
        tint: Smallest and largest strength (code [0.1, 0.2] and [0.1, 0.3]).
        spatial: How much the strength varies over the picture (code 0.3).
    """

    probability: Share = 0.0
    tint: Range = (0.1, 0.2)
    spatial: float = Field(default=0.3, ge=0, le=2)


class FrameDegradation(Settings):
    """Degradation of the conditioning picture.

    Args:
        probability: Share of samples (paper 0.20; code 0.10).
        reencode_share: Of these, how many go through VAE cycles; the others are noised and
            denoised by the model itself (paper 0.20; code 0.40).
        cycles: Numbers of cycles (paper 0 to 10; code 0 to 4).
        cycle_weights: How often each of them; "small ones more likely" in the paper, falling
            linearly in the code.
        regenerate_steps: Steps of the 50-step grid from its clean end (paper; code 1,2,3,4,6).
        regenerate_weights: How often each of them, as above (code 6,4,3,2,1).
        colour_drift: Afterwards, independently.
    """

    probability: Share = 0.20
    reencode_share: Share = 0.20
    cycles: tuple[int, ...] = tuple(range(11))
    cycle_weights: tuple[float, ...] = tuple(range(11, 0, -1))
    regenerate_steps: tuple[int, ...] = (1, 5, 8, 10, 12)
    regenerate_weights: tuple[float, ...] = (5, 4, 3, 2, 1)
    colour_drift: ColourDrift = ColourDrift()

    @model_validator(mode="after")
    def _one_weight_each(self) -> Self:
        for name, values, weights in (
            ("cycles", self.cycles, self.cycle_weights),
            ("regenerate_steps", self.regenerate_steps, self.regenerate_weights),
        ):
            if not values or len(values) != len(weights):
                raise ValueError(f"{name} needs at least one value, and one weight for each")
            if min(weights) < 0 or sum(weights) <= 0:
                raise ValueError(f"the weights of {name} must be 0 or more, and not all 0")
        if min(self.cycles) < 0:
            raise ValueError("cycles must be 0 or more")
        if not all(1 <= steps <= 50 for steps in self.regenerate_steps):
            raise ValueError("regenerate_steps must be 1 to 50, the steps of the whole grid")
        return self


class Degradation(Settings):
    """Everything that is made worse on purpose.

    Args:
        dense_scale: See there; all stages with control.
        depth: Likewise.
        frame: Of the conditioning picture, from stage `degradation` on.
        history: Of the history frames, in stage `history`, without depth (code 0.05; the paper
            names the operators of `frame`).
        no_history: Share of samples of stage `history` without any (code 0.20).
        off_steps: Steps without any degradation (paper 2000 in stage 1, its probabilities rising
            over `phase_in_steps` after them; code: none).
        phase_in_steps: See above (paper 1000).
    """

    dense_scale: DenseScale = DenseScale()
    depth: DepthDegradation = DepthDegradation()
    frame: FrameDegradation = FrameDegradation()
    history: FrameDegradation = FrameDegradation()
    no_history: Share = 0.20
    off_steps: int = Field(default=0, ge=0)
    phase_in_steps: int = Field(default=0, ge=0)


LEARNING_RATES: dict[Stage, float] = {
    "base": 1e-5,
    "control": 1e-5,
    "degradation": 1e-5,
    "history": 5e-6,
}
"""Of each stage as paper and code have it (`base` is no stage of theirs)."""

STEPS: dict[Stage, int] = {"base": 5000, "control": 5000, "degradation": 1000, "history": 2000}
"""Optimizer steps of each stage (paper; `base` is no stage of its)."""


class TrainingSettings(Settings):
    """How a stage is trained.

    Args:
        seed: Of everything that is drawn.
        steps: Optimizer steps; those of the paper's stage where not given.
        batch: Samples of a step, over all processes (paper 16, one on each of 16 GPUs).
        learning_rate: That of the paper's stage where not given.
        first_steps: This many steps are taken at a third of it (code 5, torch's ConstantLR).
        weight_decay: Of AdamW (code 0.01).
        max_grad_norm: Longer gradients are shortened to it (neither clips).
        ema_decay: Of the averaged weights, which are what is exported; null: no average (neither
            paper nor code has one).
        dtype: Of the arithmetic of the transformer; its weights in training are float32.
        sharded: Each process holds a part of the transformer (FSDP2) instead of all of it.
        gradient_checkpointing: Blocks are computed again in the backward pass (code: on).
        weigh_timesteps: Weight of the loss by noise level (code: a bell around 500).
        terms: When the terms of a degraded start count in stage `history`: `always` (paper) or in
            `degraded` samples alone (code). In stage `degradation` it is the latter.
        picture: What conditions a sample that has history, unless it was degraded itself: the
            `last_history` frame (code) or its `own` first frame (as at inference).
        degradation: What is made worse.
        checkpoint_every: Steps between checkpoints.
        keep_checkpoints: How many of them stay.
        validate_every: Steps between validations, where there are samples for it.
        validation_samples: Of each.
        validation_steps: Of the sampler, for the clip to look at; without guidance.
    """

    seed: int = Field(default=0, ge=0, lt=2**63)
    steps: int | None = Field(default=None, ge=1)
    batch: int = Field(default=16, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    first_steps: int = Field(default=5, ge=0)
    weight_decay: float = Field(default=0.01, ge=0)
    max_grad_norm: float | None = Field(default=None, gt=0)
    ema_decay: float | None = Field(default=0.999, gt=0, lt=1)
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    sharded: bool = False
    gradient_checkpointing: bool = True
    weigh_timesteps: bool = True
    terms: Literal["always", "degraded"] = "always"
    picture: Literal["last_history", "own"] = "last_history"
    degradation: Degradation = Degradation()
    checkpoint_every: int = Field(default=100, ge=1)
    keep_checkpoints: int = Field(default=2, ge=1)
    validate_every: int = Field(default=500, ge=1)
    validation_samples: int = Field(default=4, ge=1)
    validation_steps: int = Field(default=20, ge=1)
