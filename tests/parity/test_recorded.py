"""What lies outside the repository is skipped where absent, or a failure where it is required."""

from __future__ import annotations

from pathlib import Path

import pytest

import recorded


@pytest.mark.parametrize("required", [False, True])
def test_absent_vectors_are_skipped_or_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, required: bool
) -> None:
    monkeypatch.setattr(recorded, "GOLDEN", tmp_path)
    monkeypatch.setattr(recorded, "EXAMPLE", tmp_path / "ride_horse")
    monkeypatch.setattr(recorded, "REQUIRED", required)
    outcome = pytest.fail.Exception if required else pytest.skip.Exception
    with pytest.raises(outcome, match=r"vae_cases\.safetensors" if required else "golden vectors"):
        recorded.golden_file("vae_cases")
    with pytest.raises(outcome, match=r"cond\.json" if required else "LONGVIE_EXAMPLE_DIR"):
        recorded.released_example()
