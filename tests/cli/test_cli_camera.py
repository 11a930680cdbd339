"""`--camera`: a picture, the last frame or a landscape is flown through, without any video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from delivered import QUICK, contents, frames_of
from longvie_cli.media.metadata import read_settings
from longvie_cli.media.probe import probe_video
from longvie_cli.media.reader import read_frames
from longvie_cli.planning.generate import decide
from longvie_cli.progress import SilentProgress
from longvie_cli.settings.requests import GenerateRequest
from longvie_cli.settings.resolve import resolve
from small_preset import SMALL

REFERENCE = Path(__file__).resolve().parents[2] / "examples" / "reference.mp4"
PATH = "forward 1, turn 20 in 2s"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A frame of the reference as a user might have it, 300x228."""
    frames = read_frames(
        probe_video(REFERENCE), fps=16, height=228, width=300, fit="crop", num_frames=1
    )
    Image.fromarray(next(iter(frames))).save(tmp_path / "x.png")
    return tmp_path / "x.png"


@pytest.mark.slow
def test_a_picture_is_flown_through_and_on(longvie, tmp_path: Path, image: Path) -> None:
    common = ("generate", "--image", image, "--camera", PATH, "-p", "hills", *QUICK)
    outcome = longvie(*common, "--seconds", "1.5", "-o", "out.mp4")
    assert (outcome.code, outcome.out) == (0, "out.mp4\n"), outcome.err
    resized = f"300x228 is resized to {SMALL.size.label}; 12 % of its height is cropped"
    assert f"x.png: {resized}" in outcome.err
    assert len(frames_of(tmp_path / "out.mp4")) == 24
    about = read_settings(tmp_path / "out.mp4")
    assert about is not None
    assert about["settings"]["camera"] == "forward 1 in 4s, turn 20 in 2s"
    assert str(tmp_path) not in str(about)
    depth = frames_of(tmp_path / "out.longvie" / "controls" / "depth_0001.mp4")
    assert depth.std() > 20 and np.abs(depth[-1].astype(int) - depth[0]).mean() > 3
    before = contents(tmp_path)
    assert longvie(*common, "--seconds", "1.5", "-o", "out.mp4").code == 0
    assert contents(tmp_path) == before

    # What is left of the path goes on, then a new one starts from the last frame.
    outcome = longvie("extend", "out.mp4", "--seconds", "0.5", "-o", "on.mp4", "--json")
    assert (outcome.code, outcome.fields["frames"]) == (0, 32), outcome.err
    assert "without controls" not in outcome.err
    outcome = longvie(
        *("extend", "on.mp4", "--camera", "orbit left", "--seconds", "0.5", "-o", "more.mp4"),
        "--json",
    )
    assert (outcome.code, outcome.fields["frames"]) == (0, 40), outcome.err
    last = frames_of(tmp_path / "on.longvie" / "controls" / "depth_0000.mp4")[8]
    first = frames_of(tmp_path / "more.longvie" / "controls" / "depth_0000.mp4")[0]
    assert first.shape == last.shape


def test_the_picture_is_where_its_controls_are(tmp_path: Path, image: Path) -> None:
    request, _ = resolve(
        GenerateRequest,
        {
            **{"output": tmp_path / "out.mp4", "image": image, "camera": PATH, "prompt": "hills"},
            **{"preset": "longvie2", "clips": 1},
        },
        config=None,
        environment={},
        working_folder=tmp_path,
    )
    job = decide(request, SilentProgress())
    shown, start = job.source.picture(0), job.start.image
    assert job.source.used_fit == "crop" and shown is not None and start is not None
    assert np.array_equal(shown, start)


@pytest.mark.slow
def test_a_landscape_is_flown_over_along_the_path(longvie, tmp_path: Path) -> None:
    command = ("generate", "--camera", PATH, "-p", "hills", "--seconds", "0.5", *QUICK)
    outcome = longvie(*command, "-o", "out.mp4")
    assert outcome.code == 0, outcome.err
    plan = longvie("generate", "--camera", PATH, "--dry-run", "--json", "-o", "p.mp4").fields
    assert plan["seconds"] == 6 and plan["plan"]["source"] == "camera through landscape 0"
    assert all(clip["prompt"] for clip in plan["plan"]["clips"])
    outcome = longvie("extend", "out.mp4", "--seconds", "0.5", "-o", "on.mp4")
    assert outcome.code == 0 and "without controls" not in outcome.err


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--camera", "forwrd 1"), 2, "'forwrd' is no move; did you mean 'forward'?"),
        (("--camera", "forward 1 in 2s", "--seconds", "4"), 2, "Pass at most --seconds 2"),
        (("--camera", "forward", "--video", "x.mp4"), 2, "pass only one of them"),
        (("--camera", "missing.yaml"), 5, "cannot read this camera path"),
        (("--camera", "forward", "--image", "missing.png"), 5, "missing.png"),
        (("--camera", "forward", "--fov", "170"), 2, "--fov"),
    ],
)
def test_what_cannot_be_flown_is_said(
    longvie, tmp_path: Path, flags: tuple[str, ...], code: int, said: str
) -> None:
    outcome = longvie("generate", *flags, "-p", "hills", *QUICK, "-o", "out.mp4")
    assert outcome.code == code, outcome.err
    assert said in outcome.err
    assert contents(tmp_path) == {}


def test_a_path_with_an_end_can_be_flown_back_and_forth(
    longvie, tmp_path: Path, image: Path
) -> None:
    outcome = longvie(
        *("generate", "--image", image, "--camera", "forward 1 in 1s", "--repeat", "pingpong"),
        *("-p", "hills", "--seconds", "1.5", "--dry-run", "--json", "-o", "out.mp4"),
    )
    assert outcome.code == 0, outcome.err
    assert outcome.fields["frames"] == 24
