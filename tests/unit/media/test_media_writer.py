"""The mp4 that plays everywhere, and that is there whole or not at all."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from longvie_cli.errors import MediaError, OutputConflictError, ResumableError
from longvie_cli.media.ffmpeg import ffmpeg_executable, running_ffmpeg, writing_error
from longvie_cli.media.packets import read_packets
from longvie_cli.media.probe import probe_video
from longvie_cli.media.reader import read_frames, read_written
from longvie_cli.media.writer import VideoWriter, written_packets, written_video


def _described(path: Path) -> str:
    """Return ffmpeg's own words about a file's video stream."""
    command = [ffmpeg_executable(), "-hide_banner", "-i", path]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    return next(line for line in said.splitlines() if "Video:" in line)


@pytest.mark.parametrize("crf", [1, 18, 51])
def test_browsers_can_play_it(write_clip, moving_frames, crf):
    path = write_clip("clip.mp4", moving_frames(5), crf=crf, preset="medium")
    said = _described(path)
    assert "h264 (High)" in said
    assert "yuv420p(tv, bt709" in said
    assert re.search(r"\b16 fps, 16 tbr, 16k tbn\b", said)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert b"ctts" not in data


@pytest.mark.parametrize("fps", [16, 24, 25, 30])
def test_timestamps_are_exact(write_clip, moving_frames, fps):
    packets = read_packets(write_clip("clip.mp4", moving_frames(33), fps=fps))
    assert packets.average_fps == fps
    assert packets.is_constant(fps)
    assert packets.timestamps[0] == 0
    assert packets.delay == 0
    assert len(packets.timestamps) == 33


def test_colours_are_converted_with_bt709_not_only_tagged(ffmpeg, write_clip):
    red = np.zeros((2, 32, 32, 3), np.uint8)
    red[..., 0] = 255
    path = write_clip("red.mp4", red, crf=1)
    planes = ffmpeg("-i", path, "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "yuv420p", "pipe:1")
    # BT.709: Y = 16 + 219 * 0.2126, Cb = 128 - 224 * 0.2126 / 1.8556, Cr = 240; BT.601 has Y = 81.
    assert abs(planes[0] - 63) <= 1
    assert abs(planes[32 * 32] - 102) <= 1
    assert abs(planes[32 * 32 + 16 * 16] - 240) <= 1
    (frame, _) = read_frames(probe_video(path), fps=None, height=32, width=32, fit="native")
    assert np.abs(frame.astype(int) - red[0]).max() <= 2


def test_what_is_read_is_what_was_written(write_clip, moving_frames):
    smooth = np.repeat(np.repeat(moving_frames(4, height=8, width=12), 8, axis=1), 8, axis=2)
    path = write_clip("clip.mp4", smooth, crf=4)
    read = np.stack(list(read_frames(probe_video(path), fps=16, height=64, width=96, fit="native")))
    assert np.abs(read.astype(int) - smooth).mean() < 6
    assert probe_video(path).num_frames == 4


def test_same_frames_same_bytes(write_clip, moving_frames):
    frames = moving_frames(9)
    first = write_clip("first.mp4", frames, metadata="{}").read_bytes()
    assert write_clip("second.mp4", frames, metadata="{}").read_bytes() == first


def test_an_exception_inside_leaves_nothing_and_keeps_the_old_file(tmp_path, moving_frames):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"the old one")
    for failure in (RuntimeError, KeyboardInterrupt):
        with (
            pytest.raises(failure),
            VideoWriter(path, height=48, width=64, fps=16) as writer,
        ):
            for frame in moving_frames(20):
                writer.write(frame)
            raise failure
        assert path.read_bytes() == b"the old one"
        assert list(tmp_path.iterdir()) == [path]


def test_nothing_written_is_an_error(tmp_path):
    with (
        pytest.raises(MediaError, match="without a single frame"),
        VideoWriter(tmp_path / "clip.mp4", height=48, width=64, fps=16),
    ):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("crf", [0, 52])
def test_lossless_that_browsers_show_black_is_refused(tmp_path, crf):
    with pytest.raises(MediaError, match=f"not {crf}"):
        VideoWriter(tmp_path / "clip.mp4", height=48, width=64, fps=16, crf=crf)


def test_odd_sizes_and_wrong_frames_are_refused(tmp_path):
    with pytest.raises(MediaError, match="63x48"):
        VideoWriter(tmp_path / "clip.mp4", height=48, width=63, fps=16)
    with (
        pytest.raises(ValueError, match="expected uint8"),
        VideoWriter(tmp_path / "clip.mp4", height=48, width=64, fps=16) as writer,
    ):
        writer.write(np.zeros((48, 64, 3), np.float32))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there(tmp_path):
    with (
        pytest.raises(OutputConflictError, match="cannot be written"),
        VideoWriter(tmp_path / "no" / "clip.mp4", height=48, width=64, fps=16),
    ):
        pass


def test_ffmpeg_that_dies_is_an_error_at_once_or_at_the_end(tmp_path, moving_frames):
    path = tmp_path / "clip.mp4"
    with (
        pytest.raises(MediaError, match="cannot be written"),
        VideoWriter(path, height=48, width=64, fps=16, preset="no such preset") as writer,
    ):
        for frame in np.concatenate([moving_frames(60)] * 5):
            writer.write(frame)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the always-full device of Linux")
def test_a_full_disk_is_resumable(tmp_path):
    source = ("-f", "lavfi", "-i", "testsrc2=s=64x48:d=1", "-f", "rawvideo", "-y", "file:/dev/full")
    with running_ffmpeg(source) as process:
        assert process.wait() != 0
        error = writing_error(tmp_path / "clip.mp4", process)
    assert isinstance(error, ResumableError)
    assert "no space left" in error.message


@pytest.mark.parametrize("name", ["-dash.mp4", "a:b.mp4", "%03d.mp4", "it's.mp4"])
def test_any_file_name(write_clip, moving_frames, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with VideoWriter(Path(name), height=48, width=64, fps=16, preset="ultrafast") as writer:
        writer.write(moving_frames(1)[0])
    assert [path.name for path in tmp_path.iterdir()] == [name]


_WRITE = """
import signal, sys, time
from pathlib import Path
import numpy as np
from longvie_cli.media.writer import VideoWriter

