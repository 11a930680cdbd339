"""Periodic scalar fields: noise, gradients and the small maths shared by shape and colour.

Every field is [PERIOD, PERIOD] float32, indexed [z, x], one texel a world unit, without a seam.
"""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

PERIOD: Final = 1024


class Noise:
    """Periodic band-limited Gaussian noise, drawn in a fixed order from one generator."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def fractal(self, longest: float, shortest: float, decay: float) -> Tensor:
        """Returns unit-variance noise between two wavelengths, in texels.

        Amplitude falls as frequency ** -decay.
        """
        # Nothing finer than `shortest` exists, so a coarse grid carries it and the FFT stays small.
        size = PERIOD
        while size > 64 and PERIOD / size * 5.0 <= shortest:
            size //= 2
        white = torch.fft.rfft2(torch.randn(size, size, generator=self.generator))
        rows = torch.fft.fftfreq(size, d=1.0 / size)[:, None]
        columns = torch.fft.rfftfreq(size, d=1.0 / size)[None, :]
        frequency = (rows**2 + columns**2).sqrt()
        low, high = PERIOD / longest, PERIOD / shortest
        band = torch.exp(-((low / frequency.clamp(min=0.5)) ** 4))
        band = band * torch.exp(-((frequency / high) ** 4))
        # 2-D amplitude density: one extra power of frequency spreads it over the ring.
        band = band * frequency.clamp(min=0.5) ** -(decay + 1.0)
        band[0, 0] = 0.0
        field = torch.fft.irfft2(white * band, s=(size, size))
        return resize_periodic(field / field.std(), PERIOD)


def resize_periodic(field: Tensor, size: int) -> Tensor:
    """Up-samples bicubically by an integer factor, texel 0 staying at texel 0, without a seam."""
    factor = size // field.shape[-1]
    if factor == 1:
        return field
    padded = F.pad(field[None, None], (2, 3, 2, 3), mode="circular")
    count = padded.shape[-1]
    fine = F.interpolate(
        padded, size=((count - 1) * factor + 1,) * 2, mode="bicubic", align_corners=True
    )[0, 0]
    return fine[2 * factor : 2 * factor + size, 2 * factor : 2 * factor + size].contiguous()


def quantile(field: Tensor, share: float) -> float:
    """Returns the value below which a share of the field lies, from every 16th texel."""
    return float(torch.quantile(field[::4, ::4].flatten(), share))


def smoothstep(low: float, high: float, value: Tensor) -> Tensor:
    """Rises from 0 at `low` to 1 at `high`, flat at both ends."""
    ramp = ((value - low) / (high - low)).clamp(0.0, 1.0)
    return ramp * ramp * (3.0 - 2.0 * ramp)


def gradient(field: Tensor) -> tuple[Tensor, Tensor]:
    """Returns central differences along z and along x."""
    along_z = (field.roll(-1, 0) - field.roll(1, 0)) * 0.5
    along_x = (field.roll(-1, 1) - field.roll(1, 1)) * 0.5
    return along_z, along_x


def blur(field: Tensor, radius: int) -> Tensor:
    """Returns a periodic blur of a few texels: a box, twice."""
    size = 2 * radius + 1
    for _ in range(2):
        padded = F.pad(field[None, None], (radius,) * 4, mode="circular")
        field = F.avg_pool2d(F.avg_pool2d(padded, (1, size), 1), (size, 1), 1)[0, 0]
    return field


def broad_blur(field: Tensor) -> Tensor:
    """Returns the field without forms smaller than about 50 texels, cheaply."""
    # Rolled by half a block, so that block means sit where up-sampling puts them.
    coarse = F.avg_pool2d(field.roll((4, 4), (0, 1))[None, None], 8)[0, 0]
    return resize_periodic(blur(coarse, 2), field.shape[-1])
