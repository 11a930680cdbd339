"""A sound track of parts: what is heard when."""

from __future__ import annotations

from pathlib import Path

import pytest

from longvie_cli.errors import MediaError
from longvie_cli.media.sound import SoundPart, read_sound, sound_file
from sounds import pitches, run_ffmpeg, write_tone


@pytest.fixture
def rising(tmp_path: Path) -> Path:
    """Two seconds: 400 Hz, then 1200 Hz."""
    write_tone(tmp_path / "rising.wav", frequencies=(400, 1200), seconds=1)
    return tmp_path / "rising.wav"


def _write(parts: list[SoundPart], output: Path) -> Path:
    with sound_file(parts, output) as file:
        output.write_bytes(file.read())
    return output


def test_parts_follow_each_other_to_the_sample(tmp_path: Path, rising: Path) -> None:
    run_ffmpeg("-f", "lavfi", "-i", "sine=f=800:d=3", "-c:a", "aac", tmp_path / "low.m4a")
    parts = [
        SoundPart(read_sound(tmp_path / "low.m4a"), 1, 0.5),
        SoundPart(None, 0, 0.5),
        # Longer than what is left of it: the rest is silent.
        SoundPart(read_sound(rising), 0.75, 1.75),
    ]
    heard = pitches(_write(parts, tmp_path / "all.m4a"))
    assert heard == [800] * 2 + [0] * 2 + [400] + [1200] * 4 + [0] * 2


def test_a_file_without_sound_is_refused(tmp_path: Path) -> None:
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x48:r=16:d=1", tmp_path / "silent.mp4")
    with pytest.raises(MediaError, match="no sound"):
        read_sound(tmp_path / "silent.mp4")
