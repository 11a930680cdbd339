"""Pictures of boxes and ellipsoids with exact depth: rays cast, patterns, sun, lamp, shadow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Of float32 or, where a constant widened it, float64.
Array = NDArray[np.floating[Any]]

# Rays a side of a pixel: edges as soft as those of a camera.
_FINER = 2
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
