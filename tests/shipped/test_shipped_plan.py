"""What a plan says of memory and disk on the preset that is shipped."""

from __future__ import annotations

from pathlib import Path

import pytest

REFERENCE = Path(__file__).resolve().parents[2] / "examples" / "reference.mp4"


@pytest.mark.slow
def test_a_larger_size_needs_more(longvie) -> None:
    def needs(*size: str) -> tuple[int, int]:
        outcome = longvie("generate", "-p", "x", *size, "--dry-run", "--json", "-o", "p.mp4")
        plan = outcome.fields["plan"]
        return plan["memory"]["peak_host_bytes"], plan["disk_bytes"]

    (memory, disk), (more_memory, more_disk) = needs(), needs("--size", "384x224")
    assert more_memory > 1.2 * memory
    # Four times the pixels. Here it is the raw depth of the controls that takes most ...
    assert more_disk == pytest.approx(4 * disk, rel=0.01)

    def clips_alone(*size: str) -> int:
        flags = ("-p", "x", "--seconds", "4", "--dry-run", "--json", "-o", "p.mp4")
        outcome = longvie("extend", REFERENCE, *size, *flags)
        return outcome.fields["plan"]["disk_bytes"] - REFERENCE.stat().st_size

    # ... and without controls the clips, their last frames and the joined video.
    assert clips_alone("--size", "384x224") == pytest.approx(4 * clips_alone(), rel=0.01)


@pytest.mark.slow
def test_int8_weights_are_less_than_half(longvie) -> None:
    def weights(*flags: str) -> int:
        outcome = longvie("generate", "-p", "x", *flags, "--dry-run", "--json", "-o", "p.mp4")
        return outcome.fields["plan"]["memory"]["weights"]["transformer"]

    assert weights("--quantize", "int8") < 0.4 * weights()
