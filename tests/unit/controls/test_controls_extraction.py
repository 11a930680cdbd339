"""Making control folders from a video and from a flight, at once and after any interruption."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longvie_cli.controls.control_folder import (
    ControlLayout,
    make_control_folder,
    read_depth_range,
)
from longvie_cli.controls.depth import TransformersDepthEstimator
from longvie_cli.controls.depth_store import DEPTH_BATCH_FRAMES, DepthStore
from longvie_cli.controls.extraction import Extractors, VideoControls
from longvie_cli.controls.files import load_control_clips
from longvie_cli.controls.normalization import DepthRange
from longvie_cli.controls.procedural import FlightControls
from longvie_cli.controls.rendering import render_track_clip, track_grid
from longvie_cli.controls.tracks import LucasKanadeTracker
from longvie_cli.errors import ControlError, MediaError, OutputConflictError
from longvie_cli.media.probe import probe_video
from longvie_cli.media.reader import read_frames
from longvie_cli.media.writer import VideoWriter
from longvie_cli.models.track_pictures import read_tracks
from longvie_cli.progress import SilentProgress
from longvie_cli.timeline import ClipGeometry
from longvie_cli.worlds import EVALUATION_SEED_START, Flight

LAYOUT = ControlLayout(ClipGeometry(13, 16), 48, 80, 8, 6)
FLIGHT_FRAMES = 30


class Killed(BaseException):
    """Ends the process under test where progress is reported."""


class KillAfter(SilentProgress):
    """Lets `number` steps pass."""

    def __init__(self, number: int) -> None:
        self._left = number

    def advance(self, stage: str, amount: int = 1, *, detail: str = "") -> None:
        if self._left == 0:
            raise Killed
        self._left -= 1


@pytest.fixture(scope="module")
def flight() -> Flight:
    return Flight(EVALUATION_SEED_START + 3, width=80, height=48, fps=16)


@pytest.fixture(scope="module")
def extract(flight_video: Path, estimator: TransformersDepthEstimator) -> Callable[..., Path]:
    def run(folder: Path, **changes: Any) -> Path:
        made_with = Extractors(
            changes.pop("depth", estimator), LucasKanadeTracker(), changes.pop("smoothing", "flow")
        )
        arguments = {
            "video": probe_video(flight_video),
            "layout": LAYOUT,
            "extractors": made_with,
            "fit": "crop",
            **changes,
        }
        how = {"overwrite": arguments.pop("overwrite", False), "mend": arguments.pop("mend", False)}
        progress = arguments.pop("progress", SilentProgress())
        return make_control_folder(VideoControls(**arguments), folder, progress=progress, **how)

    return run


@pytest.fixture(scope="module")
def extracted(extract: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Controls of the whole video: 35 frames, three clips, the last with 11 frames of its own."""
    return extract(tmp_path_factory.mktemp("extracted"), text="a flight").parent


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def decoded(path: Path) -> np.ndarray:
    return np.stack(
        list(read_frames(probe_video(path), fps=None, height=48, width=80, fit="native"))
    )


