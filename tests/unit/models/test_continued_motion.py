"""The motion of a history, continued: pans, zooms, turns, and what shows none."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from longvie_cli.models.continued_motion import continued_tracks

HEIGHT, WIDTH = 96, 128


def texture(z: NDArray[np.complex128]) -> NDArray[np.uint8]:
    """Return a picture of many corners, read at places z = x + iy."""
    x, y = z.real, z.imag
    waves = [np.sin(x / 4 + k + 2 * np.sin(y / 7)) * np.cos(y / 5 - k) for k in range(3)]
    return (127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def film(growth: complex, shift: complex, count: int) -> NDArray[np.uint8]:
    """Return frames in which a place z is at growth z + shift in the next."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    z = x + 1j * y
    frames = []
    for _ in range(count):
        frames.append(texture(z))
        z = (z - shift) / growth
    return np.stack(frames)


@pytest.mark.parametrize(
    ("growth", "shift"),
    [(1, 1.5 - 0.5j), (1.01, -0.6 - 0.5j), (np.exp(0.01j), 0.4 - 0.6j), (0.99, 0.6 + 0.5j)],
)
def test_what_moved_moves_on(growth: complex, shift: complex) -> None:
    tracks = continued_tracks(film(growth, shift, 8), 17, 6, 5)
    z = tracks.points[0, :, 0] + 1j * tracks.points[0, :, 1]
    for index in range(17):
        found = tracks.points[index, :, 0] + 1j * tracks.points[index, :, 1]
        assert np.abs(found - z).max() < 0.5 + 0.05 * index
        inside = (z.real > 0.5) & (z.real < WIDTH - 1.5) & (z.imag > 0.5) & (z.imag < HEIGHT - 1.5)
        assert tracks.visible[index, inside].all()
        outside = (z.real < -2) | (z.real > WIDTH + 1) | (z.imag < -2) | (z.imag > HEIGHT + 1)
        assert not tracks.visible[index, outside].any()
        z = growth * z + shift


@pytest.mark.parametrize("kind", ["one frame", "grey", "cut", "noise"])
def test_what_shows_no_motion_stands_still(kind: str) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (4, HEIGHT, WIDTH, 3), dtype=np.uint8)
    history = {
        "one frame": film(1, 2, 1),
        "grey": np.full((8, HEIGHT, WIDTH, 3), 90, np.uint8),
        "cut": np.concatenate((film(1, 2, 1), noise[:1])),
        "noise": noise,
    }[kind]
    tracks = continued_tracks(history, 9, 6, 5)
    assert np.allclose(tracks.points, tracks.points[:1], atol=1e-4)
    assert tracks.visible.all()
    assert tracks.points.shape == (9, 30, 2)
