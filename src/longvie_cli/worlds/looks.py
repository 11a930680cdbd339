"""What a world looks like, independent of its shape, and the captions that say so."""

import dataclasses
import itertools
from typing import Literal, get_args

from longvie_cli.worlds.seeding import scalar_stream
from longvie_cli.worlds.terrain import OBJECT_KINDS, TERRAIN_KINDS, Geometry

PaletteName = Literal["snowy", "desert", "meadow", "volcanic", "alien", "autumn", "blossom"]
TimeOfDay = Literal["dawn", "noon", "sunset", "night"]
Weather = Literal["clear", "cloudy", "overcast", "foggy", "rainy", "snowfall"]

PALETTES: tuple[PaletteName, ...] = get_args(PaletteName)
TIMES_OF_DAY: tuple[TimeOfDay, ...] = get_args(TimeOfDay)
WEATHERS: tuple[Weather, ...] = get_args(Weather)

Color = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Look:
    """The three words a prompt controls."""

    palette: PaletteName
    time_of_day: TimeOfDay
    weather: Weather


@dataclasses.dataclass(frozen=True)
class Palette:
    """Colours of surfaces under white light, RGB in [0, 1]."""

    low: Color
    middle: Color
    high: Color
    cliff: Color
    shore: Color
    water: Color
    object_first: Color
    object_second: Color
    rock: Color
    water_glow: float = 0.0
    water_mirror: float = 1.0


@dataclasses.dataclass(frozen=True)
class Light:
    """Sun or moon and sky of one time of day, RGB in [0, 1] unless said otherwise."""

    zenith: Color
    horizon: Color
    glow: Color
    sun: Color
    ambient: Color
    sun_elevation: float
    disc: Color
    disc_radius: float
    stars: float
    cloud: Color
    cloud_shade: Color


# Tables read better with related colours on one line.
# fmt: off
PALETTE_COLORS: dict[PaletteName, Palette] = {
    "snowy": Palette(
        low=(0.84, 0.91, 0.99), middle=(0.92, 0.96, 1.0), high=(1.0, 1.0, 1.0),
        cliff=(0.42, 0.48, 0.60), shore=(0.72, 0.85, 0.95), water=(0.55, 0.80, 0.92),
        object_first=(0.10, 0.28, 0.30), object_second=(0.62, 0.76, 0.84),
        rock=(0.46, 0.52, 0.62), water_mirror=0.5,
    ),
    "desert": Palette(
        low=(0.98, 0.86, 0.52), middle=(0.96, 0.76, 0.40), high=(0.92, 0.66, 0.36),
        cliff=(0.80, 0.46, 0.26), shore=(1.0, 0.92, 0.68), water=(0.06, 0.66, 0.66),
        object_first=(0.42, 0.58, 0.22), object_second=(0.62, 0.66, 0.28),
        rock=(0.78, 0.48, 0.28),
    ),
    "meadow": Palette(
        low=(0.38, 0.74, 0.18), middle=(0.26, 0.62, 0.16), high=(0.52, 0.68, 0.30),
        cliff=(0.48, 0.44, 0.36), shore=(0.86, 0.80, 0.52), water=(0.12, 0.42, 0.78),
        object_first=(0.06, 0.36, 0.12), object_second=(0.16, 0.48, 0.12),
        rock=(0.55, 0.54, 0.50),
    ),
    "volcanic": Palette(
        low=(0.15, 0.13, 0.15), middle=(0.12, 0.11, 0.13), high=(0.22, 0.15, 0.16),
        cliff=(0.20, 0.13, 0.13), shore=(0.75, 0.20, 0.04), water=(1.0, 0.36, 0.04),
        object_first=(0.07, 0.06, 0.07), object_second=(0.17, 0.11, 0.11),
        rock=(0.17, 0.13, 0.14), water_glow=0.95, water_mirror=0.0,
    ),
    "alien": Palette(
        low=(0.56, 0.16, 0.72), middle=(0.40, 0.14, 0.66), high=(0.20, 0.70, 0.72),
        cliff=(0.24, 0.10, 0.42), shore=(0.30, 0.95, 0.78), water=(0.12, 0.90, 0.62),
        object_first=(0.05, 0.78, 0.72), object_second=(0.95, 0.25, 0.72),
        rock=(0.34, 0.20, 0.60), water_glow=0.4, water_mirror=0.35,
    ),
    "autumn": Palette(
        low=(0.86, 0.54, 0.08), middle=(0.78, 0.27, 0.06), high=(0.60, 0.20, 0.10),
        cliff=(0.40, 0.28, 0.22), shore=(0.80, 0.64, 0.36), water=(0.12, 0.30, 0.50),
        object_first=(0.84, 0.10, 0.04), object_second=(1.0, 0.68, 0.04),
        rock=(0.48, 0.38, 0.32),
    ),
    "blossom": Palette(
        low=(0.62, 0.84, 0.56), middle=(0.96, 0.66, 0.76), high=(1.0, 0.86, 0.90),
        cliff=(0.66, 0.46, 0.56), shore=(1.0, 0.92, 0.86), water=(0.36, 0.72, 0.90),
        object_first=(0.98, 0.42, 0.62), object_second=(1.0, 0.72, 0.82),
        rock=(0.70, 0.58, 0.66),
    ),
}