@pytest.mark.slow
def test_complete_controls_need_no_depth_model(
    extract: Callable[..., Path], depth_model_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(depth_model_folder, folder)
    extract(tmp_path / "controls", depth=TransformersDepthEstimator(folder))
    made = contents(tmp_path / "controls")
    later = TransformersDepthEstimator(folder)
    (folder / "model.safetensors").unlink()
    extract(tmp_path / "controls", depth=later)
    assert contents(tmp_path / "controls") == made


@pytest.mark.slow
def test_a_video_becomes_a_folder_of_the_released_format(extracted: Path) -> None:
    names = [f"{kind}_{index:04d}.mp4" for kind in ("depth", "track") for index in range(3)]
    assert sorted(contents(extracted)) == sorted(
        [*names, "cond.json", "first.png", "hashes.json", "normalization.json"]
    )
    entries = json.loads((extracted / "cond.json").read_text("utf-8"))
    assert entries[2] == {"text": "a flight", "depth": "depth_0002.mp4", "track": "track_0002.mp4"}
    controls = load_control_clips(extracted, LAYOUT.geometry)
    assert (controls.num_frames, controls.num_clips, controls.is_recut) == (35, 3, False)
    assert "/" not in (extracted / "normalization.json").read_text("utf-8")


@pytest.mark.slow
def test_depth_is_normalized_once_over_the_whole_video(
    extract: Callable[..., Path],
    estimator: TransformersDepthEstimator,
    flight_video: Path,
    tmp_path: Path,
) -> None:
    extracted = extract(tmp_path, smoothing="none").parent
    frames = np.stack(
        list(read_frames(probe_video(flight_video), fps=16, height=48, width=80, fit="crop"))
    )
    batches = [frames[k : k + DEPTH_BATCH_FRAMES] for k in range(0, 35, DEPTH_BATCH_FRAMES)]
    stored = np.concatenate([estimator.estimate(b) for b in batches]).astype(np.float16)
    low, high = np.percentile(stored.astype(np.float32), np.array([5.0, 95.0]))
    assert read_depth_range(extracted) == DepthRange(low, high)
    expected = DepthRange(low, high).depth_bytes(stored.astype(np.float32))
    for index in range(3):
        shown = expected[12 * index : 12 * index + 13].astype(int)
        ours = decoded(extracted / f"depth_{index:04d}.mp4").mean(axis=-1)[: len(shown)]
        # H.264 at crf 10.
        assert np.abs(ours - shown).mean() < 2


def test_neighbouring_clips_share_a_frame_and_the_last_one_is_held(extracted: Path) -> None:
    first, second, third = (decoded(extracted / f"depth_{k:04d}.mp4").astype(int) for k in range(3))
    assert len(first) == len(second) == len(third) == 13
    assert np.abs(first[-1] - second[0]).mean() < 2
    assert np.abs(third[10] - third[12]).mean() < 1
    tracks = decoded(extracted / "track_0002.mp4").astype(int)
    assert np.abs(tracks[10] - tracks[12]).mean() < 2


def test_every_pass_is_reported(extract: Callable[..., Path], listener, tmp_path: Path) -> None:
    layout = ControlLayout(ClipGeometry(13, 16), 48, 48, 8, 6)
    extract(tmp_path, layout=layout, num_frames=6, progress=listener)
    assert listener.started == {"depth": (6, 0), "steady depth": (6, 0), "tracks": (1, 0)}
    assert listener.advanced == {"depth": 6, "steady depth": 6, "tracks": 1}
    assert listener.finished == ["depth", "steady depth", "tracks"]


# Depth batches of 16, 16 and 3 frames, twice; clips. One of each kind is enough for `make test`.
@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(steps, marks=[] if steps in (1, 4, 7) else pytest.mark.slow)
        for steps in range(3 + 3 + 3)
    ],
)
def test_stopped_anywhere_the_same_call_gives_the_same_bytes(
    extract: Callable[..., Path], extracted: Path, tmp_path: Path, steps: int
) -> None:
    folder = tmp_path / "stopped"
    with pytest.raises(Killed):
        extract(folder, text="a flight", progress=KillAfter(steps))
    assert not (folder / "cond.json").exists()
    # A clip is finished with its tracks; the depth of several clips is written ahead of them.
    finished = [
        path
        for track in folder.glob("track_*.mp4")
        for path in (track, folder / track.name.replace("track", "depth"))
    ]
    kept = {path: path.stat().st_mtime_ns for path in finished}
    extract(folder, text="a flight")
    assert contents(folder) == contents(extracted)
    assert kept == {path: path.stat().st_mtime_ns for path in kept}, (
        "a finished clip was made again"
    )


@pytest.mark.slow
def test_half_written_files_of_a_killed_process_are_no_hindrance(
    extract: Callable[..., Path], extracted: Path, tmp_path: Path
) -> None:
    for name in ("normalization.json.part", "depth_0000.mp4.part", "first.png.part"):
        (tmp_path / name).write_bytes(b"half")
    extract(tmp_path, text="a flight")
    assert contents(tmp_path) == contents(extracted)


