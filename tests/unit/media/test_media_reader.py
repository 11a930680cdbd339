"""Which frame of a source becomes which frame of the result, and in what shape."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from longvie_cli.errors import MediaError
from longvie_cli.media.frames import resize_frame
from longvie_cli.media.image import read_image
from longvie_cli.media.probe import probe_video
from longvie_cli.media.reader import count_frames, read_frames, read_last_frames, read_pairs


def _on_screen(times: list[Fraction], second: Fraction) -> int:
    """Return the frame a viewer sees, allowing a container to be 1/16 of a frame late."""
    return max(i for i, time in enumerate(times) if time - times[0] <= second + Fraction(1, 256))


@pytest.mark.parametrize("rate", ["60000/1001", "30", "30000/1001", "25", "24", "16", "12", "8"])
def test_each_frame_shows_what_was_on_screen(numbered_video, numbers_of, rate):
    path = numbered_video("video.mp4", num_frames=80, fps=rate)
    times = [index / Fraction(rate) for index in range(80)]
    frames = list(read_frames(probe_video(path), fps=16, height=48, width=64, fit="native"))
    expected = [_on_screen(times, Fraction(k, 16)) for k in range(len(frames))]
    assert numbers_of(frames) == expected
    # A picture for every k/16 s before the end; the end too may be 1/16 of a frame late.
    assert len(frames) == math.ceil(80 / Fraction(rate) * 16 - Fraction(1, 16))
    assert count_frames(probe_video(path), fps=16) == len(frames)


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov", "avi", "ts"])
def test_sixteen_fps_stays_as_it_is_in_every_container(numbered_video, numbers_of, suffix):
    plain = ("-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuv420p")
    path = numbered_video(f"video.{suffix}", num_frames=80, fps="16", codec=plain)
    frames = list(read_frames(probe_video(path), fps=16, height=48, width=64, fit="native"))
    assert numbers_of(frames) == list(range(80))


def test_variable_frame_rate(ffmpeg, numbered_video, numbers_of, tmp_path):
    steady = numbered_video("steady.mp4", num_frames=24, fps="100")
    path = tmp_path / "variable.mp4"
    # Frame n at n^2 hundredths of a second: fast at first, then ever slower.
    ffmpeg(
        "-i",
        steady,
        "-vf",
        "setpts=N*N/100/TB",
        "-fps_mode",
        "vfr",
        "-c:v",
        "ffv1",
        "-enc_time_base",
        "1/100",
        path.with_suffix(".mkv"),
    )
    path = path.with_suffix(".mkv")
    times = [Fraction(n * n, 100) for n in range(24)]
    frames = list(read_frames(probe_video(path), fps=16, height=48, width=64, fit="native"))
    expected = [_on_screen(times, Fraction(k, 16)) for k in range(len(frames))]
    assert numbers_of(frames) == expected
    assert len(frames) >= 5.29 * 16
    stored = list(read_frames(probe_video(path), fps=None, height=48, width=64, fit="native"))
    assert numbers_of(stored) == list(range(24))
    assert count_frames(probe_video(path), fps=None) == 24


def test_video_that_starts_late_starts_with_its_first_frame(ffmpeg, numbered_video, numbers_of):
    video = numbered_video("video.mp4", num_frames=20, fps="16")
    late = video.with_name("late.mkv")
    sound = ("-f", "lavfi", "-i", "sine=d=2")
    ffmpeg(*sound, "-itsoffset", "0.7", "-i", video, "-map", "1", "-map", "0", "-c:v", "copy", late)
    frames = list(read_frames(probe_video(late), fps=16, height=48, width=64, fit="native"))
    assert numbers_of(frames) == list(range(20))


def test_one_frame_is_one_frame_at_any_rate(numbered_video):
    for rate in ("8", "16", "60000/1001", "240"):
        path = numbered_video("one.mp4", num_frames=1, fps=rate)
        at_8_fps = 2 if rate == "8" else 1
        assert count_frames(probe_video(path), fps=16) == at_8_fps
        assert (
            len(list(read_frames(probe_video(path), fps=16, height=48, width=64, fit="crop")))
            == at_8_fps
        )


def test_gif_with_odd_size(ffmpeg, tmp_path):
    path = tmp_path / "odd.gif"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=63x47:r=10:d=1", path)
    frames = list(read_frames(probe_video(path), fps=16, height=32, width=48, fit="crop"))
    assert len(frames) == 16
    assert frames[0].shape == (32, 48, 3)


def test_range_of_frames(numbered_video, numbers_of):
    path = numbered_video("video.mp4", num_frames=60, fps="32")
    size = {"height": 48, "width": 64, "fit": "native"}
    frames = list(read_frames(probe_video(path), fps=16, start_frame=5, num_frames=3, **size))
    assert numbers_of(frames) == [10, 12, 14]
    assert numbers_of(list(read_frames(probe_video(path), fps=None, start_frame=57, **size))) == [
        57,
        58,
        59,
    ]
    with pytest.raises(MediaError, match="ends after 30 frames at 16 fps, but 31 are needed"):
        list(read_frames(probe_video(path), fps=16, start_frame=25, num_frames=6, **size))


def test_last_frames(numbered_video, numbers_of):
    path = numbered_video("video.mp4", num_frames=20, fps="16")
    size = {"height": 48, "width": 64, "fit": "native"}
    assert numbers_of(read_last_frames(probe_video(path), 8, fps=16, **size)) == list(range(12, 20))
    assert numbers_of(read_last_frames(probe_video(path), 30, fps=16, **size)) == list(range(20))


def test_reading_can_stop_early(numbered_video):
    path = numbered_video("video.mp4", num_frames=80, fps="16")
    frames = read_frames(probe_video(path), fps=16, height=48, width=64, fit="native")
    assert next(frames).shape == (48, 64, 3)
    frames.close()


@pytest.fixture
def quadrants(ffmpeg, tmp_path):
    """A video, 96 wide and 64 high: red, green over blue, white."""
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32, :48], picture[:32, 48:] = (255, 0, 0), (0, 255, 0)
    picture[32:, :48], picture[32:, 48:] = (0, 0, 255), (255, 255, 255)
    Image.fromarray(picture).save(tmp_path / "quadrants.png")
    path = tmp_path / "quadrants.mp4"
    bt709 = "scale=out_color_matrix=bt709,format=yuv444p,setparams=colorspace=bt709"
    options = ("-frames:v", "2", "-r", "16", "-vf", bt709, "-c:v", "libx264", "-qp", "0")
    ffmpeg("-loop", "1", "-i", tmp_path / "quadrants.png", *options, path)
    return path


def _corner_names(frame: np.ndarray) -> str:
    names = {(1, 0, 0): "R", (0, 1, 0): "G", (0, 0, 1): "B", (1, 1, 1): "W", (0, 0, 0): "k"}
    height, width = frame.shape[:2]
    corners = [(2, 2), (2, width - 3), (height - 3, 2), (height - 3, width - 3)]
    return "".join(names[tuple(int(v > 127) for v in frame[place])] for place in corners)


@pytest.mark.parametrize(
    ("angle", "corners"), [(0, "RGBW"), (90, "GWRB"), (180, "WBGR"), (270, "BRWG")]
)
def test_rotation_by_metadata(ffmpeg, quadrants, angle, corners):
    turned = quadrants.with_name("turned.mp4")
    ffmpeg("-display_rotation", str(angle), "-i", quadrants, "-c", "copy", turned)
    height, width = (64, 96) if angle % 180 == 0 else (96, 64)
    frame = next(read_frames(probe_video(turned), fps=16, height=height, width=width, fit="native"))
    assert _corner_names(frame) == corners


def test_portrait_is_padded_or_cropped(ffmpeg, quadrants):
    turned = quadrants.with_name("turned.mp4")
    ffmpeg("-display_rotation", "90", "-i", quadrants, "-c", "copy", turned)
    padded = next(read_frames(probe_video(turned), fps=16, height=64, width=96, fit="pad"))
    assert _corner_names(padded) == "kkkk"
    columns = np.flatnonzero(padded.max(axis=(0, 2)) > 20)
    assert (columns[0], columns[-1]) == (26, 68)  # 64 * 64 / 96 = 42.7 columns in the middle
    cropped = next(read_frames(probe_video(turned), fps=16, height=64, width=96, fit="crop"))
    assert _corner_names(cropped) == "GWRB"


def test_non_square_pixels_become_square(ffmpeg, quadrants):
    wide = quadrants.with_name("wide.mp4")
    ffmpeg("-i", quadrants, "-vf", "setsar=2/1", "-c:v", "libx264", "-qp", "0", wide)
    frame = next(read_frames(probe_video(wide), fps=16, height=64, width=192, fit="native"))
    assert frame.shape == (64, 192, 3)
    assert _corner_names(frame) == "RGBW"
    padded = next(read_frames(probe_video(wide), fps=16, height=64, width=96, fit="pad"))
    rows = np.flatnonzero(padded.max(axis=(1, 2)) > 20)
    assert (rows[0], rows[-1]) == (16, 47)
    with pytest.raises(MediaError, match="192x64, but 96x64 is needed"):
        read_frames(probe_video(wide), fps=16, height=64, width=96, fit="native")


def test_size_that_changes_half_way(ffmpeg, tmp_path):
    parts = []
    for name, size in (("a", "64x48"), ("b", "96x80")):
        parts.append(tmp_path / f"{name}.ts")
        source = ("-f", "lavfi", "-i", f"testsrc2=s={size}:r=16:d=1")
        ffmpeg(*source, "-c:v", "mpeg2video", parts[-1])
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    for fps in (None, 16):
        frames = list(read_frames(probe_video(both), fps=fps, height=48, width=64, fit="native"))
        assert {frame.shape for frame in frames} == {(48, 64, 3)}
        # The decoder itself loses the frame it holds back at the change.
        assert len(frames) == count_frames(probe_video(both), fps=fps) >= 31
        later = list(
            read_frames(
                probe_video(both), fps=fps, height=48, width=64, fit="native", start_frame=10
            )
        )
        assert np.array_equal(np.stack(later), np.stack(frames[10:]))


def test_stretch_equals_pillow_bicubic(moving_frames, write_clip):
    path = write_clip("clip.mp4", moving_frames(2, height=48, width=80))
    (plain, _) = read_frames(probe_video(path), fps=None, height=48, width=80, fit="native")
    (small, _) = read_frames(probe_video(path), fps=None, height=36, width=64, fit="stretch")
    wanted = Image.fromarray(plain).resize((64, 36), Image.Resampling.BICUBIC)
    assert np.array_equal(small, np.asarray(wanted))


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (47, 63), (352, 640)])
def test_any_size_fits(fit, size):
    frame = np.full((*size, 3), 200, np.uint8)
    resized = resize_frame(frame, 32, 48, fit)
    assert resized.shape == (32, 48, 3)
    assert resized.max() == 200
    assert fit == "pad" or resized.min() == 200


def test_image_turned_by_exif_over_black(tmp_path):
    picture = np.zeros((20, 30, 4), np.uint8)
    picture[:, :15] = (255, 0, 0, 255)
    picture[:, 15:] = (255, 255, 255, 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    Image.fromarray(picture).save(tmp_path / "turned.png", exif=exif)
    image = read_image(tmp_path / "turned.png", height=30, width=20, fit="native")
    assert np.array_equal(image[:15], np.broadcast_to((255, 0, 0), (15, 20, 3)))
    assert not image[15:].any()


def test_sixteen_bit_and_palette_images(tmp_path):
    Image.fromarray(np.full((4, 4), 0x8000, np.uint16)).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png", height=4, width=4, fit="native")[0, 0, 0] == 128
    Image.new("P", (4, 4), 1).save(tmp_path / "flat.gif")
    assert read_image(tmp_path / "flat.gif", height=2, width=2, fit="crop").shape == (2, 2, 3)


def test_bad_images_are_one_sentence(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no picture")
    Image.effect_noise((64, 64), 50).save(tmp_path / "good.png")
    data = (tmp_path / "good.png").read_bytes()
    (tmp_path / "half.png").write_bytes(data[: len(data) // 2])
    for name in ("empty", "text", "half", "missing"):
        with pytest.raises(MediaError, match=f"{name}.png"):
            read_image(tmp_path / f"{name}.png", height=8, width=8, fit="crop")
    with pytest.raises(MediaError, match="64x64, but 8x8 is needed"):
        read_image(tmp_path / "good.png", height=8, width=8, fit="native")


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch", "native"])
def test_pairs_are_the_frames_of_both_videos(numbered_video, fit):
    first = probe_video(numbered_video("one.mp4", num_frames=12, fps="16"))
    second = probe_video(numbered_video("two.mkv", num_frames=14, fps="25"))
    size = {"height": 48, "width": 64, "fit": fit}
    if fit != "native":
        size = {"height": 30, "width": 50, "fit": fit}
    how = {"start_frame": 3, "num_frames": 7}
    pairs = list(read_pairs(first, second, **size, **how))
    for place, video in enumerate((first, second)):
        alone = read_frames(video, fps=None, **size, **how)
        for pair, frame in zip(pairs, alone, strict=True):
            np.testing.assert_array_equal(pair[place], frame)
    with pytest.raises(MediaError, match=r"one\.mp4: the video ends after 12 frames"):
        list(read_pairs(first, second, **size, start_frame=3, num_frames=10))
