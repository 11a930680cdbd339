"""What the doctor asks for is what the shipped preset takes."""

from __future__ import annotations

from longvie_cli.engine.memory import plans_of_preset
from longvie_cli.settings.presets import load_preset
from longvie_cli.settings.sampling import Sampling
from longvie_cli.workflows.doctor import TINY_BYTES


def test_the_memory_asked_for_is_what_tiny_takes() -> None:
    preset = load_preset("tiny")
    plans = plans_of_preset(preset, Sampling.of(preset))
    assert plans["none"].peak_host_bytes <= TINY_BYTES <= 1.3 * plans["none"].peak_host_bytes
