"""Denoising steps that are foretold from the steps before them (`--fast`).

Along the noise levels the velocity of a clip changes slowly and nearly along a line, and what the
prompt adds to it over the negative prompt changes more slowly still. So of every two steps the
second may take the line through the two velocities before it, and the negative prompt may be
evaluated at every second step and its part held at the others. Both are approximations; what they
cost and save is measured in docs/engine.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from longvie_cli.models.flow_matching import controlled_steps
from longvie_cli.settings.sampling import Fast, Sampling

# The first steps settle what is in the picture, and a line wants two points.
_ALWAYS = 3


@dataclass(frozen=True)
class StepPlan:
    """Which evaluations a clip makes.

    Args:
        prompt: For each step, whether the prompt is evaluated; otherwise the step is foretold.
        negative: Likewise the negative prompt; false everywhere without guidance.
    """

    prompt: tuple[bool, ...]
    negative: tuple[bool, ...]

    @property
    def evaluations(self) -> int:
        """How often the model runs in a clip."""
        return sum(self.prompt) + sum(self.negative)


def plan_steps(
    num_inference_steps: int, fast: Fast, *, guided: bool, controlled: range | None = None
) -> StepPlan:
    """Return the evaluations of a clip.

    Args:
        num_inference_steps: Steps in all.
        fast: `steps` foretells every second step after the third, `guidance` evaluates the
            negative prompt at every second step, `both` does both and evaluates it at every
            fourth, `none` evaluates all.
        guided: Whether there is a negative prompt.
        controlled: The steps in which the control branches run, all where None. Where that
            changes, velocities jump, so the steps after it are evaluated as the first ones are.
    """
    prompt, negative = [], []
    begun = 0
    for step in range(num_inference_steps):
        if controlled is not None and step in (controlled.start, controlled.stop):
            begun = step
        since = step - begun
        is_evaluated = fast not in ("steps", "both") or since < _ALWAYS or since % 2 == 0
        is_pulled = {
            "guidance": since % 2 == 0,
            "both": since < _ALWAYS or since % 4 == 0,
        }.get(fast, True)
        prompt.append(is_evaluated)
        negative.append(guided and is_evaluated and is_pulled)
    return StepPlan(tuple(prompt), tuple(negative))


def plan_of(sampling: Sampling) -> StepPlan:
    """Return the evaluations of a clip with both controls."""
    return plan_steps(
        sampling.num_inference_steps,
        sampling.fast,
        guided=sampling.guidance_scale != 1,
        controlled=controlled_steps(
            sampling.num_inference_steps, sampling.control_start, sampling.control_end
        ),
    )


class StepCache:
    """The last two evaluated velocities, and what stands for those that are not evaluated.

    Args:
        plan: Which are.
        sigmas: Noise levels of the steps.
        controlled: The steps in which the control branches run.
    """

    def __init__(self, plan: StepPlan, sigmas: Sequence[float], controlled: range) -> None:
        self._plan = plan
        self._sigmas = sigmas
        self._controlled = controlled
        self._is_exact = all(plan.prompt) and plan.negative in (plan.prompt, (False,) * len(sigmas))
        # Noise level, velocity of the prompt, and what it is beyond that of the negative prompt.
        self._known: list[tuple[float, Tensor, Tensor | None]] = []

    def forget(self) -> None:
        """Drop what is known: it is of another model, or of other controls."""
        self._known.clear()

    def velocities(
        self, step: int, num_prompts: int, evaluate: Callable[[int], list[Tensor]]
    ) -> list[Tensor]:
        """Return the velocities of a step: of the prompt, and of a negative prompt if there is one.

        Args:
            step: Index of the step, from 0 on in order.
            num_prompts: 1 without guidance, else 2.
            evaluate: Returns the velocities of the first so many prompts.
        """
        if self._is_exact:
            return evaluate(num_prompts)
        if step in (self._controlled.start, self._controlled.stop):
            self.forget()
        sigma = self._sigmas[step]
        if not self._plan.prompt[step] and len(self._known) == 2:
            return self._foretell(sigma)
        holds_pull = bool(self._known) and not self._plan.negative[step]
        velocities = evaluate(1 if holds_pull else num_prompts)
        velocity, pull = velocities[0].float(), None
        if len(velocities) > 1:
            pull = velocity - velocities[1].float()
        elif num_prompts > 1:
            pull = self._known[-1][2]
            assert pull is not None
            velocities = [velocity, velocity - pull]
        self._known = [*self._known[-1:], (sigma, velocity, pull)]
        return velocities

    def _foretell(self, sigma: float) -> list[Tensor]:
        """Return the velocities at a noise level on the line through the two that are known."""
        (earlier, velocity, pull), (later, last_velocity, last_pull) = self._known
        along = (sigma - later) / (later - earlier)
        foretold = last_velocity + along * (last_velocity - velocity)
        if pull is None or last_pull is None:
            return [foretold]
        return [foretold, foretold - (last_pull + along * (last_pull - pull))]
