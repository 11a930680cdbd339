"""Captions name the whole look, stay short and in ASCII."""

import itertools

import pytest

from longvie_cli.worlds import Look, caption_for, random_geometry
from longvie_cli.worlds.looks import MAXIMUM_CAPTION_LENGTH, PALETTES, TIMES_OF_DAY, WEATHERS

KEY_WORDS = {
    "snowy": "snow",
    "desert": "desert",
    "meadow": "gre|grassy",
    "volcanic": "volcanic",
    "alien": "alien",
    "autumn": "autumn",
    "blossom": "blossom",
    "dawn": "dawn",
    "noon": "noon",
    "sunset": "sunset",
    "night": "night",
    "clear": "clear",
    "cloudy": "cloudy",
    "overcast": "overcast",
    "foggy": "fog",
    "rainy": "rain",
    "snowfall": "snow",
}


@pytest.mark.parametrize("motion", [None, "turning left", "flying forward fast"])
def test_captions_name_the_look(motion: str | None) -> None:
    looks = itertools.product(PALETTES, TIMES_OF_DAY, WEATHERS)
    for seed, words in enumerate(looks):
        caption = caption_for(Look(*words), random_geometry(seed), motion=motion, seed=seed)
        assert len(caption) <= MAXIMUM_CAPTION_LENGTH and caption.isascii()
        assert caption[0].isupper() and caption.endswith(".") and ",," not in caption
        for word in words:
            assert any(key in caption.lower() for key in KEY_WORDS[word].split("|")), caption
        assert motion is None or motion in caption.lower()


def test_caption_without_geometry_speaks_of_a_landscape() -> None:
    caption = caption_for(Look("autumn", "sunset", "foggy"))
    assert "landscape" in caption


def test_wording_varies_with_the_seed_and_only_with_it() -> None:
    look, geometry = Look("snowy", "dawn", "clear"), random_geometry(1)
    captions = {caption_for(look, geometry, seed=seed) for seed in range(30)}
    assert len(captions) > 8
    assert caption_for(look, geometry, seed=3) == caption_for(look, geometry, seed=3)
