"""A video of ours that another program changed goes on from what it shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from delivered import QUICK, frames_of
from longvie_cli.media.metadata import read_settings
from small_preset import SMALL
from sounds import run_ffmpeg

NUM_FRAMES = SMALL.num_frames * 2


@pytest.fixture(scope="module")
def flight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from longvie_cli import GenerateRequest, generate

    path = tmp_path_factory.mktemp("flight") / "flight.mp4"
    seconds = NUM_FRAMES / SMALL.fps
    generate(GenerateRequest(output=path, seconds=seconds, seed=3, steps=1, guidance=1))
    return path


CHANGES = {
    "its end cut off": ("-c", "copy", "-frames:v", str(NUM_FRAMES // 2)),
    "encoded again": ("-c:v", "libx264", "-vf", "negate"),
    "turned around": ("-c:v", "libx264", "-vf", "reverse"),
    "played faster": ("-c:v", "libx264", "-vf", "setpts=PTS/2", "-r", "32"),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_is_continued_from_what_it_shows(
    longvie, tmp_path: Path, flight: Path, change: str
) -> None:
    changed = tmp_path / "changed.mp4"
    run_ffmpeg("-i", flight, *CHANGES[change], "-map_metadata", "0", changed)
    tag = read_settings(changed)
    assert tag is not None and tag["frames"] == NUM_FRAMES, "the tag went along"
    for how in (("--dry-run",), ()):
        outcome = longvie(
            "extend", "changed.mp4", "--seconds", "0.3", *QUICK, "-o", "on.mp4", "--json", *how
        )
        assert outcome.code == 0, outcome.err
        assert any("another program changed it" in line for line in outcome.fields["warnings"])
        assert any("without controls" in line for line in outcome.fields["warnings"])
    assert not list((tmp_path / "on.longvie" / "controls").glob("depth_*"))


@pytest.mark.slow
def test_a_file_in_another_container_or_under_another_name_is_the_same(
    longvie, tmp_path: Path, flight: Path
) -> None:
    for name, how in (("a.mp4", ()), ("b.mkv", ()), ("c.mp4", ("-movflags", "empty_moov"))):
        run_ffmpeg("-i", flight, "-c", "copy", "-map_metadata", "0", *how, tmp_path / name)
        outcome = longvie(
            *("extend", name, "--seconds", "0.3", *QUICK, "-o", f"{name}.on.mp4", "--json")
        )
        assert outcome.code == 0, outcome.err
        said = outcome.fields["warnings"]
        assert not any("changed it" in line or "without controls" in line for line in said), said
    whole = frames_of(tmp_path / "a.mp4.on.mp4")
    # The flight goes on where it ended, whatever container it came in.
    assert np.array_equal(whole, frames_of(tmp_path / "b.mkv.on.mp4"))
