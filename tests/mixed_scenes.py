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


def pictured(seed: int, num_frames: int, *, speed: float = 0.25) -> list[np.ndarray]:
    """A camera that goes along a wall of colours of many sizes, a quarter of a pixel exact."""
    rng = np.random.default_rng(seed)
    wall = sum(
        np.kron(rng.normal(0, 22, (32 // size, 192 // size, 3)), np.ones((size, 4 * size, 1)))
        for size in (16, 8, 2)
    )
    wall = np.clip(wall + rng.uniform(70, 180, 3), 0, 255)
    places = np.rint(4 * speed * np.arange(num_frames)).astype(int)
    views = np.stack([wall[:, place : place + 192] for place in places])
    return list(np.rint(views.reshape(num_frames, 32, 48, 4, 3).mean(axis=3)).astype(np.uint8))
