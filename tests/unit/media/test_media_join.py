"""Clips joined by stream copy: no frame lost, none encoded again, each exactly 1/16 s."""

from __future__ import annotations

import os
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from longvie_cli.errors import MediaError, OutputConflictError
from longvie_cli.media.ffmpeg import input_arguments, run_reading
from longvie_cli.media.fitting import is_joinable
from longvie_cli.media.join import join_clips
from longvie_cli.media.metadata import encode_settings, read_settings
from longvie_cli.media.packets import read_packets
from longvie_cli.media.probe import probe_video
from longvie_cli.media.reader import count_frames, read_frames
from longvie_cli.media.sound import SoundPart, read_sound
from longvie_cli.media.writer import VideoWriter, written_video


def _frames(path, height=48, width=64):
    return np.stack(
        list(read_frames(probe_video(path), fps=None, height=height, width=width, fit="native"))
    )


def _whole(path, seconds=98 / 16):
    """Return the sound of a file from its beginning, for the four clips."""
    return [SoundPart(read_sound(path), 0, seconds)]


@pytest.fixture(scope="module")
def written(tmp_path_factory, moving_frames):
    """Four clips of 33, 32, 32 and 1 frames, each with another crf and its own metadata."""
    folder = tmp_path_factory.mktemp("written")
    for index, length in enumerate((33, 32, 32, 1)):
        path, metadata = folder / f"{index:04d}.mp4", f"clip {index}"
        with VideoWriter(
            path,
            **{"height": 48, "width": 64, "fps": 16, "preset": "medium"},
            crf=15 + 3 * index,
            metadata=metadata,
        ) as writer:
            for frame in moving_frames(length, seed=index):
                writer.write(frame)
    return sorted(folder.iterdir())


@pytest.fixture
def clips(written, tmp_path):
    """Copies of them, for a test to do with as it likes."""
    return [shutil.copy(path, tmp_path / path.name) for path in written]


def test_joined_frames_are_the_clips_frames(clips, tmp_path):
    output = tmp_path / "out.mp4"
    assert join_clips(clips, output, fps=16, metadata=None, overwrite=False) == 98
    assert np.array_equal(_frames(output), np.concatenate([_frames(clip) for clip in clips]))
    resampled = list(read_frames(probe_video(output), fps=16, height=48, width=64, fit="native"))
    assert np.array_equal(np.stack(resampled), _frames(output))


def test_joined_times_are_exact(clips, tmp_path):
    output = tmp_path / "out.mp4"
    join_clips(clips, output, fps=16, metadata=None, overwrite=False)
    packets = read_packets(output)
    assert packets.average_fps == Fraction(16, 1)
    assert packets.timestamps == tuple(1000 * index for index in range(98))
    assert packets.time_base == Fraction(1, 16000)
    assert packets.duration == Fraction(98, 16)
    assert probe_video(output).fps == 16.0
    assert count_frames(probe_video(output), fps=16) == 98


@pytest.mark.slow
def test_a_rate_that_microseconds_cannot_hold(write_clip, moving_frames, tmp_path):
    """7/30 s is a third of a microsecond off in ffmpeg's list of clips, 64 of them too much."""
    clip = write_clip("clip.mp4", moving_frames(7), fps=30)
    copies = [tmp_path / f"{index:04d}.mp4" for index in range(64)]
    for copy in copies:
        os.link(clip, copy)
    output = tmp_path / "out.mp4"
    assert join_clips(copies, output, fps=30, metadata=None, overwrite=False) == 448
    assert read_packets(output).timestamps == tuple(1000 * index for index in range(448))


def test_settings_of_20_kilobytes_survive(clips, tmp_path):
    output = tmp_path / "out.mp4"
    prompts = [f"Clip {i}: café; a=b # \\ \n 'dawn' \"snow\" 雪" * 10 for i in range(60)]
    settings = {"prompts": prompts, "seed": 7}
    text = encode_settings(settings)
    assert len(text.encode()) > 20_000
    join_clips(clips, output, fps=16, metadata=text, overwrite=False)
    assert read_settings(output) == settings


def test_200_kilobytes_survive_too(clips, tmp_path):
    settings = {"text": "0123456789" * 20_000}
    output = tmp_path / "out.mp4"
    join_clips(clips, output, fps=16, metadata=encode_settings(settings), overwrite=False)
    assert read_settings(output) == settings


def test_without_metadata_nothing_of_the_clips_is_kept(clips, tmp_path):
    output = tmp_path / "out.mp4"
    join_clips(clips, output, fps=16, metadata=None, overwrite=False)
    data = output.read_bytes()
    assert read_settings(output) is None
    assert b"clip 0" not in data
    assert str(tmp_path).encode() not in data


