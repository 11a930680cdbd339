"""Periodic height fields: what a world is made of, before any colour.

World units are metres on a toy scale: one texel is one unit, trees are about ten units tall, the
field repeats every `PERIOD` units in x and z. y is up. Textures are indexed [z, x].
"""

import dataclasses
import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from longvie_cli.worlds.fields import PERIOD, Noise, gradient, quantile, smoothstep
from longvie_cli.worlds.seeding import scalar_stream, tensor_stream

TerrainKind = Literal["mountains", "hills", "dunes", "canyons", "islands"]
ObjectKind = Literal["pine trees", "round trees", "boulders", "rock spires", "none"]

TERRAIN_KINDS: tuple[TerrainKind, ...] = get_args(TerrainKind)
OBJECT_KINDS: tuple[ObjectKind, ...] = get_args(ObjectKind)

# Half-widths of the squares whose maxima bound the horizon slope. Close to a factor 1.5 apart: a
# coarser ladder makes the bound looser and the ray march longer, a finer one costs start-up time.
_RING_HALF_WIDTHS = (1, 2, 3, 4, 6, 9, 14, 21, 32, 48, 72, 108, 162, 243, 364, 512)

# Half-width of the square whose maximum the camera path flies over.
CORRIDOR_HALF_WIDTH = 6


@dataclasses.dataclass(frozen=True)
class Geometry:
    """The shape of a world, everything that decides depth and nothing that decides colour.

    Attributes:
        terrain: Family of the height field.
        objects: What stands on it, "none" for bare ground.
        water: Whether the low ground is flooded to a level plane.
        feature_size: Wavelength of the largest forms, in units.
        relief: Height between the lowest and the highest ground, in units.
        object_density: Objects in 100 x 100 units, before clustering.
    """

    terrain: TerrainKind
    objects: ObjectKind
    water: bool
    feature_size: float
    relief: float
    object_density: float


@dataclasses.dataclass(frozen=True)
class Terrain:
    """Textures of one height field, all [PERIOD, PERIOD] float32 and periodic.

    Attributes:
        surface: What rays hit: ground, objects and water together, in units.
        ground: Bare ground, below the water too.
        object_mask: 1 on objects, 0 elsewhere.
        object_tint: A constant in [0, 1] on each object.
        has_trees: Whether the objects grow; otherwise they are rock.
        water_level: Height of the water plane; -inf without water.
        horizon_slope: Steepest rise from a texel's surface to any other, the bound rays step by.
        corridor: Highest surface within CORRIDOR_HALF_WIDTH texels.
        grain: Smooth unit-variance noise for albedo.
    """

    surface: Tensor
    ground: Tensor
    object_mask: Tensor
    object_tint: Tensor
    has_trees: bool
    water_level: float
    horizon_slope: Tensor
    corridor: Tensor
    grain: Tensor


def random_geometry(seed: int) -> Geometry:
    """Draws the geometry of a seed."""
    draw = scalar_stream(seed, "geometry")
    terrain = draw.choice(TERRAIN_KINDS)
    relief_range = {
        "mountains": (70.0, 115.0),
        "hills": (26.0, 52.0),
        "dunes": (24.0, 46.0),
        "canyons": (50.0, 90.0),
        "islands": (50.0, 95.0),
    }[terrain]
    water_chance = {"mountains": 0.5, "hills": 0.5, "dunes": 0.15, "canyons": 0.45, "islands": 1.0}
    objects = draw.choices(OBJECT_KINDS, weights=(30, 28, 16, 12, 14))[0]
    scale = draw.uniform(0.8, 1.35)
    return Geometry(
        terrain=terrain,
        objects=objects,
        water=draw.random() < water_chance[terrain],
        feature_size=220.0 * scale,
        relief=draw.uniform(*relief_range) * scale,
        object_density=draw.uniform(4.0, 16.0) * (0.3 if objects == "rock spires" else 1.0),
    )