LIGHTS: dict[TimeOfDay, Light] = {
    "dawn": Light(
        zenith=(0.42, 0.50, 0.82), horizon=(0.97, 0.74, 0.78), glow=(1.0, 0.84, 0.62),
        sun=(0.86, 0.62, 0.54), ambient=(0.46, 0.44, 0.60), sun_elevation=16.0,
        disc=(1.0, 0.95, 0.82), disc_radius=3.0, stars=0.0,
        cloud=(1.0, 0.82, 0.80), cloud_shade=(0.66, 0.58, 0.76),
    ),
    "noon": Light(
        zenith=(0.12, 0.40, 0.86), horizon=(0.70, 0.87, 0.98), glow=(1.0, 1.0, 0.95),
        sun=(0.86, 0.83, 0.74), ambient=(0.34, 0.38, 0.44), sun_elevation=52.0,
        disc=(1.0, 1.0, 0.92), disc_radius=2.6, stars=0.0,
        cloud=(1.0, 1.0, 1.0), cloud_shade=(0.76, 0.82, 0.90),
    ),
    "sunset": Light(
        zenith=(0.30, 0.20, 0.46), horizon=(0.98, 0.46, 0.16), glow=(1.0, 0.72, 0.22),
        sun=(1.02, 0.58, 0.30), ambient=(0.42, 0.32, 0.44), sun_elevation=12.0,
        disc=(1.0, 0.88, 0.50), disc_radius=4.0, stars=0.0,
        cloud=(1.0, 0.50, 0.26), cloud_shade=(0.48, 0.22, 0.34),
    ),
    "night": Light(
        zenith=(0.02, 0.05, 0.20), horizon=(0.14, 0.26, 0.52), glow=(0.42, 0.56, 0.80),
        sun=(0.40, 0.47, 0.62), ambient=(0.17, 0.21, 0.34), sun_elevation=30.0,
        disc=(0.96, 0.97, 0.90), disc_radius=3.0, stars=1.0,
        cloud=(0.30, 0.40, 0.62), cloud_shade=(0.09, 0.14, 0.30),
    ),
}
# fmt: on

# The palette each terrain wears in a picture book; used for the share of flights drawn to match.
_NATURAL_PALETTES: dict[str, tuple[PaletteName, ...]] = {
    "mountains": ("snowy", "volcanic", "meadow"),
    "hills": ("meadow", "autumn", "blossom"),
    "dunes": ("desert", "alien"),
    "canyons": ("desert", "volcanic", "autumn"),
    "islands": ("meadow", "blossom", "alien"),
}

# Geometry must not tell the model the look, or it would stop listening to the prompt.
INDEPENDENT_SHARE = 0.7

_PALETTE_WORDS: dict[PaletteName, tuple[str, ...]] = {
    "snowy": ("snowy", "snow-covered", "white snowy"),
    "desert": ("desert", "sandy desert", "orange desert"),
    "meadow": ("green meadow", "lush green", "grassy green"),
    "volcanic": ("volcanic", "black volcanic", "dark volcanic"),
    "alien": ("alien", "purple alien", "alien violet"),
    "autumn": ("autumn", "golden autumn", "red autumn"),
    "blossom": ("pink blossom", "spring blossom", "pink spring blossom"),
}
_TIME_WORDS: dict[TimeOfDay, tuple[str, ...]] = {
    "dawn": ("at dawn", "at pink dawn"),
    "noon": ("at noon", "at bright noon"),
    "sunset": ("at sunset", "at orange sunset"),
    "night": ("at night", "on a moonlit night"),
}
_WEATHER_WORDS: dict[Weather, tuple[str, ...]] = {
    "clear": ("under a clear sky", "in clear weather"),
    "cloudy": ("under a cloudy sky", "under scattered clouds, cloudy weather"),
    "overcast": ("under an overcast sky", "in overcast grey weather"),
    "foggy": ("in thick fog", "in foggy weather"),
    "rainy": ("in dark rain", "in rainy weather"),
    "snowfall": ("in falling snow", "in snowfall"),
}
_TERRAIN_WORDS = {
    "mountains": "mountains",
    "hills": "rolling hills",
    "dunes": "dunes",
    "canyons": "canyons and mesas",
    "islands": "islands",
}
_WATER_WORDS: dict[PaletteName, tuple[str, str]] = {
    "snowy": ("a frozen lake", "an icy sea"),
    "desert": ("an oasis", "a turquoise sea"),
    "meadow": ("a blue lake", "a blue sea"),
    "volcanic": ("a lava lake", "a sea of lava"),
    "alien": ("a glowing lake", "a glowing sea"),
    "autumn": ("a calm lake", "a calm sea"),
    "blossom": ("a clear lake", "a clear sea"),
}
MAXIMUM_CAPTION_LENGTH = 150


