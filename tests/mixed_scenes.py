"""Small pictures, 48x32, of two scenes that go over into each other as editors mix them."""

from __future__ import annotations

import numpy as np


def mix(one: np.ndarray, other: np.ndarray | float, share: float) -> np.ndarray:
    return np.rint(one * (1 - share) + other * share).astype(np.uint8)


def dissolve(
    one: list[np.ndarray], other: list[np.ndarray], *, before: int, mixed: int
) -> list[np.ndarray]:
    """Go over from one clip to another while both go on."""
    middle = [
        mix(one[before + index], other[index], (index + 1) / (mixed + 1)) for index in range(mixed)
    ]
    return [*one[:before], *middle, *other[mixed:]]


def pictured(seed: int, num_frames: int, *, speed: float = 0.3) -> list[np.ndarray]:
    """A camera that goes along a wall of colours of many sizes."""
    rng = np.random.default_rng(seed)
    wall = sum(
        np.kron(rng.normal(0, 22, (48 // size, 192 // size, 3)), np.ones((size, size, 1)))
        for size in (24, 8, 2)
    )
    wall = np.clip(wall + rng.uniform(70, 180, 3), 0, 255)
    places = speed * np.arange(num_frames)
    whole, part = places.astype(int), (places % 1)[:, None, None, None]
    views = np.stack([wall[8:40, place : place + 49] for place in whole])
    return list(np.rint(views[:, :, :-1] * (1 - part) + views[:, :, 1:] * part).astype(np.uint8))
