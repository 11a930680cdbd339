"""Made scenes beyond landscapes, with exact depth: what the embedded depth estimator sees besides.

Rooms, streets, blocks, textured solids and figures, in day, dusk, night and lamplight, seen by any
camera. Everything is a box or an ellipsoid; a scene is a few dozen of them.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from longvie_cli.training.tiny.config import TinyTraining
from longvie_cli.training.tiny.ray_casting import Array, Scene, Solid, render_scene

KINDS = ("room", "street", "blocks", "solids", "figures")
_SCENES_A_FILE = 50


def _turn(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> Array:
    cy, sy, cp, sp, cr, sr = (f(angle) for angle in (yaw, pitch, roll) for f in (np.cos, np.sin))
    around_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    around_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    around_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return (around_y @ around_x @ around_z).astype(np.float32)


class _Maker:
    """Draws the parts of a scene."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        light = rng.choice(["noon", "low", "overcast", "night"], p=[0.35, 0.2, 0.25, 0.2])
        height = {"noon": 0.9, "low": 0.25, "overcast": 0.8, "night": 0.6}[light]
        sun = np.array([rng.normal(), height * 2, rng.normal()], np.float32)
        self.sun = (sun / np.linalg.norm(sun)).astype(np.float32)
        strength, around = {
            "noon": (0.9, 0.35), "low": (0.8, 0.2), "overcast": (0.0, 0.7), "night": (0.06, 0.04),
        }[light]  # fmt: skip
        warm = np.array([1.0, 0.75, 0.5]) if light == "low" else np.ones(3)
        self.sunlight = (strength * warm * rng.uniform(0.8, 1.2)).astype(np.float32)
        self.ambient = (around * rng.uniform(0.8, 1.2, 3)).astype(np.float32)
        blue = np.array([[0.6, 0.7, 0.85], [0.2, 0.4, 0.8]])
        self.sky = {
            "noon": blue, "low": np.array([[0.9, 0.5, 0.3], [0.3, 0.35, 0.6]]),
            "overcast": np.full((2, 3), 0.65),
            "night": np.array([[0.05, 0.05, 0.08], [0, 0, 0.02]]),
        }[light].astype(np.float32)  # fmt: skip
        self.glow = 0.8 if light == "night" else 0.0
        self.is_night = light == "night"
        self.solids: list[Solid] = []

    def colours(self) -> Array:
        one = self.rng.uniform(0.05, 0.9, 3)
        if self.rng.random() < 0.5:
            one = np.full(3, one.mean()) + self.rng.normal(0, 0.06, 3)
        other = np.clip(one + self.rng.normal(0, 0.35), 0.02, 0.95) * self.rng.uniform(0.8, 1.2, 3)
        return np.clip(np.stack((one, other)), 0.02, 0.95).astype(np.float32)

    def add(
        self,
        centre: tuple[float, float, float],
        half: tuple[float, float, float],
        *,
        yaw: float = 0.0,
        tilt: tuple[float, float] = (0.0, 0.0),
        is_round: bool = False,
        is_inside: bool = False,
        pattern: str | None = None,
        glow: float = 0.0,
    ) -> None:
        patterns = ["plain", "checker", "stripes", "bricks", "noise", "noise", "noise"]
        size = max(half)
        grain = float(np.exp(self.rng.uniform(np.log(0.15), np.log(1.2)))) * min(size, 2.0)
        self.solids.append(
            Solid(
                np.array(centre, np.float32),
                np.array(half, np.float32),
                _turn(yaw, *tilt),
                is_round,
                is_inside,
                self.colours(),
                pattern or str(self.rng.choice(patterns)),
                grain,
                glow,
            )
        )

    def ground(self) -> None:
        self.add((0, -0.5, 0), (400, 0.5, 400))

    def figure(self, x: float, z: float) -> None:
        """A standing figure of ellipsoids, 1.5 to 1.9 m tall."""
        tall = self.rng.uniform(0.85, 1.08)
        yaw = self.rng.uniform(0, 2 * np.pi)
        stride = self.rng.uniform(0, 0.25)
        side = np.array([np.cos(yaw), -np.sin(yaw)])
        for leg in (-1, 1):
            dx, dz = leg * (0.1 * side + stride * 0.5 * np.array([side[1], -side[0]]))
            self.add((x + dx, 0.42 * tall, z + dz), (0.09, 0.45 * tall, 0.11), is_round=True)
        self.add((x, 1.12 * tall, z), (0.24, 0.38 * tall, 0.16), yaw=yaw, is_round=True)
        for arm in (-1, 1):
            dx, dz = arm * 0.28 * side
            self.add((x + dx, 1.08 * tall, z + dz), (0.06, 0.33 * tall, 0.08), is_round=True)
        self.add((x, 1.62 * tall, z), (0.1, 0.13, 0.11), is_round=True, pattern="plain")

    def thing(self, x: float, y: float, z: float, size: float) -> None:
        half = size * self.rng.uniform(0.4, 1.0, 3)
        tilt = (0.0, 0.0) if self.rng.random() < 0.6 else tuple(self.rng.uniform(-0.6, 0.6, 2))
        self.add(
            (x, y + half[1], z),
            (half[0], half[1], half[2]),
            yaw=self.rng.uniform(0, 2 * np.pi),
            tilt=(tilt[0], tilt[1]),
            is_round=self.rng.random() < 0.4,
        )

    def scene(
        self,
        eye: tuple[float, float, float],
        view: Array,
        *,
        fog: float = np.inf,
        lamp: Array | None = None,
    ) -> Scene:
        focal = 0.5 / np.tan(np.radians(self.rng.uniform(35, 85)) / 2)
        return Scene(
            np.array(eye, np.float32),
            view,
            float(focal),
            self.sun,
            self.sunlight,
            self.ambient,
            self.sky,
            fog=fog,
            lamp=lamp,
            solids=self.solids,
        )


