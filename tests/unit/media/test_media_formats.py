"""Files that name other files are not followed, under any name."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from longvie_cli.errors import MediaError
from longvie_cli.media.ffmpeg import ffmpeg_executable
from longvie_cli.media.probe import probe_video
from longvie_cli.media.sound import read_sound

SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
ASX = '<asx version="3.0"><entry><ref href="v.mp4"/></entry></asx>'
IMF = (
    '<?xml version="1.0"?><CompositionPlaylist '
    'xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"></CompositionPlaylist>'
)


@pytest.fixture
def playlists(ffmpeg, numbered_video, tmp_path):
    video = numbered_video("v.mp4", num_frames=32, fps="16")
    ffmpeg("-i", video, "-c", "copy", "-f", "hls", tmp_path / "hls.m3u8")
    ffmpeg("-i", video, "-c", "copy", "-f", "dash", tmp_path / "dash.mpd")
    texts = {"list.ffconcat": "ffconcat version 1.0\nfile v.mp4\n", "stream.sdp": SDP}
    texts |= {"show.asx": ASX, "cpl.xml": IMF, "old.pls": "[playlist]\nFile1=v.mp4\n"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return [tmp_path / name for name in ("hls.m3u8", "dash.mpd", *texts)]


@pytest.mark.parametrize("suffix", [None, ".mp4", ".mkv", ".txt"])
def test_a_playlist_under_any_name_is_not_followed(playlists, suffix):
    for path in playlists:
        named = path if suffix is None else path.with_name(path.stem + suffix)
        named.write_bytes(path.read_bytes())
        for read in (probe_video, read_sound):
            with pytest.raises(MediaError, match=r"list of other files \(a playlist\)"):
                read(named)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_nothing_that_a_playlist_names_is_opened(tmp_path):
    """The file it names is a pipe: whoever opened it would wait for ever."""
    os.mkfifo(tmp_path / "named.mp4")
    path = tmp_path / "list.mp4"
    path.write_text("ffconcat version 1.0\nfile named.mp4\n")
    code = (
        "from pathlib import Path; from longvie_cli.media.probe import probe_video; "
        f"probe_video(Path({str(path)!r}))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=60, check=False
    )
    assert b"a playlist" in ended.stderr


def test_a_name_with_a_number_in_it_opens_no_other_picture(tmp_path):
    from PIL import Image

    for name in ("p%01d.tga", "p1.tga", "p2.tga"):
        Image.new("RGB", (8, 8), "red").save(tmp_path / name)
    with pytest.raises(MediaError, match="its format is not read"):
        probe_video(tmp_path / "p%01d.tga")


def test_text_and_drawings_say_what_they_are(tmp_path):
    text, drawing = tmp_path / "notes.mp4", tmp_path / "drawing.svg"
    text.write_text("Grüße aus dem Süden\n" * 500, encoding="utf-8")
    drawing.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>')
    for path, words in ((text, "this is a text file"), (drawing, r"a drawing \(SVG\)")):
        with pytest.raises(MediaError, match=words):
            probe_video(path)


def test_every_format_that_is_read_is_one_that_ffmpeg_knows():
    from longvie_cli.media.formats import FORMATS

    listed = subprocess.run(
        [ffmpeg_executable(), "-hide_banner", "-demuxers"], capture_output=True, check=True
    ).stdout.decode()
    lines = [line.split() for line in listed.splitlines()]
    known = {name for line in lines if len(line) > 1 for name in line[1].split(",")}
    assert {*FORMATS} <= known
