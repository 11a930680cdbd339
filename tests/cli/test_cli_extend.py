"""`longvie extend` and `longvie stitch`: what was there stays as it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from delivered import QUICK, contents, frames_of
from longvie_cli import GenerateRequest, generate
from longvie_cli.media.packets import read_packets
from longvie_cli.planning.extend import decide
from longvie_cli.progress import SilentProgress
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.settings.requests import ExtendRequest
from small_preset import SMALL


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory, reference_video: Path) -> Path:
    """Half of the reference's one second, made through the Python API."""
    folder = tmp_path_factory.mktemp("half")
    request = GenerateRequest(
        output=folder / "half.mp4",
        video=reference_video,
        prompt="dunes",
        seconds=0.5,
        num_inference_steps=1,
        guidance_scale=1,
    )
    result = generate(request)
    assert (result.status, result.frames) == ("done", 8)
    return folder


@pytest.fixture
def first_half(made_once: Path, tmp_path: Path) -> Path:
    """A copy of it and its run folder in the test's own folder."""
    shutil.copytree(made_once, tmp_path, dirs_exist_ok=True)
    return tmp_path / "half.mp4"


def test_our_own_video_goes_on_with_the_rest_of_its_source(
    longvie, tmp_path: Path, first_half: Path
) -> None:
    outcome = longvie("extend", "half.mp4", "-o", "whole.mp4", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.fields["frames"] == 16
    assert "lossless" not in outcome.err
    whole = frames_of(tmp_path / "whole.mp4")
    assert np.array_equal(whole[:8], frames_of(first_half))
    assert read_packets(tmp_path / "whole.mp4").is_constant(SMALL.fps)

    # And once more: nothing of the source is left.
    outcome = longvie("extend", "whole.mp4", "--seconds", "0.5", "-o", "more.mp4", "--json")
    assert outcome.code == 0, outcome.err
    assert "nothing is left of reference.mp4; goes on without controls" in outcome.err
    assert np.array_equal(frames_of(tmp_path / "more.mp4")[:16], whole)
    assert outcome.fields["frames"] == 24


def test_more_than_is_left_names_the_longest_possible(longvie, first_half: Path) -> None:
    outcome = longvie("extend", "half.mp4", "--seconds", "5", "-o", "whole.mp4")
    assert outcome.code == 2
    assert "8 frames (0.50 s at 16 fps), but 80 are needed" in outcome.err


@pytest.mark.slow
def test_no_kept_clips_still_extend_without_loss(
    longvie, tmp_path: Path, reference_video: Path
) -> None:
    common = ("generate", "--video", reference_video, "-p", "dunes", "--seconds", "0.6", *QUICK)
    longvie(*common, "-o", "kept.mp4")
    outcome = longvie(*common, "--no-keep-clips", "-o", "lean.mp4")
    assert outcome.code == 0, outcome.err
    folder = RunFolder(tmp_path / "lean.longvie")
    assert list(folder.root.rglob("*.mp4")) == []
    assert [path.name for path in folder.tails_dir.iterdir()] == ["0001.safetensors"]
    for name in ("kept", "lean"):
        outcome = longvie("extend", f"{name}.mp4", "--seconds", "0.3", "-o", f"{name}_on.mp4")
        assert outcome.code == 0, outcome.err
    assert np.array_equal(frames_of(tmp_path / "kept_on.mp4"), frames_of(tmp_path / "lean_on.mp4"))


def test_a_flight_goes_on_flying(longvie, tmp_path: Path) -> None:
    longvie("generate", "--clips", "1", "--seed", "3", *QUICK, "-o", "flight.mp4")
    outcome = longvie("extend", "flight.mp4", "--clips", "1", "-o", "on.mp4", "--json")
    assert outcome.code == 0, outcome.err
    # The first frame of the new clip is the last one of the flight.
    assert outcome.fields["frames"] == 2 * SMALL.num_frames - 1
    assert "without controls" not in outcome.err
    assert (tmp_path / "on.longvie" / "controls" / "depth_0000.mp4").is_file()


@pytest.mark.slow
def test_a_foreign_video_is_encoded_once_and_continued(
    longvie, tmp_path: Path, reference_video: Path
) -> None:
    outcome = longvie("extend", reference_video, "--seconds", "0.5", *QUICK, "-o", "on.mp4")
    assert outcome.code == 2
    assert "--prompt" in outcome.err
    outcome = longvie(
        "extend", reference_video, "-p", "dunes", "--seconds", "0.5", *QUICK, "-o", "on.mp4"
    )
    assert outcome.code == 0, outcome.err
    again = f"160x90 h264 at 24 fps is encoded again as {SMALL.size.label} at 16 fps"
    assert again in outcome.err
    assert "goes on without controls" in outcome.err
    assert len(frames_of(tmp_path / "on.mp4")) == 16 + 8


def test_a_video_of_ours_that_lost_its_run_says_it_is_not_lossless(
    longvie, tmp_path: Path, first_half: Path
) -> None:
    shutil.rmtree(tmp_path / "half.longvie")
    outcome = longvie("extend", "half.mp4", "--seconds", "0.4", "-o", "on.mp4")
    assert outcome.code == 0, outcome.err
    assert "not lossless" in outcome.err
    assert np.array_equal(frames_of(tmp_path / "on.mp4")[:8], frames_of(first_half))


def test_a_run_in_another_folder_is_found_by_what_it_delivered(
    longvie, tmp_path: Path, first_half: Path
) -> None:
    (tmp_path / "half.longvie").rename(tmp_path / "kept_elsewhere")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "delivery.json").write_text("{")
    outcome = longvie("extend", "half.mp4", "--dry-run", "--json", "-o", "on.mp4")
    assert outcome.code == 0, outcome.err
    assert outcome.fields["plan"]["source"] == "reference.mp4"
    assert "not lossless" not in outcome.err


