"""What training samples are like, whatever videos they are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from longvie_cli.settings.presets import Fit, Preset

HISTORY_FRAMES = 16
"""Frames before a clip that go along: a stage draws 4, 8, 12 or 16 of them (spec 7.4 C)."""


@dataclass(frozen=True)
class SampleRecipe:
    """What samples are like, whatever videos they are made of.

    Args:
        preset: Sizes and clip length.
        fit: How videos come to the size of the controls; from there to the size of the model
            everything is stretched, as in a generation.
        uncaptioned: Whether clips without a caption are kept.
        captioner: Name of the model that captions clips without a caption; None: none does.
        controls: What depth and tracks are made with, as JSON without absolute paths.
        history_frames: Most frames before a clip.
    """

    preset: Preset
    fit: Fit
    uncaptioned: Literal["drop", "empty"]
    controls: Mapping[str, Any]
    history_frames: int = HISTORY_FRAMES
    captioner: str | None = None

    def settings(self) -> dict[str, Any]:
        """Return everything that decides samples of given videos, as JSON."""
        preset = self.preset
        return {
            "clip_frames": preset.num_frames,
            "fps": preset.fps,
            "size": [preset.width, preset.height],
            "control_size": list(reversed(preset.control_size)),
            "fit": self.fit,
            "history_frames": self.history_frames,
            "track_grid": [preset.track_grid.columns, preset.track_grid.rows],
            "uncaptioned": self.uncaptioned,
            "captioner": self.captioner,
            **self.controls,
        }