def _room(make: _Maker) -> Scene:
    rng = make.rng
    wide, tall, deep = rng.uniform(1.8, 6), rng.uniform(2.3, 4), rng.uniform(2.5, 9)
    make.add((0, tall / 2, 0), (wide, tall / 2, deep), is_inside=True)
    # Floor and ceiling have patterns of their own.
    make.add((0, 0, 0), (wide, 0.02, deep))
    make.add((0, tall, 0), (wide, 0.02, deep), pattern="plain")
    for _ in range(rng.integers(4, 14)):
        x, z = rng.uniform(-wide, wide) * 0.9, rng.uniform(-deep * 0.5, deep * 0.95)
        make.thing(x, 0, z, rng.uniform(0.2, 1.2))
    for _ in range(rng.integers(0, 6)):
        wall = rng.choice([-1, 1])
        z = rng.uniform(-deep, deep) * 0.9
        make.add(
            (wall * wide * 0.99, tall * rng.uniform(0.4, 0.75), z),
            (0.04, rng.uniform(0.2, 0.6), rng.uniform(0.2, 0.8)),
            pattern="noise",
        )
    if rng.random() < 0.5:
        make.figure(rng.uniform(-wide, wide) * 0.6, rng.uniform(-deep * 0.2, deep * 0.8))
    make.sunlight = np.zeros(3, np.float32)
    make.ambient = (rng.uniform(0.08, 0.5) * rng.uniform(0.85, 1.15, 3)).astype(np.float32)
    lamp = np.array([rng.uniform(-wide, wide) * 0.6, tall * 0.9, rng.uniform(-deep, deep) * 0.6])
    eye = (
        rng.uniform(-wide, wide) * 0.6,
        tall * rng.uniform(0.3, 0.75),
        -deep * rng.uniform(0.5, 0.9),
    )
    view = _turn(rng.normal(0, 0.35), rng.normal(-0.08, 0.15), rng.normal(0, 0.04))
    return make.scene(eye, view, lamp=lamp.astype(np.float32))


def _street(make: _Maker) -> Scene:
    rng = make.rng
    make.ground()
    wide = rng.uniform(4, 14)
    make.add((0, 0, 100), (wide * 0.6, 0.03, 300), pattern="noise")
    for side in (-1, 1):
        z = -20.0
        while z < 160:
            deep, tall = rng.uniform(4, 14), rng.uniform(4, 30)
            set_back = wide + rng.uniform(0, 3)
            if rng.random() < 0.85:
                make.add(
                    (side * (set_back + 6), tall / 2, z + deep / 2),
                    (6, tall / 2, deep / 2 * 0.96),
                    pattern="windows" if rng.random() < 0.8 else None,
                    glow=make.glow,
                )
            z += deep
    for _ in range(rng.integers(0, 9)):
        x, z = rng.choice([-1, 1]) * wide * rng.uniform(0.15, 0.85), rng.uniform(3, 70)
        yaw = rng.normal(0, 0.1)
        make.add((x, 0.65, z), (0.9, 0.45, 2.1), yaw=yaw, pattern="plain")
        make.add((x, 1.25, z), (0.75, 0.3, 1.1), yaw=yaw, pattern="plain")
    for _ in range(rng.integers(0, 7)):
        make.figure(rng.choice([-1, 1]) * wide * rng.uniform(0.3, 0.95), rng.uniform(2.5, 30))
    for _ in range(rng.integers(0, 8)):
        x, z = rng.choice([-1, 1]) * wide * 0.9, rng.uniform(3, 60)
        if rng.random() < 0.5:
            make.add((x, 2.5, z), (0.08, 2.5, 0.08), pattern="plain")
        else:
            tall = rng.uniform(1, 2)
            make.add((x, tall, z), (0.15, tall, 0.15), pattern="noise")
            make.add((x, 2 * tall + 1, z), (1.3, 1.5, 1.3), is_round=True, pattern="noise")
    high = rng.random() < 0.25
    eye = (rng.uniform(-wide, wide) * 0.8, rng.uniform(6, 25) if high else rng.uniform(1, 2.5), 0)
    pitch = rng.uniform(-0.7, -0.2) if high else rng.normal(0, 0.1)
    fog = np.inf if rng.random() < 0.7 else rng.uniform(40, 200)
    return make.scene(eye, _turn(rng.normal(0, 0.4), pitch, rng.normal(0, 0.04)), fog=fog)