def build_terrain(geometry: Geometry, seed: int) -> Terrain:
    """Makes the textures of a geometry; about a third of a second on one core."""
    noise = Noise(tensor_stream(seed, "terrain"))
    ground = _ground(geometry, noise)
    water_level = -math.inf
    if geometry.water:
        share = {"islands": 0.55, "mountains": 0.25, "dunes": 0.18}.get(geometry.terrain, 0.25)
        water_level = quantile(ground, share)
    surface, object_mask, object_tint = _with_objects(geometry, ground, water_level, noise)
    surface = surface.clamp(min=water_level)
    horizon_slope, corridor = _horizon_slope(surface)
    return Terrain(
        surface=surface,
        ground=ground,
        object_mask=object_mask,
        object_tint=object_tint,
        has_trees=geometry.objects in ("pine trees", "round trees"),
        water_level=water_level,
        horizon_slope=horizon_slope,
        corridor=corridor,
        grain=noise.fractal(70.0, 14.0, 1.2),
    )


def resurfaced(terrain: Terrain, surface: Tensor) -> Terrain:
    """Returns a terrain with another surface [PERIOD, PERIOD], ready for rays."""
    horizon_slope, corridor = _horizon_slope(surface)
    return dataclasses.replace(
        terrain, surface=surface, horizon_slope=horizon_slope, corridor=corridor
    )


def _ground(geometry: Geometry, noise: Noise) -> Tensor:
    size = geometry.feature_size
    if geometry.terrain == "mountains":
        shape = _ridged(noise, size)
    elif geometry.terrain == "hills":
        shape = F.softplus(noise.fractal(size * 0.9, 40.0, 2.6) * 1.3)
    elif geometry.terrain == "dunes":
        shape = _dunes(noise, size)
    elif geometry.terrain == "canyons":
        shape = _mesas(noise, size)
    else:
        body = noise.fractal(size * 1.15, 60.0, 1.8)
        crags = _ridged(noise, size * 0.8)
        shape = smoothstep(-0.9, 2.2, body) * (0.75 + 0.6 * crags) + 0.04 * body
    low, high = quantile(shape, 0.002), quantile(shape, 0.998)
    return (shape - low) / (high - low) * geometry.relief


def _ridged(noise: Noise, size: float) -> Tensor:
    """Ridged multifractal in about [0, 1.4]: sharp crests where octaves of noise cross zero."""
    total = torch.zeros(PERIOD, PERIOD)
    weight: Tensor | float = 1.0
    amplitude, longest = 1.0, size * 2.0
    for _ in range(4):
        octave = noise.fractal(longest, longest * 0.45, 1.0)
        # sqrt rounds the crest over a few texels: a true crease would alias.
        ridge = (1.0 - (octave**2 * 0.35 + 0.012).sqrt()).clamp(min=0.0) ** 2
        total = total + amplitude * weight * ridge
        weight = (ridge * 1.6).clamp(max=1.0)
        amplitude, longest = amplitude * 0.36, longest * 0.5
    broad = noise.fractal(size * 2.2, size, 1.0)
    return total * (0.75 + 0.3 * torch.sigmoid(1.5 * broad)) + 0.06 * broad


def _dunes(noise: Noise, size: float) -> Tensor:
    """Long crests with a gentle windward and a steep lee side, bent by smooth noise."""
    axis = torch.arange(PERIOD) / PERIOD
    z, x = axis[:, None], axis[None, :]
    warp = noise.fractal(size * 1.6, 120.0, 1.5)
    total = torch.zeros(PERIOD, PERIOD)
    waves = ((1.0, PERIOD / (size * 0.62), 0.25), (0.35, PERIOD / (size * 0.27), 0.55))
    for amplitude, cycles, angle in waves:
        # Whole numbers of cycles keep the field periodic.
        along_x, along_z = round(cycles * math.cos(angle)), round(cycles * math.sin(angle))
        bend = warp * (0.16 if amplitude == 1.0 else 0.24)
        phase = (along_x * x + along_z * z + bend * cycles * 0.3) % 1.0
        rise = phase / 0.72
        fall = (1.0 - phase) / 0.28
        # A soft minimum rounds crest and trough.
        profile = -torch.logaddexp(-9.0 * rise, -9.0 * fall) / 9.0
        height = 0.45 + 0.55 * torch.sigmoid(1.6 * noise.fractal(size, 90.0, 1.5))
        total = total + amplitude * profile.clamp(min=0.0) * height
    return total + 0.12 * noise.fractal(size * 2.0, size * 0.8, 1.0)


def _mesas(noise: Noise, size: float) -> Tensor:
    """Flat tables in steps above winding canyon floors."""
    body = noise.fractal(size * 0.95, 30.0, 1.8)
    first = smoothstep(-0.36, 0.06, body)
    second = smoothstep(0.5, 0.82, body + 0.12 * noise.fractal(60.0, 24.0, 1.0))
    return first * 0.55 + second * 0.38 + 0.05 * body + 0.012 * noise.fractal(40.0, 18.0, 1.0)