def test_a_joined_file_can_be_extended(clips, write_clip, moving_frames, tmp_path):
    earlier, output = tmp_path / "earlier.mp4", tmp_path / "out.mp4"
    join_clips(clips[:2], earlier, fps=16, metadata="{}", overwrite=False)
    assert is_joinable(probe_video(earlier), height=48, width=64, fps=16)
    more = write_clip("more.mp4", moving_frames(32, seed=9), preset="medium")
    assert join_clips([earlier, more], output, fps=16, metadata=None, overwrite=False) == 97
    assert read_packets(output).is_constant(16)
    assert np.array_equal(_frames(output)[:65], _frames(earlier))
    assert np.array_equal(_frames(output)[65:], _frames(more))


def test_foreign_files_are_not_joinable(ffmpeg, write_clip, moving_frames, tmp_path):
    source = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=16:d=2")
    codecs = {
        "b_frames.mp4": ("-c:v", "libx264", "-pix_fmt", "yuv420p"),
        "plain.mp4": ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-bf", "0"),
        "mpeg4.mp4": ("-c:v", "mpeg4"),
    }
    for name, codec in codecs.items():
        ffmpeg(*source, *codec, tmp_path / name)
        assert not is_joinable(probe_video(tmp_path / name), height=48, width=64, fps=16), name
    ours = write_clip("ours.mp4", moving_frames(3), preset="medium")
    assert is_joinable(probe_video(ours), height=48, width=64, fps=16)
    assert not is_joinable(probe_video(ours), height=48, width=64, fps=24)
    assert not is_joinable(probe_video(ours), height=48, width=80, fps=16)
    with pytest.raises(
        MediaError, match=r"b_frames\.mp4: cannot be joined to ours\.mp4 without encoding"
    ):
        join_clips(
            [ours, tmp_path / "b_frames.mp4"],
            tmp_path / "out.mp4",
            fps=16,
            metadata=None,
            overwrite=False,
        )


@pytest.mark.parametrize("odd_one", ["size", "rate", "text", "missing"])
def test_clips_that_do_not_fit_are_named(write_clip, moving_frames, tmp_path, odd_one):
    good = write_clip("good.mp4", moving_frames(5))
    bad = tmp_path / "bad.mp4"
    if odd_one == "size":
        write_clip("bad.mp4", moving_frames(5, height=64))
    elif odd_one == "rate":
        write_clip("bad.mp4", moving_frames(5), fps=8)
    elif odd_one == "text":
        bad.write_text("no video")
    with pytest.raises(MediaError, match=r"bad\.mp4"):
        join_clips([good, bad], tmp_path / "out.mp4", fps=16, metadata=None, overwrite=False)
    assert not (tmp_path / "out.mp4").exists()
    assert not (tmp_path / "out.mp4.part").exists()


def test_no_clips(tmp_path):
    with pytest.raises(MediaError, match="no clips"):
        join_clips([], tmp_path / "out.mp4", fps=16, metadata=None, overwrite=False)


def test_an_existing_output_is_kept_unless_told(clips, tmp_path):
    output = tmp_path / "out.mp4"
    output.write_bytes(b"mine")
    with pytest.raises(OutputConflictError, match="exists already") as raised:
        join_clips(clips, output, fps=16, metadata=None, overwrite=False)
    assert raised.value.exit_code == 4
    assert output.read_bytes() == b"mine"
    join_clips(clips, output, fps=16, metadata=None, overwrite=True)
    assert count_frames(probe_video(output), fps=16) == 98


def test_a_folder_that_is_not_there(clips, tmp_path):
    with pytest.raises(OutputConflictError, match="cannot be written"):
        join_clips(clips, tmp_path / "no" / "out.mp4", fps=16, metadata=None, overwrite=False)


@pytest.mark.parametrize("name", ["it's 'quoted' \\ %d #1.mp4", "-dash.mp4", "a:b.mp4"])
def test_any_clip_name(write_clip, moving_frames, tmp_path, monkeypatch, name):
    first = write_clip("first.mp4", moving_frames(3))
    second = write_clip("second.mp4", moving_frames(2)).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    clips = [first, type(second)(name)]
    assert join_clips(clips, type(second)("-out.mp4"), fps=16, metadata=None, overwrite=False) == 5
    assert (tmp_path / "-out.mp4").exists()


SOUND = [
    ("sound.mp4", ("-c:a", "aac")),
    ("sound.ts", ("-c:a", "aac")),
    ("sound.mp3", ("-c:a", "libmp3lame")),
    ("sound.wav", ()),
    ("sound.ogg", ("-c:a", "libopus")),
]


@pytest.mark.parametrize(("name", "codec"), SOUND)
def test_sound_goes_along_and_ends_with_the_picture(ffmpeg, clips, tmp_path, name, codec):
    sound, output = tmp_path / name, tmp_path / "out.mp4"
    ffmpeg("-f", "lavfi", "-i", "sine=f=440:d=8:r=48000", *codec, sound)
    join_clips(clips, output, fps=16, metadata=None, sound=_whole(sound), overwrite=False)
    assert read_sound(output).codec == "aac"
    packets = read_packets(output)
    assert packets.timestamps == tuple(1000 * index for index in range(98))
    assert packets.is_constant(16)
    samples = np.frombuffer(
        ffmpeg("-i", output, "-map", "0:a", "-f", "s16le", "-ac", "1", "pipe:1"), np.int16
    )
    seconds = len(samples) / 48000
    assert 98 / 16 - 0.03 <= seconds <= 98 / 16 + 2 * 1024 / 48000
    assert np.abs(samples[4800:9600]).max() > 1000


