"""Noise levels of flow matching, for sampling and for training (spec 4.2, 7.5).

A clean latent x and noise e make (1 - sigma) x + sigma e; the model predicts e - x; its timestep is
1000 sigma. Shift s moves levels towards noise: s sigma / (1 + (s - 1) sigma).
"""

from __future__ import annotations

import torch
from torch import Tensor

from longvie_cli.errors import InputError

NUM_TRAIN_TIMESTEPS = 1000


def unshifted_sigmas(num_inference_steps: int) -> list[float]:
    """Return the noise levels 1, 1 - 1/N, .. 1/N that the scheduler then shifts."""
    return torch.linspace(1, 0, num_inference_steps + 1)[:-1].tolist()


def controlled_steps(num_inference_steps: int, start: float = 0.0, end: float = 1.0) -> range:
    """Return the steps in which the control branches run: those with start <= step / steps < end.

    0.0 to 0.6 of 50 steps are steps 0 to 29. An end of 1 takes in the last step; a range between
    two neighbouring steps is empty.

    Args:
        num_inference_steps: Steps in all.
        start: Fraction of the steps, 0 to 1.
        end: Likewise, above `start`.

    Raises:
        InputError: not 0 <= start < end <= 1.
    """
    if not 0 <= start < end <= 1:
        raise InputError(
            f"Controls from {start:g} to {end:g}: these must be fractions of the steps, "
            "0 <= start < end <= 1."
        )
    inside = [step for step in range(num_inference_steps) if start <= step / num_inference_steps]
    # Compared as quotients: 0.29 * 100 is a hair below 29, but 29 / 100 is 0.29.
    kept = [step for step in inside if step / num_inference_steps < end]
    return range(kept[0], kept[-1] + 1) if kept else range(0)


class TrainingNoise:
    """The table of noise levels that LongVie 2 was trained on, and what it derives from it.

    Args:
        flow_shift: 5 in LongVie 2.
        num_timesteps: Entries of the table.

    Attributes:
        sigmas: [num_timesteps], falling from 1.
        timesteps: [num_timesteps], 1000 sigma.
        weights: [num_timesteps] of the loss: a bell around timestep 500, its minimum subtracted,
            mean 1.
    """

    def __init__(self, flow_shift: float, num_timesteps: int = NUM_TRAIN_TIMESTEPS) -> None:
        sigmas = torch.linspace(1, 0, num_timesteps + 1)[:-1]
        self.sigmas = flow_shift * sigmas / (1 + (flow_shift - 1) * sigmas)
        self.timesteps = self.sigmas * NUM_TRAIN_TIMESTEPS
        offset = (self.timesteps - NUM_TRAIN_TIMESTEPS / 2) / NUM_TRAIN_TIMESTEPS
        bell = torch.exp(-2 * offset**2)
        bell = bell - bell.min()
        self.weights = bell * (num_timesteps / bell.sum())

    def entries(self, index: Tensor, timestep_dtype: torch.dtype) -> Tensor:
        """Return the table entries that training at `index` uses, int64, shaped as `index`.

        The timestep is rounded to `timestep_dtype` first and the nearest entry taken: in
        bfloat16 most entries move, as in the released training.
        """
        rounded = self.timesteps[index].to(timestep_dtype).to(self.timesteps.dtype)
        return (self.timesteps - rounded.unsqueeze(-1)).abs().argmin(dim=-1)

    def add_noise(self, clean: Tensor, noise: Tensor, entry: Tensor) -> Tensor:
        """Return clean latents [B, ...] at the noise levels of the table entries [B]."""
        sigma = self.sigmas.to(clean)[entry].view(-1, *[1] * (clean.ndim - 1))
        return (1 - sigma) * clean + sigma * noise


def velocity_target(clean: Tensor, noise: Tensor) -> Tensor:
    """Return what the model should predict: noise - clean, the same at every noise level."""
    return noise - clean
