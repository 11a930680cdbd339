"""Preparing samples: what is cut, kept and dropped of real files, and what a kill leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_run
from toy_prepare import SHARD_BYTES, TOY, extractors, opened, preparation, prepare

from delivered import contents, frames_of
from longvie_cli.controls.extraction import Extractors
from longvie_cli.controls.tracks import LucasKanadeTracker
from longvie_cli.errors import InputError, OutputConflictError
from longvie_cli.media.frames import resize_frame
from longvie_cli.media.writer import VideoWriter
from longvie_cli.progress import SilentProgress
from longvie_cli.timeline import ClipGeometry
from longvie_cli.training.clip_choice import PlannedClip, stretches
from longvie_cli.training.dataset import ClipSize, sample_number
from longvie_cli.training.prepared import PreparedSamples
from longvie_cli.training.training_run import TrainingRun
from mixed_scenes import dissolve, pictured
from small_models import small_pipeline
from sounds import run_ffmpeg, write_tone

HERE = Path(__file__).parent


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def scene(seed: int, num_frames: int) -> list[np.ndarray]:
    return pictured(seed, num_frames, speed=1)


def write(path: Path, frames: list[np.ndarray], *, fps: int = 16) -> Path:
    height, width = frames[0].shape[:2]
    with VideoWriter(path, height=height, width=width, fps=fps, crf=5) as writer:
        for frame in frames:
            writer.write(frame)
    return path


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes, of 15 and 10 frames: three clips, and two."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    path.with_suffix(".txt").write_text("[0s-0.9s] green hills\n[0.9s-end] snow")
    return write(path, scene(0, 15) + scene(2, 10))


@pytest.fixture(scope="module")
def data(film: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "data"
    made = prepare(preparation(folder, [film]))
    assert (made.samples, dict(made.dropped)) == (5, {})
    return folder


@pytest.fixture
def copied(data: Path, tmp_path: Path) -> Path:
    for name, content in contents(data).items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def places_of(frames: np.ndarray, source: np.ndarray) -> list[int]:
    """Return which frames of a source these are: the ones that differ least in brightness."""
    grey, wanted = (shown.mean(axis=-1) for shown in (frames, source))
    differences = np.abs(grey[:, None] - wanted[None]).mean(axis=(2, 3))
    assert differences.min(axis=1).max() < 8
    return differences.argmin(axis=1).tolist()


@pytest.mark.slow
def test_samples_are_the_frames_of_their_clips_with_what_comes_before(
    film: Path, data: Path
) -> None:
    samples, source = opened(data), frames_of(film)
    assert samples.length == 5
    begins, histories = [0, 4, 8, 15, 19], [0, 4, 8, 0, 4]
    for number, (first, history) in enumerate(zip(begins, histories, strict=True)):
        sample = samples.sample(number)
        shown = np.concatenate([sample.history, sample.video])
        assert len(sample.history) == history
        assert places_of(shown, source) == list(range(first - history, first + 5))
        for control in (sample.dense, sample.sparse):
            assert (control.shape, control.dtype) == ((5, 32, 48, 3), np.uint8)
            assert control.std() > 10
        # The middle of a clip decides, and not its beginning.
        assert sample.prompt == ("green hills" if (first + 2.5) / 16 < 0.9 else "snow")
    assert len(opened(data, history_frames=4).sample(2).history) == 4


@pytest.mark.slow
def test_shards_are_plain_tar_files_that_say_what_is_in_them(film: Path, data: Path) -> None:
    shards = sorted(data.glob("*.tar"))
    assert len(shards) > 1
    assert all(path.stat().st_size <= 40_000 for path in shards)
    names: list[str] = []
    for path in shards:
        with tarfile.open(path) as tar:
            names += tar.getnames()
            assert all((info.mtime, info.uid, info.uname) == (0, 0, "") for info in tar)
    endings = ("json", "video.mp4", "depth.mp4", "track.mp4")
    assert names == [f"{number:06d}.{ending}" for number in range(5) for ending in endings]
    with tarfile.open(shards[-1]) as tar:
        last = tar.extractfile("000004.json")
        assert last is not None
        facts = json.load(last)
    assert (facts["source"], facts["scene"], facts["caption"]) == ("film.mp4", 1, "snow")
    assert (facts["frames"], facts["seconds"]) == ([19, 24], [1.188, 1.5])
    assert not (data / "unfinished").exists()


def test_an_epoch_has_each_sample_once(data: Path) -> None:
    samples = opened(data)
    orders = [[sample_number(samples, 5 * epoch + i, seed=1) for i in range(5)] for epoch in (0, 1)]
    assert all(sorted(order) == list(range(5)) for order in orders)
    samples.verify()


@pytest.mark.slow
def test_a_stage_trains_on_prepared_samples_and_resumes(data: Path, tmp_path: Path) -> None:
    def train(folder: Path, steps: int) -> list[float]:
        settings = toy_run.SETTINGS.model_copy(update={"steps": steps, "batch": 1})
        TrainingRun(folder, "control", settings, small_pipeline(), opened(data)).run()
        lines = (folder / "losses.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in lines]

    losses = train(tmp_path / "whole", 4)
    assert len(losses) == 4 and np.isfinite(losses).all()
    train(tmp_path / "parts", 2)
    assert train(tmp_path / "parts", 4) == losses


def test_samples_of_another_size_length_or_rate_are_refused(data: Path) -> None:
    for size, fps, words in (
        (ClipSize(9, 32, 48, 8), 16, "clips of 5 frames, but 9 frames"),
        (ClipSize(5, 64, 96, 8), 16, "pictures of 48x32, but 96x64"),
        (ClipSize(5, 32, 48, 8), 24, "a rate of 16 fps, but 24 fps"),
    ):
        with pytest.raises(InputError, match=words):
            PreparedSamples(data, size, fps=fps)


@pytest.mark.slow
def test_controls_that_are_stored_larger_are_stretched_as_for_a_generation(
    film: Path, tmp_path: Path
) -> None:
    larger = TOY.model_copy(update={"control_height": 48, "control_width": 64, "fit": "stretch"})
    prepare(preparation(tmp_path, [film], preset=larger))
    with tarfile.open(tmp_path / "shard-00000.tar") as tar:
        tar.extract("000000.depth.mp4", tmp_path, filter="data")
    stored = frames_of(tmp_path / "000000.depth.mp4")
    assert stored.shape == (5, 48, 64, 3)
    sample = opened(tmp_path).sample(0)
    assert (sample.video.shape, sample.sparse.shape) == ((5, 32, 48, 3),) * 2
    wanted = [resize_frame(frame, 32, 48, "stretch") for frame in stored]
    assert np.array_equal(sample.dense, np.stack(wanted))
    # 48x32 is cut to the aspect of the controls, 4:3, and then stretched.
    cut = [resize_frame(frame, 48, 64, "crop") for frame in frames_of(film)[:5]]
    seen = np.stack([resize_frame(frame, 32, 48, "stretch") for frame in cut])
    assert np.abs(sample.video.mean(axis=-1) - seen.mean(axis=-1)).mean() < 8


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_damage_is_found_and_named(copied: Path, film: Path) -> None:
    flip(copied / "shard-00000.tar", 2000)
    samples = opened(copied)
    for read in (samples.verify, lambda: samples.sample(0)):
        with pytest.raises(InputError, match=r"shard-00000\.tar: damaged at byte \d+"):
            read()
    flip(copied / "shard-00001.json", 100)
    with pytest.raises(InputError, match=r"shard-00001\.json: .*(checksum|not JSON)"):
        samples.sample(4 if len(list(copied.glob("*.tar"))) == 2 else 2)
    (copied / "shard-00001.tar").unlink()
    with pytest.raises(InputError, match=r"shard-00001\.tar: this shard of the samples is missing"):
        opened(copied)
    flip(copied / "prepared.json", 60)
    with pytest.raises(InputError, match=r"prepared\.json: "):
        opened(copied)
    with pytest.raises(InputError, match="no such file"):
        opened(copied / "nowhere")


@pytest.mark.slow
def test_other_samples_are_replaced_only_where_that_is_asked_for(copied: Path, film: Path) -> None:
    other = preparation(copied, [film], fit="stretch")
    with pytest.raises(OutputConflictError, match="made with fit crop, not stretch"):
        other.finished(overwrite=False)
    assert other.finished(overwrite=True) is None
    with (
        pytest.raises(OutputConflictError, match="holds samples"),
        other.opened(overwrite=False),
    ):
        pass
    (copied / "notes.txt").write_text("mine")
    assert prepare(other, overwrite=True).samples == 5
    assert (copied / "notes.txt").read_text() == "mine"
    assert preparation(copied, [film], fit="stretch").finished(overwrite=False) is not None
    # A caption that changed makes other samples.
    sidecar = film.with_suffix(".txt")
    text = sidecar.read_text()
    sidecar.write_text("sand")
    try:
        with pytest.raises(OutputConflictError, match="other videos or captions"):
            preparation(copied, [film], fit="stretch").finished(overwrite=False)
    finally:
        sidecar.write_text(text)


def test_two_processes_never_share_a_folder_nor_follow_a_link(film: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    first, second = (preparation(folder, [film]) for _ in range(2))
    with (
        first.opened(overwrite=False),
        pytest.raises(OutputConflictError, match="another process prepares"),
        second.opened(overwrite=False),
    ):
        pass
    (tmp_path / "precious").write_text("x")
    (folder / "shard-00000.tar").symlink_to(tmp_path / "precious")
    with pytest.raises(OutputConflictError, match="is a link"), first.opened(overwrite=True):
        pass
    assert (tmp_path / "precious").read_text() == "x"


Maker = Callable[[Path], Path]


def _noise(path: Path) -> Path:
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    return path


def _sound(path: Path) -> Path:
    write_tone(path.with_suffix(".m4a"), frequencies=[440], seconds=1)
    return path.with_suffix(".m4a")


def _dissolve(path: Path) -> Path:
    return write(path, dissolve(scene(0, 60), scene(2, 60), before=40, mixed=12))


def _variable(path: Path) -> Path:
    steady = write(path.with_name("steady.mp4"), scene(0, 40), fps=32)
    exact = "[0:v]select='not(mod(n,3))+lt(n,20)',split[a][b];[b]nullsink"
    run_ffmpeg("-i", steady, "-filter_complex", exact, "-map", "[a]", "-fps_mode", "vfr", path)
    return path


def _odd(path: Path) -> Path:
    wide = write(path.with_name("wide.mp4"), scene(0, 30), fps=30)
    run_ffmpeg("-i", wide, "-vf", "scale=101:35", "-pix_fmt", "yuv444p", "-r", "29.97", path)
    return path


@pytest.mark.parametrize(
    ("make", "clips", "dropped", "frames", "said"),
    [
        (lambda path: path, 0, {"unreadable": 1}, 0, ""),
        (_noise, 0, {"unreadable": 1}, 0, ""),
        (_sound, 0, {"unreadable": 1}, 0, ""),
        (lambda path: write(path, scene(0, 4)), 0, {"too_short": 1}, 4, ""),
        (lambda path: write(path, scene(0, 1) * 13), 0, {"static": 3}, 13, ""),
        (
            lambda path: write(path, [np.zeros((32, 48, 3), np.uint8)] * 13),
            *(0, {"flat": 3}, 13, ""),
        ),
        (_dissolve, 9 + 11, {}, 100, ""),
        (_variable, 5, {}, 21, "variable frame rate"),
        (_odd, 3, {}, 16, "29.97 fps is resampled to 16 fps"),
    ],
    ids=[
        *("missing", "noise", "sound", "short", "static", "black", "dissolve", "variable", "odd"),
    ],
)
def test_real_files_are_cut_or_dropped_with_a_reason(
    tmp_path: Path,
    make: Maker,
    clips: int,
    dropped: dict[str, int],
    frames: int,
    said: str,
) -> None:
    (plan,) = preparation(tmp_path / "data", [make(tmp_path / "video.mp4")]).plans()
    assert {each.reason: each.count for each in plan.dropped} == dropped
    assert (plan.num_frames, len(plan.clips)) == (frames, clips)
    assert said in " ".join(plan.notes)
    assert not (tmp_path / "data").exists()


def test_no_clip_or_history_reaches_into_a_dissolve(tmp_path: Path) -> None:
    (plan,) = preparation(tmp_path / "data", [_dissolve(tmp_path / "video.mp4")]).plans()
    assert plan.scenes == 2
    for clip in plan.clips:
        shown = range(clip.first_frame - clip.history_frames, clip.first_frame + 5)
        # One frame of tolerance: a thirteenth of the next scene is hardly seen.
        assert not set(shown) & set(range(42, 51))
    firsts = [clip for clip in plan.clips if clip.history_frames == 0]
    assert len(firsts) == 2


def test_a_dissolve_with_which_a_video_ends_is_no_part_of_a_clip(tmp_path: Path) -> None:
    frames = dissolve(scene(0, 60), scene(2, 60), before=40, mixed=12)[:53]
    (plan,) = preparation(tmp_path / "data", [write(tmp_path / "loop.mp4", frames)]).plans()
    assert [clip.first_frame for clip in plan.clips] == list(range(0, 36, 4))


@pytest.mark.slow
def test_what_comes_before_a_damage_is_used(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    made = ("-f", "lavfi", "-i", "testsrc2=s=96x64:r=16:d=6")
    run_ffmpeg(*made, "-c:v", "libx264", "-g", "16", "-bf", "0", broken)
    whole = frames_of(broken)
    content = bytearray(broken.read_bytes())
    middle = len(content) * 6 // 10
    content[middle : middle + 2000] = b"rubbish!" * 250
    broken.write_bytes(content)
    folder = tmp_path / "data"
    (plan,) = preparation(folder, [broken]).plans()
    assert {each.reason for each in plan.dropped} == {"damaged"}
    assert "can be read, then it is damaged" in plan.dropped[0].detail
    assert 16 <= plan.num_frames <= 80
    made_of_it = prepare(preparation(folder, [broken]))
    assert made_of_it.samples == len(plan.clips) > 1
    last = opened(folder).sample(made_of_it.samples - 1)
    first = plan.clips[-1].first_frame
    source = np.stack([resize_frame(frame, 32, 48, "stretch") for frame in whole])
    assert places_of(last.video, source) == list(range(first, first + 5))


def test_the_same_bytes_are_used_once_and_captions_decide(tmp_path: Path, film: Path) -> None:
    again = tmp_path / "again.mp4"
    again.write_bytes(film.read_bytes())
    bare = write(tmp_path / "bare.mp4", scene(3, 9))
    torn = write(tmp_path / "torn.mp4", scene(4, 9))
    torn.with_suffix(".txt").write_bytes(b"\xff\xfe\xff")
    blank = write(tmp_path / "blank.mp4", scene(5, 9))
    blank.with_suffix(".txt").write_text(" \u200b\n")
    videos = [film, again, bare, torn, blank]
    plans = preparation(tmp_path / "data", videos, uncaptioned="drop").plans()
    found = [{each.reason: each.count for each in plan.dropped} for plan in plans]
    assert found == [
        *({}, {"duplicate": 1}, {"no_caption": 2}, {"bad_caption": 1}, {"no_caption": 2})
    ]
    kept = preparation(tmp_path / "data", [bare], uncaptioned="empty").plans()[0]
    assert [clip.caption for clip in kept.clips] == ["", ""]


class FlatAtFirst:
    """An estimator that finds no depth in what it is asked for first."""

    name, context_frames = "flat", 0

    def __init__(self) -> None:
        self.asked = 0

    def estimate(self, frames: np.ndarray, earlier: np.ndarray | None = None) -> np.ndarray:
        self.asked += 1
        grey: np.ndarray = frames.mean(axis=-1).astype(np.float32)
        return np.ones_like(grey) if self.asked == 1 else grey


def test_a_scene_without_depth_is_dropped_and_the_rest_made(film: Path, tmp_path: Path) -> None:
    work = preparation(tmp_path / "data", [film])
    with work.opened(overwrite=False):
        found = Extractors(FlatAtFirst(), LucasKanadeTracker(), "none")
        made = work.carry_out(work.keep_plans(), found)
    assert (made.samples, made.dropped) == (2, {"no_depth": 3})
    assert [opened(tmp_path / "data").sample(number).prompt for number in (0, 1)] == ["snow"] * 2


def test_a_long_scene_is_extracted_in_stretches() -> None:
    geometry = ClipGeometry(5, 16)
    clips = [
        PlannedClip(scene=0, first_frame=4 * k, history_frames=min(8, 4 * k), caption="")
        for k in range(60)
        if k != 30
    ]
    rows = stretches(clips, geometry)
    assert [len(row.clips) for row in rows] == [24, 6, 24, 5]
    assert [row.first_frame for row in rows] == [0, 88, 116, 212]


@pytest.mark.slow
def test_a_journal_that_was_torn_is_cut_and_one_that_was_changed_is_named(
    film: Path, tmp_path: Path, data: Path
) -> None:
    folder = tmp_path / "data"
    work = preparation(folder, [film])
    with work.opened(overwrite=False):
        plans = work.keep_plans()

        class Stop(SilentProgress):
            done = 0

            def advance(self, stage: str, amount: int = 1, *, detail: str = "") -> None:
                self.done += amount if stage == "clips" else 0
                if self.done == 3:
                    raise KeyboardInterrupt

        stopped = preparation(folder, [film], progress=Stop())
        with pytest.raises(KeyboardInterrupt):
            stopped.carry_out(plans, extractors(), shard_bytes=SHARD_BYTES)
    with pytest.raises(InputError, match="not finished"):
        opened(folder)
    journal = folder / "unfinished" / "journal.jsonl"
    whole = journal.read_bytes()
    flip(journal, 80)
    with pytest.raises(InputError, match=r"journal\.jsonl: damaged at byte 0"):
        prepare(preparation(folder, [film]))
    journal.write_bytes(whole + b"0123 torn")
    prepare(preparation(folder, [film]))
    assert contents(folder) == contents(data)


def run_kills(folder: Path, film: Path, *kills: str) -> int:
    paths = [str(HERE), str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    program = [sys.executable, str(HERE / "toy_prepare.py"), str(folder), str(film), *kills]
    done = subprocess.run(program, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.slow
def test_killed_it_goes_on_and_ends_with_the_same_bytes(film: Path, tmp_path: Path) -> None:
    assert run_kills(tmp_path, film, "33") == 1


@pytest.mark.slow
def test_killed_at_every_ninth_operation_it_ends_with_the_same_bytes(
    film: Path, tmp_path: Path
) -> None:
    assert run_kills(tmp_path, film, "every-9") > 12