def test_a_clip_lost_from_a_finished_folder_is_made_again(
    extract: Callable[..., Path], extracted: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(extracted, folder)
    (folder / "track_0001.mp4").unlink()
    extract(folder, text="a flight")
    assert contents(folder) == contents(extracted)


def test_a_finished_folder_is_left_alone(
    extract: Callable[..., Path], extracted: Path, listener
) -> None:
    before = {path: path.stat().st_mtime_ns for path in extracted.iterdir()}
    extract(extracted, progress=listener)
    assert before == {path: path.stat().st_mtime_ns for path in extracted.iterdir()}
    assert listener.advanced == {"tracks": 0}


def test_other_settings_conflict_unless_overwritten(
    extract: Callable[..., Path], extracted: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(extracted, folder)
    with pytest.raises(OutputConflictError, match=r"made with fit crop, not pad"):
        extract(folder, fit="pad")
    assert contents(folder) == contents(extracted)
    extract(folder, num_frames=14, overwrite=True)
    controls = load_control_clips(folder, LAYOUT.geometry)
    assert (controls.num_frames, controls.num_clips) == (14, 2)
    assert not (folder / "depth_0002.mp4").exists()


def test_a_folder_of_somebody_else_is_not_touched(
    extract: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "cond.json").write_text("[]")
    with pytest.raises(OutputConflictError, match=r"cond\.json"):
        extract(tmp_path)
    assert contents(tmp_path) == {"cond.json": b"[]"}


@pytest.mark.slow
def test_a_range_of_the_video_with_the_grey_levels_of_another(
    extract: Callable[..., Path], tmp_path: Path
) -> None:
    # Steadied, the first frames would differ: nothing is known before a range.
    extracted = extract(tmp_path / "whole", smoothing="none").parent
    depth_range = read_depth_range(extracted)
    layout = ControlLayout(LAYOUT.geometry, 48, 80, 8, 6, depth_range)
    part = {"layout": layout, "start_frame": 12, "num_frames": 13, "smoothing": "none"}
    folder = extract(tmp_path / "part", **part).parent
    assert read_depth_range(folder) == depth_range
    ours, whole = (
        decoded(path).astype(int)
        for path in (folder / "depth_0000.mp4", extracted / "depth_0001.mp4")
    )
    assert np.abs(ours - whole).mean() < 2


@pytest.mark.parametrize("num_frames", [1, 4])
def test_a_video_too_short_is_refused_before_anything_is_written(
    extract: Callable[..., Path], tmp_path: Path, num_frames: int
) -> None:
    source = tmp_path / "short.mp4"
    with VideoWriter(source, height=48, width=80, fps=16) as writer:
        for _ in range(num_frames):
            writer.write(np.zeros((48, 80, 3), np.uint8))
    with pytest.raises(MediaError, match=rf"short\.mp4: {num_frames} frames at 16 fps") as error:
        extract(tmp_path / "controls", video=probe_video(source))
    assert "--image" in error.value.hint
    assert not (tmp_path / "controls").exists()


@pytest.mark.slow
def test_a_flight_gives_its_exact_depth_and_its_captions(flight: Flight, tmp_path: Path) -> None:
    source = FlightControls(flight, LAYOUT, FLIGHT_FRAMES)
    folder = make_control_folder(source, tmp_path, progress=SilentProgress()).parent
    disparity = np.stack([flight.frame(index).disparity for index in range(FLIGHT_FRAMES)])
    half = disparity.astype(np.float16).astype(np.float32)
    low, high = np.percentile(half, np.array([5.0, 95.0]))
    assert read_depth_range(folder) == DepthRange(low, high)
    controls = load_control_clips(folder, LAYOUT.geometry)
    assert (controls.num_frames, controls.num_clips) == (FLIGHT_FRAMES, 3)
    assert controls.text(1) == flight.caption_at(12, 13)
    sky = disparity[:13] == 0
    assert sky.any()
    assert controls.read(0, 48, 80, "crop").dense[sky].min() > 240


@pytest.mark.slow
def test_a_flight_goes_on_where_it_was_stopped(flight: Flight, tmp_path: Path) -> None:
    source = FlightControls(flight, LAYOUT, FLIGHT_FRAMES, start_frame=40)
    whole = tmp_path / "whole"
    make_control_folder(source, whole, progress=SilentProgress())
    stopped = tmp_path / "stopped"
    for steps in (1, 2):
        with pytest.raises(Killed):
            make_control_folder(source, stopped, progress=KillAfter(steps))
    (stopped / "hashes.json.part").write_bytes(b"killed")
    make_control_folder(source, stopped, progress=SilentProgress())
    assert contents(stopped) == contents(whole)


@pytest.mark.slow
def test_tracks_keep_the_colour_of_every_pixel(flight: Flight, tmp_path: Path) -> None:
    """Half of the colours, as a video to look at has, loses a third of the points."""
    folder = tmp_path / "controls"
    make_control_folder(FlightControls(flight, LAYOUT, 13), folder, progress=SilentProgress())
    stored = load_control_clips(folder, LAYOUT.geometry).read(0, 48, 80, "crop")
    video = probe_video(folder / "track_0000.mp4")
    assert video.picture.pixel_format == "yuv444p"
    grid = {"columns": LAYOUT.track_columns, "rows": LAYOUT.track_rows}
    points, visible = flight.tracks(0, 13, track_grid(48, 80, **grid))
    depth = np.rint(stored.dense.mean(axis=-1)).astype(np.uint8)
    drawn = read_tracks(render_track_clip(depth, points, visible), **grid)
    found = read_tracks(stored.sparse, **grid)
    both = drawn.visible & found.visible
    assert both.sum() > 0.9 * drawn.visible.sum()
    assert np.abs(drawn.points - found.points)[both].mean() < 0.5


def test_a_flight_of_another_size_is_refused(flight: Flight, tmp_path: Path) -> None:
    layout = ControlLayout(ClipGeometry(13, 16), 64, 80, 8, 6)
    with pytest.raises(ValueError, match="80x48"):
        FlightControls(flight, layout, 9)


def test_depth_that_half_precision_cannot_hold_is_refused(tmp_path: Path) -> None:
    class Overflowing:
        name = "overflowing"
        context_frames = 0

        def estimate(self, frames: np.ndarray, earlier: np.ndarray | None = None) -> np.ndarray:
            return np.full(frames.shape[:3], 1e6, np.float32)

    source = tmp_path / "source.mp4"
    with VideoWriter(source, height=48, width=80, fps=16) as writer:
        for level in range(6):
            writer.write(np.full((48, 80, 3), 9 * level, np.uint8))
    with pytest.raises(ControlError, match="not finite"):
        controls = VideoControls(
            probe_video(source),
            LAYOUT,
            Extractors(Overflowing(), LucasKanadeTracker()),
            fit="crop",
        )
        make_control_folder(controls, tmp_path / "controls", progress=SilentProgress())


def test_depth_store_gives_back_any_range(tmp_path: Path) -> None:
    store = DepthStore(tmp_path / "store")
    frames = np.random.default_rng(0).random((39, 3, 4)).astype(np.float32)
    for start in range(0, 39, DEPTH_BATCH_FRAMES):
        store.append(frames[start : start + DEPTH_BATCH_FRAMES])
    again = DepthStore(tmp_path / "store")
    assert again.num_frames == 39
    for start, count in ((0, 39), (15, 2), (16, 16), (31, 8), (38, 1), (3, 5)):
        np.testing.assert_array_equal(
            again.read(start, count), frames[start : start + count].astype(np.float16)
        )
    with pytest.raises(IndexError):
        again.read(30, 10)
    with pytest.raises(ValueError, match="short batch ends the video"):
        again.append(frames[:2])
    again.drop_short_batch()
    assert DepthStore(tmp_path / "store").num_frames == again.num_frames == 32
    again.remove()
    assert not (tmp_path / "store").exists()
