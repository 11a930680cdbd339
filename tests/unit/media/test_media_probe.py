"""What is said about a video before it is read, and the one sentence about what is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from longvie_cli.errors import MediaError
from longvie_cli.media.packets import read_packets
from longvie_cli.media.probe import probe_video
from longvie_cli.media.reader import count_frames, read_frames
from longvie_cli.media.sound import read_sound


def test_ntsc_rate_length_and_sound(ffmpeg, tmp_path):
    path = tmp_path / "ntsc.mp4"
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=s=64x48:r=60000/1001:d=2"),
        *("-f", "lavfi", "-i", "sine=d=2", "-c:v", "libx264", "-c:a", "aac", path),
    )
    video = probe_video(path)
    assert video.fps == pytest.approx(60000 / 1001, abs=1e-9)
    assert video.num_frames == 120
    assert video.duration_seconds == pytest.approx(120 * 1001 / 60000, abs=1e-9)
    assert (video.height, video.width, video.codec, video.has_audio) == (48, 64, "h264", True)
    assert read_sound(path).codec == "aac"


def test_rotation_by_metadata_turns_the_size(ffmpeg, numbered_video, tmp_path):
    upright = numbered_video("upright.mp4", num_frames=3, fps="25")
    turned = tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", "90", "-i", upright, "-c", "copy", turned)
    video = probe_video(turned)
    assert (video.height, video.width) == (64, 48)


def test_non_square_pixels_count_in_the_width(ffmpeg, numbered_video, tmp_path):
    wide = numbered_video("wide.mp4", "-vf", "setsar=4/3", num_frames=3, fps="25")
    assert (probe_video(wide).height, probe_video(wide).width) == (48, 85)
    turned = tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", "90", "-i", wide, "-c", "copy", turned)
    assert (probe_video(turned).height, probe_video(turned).width) == (64, 36)


def test_a_single_frame(numbered_video):
    video = probe_video(numbered_video("one.mp4", num_frames=1, fps="50"))
    assert (video.num_frames, video.fps) == (1, 50.0)
    assert video.duration_seconds == pytest.approx(0.02)


@pytest.mark.parametrize("suffix", ["mkv", "avi", "mov", "ts"])
def test_other_containers(ffmpeg, tmp_path, suffix):
    path = tmp_path / f"video.{suffix}"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=2", "-c:v", "libx264", path)
    video = probe_video(path)
    assert (video.num_frames, video.has_audio, video.codec) == (50, False, "h264")
    assert video.fps == pytest.approx(25, abs=0.05)


def test_frames_hidden_by_an_edit_list_do_not_count(ffmpeg, tmp_path):
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=4", "-c:v", "libx264", "-g", "50", whole)
    ffmpeg("-ss", "2.6", "-i", whole, "-c", "copy", cut)
    assert probe_video(cut).num_frames == count_frames(probe_video(cut), fps=None) == 35


def test_a_picture_on_a_song_is_no_video(ffmpeg, tmp_path):
    cover, song = tmp_path / "cover.png", tmp_path / "song.mp3"
    Image.new("RGB", (32, 32), "red").save(cover)
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", "-i", cover, "-map", "0", "-map", "1", song)
    with pytest.raises(MediaError, match=r"song\.mp3"):
        probe_video(song)
    assert read_sound(song).codec == "mp3"


def test_no_sound_is_said(numbered_video):
    with pytest.raises(MediaError, match="no sound"):
        read_sound(numbered_video("silent.mp4", num_frames=2, fps="25"))


def _broken_files(folder: Path, good: Path) -> dict[str, Path]:
    data = good.read_bytes()
    contents = {
        "empty.mp4": b"",
        "text.mp4": b"A horse gallops over the hills at dawn.\n" * 50,
        "text.txt": b"A horse gallops over the hills at dawn.\n" * 50,
        "noise.mp4": np.random.default_rng(0).bytes(5000),
        "cut_off.mp4": data[: len(data) * 6 // 10],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "folder.mp4").mkdir()
    return {name: folder / name for name in (*contents, "folder.mp4", "missing.mp4")}


BROKEN = [
    ("empty.mp4", "empty"),
    ("text.mp4", "this is a text file, not a video"),
    ("text.txt", "text file|cannot be read"),
    ("noise.mp4", "cannot be read as a video"),
    ("cut_off.mp4", "cut off|cannot be read"),
    ("folder.mp4", "is a folder"),
    ("missing.mp4", "no such file"),
]


@pytest.mark.parametrize("index_in_front", [True, False])
@pytest.mark.parametrize(("name", "words"), BROKEN)
def test_broken_input_is_one_sentence(ffmpeg, tmp_path, name, words, index_in_front):
    good = tmp_path / "good.mp4"
    place = ("-movflags", "+faststart") if index_in_front else ()
    source = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=2")
    ffmpeg(*source, "-c:v", "libx264", *place, good)
    path = _broken_files(tmp_path, good)[name]
    calls = [
        lambda: probe_video(path),
        lambda: count_frames(probe_video(path), fps=16),
        lambda: read_frames(probe_video(path), fps=16, height=48, width=64, fit="crop"),
    ]
    for call in calls:
        with pytest.raises(MediaError, match=words) as raised:
            call()
        assert raised.value.exit_code == 5
        assert raised.value.message.startswith(str(path))
        assert "\n" not in raised.value.message


def test_a_damaged_frame_is_an_error_not_a_shorter_video(ffmpeg, tmp_path):
    path = tmp_path / "damaged.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240:r=25:d=2", "-c:v", "libx264", path)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 8000] = b"rubbish!" * 1000
    path.write_bytes(data)
    with pytest.raises(MediaError, match="damaged"):
        count_frames(probe_video(path), fps=16)
    with pytest.raises(MediaError, match="damaged"):
        list(read_frames(probe_video(path), fps=16, height=48, width=64, fit="crop"))


@pytest.mark.parametrize("name", ["-dash.mp4", "a:b.mp4", "%03d.mp4", "it's.mp4", "sp ace #.mp4"])
def test_any_file_name(numbered_video, tmp_path, monkeypatch, name):
    numbered_video("plain.mp4", num_frames=2, fps="16").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert probe_video(Path(name)).num_frames == 2


def test_a_percent_sign_in_an_image_name_is_no_sequence(tmp_path):
    for name, colour in (("p%01d.png", "red"), ("p1.png", "blue"), ("p2.png", "blue")):
        Image.new("RGB", (8, 8), colour).save(tmp_path / name)
    with pytest.raises(MediaError, match="its format is not read"):
        probe_video(tmp_path / "p%01d.png")


def test_packets_tell_b_frames_and_constant_rate(ffmpeg, tmp_path):
    path = tmp_path / "b_frames.mp4"
    source = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=16:d=2")
    ffmpeg(*source, "-c:v", "libx264", "-bf", "3", path)
    packets = read_packets(path)
    assert packets.delay
    assert packets.is_constant(16)
    assert not packets.is_constant(15)
