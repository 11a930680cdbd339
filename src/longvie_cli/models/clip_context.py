"""What stays as it is while a clip is denoised, computed once.

A clip takes tens of evaluations of the transformer, which differ in the latents, the timestep and,
under guidance, the prompt. `LongVieTransformer3DModel.forward` computes what depends on the rest
by way of the `ClipContext` it is given, so that the second evaluation finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

Value = TypeVar("Value")


class ClipContext:
    """Keeps what the evaluations of one clip have in common.

    A value is found again by its name and by the very tensors it was computed from: the same
    objects, not equal ones. Another prompt or control is another tensor and so another value;
    what has to be computed anew for another reason (weights or adapters that were changed) wants
    `forget`. None of the tensors may be changed in place. Only for evaluations without gradients,
    and for one model.

    Memory, in the type of the model, with D and C the widths of the main blocks and of a control
    block, N tokens of history and clip, M of the clip, T and I of the text (padding counts as one
    token) and the image: keys and values of every block, 2 * (T * evaluations + I) * (D * blocks
    + C * control blocks), about 1.4 GB for LongVie 2 with two prompts of 512 tokens and 0.6 GB
    with prompts of 100; the control streams, 2 * M * C; between the evaluations of a step its
    tokens and the first self-attentions, 2 * N * D + 2 * M * C, nothing where there is one.

    Args:
        evaluations: Of the transformer in a step; 2 where guidance is on. They differ in the
            prompt alone.
    """

    def __init__(self, *, evaluations: int = 1) -> None:
        self.evaluations = evaluations
        self._kept: dict[Hashable, list[_Entry]] = {}
        # With each: how many evaluations have yet to ask for it.
        self._shared: dict[Hashable, tuple[_Entry, int]] = {}

    def keep(
        self,
        name: Hashable,
        inputs: tuple[Tensor | None, ...],
        compute: Callable[[], Value],
        *,
        versions: int = 1,
    ) -> Value:
        """Return what `compute` makes of these inputs, computed once.

        Args:
            name: What it is.
            inputs: All tensors it depends on that may be others at the next call.
            compute: Called where it is not kept.
            versions: For how many different inputs it is kept; the oldest goes first.
        """
        entries = self._kept.setdefault(name, [])
        for entry in entries:
            if entry.is_of(inputs):
                return entry.value
        value = compute()
        entries.append(_Entry(inputs, value))
        del entries[:-versions]
        return value

    def share(
        self, name: Hashable, inputs: tuple[Tensor | None, ...], compute: Callable[[], Value]
    ) -> Value:
        """Return what `compute` makes of these inputs, once for the evaluations of a step.

        After the last of them it is dropped. Arguments as in `keep`.
        """
        if self.evaluations == 1:
            return compute()
        entry, uses_left = self._shared.pop(name, (None, 0))
        if entry is None or not entry.is_of(inputs):
            entry, uses_left = _Entry(inputs, compute()), self.evaluations
        if uses_left > 1:
            self._shared[name] = entry, uses_left - 1
        return entry.value

    def forget(self) -> None:
        """Drop everything, because the weights have changed."""
        self._kept.clear()
        self._shared.clear()


class _Entry(NamedTuple):
    inputs: tuple[Tensor | None, ...]
    value: Any

    def is_of(self, inputs: tuple[Tensor | None, ...]) -> bool:
        pairs = zip(self.inputs, inputs, strict=True)
        return all(ours is theirs for ours, theirs in pairs)
