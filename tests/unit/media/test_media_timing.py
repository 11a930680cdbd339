"""Timestamps that one damaged byte makes hours of: bounded before anything is decoded."""

from __future__ import annotations

import struct

import pytest

from longvie_cli.errors import MediaError
from longvie_cli.media.probe import probe_video
from longvie_cli.media.reader import count_frames, read_frames
from longvie_cli.sources.conversions import describe_conversion

SIZE = {"height": 48, "width": 64, "fit": "native"}


def retimed(ffmpeg, video, name: str, shift: str):
    """Copy a video with other timestamps, by an expression of ffmpeg's `setts`."""
    path = video.with_name(name)
    ffmpeg("-i", video, "-c", "copy", "-bsf:v", f"setts=ts={shift}", path)
    return path


@pytest.fixture
def steady(numbered_video):
    return numbered_video("steady.mkv", "-bf", "0", num_frames=32, fps="16")


def test_a_frame_duration_that_the_timestamps_contradict_is_not_believed(ffmpeg, numbered_video):
    whole = numbered_video("whole.mkv", "-bf", "0", num_frames=32, fps="16")
    data = bytearray(whole.read_bytes())
    place = data.index(b"\x23\xe3\x83")  # DefaultDuration, in nanoseconds
    assert data[place + 3] == 0x84
    data[place + 4 : place + 8] = struct.pack(">I", 4_096_000_000)
    whole.write_bytes(data)
    video = probe_video(whole)
    assert video.duration_seconds == pytest.approx(2, abs=0.01)
    frames = list(read_frames(video, fps=16, **SIZE))
    assert len(frames) == count_frames(video, fps=16) == 32
    lines = describe_conversion(video, height=48, width=64, fps=16, fit="crop")
    assert any("claims to stay for 4 s" in line for line in lines)


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "nut"])
def test_a_gap_that_no_film_has_is_refused(ffmpeg, steady, suffix):
    for place in (1, 16, 31):
        path = retimed(ffmpeg, steady, f"gap.{suffix}", f"PTS+gte(N\\,{place})*4194/TB")
        with pytest.raises(MediaError, match=f"timestamps are damaged: frame {place - 1}, at"):
            probe_video(path)


def test_a_smaller_gap_is_refused_where_it_is_most_of_the_film(ffmpeg, steady):
    path = retimed(ffmpeg, steady, "gap.mkv", "PTS+gte(N\\,16)*33/TB")
    with pytest.raises(MediaError, match=r"would stay for 33 s, the others for 0\.06"):
        probe_video(path)


def test_timestamps_that_jump_back_are_refused(ffmpeg, numbered_video):
    long = numbered_video("long.mkv", "-bf", "0", num_frames=80, fps="16")
    path = retimed(ffmpeg, long, "back.mkv", "if(gte(N\\,40)\\,PTS-2.5/TB\\,PTS)")
    with pytest.raises(MediaError, match="timestamps are damaged: they jump back"):
        probe_video(path)


def test_frames_within_an_instant_are_refused(ffmpeg, steady):
    path = steady.with_name("fast.mp4")
    exact = ("-video_track_timescale", "1000000")
    ffmpeg("-itsscale", "0.001", "-i", steady, "-c", "copy", *exact, path)
    with pytest.raises(MediaError, match=r"its 32 frames would begin within|shown at once"):
        probe_video(path)


def test_a_slide_show_and_a_rest_are_as_long_as_they_say(ffmpeg, numbered_video, numbers_of):
    show = numbered_video("show.mkv", "-bf", "0", num_frames=4, fps="1/15")
    video = probe_video(show)
    assert video.duration_seconds == pytest.approx(60)
    # Longer than what ffmpeg may repeat at full size: brought to size first, with the same pixels.
    frames = numbers_of(read_frames(video, fps=16, height=24, width=32, fit="stretch"))
    assert frames == [index // 240 for index in range(960)]
    long = numbered_video("long.mkv", "-bf", "0", num_frames=80, fps="4")
    rest = probe_video(retimed(ffmpeg, long, "rest.mkv", "PTS+gte(N\\,40)*12/TB"))
    assert rest.duration_seconds == pytest.approx(32, abs=0.01)


def test_a_clock_that_leaps_in_a_transport_stream_is_mended(ffmpeg, numbered_video):
    whole = numbered_video("whole.ts", "-bf", "0", num_frames=64, fps="16")
    other = whole.with_name("later.ts")
    ffmpeg("-i", whole, "-c", "copy", "-output_ts_offset", "4000", other)
    joined = whole.with_name("joined.ts")
    joined.write_bytes(whole.read_bytes() + other.read_bytes())
    video = probe_video(joined)
    assert video.num_frames == 128
    assert count_frames(video, fps=16) == pytest.approx(128, abs=2)


def test_an_index_cannot_name_more_packets_than_the_file_has_bytes(ffmpeg, tmp_path):
    from longvie_cli.media.packets import _bounded_lines

    report = iter([b"0, 0, 0, 1, 1, 0x0\n"] * 3000)
    with pytest.raises(MediaError, match="index is damaged"):
        list(_bounded_lines(tmp_path / "x.mp4", report, 500))
