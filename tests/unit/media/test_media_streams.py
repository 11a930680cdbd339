"""Which of several pictures in a file is its video, and what has none."""

from __future__ import annotations

import shutil

import pytest

from longvie_cli.errors import MediaError
from longvie_cli.media.packets import read_packets
from longvie_cli.media.probe import probe_video
from longvie_cli.media.reader import count_frames, read_frames
from longvie_cli.media.scenes import SceneScan, scan_scenes
from longvie_cli.sources.conversions import describe_conversion

H264 = ("-c:v", "libx264", "-preset", "ultrafast")


def colour(name: str, size: str, seconds: float) -> tuple[str, ...]:
    return ("-f", "lavfi", "-i", f"color={name}:s={size}:r=16:d={seconds}")


def is_read_alike(path, *, num_frames: int, red: bool) -> bool:
    """Return whether looking, reading, counting and scanning take the same stream."""
    video = probe_video(path)
    frames = list(read_frames(video, fps=16, height=48, width=64, fit="stretch"))
    assert all((frame.mean(axis=(0, 1)).argmax() == 0) == red for frame in frames)
    (*_, scan) = scan_scenes(video, fps=16)
    counts = {len(frames), count_frames(video, fps=16), video.num_frames, num_frames}
    assert counts == {num_frames} and scan == SceneScan(num_frames, ())
    assert read_packets(path).stream == video.stream
    return True


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_the_default_stream_beats_the_first_the_longer_and_the_larger(ffmpeg, tmp_path, suffix):
    path = tmp_path / f"two.{suffix}"
    sources = (*colour("blue", "320x180", 3), *colour("red", "64x48", 2))
    flags = ("-disposition:v:0", "0", "-disposition:v:1", "default")
    ffmpeg(*sources, "-map", "0:v", "-map", "1:v", *H264, *flags, path)
    assert is_read_alike(path, num_frames=32, red=True)
    (line, *_) = describe_conversion(probe_video(path), height=48, width=64, fps=16, fit="crop")
    assert "holds 2 videos; stream 1 (64x48, h264), its default, is used." in line


@pytest.mark.parametrize(
    ("other", "why"), [(("320x180", 1), "the longest"), (("32x32", 2), "the largest")]
)
def test_without_a_default_the_longest_counts_then_the_largest(ffmpeg, tmp_path, other, why):
    path = tmp_path / "two.ts"
    sources = (*colour("blue", *other), *colour("red", "64x48", 2))
    ffmpeg(*sources, "-map", "0:v", "-map", "1:v", *H264, "-bf", "0", path)
    assert is_read_alike(path, num_frames=32, red=True)
    assert probe_video(path).why_chosen == why


def test_a_thumbnail_is_no_video_even_if_it_is_the_default(ffmpeg, tmp_path):
    path = tmp_path / "thumbnail.mp4"
    sources = (*colour("blue", "640x360", 1 / 16), *colour("red", "64x48", 2))
    codecs = ("-c:v:0", "mjpeg", "-c:v:1", "libx264")
    flags = ("-disposition:v:0", "default", "-disposition:v:1", "0")
    ffmpeg(*sources, "-map", "0:v", "-map", "1:v", *codecs, *flags, path)
    assert is_read_alike(path, num_frames=32, red=True)
    assert probe_video(path).why_chosen == "the only one with more than one picture"


def test_a_single_frame_is_the_video_where_there_is_nothing_else(ffmpeg, tmp_path):
    path = tmp_path / "one.mp4"
    ffmpeg(*colour("red", "64x48", 1), *H264, "-frames:v", "1", path)
    assert probe_video(path).num_frames == 1


def test_sound_is_called_sound_whatever_cover_it_has(ffmpeg, tmp_path):
    song, cover, covered = (tmp_path / name for name in ("a.mp3", "cover.png", "covered.m4a"))
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", song)
    ffmpeg(*colour("red", "64x64", 1), "-frames:v", "1", cover)
    ffmpeg(
        "-i",
        song,
        "-i",
        cover,
        "-map",
        "0",
        "-map",
        "1",
        "-disposition:v",
        "attached_pic",
        "-c:v",
        "mjpeg",
        covered,
    )
    shutil.copy(song, tmp_path / "song.mp4")
    for path, words in (
        (song, "this is sound, not a video"),
        (tmp_path / "song.mp4", "this is sound, not a video"),
        (covered, "this is sound and a cover picture, not a video"),
    ):
        with pytest.raises(MediaError, match=words) as error:
            probe_video(path)
        assert "Stream map" not in error.value.message and "--audio" in error.value.hint


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif", "avif", "jp2", "tiff"])
def test_a_still_picture_in_any_format_is_no_video(tmp_path, suffix):
    from PIL import Image

    path = tmp_path / f"still.{suffix}"
    Image.new("RGB", (32, 32), "red").save(path)
    renamed = path.rename(tmp_path / "still.mp4")
    for look in (probe_video, read_packets):
        with pytest.raises(MediaError, match="still picture") as error:
            look(renamed)
        assert "--image" in error.value.hint