def test_a_dry_run_of_extend_writes_nothing(longvie, tmp_path: Path, first_half: Path) -> None:
    before = contents(tmp_path)
    outcome = longvie("extend", "half.mp4", "--dry-run", "--json", "-o", "whole.mp4")
    assert outcome.fields["frames"] == 16
    assert [clip["from_seconds"] for clip in outcome.fields["plan"]["clips"]] == [0.5]
    assert contents(tmp_path) == before


def test_stitching_a_run_gives_its_video_again(longvie, tmp_path: Path, first_half: Path) -> None:
    outcome = longvie("stitch", "half.longvie", "-o", "again.mp4", "--json")
    assert (outcome.code, outcome.fields["frames"]) == (0, 8)
    assert np.array_equal(frames_of(tmp_path / "again.mp4"), frames_of(first_half))
    before = (tmp_path / "again.mp4").read_bytes()
    outcome = longvie("stitch", "half.longvie", "-o", "again.mp4", "--json")
    assert (outcome.code, outcome.fields["frames"]) == (0, 8)
    assert "joined from the same before" in outcome.err
    assert (tmp_path / "again.mp4").read_bytes() == before
    assert longvie("stitch", "half.mp4", "-o", "again.mp4").code == 4
    outcome = longvie("stitch", "half.mp4", "again.mp4", "-o", "twice.mp4")
    assert outcome.code == 0, outcome.err
    assert len(frames_of(tmp_path / "twice.mp4")) == 16
    assert read_packets(tmp_path / "twice.mp4").is_constant(SMALL.fps)


def test_stitching_different_sizes_is_refused(
    longvie, tmp_path: Path, first_half: Path, reference_video: Path
) -> None:
    outcome = longvie("stitch", "half.mp4", reference_video, "-o", "both.mp4")
    assert outcome.code == 5
    assert "without encoding it again" in outcome.err
    assert not (tmp_path / "both.mp4").exists()


def test_a_new_source_is_brought_to_size_as_generate_does(
    tmp_path: Path, reference_video: Path
) -> None:
    def fit_of(**more: Path) -> object:
        common = {"prompt": "dunes", "preset": "longvie2", "seconds": 0.5}
        output = tmp_path / "on.mp4"
        request = ExtendRequest(previous=reference_video, output=output, **common, **more)
        return decide(request, SilentProgress()).settings["fit"]

    # Recorded as used, so that the rest of this source comes to size in the same way.
    assert fit_of(video=reference_video) == "crop"
    assert fit_of() == "stretch"
