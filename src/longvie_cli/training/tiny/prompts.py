"""Prompts as people write them: paraphrases of a look for the text encoder and the transformer."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from longvie_cli.worlds.looks import PALETTES, TIMES_OF_DAY, WEATHERS, Look, caption_phrases

# Worlds' own captions use one small vocabulary; people use more. Plain words come first.
PALETTE_WORDS: dict[str, tuple[str, ...]] = {
    "snowy": (
        "snow",
        "snowy",
        "snow-covered",
        "white snow",
        "winter",
        "frozen",
        "icy",
        "snow and ice",
    ),
    "desert": ("desert", "sandy", "sand", "orange sand", "desert sand", "arid", "sahara"),
    "meadow": ("green", "grass", "meadow", "green grass", "grassy", "lush green", "green meadows"),
    "volcanic": (
        "volcanic",
        "lava",
        "black rock",
        "volcano",
        "black volcanic rock",
        "ash",
        "burnt",
    ),
    "alien": (
        "alien",
        "alien planet",
        "purple",
        "violet",
        "purple alien",
        "sci-fi",
        "another planet",
    ),
    "autumn": (
        "autumn",
        "fall colours",
        "golden autumn",
        "autumn leaves",
        "red and gold",
        "autumnal",
    ),
    "blossom": ("pink", "blossom", "cherry blossom", "spring blossom", "pink flowers", "sakura"),
}
TIME_WORDS: dict[str, tuple[str, ...]] = {
    "dawn": ("dawn", "at dawn", "sunrise", "early morning", "morning light", "at sunrise"),
    "noon": ("noon", "at noon", "midday", "day", "daylight", "bright daylight", "in the afternoon"),
    "sunset": ("sunset", "at sunset", "golden hour", "dusk", "evening", "orange evening light"),
    "night": (
        "night",
        "at night",
        "moonlit",
        "moonlight",
        "under the stars",
        "dark night",
        "midnight",
    ),
}
WEATHER_WORDS: dict[str, tuple[str, ...]] = {
    "clear": ("clear", "clear sky", "sunny", "cloudless", "clear weather", "fine weather"),
    "cloudy": ("cloudy", "clouds", "scattered clouds", "some clouds", "white clouds"),
    "overcast": ("overcast", "grey sky", "overcast sky", "gloomy", "dull weather"),
    "foggy": ("fog", "foggy", "mist", "misty", "haze", "thick fog", "hazy"),
    "rainy": ("rain", "rainy", "rainstorm", "stormy", "dark rain", "storm"),
    "snowfall": ("snowfall", "falling snow", "snowing", "blizzard", "snowflakes"),
}
PLACES = (
    "landscape", "mountains", "hills", "valley", "dunes", "canyon", "islands", "world",
    "wilderness", "plain", "scenery", "peaks", "ridge", "coast", "wasteland", "terrain", "",
)  # fmt: skip
OPENINGS = (
    "", "", "", "a", "a flight over", "flying over", "aerial view of", "drone shot of", "cinematic",
    "a beautiful", "a video of", "the camera flies over", "slowly over",
)  # fmt: skip


# Words of the prompts that stand in any other as well.
_GRAMMAR = {"a", "an", "and", "another", "at", "in", "of", "on", "over", "some", "the", "under"}


def paraphrase(look: Look, rng: np.random.Generator) -> tuple[str, tuple[bool, bool, bool]]:
    """Return a short free prompt for a look, and which of palette, time, weather it names."""
    palette = str(rng.choice(PALETTE_WORDS[look.palette]))
    time = str(rng.choice(TIME_WORDS[look.time_of_day])) if rng.random() < 0.75 else ""
    weather = str(rng.choice(WEATHER_WORDS[look.weather])) if rng.random() < 0.5 else ""
    subject = f"{palette} {rng.choice(PLACES)}".strip()
    opening = str(rng.choice(OPENINGS))
    details = [word for word in (time, weather) if word]
    rng.shuffle(details)
    joint = str(rng.choice([", ", " ", ", "]))
    text = " ".join(f"{opening} {subject}{joint if details else ''}{joint.join(details)}".split())
    if rng.random() < 0.5:
        text = text[0].upper() + text[1:]
    if rng.random() < 0.3:
        text += "."
    return text, (True, bool(time), bool(weather))


def vocabulary() -> list[tuple[str, list[str]]]:
    """Return the words of the prompts above and of captions, by what they tell, plainest first."""
    more: dict[str, Iterable[str]] = {
        "lands": sum(PALETTE_WORDS.values(), ()),
        "times of day": sum(TIME_WORDS.values(), ()),
        "weather": sum(WEATHER_WORDS.values(), ()),
        "shapes": (*PLACES, *OPENINGS),
    }
    words: list[tuple[str, list[str]]] = []
    known = set(_GRAMMAR)
    for what, phrases in caption_phrases().items():
        found = re.findall(r"[a-z]+", " ".join([*phrases, *more.get(what, ())]))
        words.append((what, [word for word in dict.fromkeys(found) if word not in known]))
        known |= set(found)
    return words


def look_labels(look: Look, named: tuple[bool, bool, bool]) -> tuple[int, int, int]:
    """Return class numbers of palette, time and weather; 0 stands for not named."""
    return (
        1 + PALETTES.index(look.palette) if named[0] else 0,
        1 + TIMES_OF_DAY.index(look.time_of_day) if named[1] else 0,
        1 + WEATHERS.index(look.weather) if named[2] else 0,
    )
