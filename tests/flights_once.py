"""Worlds that several runs fly over are built and looked at once in a test process.

A flight gives the same on every call, and building its world and casting its rays takes half the
time of the small videos that most tests make. Nothing is put in the package's place: its own code
computes every value, and what it gave for a world, a look or a set of rays is given again. The
tests of flights themselves, and tests/shipped, do without this.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Any

import pytest
import xxhash
from torch import Tensor

from longvie_cli.worlds import flight
from longvie_cli.worlds.terrain import Terrain

# A world with its colours takes about 40 MB, the depths of a small frame 24 KB.
MOST_WORLDS = 6
MOST_CASTS = 2000


class _Kept:
    """What was made for the last few keys."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._made: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key in self._made:
            self._made.move_to_end(key)
        else:
            self._made[key] = make()
            if len(self._made) > self._most:
                self._made.popitem(last=False)
        return self._made[key]


class RememberingRaycaster(flight.Raycaster):
    """Casts each set of rays once."""

    def __init__(self, terrain: Terrain) -> None:
        super().__init__(terrain)
        self._casts = _Kept(MOST_CASTS)

    def cast(self, origin: Tensor, directions: Tensor) -> Tensor:
        rays = tuple(
            (tuple(part.shape), xxhash.xxh3_128_digest(part.contiguous().numpy()))
            for part in (origin, directions)
        )
        cast = super().cast
        depth: Tensor = self._casts.get(rays, lambda: cast(origin, directions))
        # A copy, since callers may write to what they are given.
        return depth.clone()


@lru_cache(maxsize=1)
def _shared() -> dict[str, Callable[..., Any]]:
    build_terrain, painter = flight.build_terrain, flight.Painter
    painters, raycasters = _Kept(MOST_WORLDS), _Kept(MOST_WORLDS)

    def raycaster_of(terrain: Terrain) -> RememberingRaycaster:
        # With the terrain, so that no other one gets its identity while this is kept.
        return raycasters.get(id(terrain), lambda: (terrain, RememberingRaycaster(terrain)))[1]

    def painter_of(terrain: Terrain, look: Any, seed: int) -> Any:
        key = (id(terrain), look, seed)
        return painters.get(key, lambda: (terrain, painter(terrain, look, seed)))[1]

    return {
        "build_terrain": lru_cache(maxsize=MOST_WORLDS)(build_terrain),
        "Raycaster": raycaster_of,
        "Painter": painter_of,
    }


def fly_once(patch: pytest.MonkeyPatch) -> None:
    """Let flights share what is equal, until the patch is undone."""
    for name, shared in _shared().items():
        patch.setattr(flight, name, shared)
