"""Awkward and broken videos: the right colours, the right frames, or one clear sentence."""

from __future__ import annotations

import os
import re
import stat
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from longvie_cli.controls.control_folder import ControlLayout
from longvie_cli.errors import MediaError
from longvie_cli.media.ffmpeg import DamagedVideoError, check_readable
from longvie_cli.media.filters import handed_over_size
from longvie_cli.media.image import read_image
from longvie_cli.media.probe import probe_video
from longvie_cli.media.reader import count_frames, read_frames
from longvie_cli.media.scenes import SceneScan, scan_scenes
from longvie_cli.sources.conversions import describe_conversion
from longvie_cli.timeline import ClipGeometry

LOSSLESS = ("-c:v", "ffv1")
PATCHES = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "grey": (128, 128, 128)}


def said(path: Path) -> str:
    layout = ControlLayout(ClipGeometry(33, 16), 32, 48, track_columns=2, track_rows=2)
    return " ".join(
        describe_conversion(
            probe_video(path),
            height=layout.height,
            width=layout.width,
            fps=layout.geometry.fps,
            fit="crop",
        )
    )


def patch_colours(path: Path, *, height: int = 48, width: int = 64) -> list[tuple[int, ...]]:
    """Return the colours in the middle of the four vertical stripes of frame 0."""
    frame = next(read_frames(probe_video(path), fps=16, height=height, width=width, fit="stretch"))
    row = frame[height // 2]
    return [tuple(int(value) for value in row[width * k // 8]) for k in (1, 3, 5, 7)]


def assert_near(found, wanted, tolerance: int) -> None:
    assert np.abs(np.array(found, int) - np.array(wanted, int)).max() <= tolerance, found


@pytest.fixture
def stripes(tmp_path: Path) -> Path:
    """A picture of four stripes, 64x48: red, green, blue, grey."""
    picture = np.zeros((48, 64, 3), np.uint8)
    for index, colour in enumerate(PATCHES.values()):
        picture[:, 16 * index : 16 * index + 16] = colour
    path = tmp_path / "stripes.png"
    Image.fromarray(picture).save(path)
    return path


@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize("signal_range", ["tv", "pc"])
@pytest.mark.parametrize("bits", ["yuv444p", "yuv444p10le"])
def test_tagged_colours_come_out_as_they_went_in(
    ffmpeg, stripes, tmp_path, matrix, signal_range, bits
):
    names = {"bt601": "smpte170m", "bt709": "bt709", "bt2020": "bt2020nc"}
    tags = f"setparams=colorspace={names[matrix]}:range={signal_range}"
    if matrix == "bt2020":
        tags += ":color_primaries=bt709:color_trc=bt709"
    scale = f"scale=out_color_matrix={matrix}:out_range={signal_range},format={bits},{tags}"
    path = tmp_path / "tagged.mkv"
    options = ("-frames:v", "3", "-r", "16", "-vf", scale, "-color_range", signal_range)
    ffmpeg("-loop", "1", "-i", stripes, *options, *LOSSLESS, path)
    assert_near(patch_colours(path), list(PATCHES.values()), 4)
    assert ("full-range" in said(path)) == (signal_range == "pc")


@pytest.mark.parametrize(("size", "matrix"), [((1280, 720), "bt709"), ((640, 360), "bt601")])
def test_untagged_colours_follow_the_size(ffmpeg, stripes, tmp_path, size, matrix):
    path = tmp_path / "untagged.mkv"
    scale = (
        f"scale={size[0]}:{size[1]}:flags=neighbor:out_color_matrix={matrix},format=yuv444p,"
        "setparams=colorspace=unknown"
    )
    ffmpeg("-loop", "1", "-i", stripes, "-frames:v", "2", "-r", "16", "-vf", scale, *LOSSLESS, path)
    assert_near(patch_colours(path), list(PATCHES.values()), 4)


def _pq(nits: float) -> float:
    """Return the PQ signal of a luminance (SMPTE ST 2084)."""
    power = (nits / 10000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def _hdr_video(ffmpeg, path: Path, signals: list[float], transfer: str) -> Path:
    levels = np.round(64 + 876 * np.repeat(signals, 16)).astype("<u2")
    luma = np.broadcast_to(levels, (48, len(levels)))
    chroma = np.full((2, 48, len(levels)), 512, "<u2")
    raw = b"".join(part.tobytes() for part in (luma.astype("<u2"), *chroma)) * 3
    tags = f"colorspace=bt2020nc:color_primaries=bt2020:color_trc={transfer}:range=tv"
    source = ("-f", "rawvideo", "-pix_fmt", "yuv444p10le", "-s", f"{len(levels)}x48", "-r", "16")
    ffmpeg(*source, "-i", "pipe:0", "-vf", f"setparams={tags}", *LOSSLESS, path, feed=raw)
    return path


def test_hdr_keeps_its_middle_tones_and_its_white_below_white(ffmpeg, tmp_path):
    nits = [0.0, 36.5, 203.0, 1000.0]
    path = _hdr_video(ffmpeg, tmp_path / "pq.mkv", [_pq(value) for value in nits], "smpte2084")
    black, middle, white, peak = (colour[1] for colour in patch_colours(path))
    assert black <= 1
    # 18 % of white is below the bend of the curve; shown at gamma 2.4 (BT.1886).
    assert middle == pytest.approx(0.18 ** (1 / 2.4) * 255, abs=2)
    assert 205 <= white <= 230
    assert peak >= 253
    assert "HDR (PQ) is tone-mapped" in said(path)


def test_hlg_white_is_that_of_pq(ffmpeg, tmp_path):
    path = _hdr_video(ffmpeg, tmp_path / "hlg.mkv", [0.0, 0.5, 0.75, 1.0], "arib-std-b67")
    black, middle, white, peak = (colour[1] for colour in patch_colours(path))
    assert black <= 1
    assert 120 < middle < 165
    assert 205 <= white <= 230
    assert peak >= 253
    assert "HDR (HLG)" in said(path)


def test_wide_gamut_without_hdr(ffmpeg, tmp_path):
    path = _hdr_video(ffmpeg, tmp_path / "wide.mkv", [0.0, 0.25, 0.5, 1.0], "bt2020-10")
    wanted = [(round(255 * level),) * 3 for level in (0, 0.25, 0.5, 1)]
    assert_near(patch_colours(path), wanted, 3)
    assert "bt2020 colours are converted" in said(path)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("alpha.mov", ("-pix_fmt", "argb", "-c:v", "qtrle")),
        ("alpha.webm", ("-pix_fmt", "yuva420p", "-c:v", "libvpx-vp9", "-crf", "5", "-b:v", "0")),
    ],
)
def test_transparent_parts_are_black(ffmpeg, tmp_path, name, codec):
    picture = np.zeros((48, 64, 4), np.uint8)
    picture[..., :3] = (240, 240, 240)
    picture[:, :32, 3] = 255
    Image.fromarray(picture).save(tmp_path / "alpha.png")
    path = tmp_path / name
    ffmpeg("-loop", "1", "-i", tmp_path / "alpha.png", "-frames:v", "4", "-r", "10", *codec, path)
    left, _, _, right = patch_colours(path)
    assert_near(left, (240,) * 3, 6)
    assert_near(right, (0,) * 3, 6)
    assert "shown over black" in said(path)


def test_transparent_parts_of_a_gif_are_black(tmp_path):
    pictures = []
    for level in (240, 236, 232):
        picture = np.zeros((48, 64, 4), np.uint8)
        picture[:, :32] = (level, level, level, 255)
        pictures.append(Image.fromarray(picture))
    path = tmp_path / "alpha.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, disposal=2)
    left, _, _, right = patch_colours(path)
    assert_near(left, (240,) * 3, 4)
    assert_near(right, (0,) * 3, 2)


def test_an_animated_gif_plays_once_by_its_delays(ffmpeg, numbered_video, numbers_of, tmp_path):
    steady = numbered_video("steady.mp4", num_frames=6, fps="10")
    path = tmp_path / "uneven.gif"
    # Frames at 0, 0.1, 0.4, 0.9 ... seconds: frame n at n^2 tenths.
    exact = "setpts=N*N/10/TB,split[a][b];[a]palettegen[p];[b][p]paletteuse=dither=none"
    ffmpeg("-i", steady, "-filter_complex", exact, "-fps_mode", "vfr", path)
    frames = list(read_frames(probe_video(path), fps=16, height=48, width=64, fit="native"))
    times = [Fraction(n * n, 10) for n in range(6)]
    shown = numbers_of(frames)
    wanted = [
        max(i for i, t in enumerate(times) if t <= Fraction(k, 16) + Fraction(1, 256))
        for k in range(len(shown))
    ]
    assert shown == wanted
    assert len(frames) >= 2.5 * 16
    assert "variable frame rate" in said(path)


def test_interlaced_pictures_are_deinterlaced(ffmpeg, tmp_path):
    path = tmp_path / "fields.mkv"
    # A white bar that moves 8 pixels a field leaves combs of single rows in each picture.
    bars = (
        "color=black:s=64x48:r=50:d=1[b];color=white:s=8x48:r=50:d=1[w];"
        "[b][w]overlay=x='mod(n*8,56)':y=0,format=yuv420p,interlace=lowpass=off:scan=tff"
    )
    ffmpeg("-filter_complex", bars, "-c:v", "ffv1", path)
    assert probe_video(path).picture.interlaced
    frames = list(read_frames(probe_video(path), fps=None, height=48, width=64, fit="native"))
    assert len(frames) == count_frames(probe_video(path), fps=None) == 25
    combs = [np.abs(np.diff(frame[..., 1].astype(int), axis=0)).mean() for frame in frames]
    raw = np.frombuffer(
        ffmpeg("-i", path, "-f", "rawvideo", "-pix_fmt", "gray", "pipe:1"), np.uint8
    ).reshape(25, 48, 64)
    raw_combs = np.abs(np.diff(raw.astype(int), axis=1)).mean()
    assert raw_combs > 10
    assert np.mean(combs) < raw_combs / 3
    assert "deinterlaced" in said(path)


@pytest.mark.parametrize("flip", [(), ("-display_hflip",), ("-display_vflip",)])
def test_turned_and_mirrored(ffmpeg, stripes, tmp_path, flip):
    plain, turned = tmp_path / "plain.mp4", tmp_path / "turned.mp4"
    bt709 = "scale=out_color_matrix=bt709,format=yuv444p,setparams=colorspace=bt709"
    options = ("-frames:v", "2", "-r", "16", "-vf", bt709, "-c:v", "libx264", "-qp", "0")
    ffmpeg("-loop", "1", "-i", stripes, *options, plain)
    ffmpeg("-display_rotation", "180", *flip, "-i", plain, "-c", "copy", turned)
    colours = list(PATCHES.values())
    # Half a turn reverses the stripes, a mirror across reverses them back, one down does not.
    wanted = colours if flip == ("-display_hflip",) else colours[::-1]
    assert_near(patch_colours(turned), wanted, 4)
    assert "turned or mirrored" in said(turned)


def test_a_cover_picture_and_a_second_video_are_left_out(ffmpeg, numbered_video, tmp_path):
    video = numbered_video("video.mp4", num_frames=8, fps="16")
    cover = tmp_path / "cover.png"
    Image.new("RGB", (200, 200), "red").save(cover)
    covered = tmp_path / "covered.mp4"
    streams = ("-map", "0", "-map", "1", "-c", "copy", "-disposition:v:0", "attached_pic")
    ffmpeg("-i", cover, "-i", video, *streams, covered)
    assert probe_video(covered).width == 64
    assert "videos" not in said(covered)
    doubled = tmp_path / "doubled.mkv"
    ffmpeg("-i", video, "-i", video, "-map", "0", "-map", "1", "-c", "copy", doubled)
    assert "it holds 2 videos; stream 0" in said(doubled)


@pytest.mark.slow
def test_a_huge_picture_is_averaged_before_it_reaches_us(ffmpeg, tmp_path):
    path = tmp_path / "8k.mkv"
    colours = "color=0x204060:s=7680x4320:r=16:d=0.125"
    ffmpeg("-f", "lavfi", "-i", colours, "-c:v", "mpeg4", "-q:v", "2", path)
    video = probe_video(path)
    assert handed_over_size(video, 112, 192, "crop") == (2160, 3840)
    assert handed_over_size(video, 4320, 7680, "crop") == (4320, 7680)
    frames = list(read_frames(probe_video(path), fps=16, height=112, width=192, fit="crop"))
    assert len(frames) == 2
    assert_near(frames[0][50, 50], (0x20, 0x40, 0x60), 6)


@pytest.mark.parametrize("size", [(33, 47), (17, 101)])
def test_odd_sizes(ffmpeg, tmp_path, size):
    path = tmp_path / "odd.mkv"
    ffmpeg("-f", "lavfi", "-i", f"color=red:s={size[0]}x{size[1]}:r=16:d=0.25", *LOSSLESS, path)
    frames = list(read_frames(probe_video(path), fps=16, height=32, width=48, fit="stretch"))
    assert len(frames) == 4
    assert_near(frames[0][16, 24], (255, 0, 0), 4)


@pytest.mark.parametrize("num_frames", [1, 2, 3, 4])
def test_very_short_videos(numbered_video, numbers_of, num_frames):
    path = numbered_video("short.mp4", num_frames=num_frames, fps="16")
    frames = list(read_frames(probe_video(path), fps=16, height=48, width=64, fit="native"))
    assert numbers_of(frames) == list(range(num_frames))
    assert [*scan_scenes(probe_video(path), fps=16)] == [SceneScan(num_frames, ())]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
def test_a_still_picture_is_no_video(tmp_path, suffix):
    path = tmp_path / f"still.{suffix}"
    Image.new("RGB", (32, 32), "red").save(path)
    with pytest.raises(MediaError, match="still picture"):
        probe_video(path)


def test_one_frame_of_a_real_video_is_not_a_still_picture(numbered_video):
    assert probe_video(numbered_video("one.mp4", num_frames=1, fps="16")).num_frames == 1


def test_a_cut_by_edit_list_starts_at_its_first_shown_frame(ffmpeg, numbered_video, numbers_of):
    whole = numbered_video("whole.mp4", "-g", "40", "-bf", "0", num_frames=48, fps="16")
    cut = whole.with_name("cut.mp4")
    ffmpeg("-ss", "1", "-i", whole, "-c", "copy", cut)
    frames = list(read_frames(probe_video(cut), fps=16, height=48, width=64, fit="native"))
    assert numbers_of(frames) == list(range(16, 48))


def test_pipes_and_devices_are_refused_at_once(tmp_path):
    fifo = tmp_path / "pipe.mp4"
    os.mkfifo(fifo)
    for path in (fifo, Path("/dev/zero")):
        with pytest.raises(MediaError, match="pipe or a device"):
            check_readable(path)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path):
    path = tmp_path / "secret.mp4"
    path.write_bytes(b"x")
    path.chmod(stat.S_IWUSR)
    with pytest.raises(MediaError, match="Permission denied"):
        probe_video(path)


def test_sound_alone_and_no_frame_at_all(ffmpeg, tmp_path):
    sound, nothing = tmp_path / "sound.mp4", tmp_path / "nothing.mkv"
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", sound)
    ffmpeg("-f", "lavfi", "-i", "color=s=64x48:d=1", "-t", "0", *LOSSLESS, nothing)
    for path in (sound, nothing):
        with pytest.raises(MediaError, match=path.name):
            probe_video(path)


def test_a_gigantic_picture_is_refused_before_it_is_decoded(tmp_path):
    # A PNG header that claims 100000 x 100000 and one of 20000 x 20000.
    import struct
    import zlib

    for side in (100_000, 20_000):
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
        path = tmp_path / f"giant{side}.png"
        path.write_bytes(
            b"\x89PNG\r\n\x1a\n"
            + b"".join(
                struct.pack(">I", len(data))
                + kind
                + data
                + struct.pack(">I", zlib.crc32(kind + data))
                for kind, data in chunks
            )
        )
        with pytest.raises(MediaError, match="giant"):
            probe_video(path)
        with pytest.raises(MediaError, match="giant"):
            read_image(path, height=8, width=8, fit="crop")


def test_timestamps_that_span_days_are_refused(ffmpeg, numbered_video):
    steady = numbered_video("steady.mp4", num_frames=3, fps="16")
    path = steady.with_name("days.mkv")
    ffmpeg("-itsscale", "1000000", "-i", steady, "-c", "copy", path)
    with pytest.raises(MediaError, match="timestamps are damaged: frame 0"):
        probe_video(path)


@pytest.fixture
def damaged(ffmpeg, tmp_path) -> Path:
    """Six seconds at 16 fps with a key frame each second, rubbish in the middle."""
    path = tmp_path / "damaged.mp4"
    source = ("-f", "lavfi", "-i", "testsrc2=s=320x240:r=16:d=6")
    ffmpeg(*source, "-c:v", "libx264", "-g", "16", "-bf", "0", path)
    data = bytearray(path.read_bytes())
    middle = len(data) * 6 // 10
    data[middle : middle + 8000] = b"rubbish!" * 1000
    path.write_bytes(data)
    return path


@pytest.mark.slow
def test_damage_in_the_middle_names_what_can_be_read(damaged):
    words = r"frames 0 to \d+ \(up to 0:0\d\.\d\d\) can be read"
    with pytest.raises(DamagedVideoError, match=words) as e:
        list(scan_scenes(probe_video(damaged), fps=16))
    seconds = float(e.value.hint.partition("--seconds ")[2].split(",")[0])
    assert 1 <= seconds < 5
    # What the hint offers works, and its frames are the right ones.
    num_frames = round(seconds * 16)
    (*_, scan) = scan_scenes(probe_video(damaged), fps=16, num_frames=num_frames)
    assert scan == SceneScan(num_frames, ())
    with pytest.raises(DamagedVideoError, match="can be read"):
        list(scan_scenes(probe_video(damaged), fps=16, num_frames=90))
    with pytest.raises(DamagedVideoError, match="can be read"):
        count_frames(probe_video(damaged), fps=16)


@pytest.mark.parametrize("name", ["video.mp4", "video.mkv"])
def test_a_file_that_ends_in_the_middle_says_up_to_where_it_can_be_read(ffmpeg, tmp_path, name):
    path = tmp_path / name
    source = ("-f", "lavfi", "-i", "testsrc2=s=320x240:r=16:d=6")
    ffmpeg(*source, "-c:v", "libx264", "-g", "16", "-bf", "0", "-movflags", "+faststart", path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(MediaError, match="cut off") as e:
        probe_video(path)
    found = re.search(r"frames 0 to (\d+) \(up to 0:0(\d\.\d\d)\) can be read", e.value.message)
    assert found is not None, e.value.message
    last, seconds = int(found[1]), float(found[2])
    assert seconds == pytest.approx((last + 1) / 16, abs=0.01)
    # The bytes are spread about evenly: neither far less nor more than what is there.
    assert 1.5 <= seconds <= 4.5


def test_a_file_without_its_index_says_that_nothing_can_be_read(ffmpeg, tmp_path):
    path = tmp_path / "video.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x48:r=16:d=2", "-c:v", "libx264", path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(MediaError, match="no frame can be read"):
        probe_video(path)
