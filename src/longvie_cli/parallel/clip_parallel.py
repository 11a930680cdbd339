"""One clip on several processes: the halves of guidance apart, and the tokens of each shared.

Under guidance every step evaluates the model for the prompt and for the negative prompt. The two
differ in nothing else, so half of the processes evaluates one and half the other, and only the
velocities are exchanged: the result is the same to the last bit. The processes of a half share the
tokens (`ulysses.py`): the same but for the order of sums.

Process `rank` of `guidance * ulysses` belongs to half `rank // ulysses`. So those that exchange
most, in every block, are next to each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import gcd

import torch
from torch import Tensor, distributed

from longvie_cli.errors import UsageError
from longvie_cli.parallel.ulysses import SequenceParallel

# Of processes that compute the same at the same time. One that is lost is noticed sooner.
_LONGEST_WAIT = timedelta(minutes=30)


@dataclass(frozen=True)
class Degrees:
    """How many processes do what.

    Args:
        guidance: 2 where prompt and negative prompt are evaluated apart, else 1.
        ulysses: Processes that share the tokens of an evaluation.
    """

    guidance: int
    ulysses: int

    @property
    def words(self) -> str:
        """Who does what, for people."""
        count = self.guidance * self.ulysses
        if self.guidance == 1:
            return f"{count} processes share every evaluation of the model."
        each = "one evaluates" if self.ulysses == 1 else f"{self.ulysses} share the evaluation of"
        return f"{count} processes: {each} the prompt and {each} the negative prompt."

    @classmethod
    def of(cls, count: int, *, guided: bool, heads: Sequence[int]) -> Degrees:
        """Return how `count` processes work on a clip: two halves where that can be.

        Args:
            count: Of the processes.
            guided: Whether there is a negative prompt.
            heads: Of all kinds of blocks; those that share tokens need a whole number of each.

        Raises:
            UsageError: So many cannot.
        """
        common = gcd(*heads)
        for guidance in (2, 1) if guided else (1,):
            if count % guidance == 0 and common % (count // guidance) == 0:
                return cls(guidance, count // guidance)
        ulysses = [degree for degree in range(1, common + 1) if common % degree == 0]
        able = sorted({*ulysses, *(2 * degree for degree in ulysses if guided)} - {1})
        numbers = f"use {', '.join(map(str, able))}" if able else "use one"
        raise UsageError(
            f"{count} processes: they cannot share {' and '.join(map(str, heads))} attention heads "
            f"evenly{'' if guided else ' (without guidance there are no two halves)'}.",
            hint=f"Of torchrun's --nproc-per-node, {numbers}.",
        )


class ClipParallel:
    """The processes that denoise one clip, each holding all weights.

    Made on all processes of the default group of `torch.distributed` at the same time, and used
    by all alike.

    Args:
        degrees: They multiply to the number of processes.

    Attributes:
        degrees: As given.
        sequence: Those that share the tokens of an evaluation with this one; None if it is alone.
    """

    def __init__(self, degrees: Degrees) -> None:
        count, rank = distributed.get_world_size(), distributed.get_rank()
        assert degrees.guidance * degrees.ulysses == count, (degrees, count)
        self.degrees = degrees
        self._half, place = divmod(rank, degrees.ulysses)
        ranks = torch.arange(count).view(degrees.guidance, degrees.ulysses)
        # Every process makes all groups, in one order, those of others too.
        of_half, across = (
            [distributed.new_group(row, timeout=_LONGEST_WAIT) for row in rows.tolist()]
            for rows in (ranks, ranks.T)
        )
        self.sequence: SequenceParallel | None = None
        if degrees.ulysses > 1:
            self.sequence = SequenceParallel(of_half[self._half])
        self._across = across[place]

    def evaluations(self, num_prompts: int) -> int:
        """Return for how many of these prompts this process evaluates the model."""
        return sum(self._is_ours(index) for index in range(num_prompts))

    def velocities(
        self, prompts: Sequence[Tensor], evaluate: Callable[[Tensor], Tensor], latents: Tensor
    ) -> list[Tensor]:
        """Return the velocity of every prompt, on every process.

        Args:
            prompts: Embeddings of one or two.
            evaluate: Returns the velocity of one; called for those of this process.
            latents: Of the shape, type and device of a velocity.
        """
        velocities = [
            evaluate(prompt).contiguous() if self._is_ours(index) else torch.empty_like(latents)
            for index, prompt in enumerate(prompts)
        ]
        if self.degrees.guidance > 1:
            for index, velocity in enumerate(velocities):
                distributed.broadcast(velocity, group=self._across, group_src=self._owner(index))
        return velocities

    def _owner(self, prompt: int) -> int:
        return prompt % self.degrees.guidance

    def _is_ours(self, prompt: int) -> bool:
        return self._owner(prompt) == self._half