def _with_objects(
    geometry: Geometry, ground: Tensor, water_level: float, noise: Noise
) -> tuple[Tensor, Tensor, Tensor]:
    """Stamps objects into the ground: surface, mask, tint."""
    mask, tint = torch.zeros_like(ground), torch.zeros_like(ground)
    cluster = noise.fractal(150.0, 60.0, 1.0)
    count = int(geometry.object_density * (PERIOD / 100.0) ** 2 * 2)
    draws = torch.rand(6, count, generator=noise.generator)
    if geometry.objects == "none":
        return ground, mask, tint
    radius_range, height_range, reach = {
        "pine trees": ((2.6, 4.6), (8.0, 14.0), 6),
        "round trees": ((3.2, 6.0), (6.0, 10.0), 7),
        "boulders": ((2.5, 6.5), (2.0, 5.5), 8),
        "rock spires": ((5.0, 9.0), (18.0, 40.0), 11),
    }[geometry.objects]
    center_x, center_z = draws[0] * PERIOD, draws[1] * PERIOD
    column, row = center_x.long() % PERIOD, center_z.long() % PERIOD
    slope_z, slope_x = gradient(ground)
    base = ground[row, column]
    steep = (slope_z[row, column] ** 2 + slope_x[row, column] ** 2).sqrt()
    kept = (cluster[row, column] > (draws[2] - 0.5) * 2.4) & (base > water_level + 1.0)
    kept &= steep < 0.9
    center_x, center_z, row, column, base = (
        item[kept] for item in (center_x, center_z, row, column, base)
    )
    size = draws[3][kept]
    radius = radius_range[0] + (radius_range[1] - radius_range[0]) * size
    lift = 0.65 * size + 0.35 * draws[4][kept]
    height = height_range[0] + (height_range[1] - height_range[0]) * lift

    offsets = torch.arange(-reach, reach + 1)
    columns = (column[:, None, None] + offsets[None, None, :]).expand(-1, offsets.numel(), -1)
    rows = (row[:, None, None] + offsets[None, :, None]).expand(-1, -1, offsets.numel())
    distance = (
        (columns - center_x[:, None, None]) ** 2 + (rows - center_z[:, None, None]) ** 2
    ).sqrt() / radius[:, None, None]
    if geometry.objects == "pine trees":
        profile = 1.06 - (distance**2 + 0.0036).sqrt()
    elif geometry.objects == "rock spires":
        profile = 1.0 - distance**3 * (0.7 + 0.3 * distance)
    else:
        profile = (1.0 - distance**2).clamp(min=0.0).sqrt()
    inside = distance < 1.0
    tops = (base[:, None, None] + height[:, None, None] * profile)[inside]
    places = ((rows % PERIOD) * PERIOD + columns % PERIOD)[inside]
    tints = draws[5][kept][:, None, None].expand_as(distance)[inside]

    flat = ground.flatten().clone()
    flat.scatter_reduce_(0, places, tops, "amax")
    won = tops >= flat[places]
    mask.view(-1)[places[won]] = 1.0
    tint.view(-1)[places[won]] = tints[won]
    return flat.view_as(ground), mask, tint


def _horizon_slope(surface: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds the rise from every texel to all others, and the maximum over the flight corridor.

    A ray that is g above a texel and climbs at slope m can move g / (slope - m) along the ground
    without touching anything: cone stepping, with the cone bounded from square maxima.
    """
    slope = torch.zeros_like(surface)
    corridor = widest = surface
    reached = 0
    for half_width in _RING_HALF_WIDTHS:
        widest = _dilate(widest, half_width - reached)
        # What this square adds lies outside the last one, so at least a texel further away.
        torch.maximum(slope, (widest - surface) / (reached + 1), out=slope)
        reached = half_width
        if half_width == CORRIDOR_HALF_WIDTH:
            corridor = widest
    return slope, corridor


def _dilate(field: Tensor, shift: int) -> Tensor:
    field = torch.maximum(field, torch.maximum(field.roll(shift, 0), field.roll(-shift, 0)))
    return torch.maximum(field, torch.maximum(field.roll(shift, 1), field.roll(-shift, 1)))