def test_aac_is_copied_not_encoded_again(ffmpeg, clips, tmp_path):
    sound, output = tmp_path / "sound.m4a", tmp_path / "out.mp4"
    ffmpeg("-f", "lavfi", "-i", "sine=d=8:r=48000", "-c:a", "aac", sound)
    join_clips(clips, output, fps=16, metadata=None, sound=_whole(sound), overwrite=False)

    def hashes(path):
        report = ffmpeg("-i", path, "-map", "0:a", "-c", "copy", "-f", "framecrc", "pipe:1")
        lines = [line for line in report.decode().splitlines() if line.startswith("0,")]
        return [line.split(",")[5] for line in lines]

    copied = hashes(output)
    assert copied == hashes(sound)[: len(copied)]


@pytest.mark.parametrize("codec", ["aac", "flac"])
def test_sound_begins_with_the_first_picture(ffmpeg, clips, numbered_video, tmp_path, codec):
    """The picture of this source begins 1.5 s late, and so does its tone."""
    picture = numbered_video("picture.mp4", num_frames=80, fps="16")
    source, output = tmp_path / "source.mkv", tmp_path / "out.mp4"
    tone = "aevalsrc=if(gte(t\\,1.5)\\,sin(2000*t)\\,0):d=10:s=48000"
    ffmpeg(
        *("-f", "lavfi", "-i", tone, "-itsoffset", "1.5", "-i", picture),
        *("-map", "0", "-map", "1", "-c:v", "copy", "-c:a", codec, source),
    )
    join_clips(clips, output, fps=16, metadata=None, sound=_whole(source), overwrite=False)
    raw = ffmpeg("-i", output, "-map", "0:a", "-f", "s16le", "-ac", "1", "pipe:1")
    loud = np.flatnonzero(np.abs(np.frombuffer(raw, np.int16)) > 5000)
    assert loud[0] / 48000 < 2 * 1024 / 48000
    assert read_packets(output).timestamps == tuple(1000 * index for index in range(98))


def test_short_sound_does_not_shorten_the_picture(ffmpeg, clips, tmp_path):
    sound, output = tmp_path / "sound.wav", tmp_path / "out.mp4"
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", sound)
    assert (
        join_clips(clips, output, fps=16, metadata=None, sound=_whole(sound), overwrite=False) == 98
    )


def test_a_video_without_sound_is_said(clips, tmp_path):
    output = tmp_path / "out.mp4"
    with pytest.raises(MediaError, match="no sound"):
        join_clips(clips, output, fps=16, metadata=None, sound=_whole(clips[0]), overwrite=False)
    assert not output.exists()


@pytest.mark.parametrize("folder", ["plain", "it's #1 %d ü", "two\nlines"])
def test_written_clips_are_joined_as_files_that_were_looked_at(
    tmp_path, moving_frames, write_clip, folder
):
    (tmp_path / folder).mkdir()
    counts = (33, 1, 2, 17)
    clips = [write_clip(f"{folder}/clip {i}.mp4", moving_frames(n)) for i, n in enumerate(counts)]
    written = [
        written_video(path, height=48, width=64, fps=16, num_frames=count)
        for path, count in zip(clips, counts, strict=True)
    ]
    # Given by path each is fed alone; a film before them, looked at, is fed before their row.
    ways = {"fed": clips, "row": written, "both": [probe_video(clips[0]), *written[1:]]}
    found = {}
    for name, given in ways.items():
        output = tmp_path / f"{name}.mp4"
        assert join_clips(given, output, fps=16, metadata="{}", overwrite=False) == 53
        found[name] = (probe_video(output).packets, md5_of_packets(output))
    assert found["fed"] == found["row"] == found["both"]
    assert found["row"][0].is_constant(16)


def test_written_clips_of_another_encoder_are_not_joined(tmp_path, moving_frames, write_clip):
    clips = [
        write_clip(name, moving_frames(3), preset=preset)
        for name, preset in (("a.mp4", "medium"), ("b.mp4", "ultrafast"))
    ]
    written = [written_video(path, height=48, width=64, fps=16, num_frames=3) for path in clips]
    with pytest.raises(MediaError, match=r"b\.mp4: cannot be joined to a\.mp4"):
        join_clips(written, tmp_path / "out.mp4", fps=16, metadata=None, overwrite=False)
    assert not (tmp_path / "out.mp4").exists()


def md5_of_packets(path: Path) -> bytes:
    arguments = [*input_arguments(path), "-map", "0:v", "-c", "copy", "-f", "md5", "pipe:1"]
    return run_reading(path, arguments)
