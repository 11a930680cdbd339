"""One evaluation of the transformer on several processes: Ulysses sequence parallelism.

Every process holds a stretch of the tokens and computes what works token by token: norms, linears,
cross-attention. For self-attention the processes exchange (all-to-all) their tokens for heads, so
that each attends all tokens with its share of the heads, and exchange back (DeepSpeed Ulysses,
arXiv 2309.14509).

History tokens stand before those of the clip, and something is done to the clip's alone: controls
are added to them, nothing but them is returned. So each process holds a stretch of the history and
one of the clip, [history of the process; clip of the process], and rotary tables and control
streams are cut as the tokens they belong to. The order of keys does not matter to attention.

Letters in shapes: B batch, n tokens of this process, N of all, H heads, h heads of this process,
W head width, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed
from torch.distributed import ProcessGroup


class SequenceParallel:
    """The processes of a group, which share the tokens of an evaluation.

    Args:
        group: They; all call the same methods in the same order.
    """

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group
        self.rank = distributed.get_rank(group)
        self.degree = distributed.get_world_size(group)

    def own(self, tokens: Tensor) -> Tensor:
        """Return this process's stretch [B, n, ..] of tokens [B, N, ..].

        Stretches are as equal as can be; the first ones are longer by one token.
        """
        return tokens.tensor_split(self.degree, dim=1)[self.rank]

    def shares(self, history: int, clip: int) -> TokenShares:
        """Return how so many tokens of history and clip lie over the processes.

        Raises:
            ValueError: There are fewer of a kind than processes.
        """
        if 0 < history < self.degree or clip < self.degree:
            raise ValueError(
                f"{history} history tokens and {clip} of the clip cannot be shared by "
                f"{self.degree} processes; each needs one of each kind."
            )
        return TokenShares(self, self._lengths(history), self._lengths(clip))

    def exchange(self, rows: Tensor, given: Sequence[int], taken: Sequence[int]) -> Tensor:
        """Return what all processes have for this one, in their order.

        Args:
            rows: [sum of given, ..], what this one has for each process, in their order.
            given: Rows for each process.
            taken: Rows from each process.
        """
        received = rows.new_empty(sum(taken), *rows.shape[1:])
        distributed.all_to_all_single(
            received, rows.contiguous(), list(taken), list(given), group=self._group
        )
        return received

    def _lengths(self, total: int) -> tuple[int, ...]:
        length, longer = divmod(total, self.degree)
        return tuple(length + (rank < longer) for rank in range(self.degree))


@dataclass(frozen=True)
class TokenShares:
    """How the tokens of history and clip lie over the processes.

    Args:
        parallel: The processes.
        history: History tokens of each.
        clip: Tokens of the clip of each.
    """

    parallel: SequenceParallel
    history: tuple[int, ...]
    clip: tuple[int, ...]

    @property
    def own_history(self) -> int:
        """History tokens of this process."""
        return self.history[self.parallel.rank]

    @property
    def own_clip(self) -> int:
        """Tokens of the clip of this process."""
        return self.clip[self.parallel.rank]

    def own(self, tokens: Tensor) -> Tensor:
        """Return what of [B, N, ..], history before clip, is this process's [B, n, ..]."""
        history = sum(self.history)
        parts = tokens[:, :history], tokens[:, history:]
        return torch.cat(list(map(self.parallel.own, parts)), dim=1)

    def to_heads(self, tokens: Tensor) -> Tensor:
        """Return [B, N, h, W], all tokens with this process's heads, of [B, n, H, W].

        Tokens are in the order of the processes. Without those of history, which `tokens` may be,
        they are the clip's in their own order.
        """
        degree = self.parallel.degree
        batch, length, heads, width = tokens.shape
        by_process = tokens.reshape(batch, length, degree, heads // degree, width)
        rows = by_process.permute(2, 1, 0, 3, 4).flatten(0, 1)
        lengths = self._lengths(length)
        received = self.parallel.exchange(rows, (length,) * degree, lengths)
        return received.transpose(0, 1)

    def to_tokens(self, heads: Tensor) -> Tensor:
        """Return this process's tokens with all heads [B, n, D] of [B, N, h * W].

        The inverse of `to_heads`.
        """
        parallel = self.parallel
        with_history = heads.shape[1] != sum(self.clip)
        given = tuple(map(sum, zip(self.history, self.clip, strict=True)))
        given = given if with_history else self.clip
        length = given[parallel.rank]
        taken = (length,) * parallel.degree
        received = parallel.exchange(heads.transpose(0, 1), given, taken)
        by_process = received.reshape(parallel.degree, length, *received.shape[1:])
        return by_process.permute(2, 1, 0, 3).flatten(2)

    def whole_clip(self, tokens: Tensor) -> Tensor:
        """Return [B, N, D] of the clip, on every process, of this one's [B, n, D]."""
        degree = self.parallel.degree
        # Stretches differ by a token, which not every all-gather knows.
        rows = tokens.transpose(0, 1).repeat(degree, 1, 1)
        received = self.parallel.exchange(rows, (tokens.shape[1],) * degree, self.clip)
        return received.transpose(0, 1)

    def _lengths(self, own: int) -> tuple[int, ...]:
        """Return the tokens of each process where this one has so many."""
        if own == self.own_clip:
            return self.clip
        assert own == self.own_history + self.own_clip, "all tokens, or those of the clip"
        return tuple(map(sum, zip(self.history, self.clip, strict=True)))
