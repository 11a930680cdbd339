"""Ready depth videos: read exactly, polarity found and said, long enough or refused."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from longvie_cli.controls.control_folder import ControlLayout, make_control_folder
from longvie_cli.controls.depth import TransformersDepthEstimator
from longvie_cli.controls.depth_video import DepthVideo, find_polarity
from longvie_cli.controls.extraction import Extractors, VideoControls
from longvie_cli.controls.files import load_control_clips
from longvie_cli.controls.tracks import LucasKanadeTracker
from longvie_cli.errors import ControlError, MediaError
from longvie_cli.media.ffmpeg import ffmpeg_executable
from longvie_cli.media.probe import probe_video
from longvie_cli.media.writer import VideoWriter
from longvie_cli.progress import SilentProgress
from longvie_cli.settings.presets import preset_folder
from longvie_cli.timeline import ClipGeometry
from longvie_cli.worlds import EVALUATION_SEED_START, Flight

LAYOUT = ControlLayout(ClipGeometry(13, 16), 48, 80, 8, 6)


def write_video(path: Path, frames: np.ndarray) -> Path:
    height, width = frames.shape[1:3]
    with VideoWriter(path, height=height, width=width, fps=16, crf=5) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def write_16_bit(path: Path, grey: np.ndarray) -> Path:
    height, width = grey.shape[1:]
    size = f"{width}x{height}"
    raw = ["-f", "rawvideo", "-pix_fmt", "gray16le", "-s", size, "-r", "16", "-i", "pipe:0"]
    command = [ffmpeg_executable(), "-v", "error", "-y", *raw, "-c:v", "ffv1", str(path)]
    subprocess.run(command, input=grey.astype("<u2").tobytes(), check=True)
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A video of 30 frames, 80 x 48, and its nearness [30, 48, 80] in [0, 1]."""
    flight = Flight(EVALUATION_SEED_START + 13, width=80, height=48, fps=16)
    shown = [flight.frame(index) for index in range(30)]
    video = tmp_path_factory.mktemp("world") / "flight.mp4"
    write_video(video, np.stack([frame.rgb for frame in shown]))
    disparity = np.stack([frame.disparity for frame in shown])
    return video, np.clip(disparity / np.percentile(disparity, 99), 0, 1)


@pytest.fixture(scope="module")
def embedded() -> TransformersDepthEstimator:
    return TransformersDepthEstimator(preset_folder("tiny") / "depth")


def grey_frames(nearness: np.ndarray) -> np.ndarray:
    return np.rint(nearness * 255).astype(np.uint8)[..., None].repeat(3, axis=-1)


def test_sixteen_bits_are_read_as_they_are(tmp_path: Path) -> None:
    grey = np.arange(3 * 8 * 16).reshape(3, 8, 16) * 151
    path = write_16_bit(tmp_path / "depth.mkv", grey)
    size = {"fps": 16, "height": 8, "width": 16, "start_frame": 0}
    for polarity, expected in (("near-white", grey / 65535), ("near-black", 1 - grey / 65535)):
        depth = DepthVideo(probe_video(path), polarity)
        pictures = np.stack(list(depth.disparity(**size, fit="crop")))
        np.testing.assert_allclose(pictures, expected, atol=1e-6)
    wide = list(depth.disparity(**size | {"width": 32}, fit="pad"))
    assert (wide[0][:, :7] == 0).all()


@pytest.mark.slow
def test_the_polarity_is_found_in_the_video(
    world: tuple[Path, np.ndarray], embedded: TransformersDepthEstimator, tmp_path: Path
) -> None:
    video, nearness = world
    for polarity, shown in (("near-white", nearness), ("near-black", 1 - nearness)):
        depth = write_video(tmp_path / f"{polarity}.mp4", grey_frames(shown))
        found = find_polarity(probe_video(depth), probe_video(video), embedded, fps=16, fit="crop")
        assert found.polarity == polarity and found.sure, found.reason
        assert "rank correlation" in found.reason


@pytest.mark.slow
def test_where_nothing_is_to_be_seen_the_polarity_is_a_guess(
    world: tuple[Path, np.ndarray], embedded: TransformersDepthEstimator, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).random((20, 6, 10)).repeat(8, axis=1).repeat(8, axis=2)
    depth = write_video(tmp_path / "noise.mp4", grey_frames(noise))
    found = find_polarity(probe_video(depth), probe_video(world[0]), embedded, fps=16, fit="crop")
    assert not found.sure and "lower part" in found.reason


def test_coloured_depth_is_refused(
    world: tuple[Path, np.ndarray], embedded: TransformersDepthEstimator
) -> None:
    reds = world[0].parent / "red.mp4"
    write_video(reds, np.full((8, 48, 80, 3), (200, 20, 20), np.uint8))
    with pytest.raises(ControlError, match=r"red\.mp4: it is coloured"):
        find_polarity(probe_video(reds), probe_video(world[0]), embedded, fps=16, fit="crop")


def test_ready_depth_takes_the_place_of_estimates(
    world: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    video, nearness = world
    path = write_16_bit(tmp_path / "depth.mkv", np.rint((1 - nearness) * 65535))
    depth = DepthVideo(probe_video(path), "near-black")
    extractors = Extractors(depth, LucasKanadeTracker(), "none")
    controls = VideoControls(probe_video(video), LAYOUT, extractors, fit="crop")
    folder = make_control_folder(controls, tmp_path / "a", progress=SilentProgress()).parent
    low, high = np.percentile(nearness, [5, 95])
    expected = 255 * (high - np.clip(nearness, low, high)) / (high - low)
    shown = load_control_clips(folder, LAYOUT.geometry).read_range(0, 30, 48, 80, "crop").dense
    assert np.abs(shown.mean(axis=-1) - expected).mean() < 2
    record = json.loads((folder / "normalization.json").read_text("utf-8"))["settings"]
    assert record["depth"].startswith("video-") and record["depth_smoothing"] == "none"


def test_depth_shorter_than_its_video_is_refused(
    world: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    video, nearness = world
    depth = write_video(tmp_path / "short.mp4", grey_frames(nearness[:20]))
    ready = DepthVideo(probe_video(depth), "near-white")
    arguments = {
        "layout": LAYOUT,
        "extractors": Extractors(ready, LucasKanadeTracker()),
        "fit": "crop",
    }
    with pytest.raises(MediaError, match=r"has 20 frames \(1\.25 s.*needs 30 \(1\.88 s\)"):
        VideoControls(probe_video(video), **arguments)
    controls = VideoControls(probe_video(video), num_frames=20, **arguments)
    made = make_control_folder(controls, tmp_path / "part", progress=SilentProgress())
    assert load_control_clips(made.parent, LAYOUT.geometry).num_frames == 20
