"""Settings in the comment tag."""

from __future__ import annotations

import pytest

from longvie_cli.errors import MediaError
from longvie_cli.media.metadata import encode_settings, read_settings


def test_encoding_is_one_line_and_stable():
    assert encode_settings({"b": "é\n", "a": 1}) == '{"a":1,"b":"é\\n"}'


@pytest.mark.parametrize("text", ["", "a holiday", "[1, 2]", "{broken", "ends with \\"])
def test_a_comment_that_is_no_settings_is_none(write_clip, moving_frames, text):
    path = write_clip("clip.mp4", moving_frames(1), metadata=text)
    assert read_settings(path) is None


def test_tags_before_the_comment_do_not_hide_it(ffmpeg, numbered_video):
    tags = ("-metadata", "title=ends with \\", "-metadata", 'comment={"seed": 7}')
    path = numbered_video("video.mp4", *tags, num_frames=1, fps="16")
    assert read_settings(path) == {"seed": 7}


def test_other_containers_write_the_key_in_capitals(numbered_video):
    tags = ("-metadata", 'comment={"seed": 7}')
    path = numbered_video("video.mkv", *tags, num_frames=1, fps="16")
    assert read_settings(path) == {"seed": 7}


def test_a_video_without_tags(numbered_video):
    assert read_settings(numbered_video("video.mp4", num_frames=1, fps="16")) is None


def test_a_file_that_is_no_video(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(MediaError, match=r"text\.mp4"):
        read_settings(tmp_path / "text.mp4")