path, number_of_frames, on_interrupt = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
# A test run in the background of a shell passes on that Ctrl-C is ignored.
answered = on_interrupt == "finish"
signal.signal(signal.SIGINT, (lambda *_: None) if answered else signal.default_int_handler)
with VideoWriter(path, height=48, width=64, fps=16) as writer:
    for number in range(number_of_frames):
        writer.write(np.full((48, 64, 3), number % 256, np.uint8))
        if number == 100:
            print("writing", flush=True)
        time.sleep(0.001)
"""


def _start_writer(path: Path, num_frames: int, on_interrupt: str) -> subprocess.Popen[str]:
    source_folder = Path(__file__).parents[3] / "src"
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITE, str(path), str(num_frames), on_interrupt],
        env={**os.environ, "PYTHONPATH": str(source_folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def _press_ctrl_c(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the job
    process.wait(timeout=60)


def test_ctrl_c_leaves_no_video(tmp_path):
    with _start_writer(tmp_path / "clip.mp4", 100_000, "raise") as process:
        _press_ctrl_c(process)
    assert process.returncode != 0
    assert not list(tmp_path.iterdir())


def test_ctrl_c_that_is_answered_later_does_not_cut_the_video(tmp_path):
    with _start_writer(tmp_path / "clip.mp4", 300, "finish") as process:
        _press_ctrl_c(process)
    assert process.returncode == 0
    assert probe_video(tmp_path / "clip.mp4").num_frames == 300


@pytest.mark.slow
def test_kill_leaves_no_video_and_the_next_try_succeeds(tmp_path, moving_frames, write_clip):
    path = tmp_path / "clip.mp4"
    with _start_writer(path, 100_000, "raise") as process:
        process.kill()
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:  # its ffmpeg may still be closing the part file
        assert not path.exists()
        time.sleep(0.1)
    write_clip("clip.mp4", moving_frames(3))
    assert [entry.name for entry in tmp_path.iterdir()] == ["clip.mp4"]
    assert probe_video(path).num_frames == 3


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p"])
def test_what_was_written_is_known_without_looking(tmp_path, pixel_format):
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, height=48, width=64, fps=16, pixel_format=pixel_format) as writer:
        for level in range(5):
            writer.write(np.full((48, 64, 3), 40 * level, np.uint8))
    assert writer.written == replace(probe_video(path), packets=None)
    assert written_packets(writer.written) == probe_video(path).packets


def test_packets_of_something_else_are_not_guessed(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(bytes(1000))
    wanted = written_video(path, height=48, width=64, fps=16, num_frames=5)
    with pytest.raises(MediaError, match=r"clip\.mp4: is not a video as longvie writes them"):
        written_packets(wanted)


@pytest.mark.parametrize("folder", ["plain", "it's #1 %d ü", "two\nlines"])
def test_what_was_written_is_read_back_in_one_go(tmp_path, moving_frames, folder):
    (tmp_path / folder).mkdir()
    written, frames = [], []
    for index, count in enumerate((3, 1, 5)):
        path = tmp_path / folder / f"clip {index}.mp4"
        with VideoWriter(path, height=48, width=64, fps=24) as writer:
            for frame in moving_frames(count):
                writer.write(frame)
        written.append(writer.written)
        size = {"height": 48, "width": 64, "fit": "native"}
        frames += read_frames(probe_video(path), fps=None, **size)
    assert np.array_equal(list(read_written(written)), frames)


def test_a_written_file_that_lost_frames_is_named(tmp_path, moving_frames, write_clip):
    whole, short = (write_clip(name, moving_frames(4)) for name in ("whole.mp4", "short.mp4"))
    wanted = [
        written_video(path, height=48, width=64, fps=16, num_frames=count)
        for path, count in ((whole, 4), (short, 6))
    ]
    with pytest.raises(MediaError, match=r"short\.mp4: the video ends after 4 frames"):
        list(read_written(wanted))
