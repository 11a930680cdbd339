"""Made scenes beyond landscapes, with exact depth: what the embedded depth estimator sees besides.

Rooms, streets, blocks, textured solids and figures, in day, dusk, night and lamplight, seen by any
camera. Everything is a box or an ellipsoid; a scene is a few dozen of them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from longvie_cli.training.tiny.config import TinyTraining

# Of float32 or, where a constant widened it, float64.
Array = NDArray[np.floating[Any]]

KINDS = ("room", "street", "blocks", "solids", "figures")
# Rays a side of a pixel: edges as soft as those of a camera.
_FINER = 2
_SCENES_A_FILE = 50
_FAR = np.float32(1e6)
_EPSILON = 1e-6


@dataclass(frozen=True)
class Solid:
    """A box or an ellipsoid.

    Args:
        centre: In metres: x right, y up, z ahead.
        half: Half of its size along its own axes.
        turn: Its rotation [3, 3], own axes as columns.
        is_round: An ellipsoid.
        is_inside: A room: the walls are seen from within.
        colours: Two colours [2, 3] that its pattern mixes, 0..1.
        pattern: Kind of pattern, see `_pattern`.
        grain: Size of the pattern in metres.
        glow: Light of its own, of the second colour.
    """

    centre: Array
    half: Array
    turn: Array
    is_round: bool
    is_inside: bool
    colours: Array
    pattern: str
    grain: float
    glow: float = 0.0


@dataclass
class Scene:
    """Solids, a camera and light.

    Args:
        solids: What there is.
        eye: Where the camera is.
        view: Its rotation [3, 3]: right, up and ahead as columns.
        focal: Focal length in picture widths.
        sun: Direction towards the light, of length 1.
        sunlight: Colour of the light [3].
        ambient: Colour of the light from all sides [3].
        sky: Colours [2, 3] at the horizon and above.
        fog: Metres after which two thirds are fog; infinite for none.
        lamp: A light inside [3], or None.
    """

    eye: Array
    view: Array
    focal: float
    sun: Array
    sunlight: Array
    ambient: Array
    sky: Array
    fog: float = np.inf
    lamp: Array | None = None
    solids: list[Solid] = field(default_factory=list)


def render_scene(scene: Scene, height: int, width: int) -> tuple[NDArray[np.uint8], Array]:
    """Return the picture uint8 [height, width, 3] and 1 / depth [height, width], 0 in the sky.

    Depth is along the camera's axis, as everywhere.
    """
    rows, columns = height * _FINER, width * _FINER
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    side = (x + 0.5 - columns / 2) / (columns * scene.focal)
    up = -(y + 0.5 - rows / 2) / (columns * scene.focal)
    rays = np.stack((side, up, np.ones_like(side)), axis=-1).reshape(-1, 3) @ scene.view.T
    depth, which = _nearest(scene.solids, scene.eye, rays)
    colours = _background(scene, rays)
    hit = which >= 0
    for index in np.unique(which[hit]):
        mine = which == index
        points = scene.eye + depth[mine, None] * rays[mine]
        colours[mine] = _surface(scene, scene.solids[index], index, points)
    if np.isfinite(scene.fog):
        distance = np.where(hit, depth, scene.fog * 4)
        clear = np.exp(-distance / scene.fog)[:, None]
        colours = clear * colours + (1 - clear) * scene.sky[0]
    disparity = np.where(hit, 1 / np.maximum(depth, 1e-2), 0).astype(np.float32)
    picture = _smaller(colours.reshape(rows, columns, 3))
    rgb = np.rint(255 * np.clip(picture, 0, 1) ** (1 / 2.2)).astype(np.uint8)
    return rgb, _smaller(disparity.reshape(rows, columns))


def _smaller(picture: Array) -> Array:
    rows, columns = picture.shape[0] // _FINER, picture.shape[1] // _FINER
    blocks = picture.reshape(rows, _FINER, columns, _FINER, *picture.shape[2:])
    return blocks.mean(axis=(1, 3)).astype(np.float32)


def _nearest(solids: list[Solid], eye: Array, rays: Array) -> tuple[Array, NDArray[np.int64]]:
    """Return how far along each ray the first solid is, and its number, -1 for none."""
    depth = np.full(len(rays), _FAR, np.float32)
    which = np.full(len(rays), -1)
    for index, solid in enumerate(solids):
        found = _meet(solid, eye, rays)
        nearer = found < depth
        depth[nearer] = found[nearer]
        which[nearer] = index
    return depth, which


def _meet(solid: Solid, start: Array, rays: Array) -> Array:
    """Return how far along rays from `start` ([3] or one a ray) a solid is met, `_FAR` if not."""
    origin = (start - solid.centre) @ solid.turn / solid.half
    ray = rays @ solid.turn / solid.half
    origin = np.broadcast_to(origin, ray.shape)
    if solid.is_round:
        a = np.square(ray).sum(-1)
        b = (origin * ray).sum(-1)
        c = np.square(origin).sum(-1) - 1
        root = b * b - a * c
        met = root > 0
        root = np.sqrt(np.maximum(root, 0))
        enter, leave = (-b - root) / a, (-b + root) / a
    else:
        safe = np.where(np.abs(ray) < _EPSILON, _EPSILON, ray)
        one, other = (-1 - origin) / safe, (1 - origin) / safe
        enter = np.minimum(one, other).max(-1)
        leave = np.maximum(one, other).min(-1)
        met = enter < leave
    found = leave if solid.is_inside else enter
    return np.where(met & (found > 1e-2), found, _FAR).astype(np.float32)


def _normal(solid: Solid, local: Array) -> Array:
    """Return the outward normals (inward in a room) at points in units of the half sizes."""
    if solid.is_round:
        normal = local / solid.half
    else:
        axis = np.abs(local).argmax(-1)
        normal = np.zeros_like(local)
        picked = np.arange(len(local)), axis
        normal[picked] = np.sign(local[picked])
    normal = normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), _EPSILON)
    return (-normal if solid.is_inside else normal) @ solid.turn.T


def _surface(scene: Scene, solid: Solid, index: int, points: Array) -> Array:
    """Return the colours of points of a solid: pattern, light, shadow."""
    local: Array = (points - solid.centre) @ solid.turn / solid.half
    normal = _normal(solid, local)
    amount = _pattern(solid, local * solid.half, index)[:, None]
    albedo = (1 - amount) * solid.colours[0] + amount * solid.colours[1]
    towards = np.maximum((normal * scene.sun).sum(-1), 0)
    raised = points + 1e-2 * normal
    if scene.sunlight.max() > 0:
        others = [each for each in scene.solids if not each.is_inside]
        lit = _nearest(others, raised, np.broadcast_to(scene.sun, raised.shape))[1] < 0
        towards = towards * lit
    # What faces up gets more of the sky than what faces down.
    light = scene.ambient * (0.75 + 0.25 * normal[:, 1:2]) + scene.sunlight * towards[:, None]
    if scene.lamp is not None:
        way = scene.lamp - points
        far = np.maximum(np.linalg.norm(way, axis=-1, keepdims=True), 0.3)
        light = light + 6 * np.maximum((normal * way / far).sum(-1, keepdims=True), 0) / (
            2 + far**2
        )
    return albedo * light + solid.glow * amount * solid.colours[1]


def _pattern(solid: Solid, place: Array, index: int) -> Array:
    """Return for places in metres how much of the second colour is there, 0..1."""
    cell = place / solid.grain
    if solid.pattern == "plain":
        return np.zeros(len(place), np.float32)
    if solid.pattern == "checker":
        return (np.floor(cell).sum(-1) % 2).astype(np.float32)
    if solid.pattern == "stripes":
        return (np.sin(2 * np.pi * cell[:, index % 3]) > 0).astype(np.float32)
    if solid.pattern == "bricks":
        row = np.floor(2 * cell[:, 1])
        along = cell[:, 0] + cell[:, 2] + 0.5 * (row % 2)
        joint = (np.abs(along % 1 - 0.5) > 0.46) | (np.abs((2 * cell[:, 1]) % 1 - 0.5) > 0.42)
        return joint.astype(np.float32)
    if solid.pattern == "windows":
        within = np.abs(cell % 1 - 0.5)
        side = np.where(
            np.abs(place[:, 0]) > np.abs(place[:, 2]) * solid.half[0] / solid.half[2],
            within[:, 2],
            within[:, 0],
        )
        pane = (side < 0.3) & (within[:, 1] < 0.33)
        return np.where(pane, _hash(np.floor(cell), index) > 0.35, 0).astype(np.float32)
    total = np.zeros(len(place), np.float32)
    for octave in range(3):
        total += _smooth_noise(cell * 2**octave, index + 7 * octave) / 2**octave
    return np.clip(total / 1.2 - 0.2, 0, 1).astype(np.float32)


def _hash(cells: Array, seed: int) -> Array:
    value = cells @ np.array([12.9898, 78.233, 37.719], np.float32) + 4.1 * seed
    return np.modf(np.abs(np.sin(value) * 43758.547))[0].astype(np.float32)


def _smooth_noise(place: Array, seed: int) -> Array:
    corner = np.floor(place)
    part = place - corner
    part = part * part * (3 - 2 * part)
    total = np.zeros(len(place), np.float32)
    for bits in range(8):
        step = np.array([bits & 1, bits >> 1 & 1, bits >> 2 & 1], np.float32)
        weight = np.where(step > 0, part, 1 - part).prod(-1)
        total += weight * _hash(corner + step, seed)
    return total


def _background(scene: Scene, rays: Array) -> Array:
    length = np.linalg.norm(rays, axis=-1)
    rise = np.clip(rays[:, 1] / length, 0, 1)[:, None] ** 0.5
    return ((1 - rise) * scene.sky[0] + rise * scene.sky[1]).astype(np.float32)


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