def caption_phrases() -> dict[str, tuple[str, ...]]:
    """Returns what captions are made of besides motion, by what it tells, plainest first."""
    tables = {
        "lands": (PALETTES, *_PALETTE_WORDS.values()),
        "times of day": (TIMES_OF_DAY, *_TIME_WORDS.values()),
        "weather": (WEATHERS, *_WEATHER_WORDS.values()),
        "shapes": (TERRAIN_KINDS, _TERRAIN_WORDS.values()),
        "things": ([kind for kind in OBJECT_KINDS if kind != "none"], *_WATER_WORDS.values()),
    }
    return {what: tuple(itertools.chain(*phrases)) for what, phrases in tables.items()}


def random_look(seed: int) -> Look:
    """Draws a look, every word uniform and independent of the geometry of the same seed."""
    draw = scalar_stream(seed, "look")
    return Look(draw.choice(PALETTES), draw.choice(TIMES_OF_DAY), draw.choice(WEATHERS))


def look_for(geometry: Geometry, seed: int) -> Look:
    """Draws the look a flight wears unasked: independent of its geometry 7 times in 10."""
    draw = scalar_stream(seed, "natural look")
    look = random_look(seed)
    if draw.random() < INDEPENDENT_SHARE:
        return look
    palette = draw.choice(_NATURAL_PALETTES[geometry.terrain])
    return dataclasses.replace(look, palette=palette)


def caption_for(
    look: Look, geometry: Geometry | None = None, *, motion: str | None = None, seed: int = 0
) -> str:
    """Writes one English sentence, ASCII, at most 150 characters, that names all of `look`.

    Args:
        look: Always told in full: palette, time of day and weather each keep one key word.
        geometry: Told by terrain, objects and water; left out, the sentence says "landscape".
        motion: What the camera does, such as "turning left"; left out, not told.
        seed: Chooses among the wordings.
    """
    draw = scalar_stream(seed, "caption")
    palette = draw.choice(_PALETTE_WORDS[look.palette])
    time = draw.choice(_TIME_WORDS[look.time_of_day])
    weather = draw.choice(_WEATHER_WORDS[look.weather])
    place = f"{palette} {_TERRAIN_WORDS[geometry.terrain] if geometry else 'landscape'}"
    things = _things(look, geometry) if geometry else ""
    template = draw.randrange(4)
    move = f", {motion}" if motion else ""
    if template == 0:
        over = f"{move} over {things}" if motion else f", with {things}"
        sentence = f"{place} {time} {weather}{over if things else move}"
    elif template == 1:
        sentence = f"a flight over {place} {time} {weather}{move}"
        sentence += f", with {things}" if things else ""
    elif template == 2:
        sentence = f"{place}{f' with {things}' if things else ''}, {time}, {weather}{move}"
    else:
        shot = motion or "flying"
        sentence = f"{shot} over {place} {time}, {weather}"
        sentence += f", past {things}" if things else ""
    sentence = sentence[0].upper() + sentence[1:] + "."
    if len(sentence) > MAXIMUM_CAPTION_LENGTH:
        sentence = f"{place} {time}, {weather}{move}."
        sentence = sentence[0].upper() + sentence[1:]
    return sentence


def _things(look: Look, geometry: Geometry) -> str:
    parts: list[str] = [] if geometry.objects == "none" else [geometry.objects]
    if geometry.water:
        parts.append(_WATER_WORDS[look.palette][geometry.terrain == "islands"])
    return " and ".join(parts)