def _blocks(make: _Maker) -> Scene:
    rng = make.rng
    if rng.random() < 0.7:
        make.ground()
    if rng.random() < 0.5:
        make.add((0, 10, rng.uniform(8, 30)), (60, 20, 0.5))
    for _ in range(rng.integers(6, 30)):
        x, z = rng.normal(0, 4), rng.uniform(2, 18)
        lift = 0.0 if rng.random() < 0.6 else rng.uniform(0, 4)
        make.thing(x, lift, z, rng.uniform(0.3, 2.0))
    eye = (rng.normal(0, 1), rng.uniform(0.6, 4), rng.uniform(-3, 0))
    return make.scene(eye, _turn(rng.normal(0, 0.2), rng.normal(-0.12, 0.15), rng.normal(0, 0.1)))


def _solids(make: _Maker) -> Scene:
    """Things on a table, near: the camera looks down at any angle."""
    rng = make.rng
    make.add((0, -0.05, 0), (1.2, 0.05, 1.0))
    make.add((0, 1, rng.uniform(1.2, 4)), (6, 3, 0.2))
    make.add((0, -1.2, 0), (8, 0.2, 8))
    for _ in range(rng.integers(3, 12)):
        make.thing(rng.uniform(-0.6, 0.6), 0, rng.uniform(-0.5, 0.8), rng.uniform(0.06, 0.28))
    pitch = rng.uniform(-1.2, -0.1)
    far = rng.uniform(0.6, 1.5)
    eye = (rng.normal(0, 0.15), 0.1 + far * np.sin(-pitch), -far * np.cos(pitch))
    return make.scene(eye, _turn(rng.normal(0, 0.2), pitch, rng.normal(0, 0.1)))


def _figures(make: _Maker) -> Scene:
    rng = make.rng
    make.ground()
    if rng.random() < 0.6:
        make.add((0, 4, rng.uniform(5, 25)), (40, 8, 0.5), pattern=None)
    for _ in range(rng.integers(1, 8)):
        z = float(np.exp(rng.uniform(np.log(1.2), np.log(14))))
        make.figure(rng.normal(0, 0.35) * z, z)
    for _ in range(rng.integers(0, 8)):
        make.thing(rng.normal(0, 4), 0, rng.uniform(2, 18), rng.uniform(0.2, 1.2))
    eye = (rng.normal(0, 0.3), rng.uniform(0.8, 2.2), 0)
    return make.scene(eye, _turn(rng.normal(0, 0.15), rng.normal(-0.02, 0.1), rng.normal(0, 0.05)))


_MAKERS = {
    "room": _room, "street": _street, "blocks": _blocks, "solids": _solids, "figures": _figures,
}  # fmt: skip


def made_scene(seed: int) -> tuple[str, Scene]:
    """Return the kind of a scene and the scene; the same for the same seed."""
    rng = np.random.default_rng((seed, 20261126))
    kind = KINDS[int(rng.integers(len(KINDS)))]
    return kind, _MAKERS[kind](_Maker(rng))


def render_scenes(config: TinyTraining, folder: Path, *, worker: int, num_workers: int) -> None:
    """Render every `num_workers`-th missing file of made scenes in the work folder."""
    target = folder / "scenes"
    target.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for first in range(worker * _SCENES_A_FILE, config.num_scenes, num_workers * _SCENES_A_FILE):
        path = target / f"{first // _SCENES_A_FILE:05d}.safetensors"
        if path.exists():
            continue
        pictures = [
            render_scene(made_scene(seed)[1], config.height, config.width)
            for seed in range(first, min(first + _SCENES_A_FILE, config.num_scenes))
        ]
        rgb, disparity = (np.stack(part) for part in zip(*pictures, strict=True))
        part = path.with_suffix(".part")
        save_file({"rgb": rgb, "disparity": disparity}, part)
        os.replace(part, path)
