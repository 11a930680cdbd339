"""Procedural landscapes: video frames with exact depth, exact point tracks and captions.

One integer seed makes one flight: a geometry (terrain, objects, camera path) and a look (palette,
time of day, weather). The two are independent: the same seed with another look has the same depth
and tracks to the last bit, which is what teaches a model that the prompt owns the look and the
controls own the geometry. Start reading at `flight.py`.
"""

from longvie_cli.worlds.flight import Flight, WorldFrame
from longvie_cli.worlds.looks import Look, caption_for, random_look
from longvie_cli.worlds.seeding import EVALUATION_SEED_START
from longvie_cli.worlds.terrain import Geometry, random_geometry

__all__ = [
    "EVALUATION_SEED_START",
    "Flight",
    "Geometry",
    "Look",
    "WorldFrame",
    "caption_for",
    "random_geometry",
    "random_look",
]
