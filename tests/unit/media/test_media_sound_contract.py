"""A beep is heard at the same second as in the source, whatever container it comes in."""

from __future__ import annotations

from pathlib import Path

import pytest

from longvie_cli.media.join import join_clips
from longvie_cli.media.sound import SoundPart, read_sound
from sounds import beeps, run_ffmpeg, write_beep

# Seconds: one frame of AAC, and a little for containers that round times.
TOLERANCE = 0.025

H264 = ("-c:v", "libx264", "-preset", "veryfast", "-bf", "2", "-pix_fmt", "yuv420p")
VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8")
MPEG2 = ("-c:v", "mpeg2video", "-bf", "2")
CONTAINERS = {
    "a.mp4": (*H264, "-c:a", "aac"),
    "opus.mp4": (*H264, "-c:a", "libopus"),
    "a.mov": (*H264, "-c:a", "pcm_s16le"),
    "a.mkv": (*H264, "-c:a", "aac"),
    "a.webm": (*VP9, "-c:a", "libopus"),
    "a.ts": (*H264, "-c:a", "aac"),
    "a.m2ts": (*H264, "-c:a", "ac3"),
    "a.mpg": (*MPEG2, "-c:a", "mp2"),
    "a.vob": (*MPEG2, "-c:a", "ac3"),
    "a.flv": (*H264, "-c:a", "aac"),
    "a.wmv": ("-c:v", "wmv2", "-c:a", "wmav2"),
    "a.nut": (*H264, "-c:a", "flac"),
}
# Those above hold any beginning of the sound; these fill up, or lose, what comes before.
FILLING_CONTAINERS = {
    "a.avi": ("-c:v", "mpeg4", "-c:a", "libmp3lame"),
    "a.mxf": (*MPEG2, "-c:a", "pcm_s16le"),
    "pieces.mp4": (*H264, "-c:a", "aac", "-movflags", "frag_keyframe+empty_moov"),
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds without sound."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    encoding = ("-c:v", "libx264", "-bf", "0", "-pix_fmt", "yuv420p")
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x48:r=16:d=3", *encoding, path)
    return path


def _source(folder: Path, name: str, encoding: tuple[str, ...], sound_begins: float) -> Path:
    """Write a picture of 2.5 s and a sound that begins later or earlier; it beeps at second 1."""
    write_beep(folder / "beep.wav", at=1 - sound_begins, seconds=2.4 - sound_begins)
    picture = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=2.5")
    sound = ("-itsoffset", str(sound_begins), "-i", folder / "beep.wav")
    run_ffmpeg(*picture, *sound, *encoding, folder / name)
    return folder / name


def _heard(clip: Path, output: Path, parts: list[SoundPart]) -> list[float]:
    join_clips([clip], output, fps=16, metadata=None, sound=parts, overwrite=True)
    return beeps(output)


def _cases(containers: dict[str, tuple[str, ...]]) -> list[object]:
    """Return names and beginnings; of the usual containers one beginning is not a slow test."""
    often = {
        **dict.fromkeys(("a.mp4", "a.ts", "a.flv", "a.avi"), -0.5),
        **dict.fromkeys(("a.mkv", "a.webm", "a.mpg"), 0.75),
    }
    return [
        pytest.param(name, begins, marks=[] if often.get(name) == begins else pytest.mark.slow)
        for name in containers
        for begins in (0.0, 0.75, -0.5)
    ]


@pytest.mark.parametrize(("name", "begins"), _cases(CONTAINERS))
def test_a_beep_stays_beside_its_picture(clip, tmp_path, name, begins):
    source = _source(tmp_path, name, CONTAINERS[name], begins)
    assert beeps(source) == pytest.approx([1.0], abs=TOLERANCE)
    sound = read_sound(source)
    output = tmp_path / "out.mp4"
    # From the beginning, where AAC may be copied; and from a second of it, after silence.
    assert _heard(clip, output, [SoundPart(sound, 0, 3)]) == pytest.approx([1.0], abs=TOLERANCE)
    parts = [SoundPart(None, 0, 0.2), SoundPart(sound, 0.5, 2.8)]
    assert _heard(clip, output, parts) == pytest.approx([0.7], abs=TOLERANCE)


@pytest.mark.parametrize(("name", "begins"), _cases(FILLING_CONTAINERS))
def test_a_beep_is_where_a_player_has_it(clip, tmp_path, name, begins):
    source = _source(tmp_path, name, FILLING_CONTAINERS[name], begins)
    heard = _heard(clip, tmp_path / "out.mp4", [SoundPart(read_sound(source), 0, 3)])
    assert heard == pytest.approx(beeps(source), abs=TOLERANCE)


@pytest.mark.parametrize("name", ["late.mp4", "late.mkv", "late.ts", "late.mov"])
def test_a_picture_that_begins_late(clip, tmp_path, name):
    write_beep(tmp_path / "beep.wav", at=1.6, seconds=3)
    picture = ("-itsoffset", "1", "-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=2")
    run_ffmpeg(*picture, "-i", tmp_path / "beep.wav", *H264, "-c:a", "aac", tmp_path / name)
    heard = _heard(clip, tmp_path / "out.mp4", [SoundPart(read_sound(tmp_path / name), 0, 3)])
    assert heard == pytest.approx([0.6], abs=TOLERANCE)


def test_a_film_that_was_trimmed_by_an_edit_list(clip, tmp_path):
    source = _source(tmp_path, "whole.mp4", CONTAINERS["a.mp4"], 0.0)
    run_ffmpeg("-ss", "0.3", "-i", source, "-c", "copy", tmp_path / "cut.mp4")
    heard = _heard(clip, tmp_path / "out.mp4", [SoundPart(read_sound(tmp_path / "cut.mp4"), 0, 3)])
    assert heard == pytest.approx([0.7], abs=TOLERANCE)


def test_a_recording_whose_clock_begins_anew(clip, tmp_path):
    """Two recordings in one file: the clock leaps back, and stereo becomes mono."""
    late = _source(tmp_path, "late.ts", CONTAINERS["a.ts"], 0.75)
    silence = ("-f", "lavfi", "-t", "1", "-i", "anullsrc=r=48000:cl=stereo")
    picture = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=1")
    run_ffmpeg(*picture, *silence, *H264, "-c:a", "aac", tmp_path / "before.ts")
    both = tmp_path / "both.ts"
    both.write_bytes((tmp_path / "before.ts").read_bytes() + late.read_bytes())
    heard = _heard(clip, tmp_path / "out.mp4", [SoundPart(read_sound(both), 0, 3)])
    assert heard == pytest.approx([2.0], abs=TOLERANCE)


def test_a_recording_whose_clock_ends_at_33_bits(clip, tmp_path):
    encoding = (*CONTAINERS["a.ts"], "-output_ts_offset", "95442.2")
    source = _source(tmp_path, "wraps.ts", encoding, 0.0)
    heard = _heard(clip, tmp_path / "out.mp4", [SoundPart(read_sound(source), 0, 3)])
    assert heard == pytest.approx([1.0], abs=TOLERANCE)


def test_a_recording_that_begins_between_two_whole_pictures(clip, tmp_path):
    write_beep(tmp_path / "beep.wav", at=1.2, seconds=3)
    whole, cut = tmp_path / "whole.ts", tmp_path / "cut.ts"
    picture = ("-f", "lavfi", "-i", "testsrc2=s=320x240:r=25:d=3")
    encoding = (*H264, "-g", "20", "-sc_threshold", "0", "-c:a", "aac")
    run_ffmpeg(*picture, "-i", tmp_path / "beep.wav", *encoding, whole)
    packets = whole.read_bytes()
    cut.write_bytes(packets[len(packets) // 188 // 8 * 188 :])
    # Pictures before the first whole one cannot be shown: the video begins with that.
    (expected,) = beeps(cut)
    assert 0.3 < expected < 0.5
    heard = _heard(clip, tmp_path / "out.mp4", [SoundPart(read_sound(cut), 0, 3)])
    assert heard == pytest.approx([expected], abs=TOLERANCE)


@pytest.mark.parametrize(("name", "place"), [("two.mp4", 1), ("two.mkv", 1), ("two.ts", 0)])
def test_of_several_sounds_the_default_one_is_heard(clip, tmp_path, name, place):
    write_beep(tmp_path / "first.wav", at=0.5, seconds=2)
    write_beep(tmp_path / "second.wav", at=1.0, seconds=2)
    sounds = ("-i", tmp_path / "first.wav", "-i", tmp_path / "second.wav")
    default = ("-disposition:a:0", "0", "-disposition:a:1", "default")
    maps = ("-map", "0", "-map", "1", "-map", "2")
    picture = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=2")
    run_ffmpeg(*picture, *sounds, *maps, *H264, "-c:a", "aac", *default, tmp_path / name)
    sound = read_sound(tmp_path / name)
    assert (sound.place, sound.num_streams) == (place, 2)
    (said,) = sound.remarks()
    assert f"{name}: it holds 2 sound tracks; number {place + 1}" in said
    heard = _heard(clip, tmp_path / "out.mp4", [SoundPart(sound, 0, 3)])
    assert heard == pytest.approx([(0.5, 1.0)[place]], abs=TOLERANCE)


@pytest.mark.parametrize(
    "name", ["long.mp4", pytest.param("long.mkv", marks=pytest.mark.slow), "long.ts", "long.mp3"]
)
def test_what_comes_before_is_skipped_to_the_sample(clip, tmp_path, name):
    write_beep(tmp_path / "beep.wav", at=40, seconds=42)
    picture = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=42")
    inputs = () if name.endswith("mp3") else (*picture, *H264)
    codec = ("-c:a", "libmp3lame" if name.endswith("mp3") else "aac", "-g", "900")
    run_ffmpeg("-i", tmp_path / "beep.wav", *inputs, *codec, tmp_path / name)
    sound = read_sound(tmp_path / name)
    heard = _heard(clip, tmp_path / "out.mp4", [SoundPart(sound, 39.3, 3)])
    assert heard == pytest.approx([0.7], abs=TOLERANCE)


def test_sound_that_nothing_can_decode_is_passed_over(tmp_path):
    inputs = ("-f", "lavfi", "-i", "sine=d=1", "-f", "lavfi", "-i", "sine=d=1:f=900")
    source = tmp_path / "two.mov"
    codecs = ("-c:a:0", "pcm_s16le", "-c:a:1", "aac", "-disposition:a:0", "default")
    run_ffmpeg(*inputs, "-map", "0", "-map", "1", *codecs, source)
    source.write_bytes(source.read_bytes().replace(b"sowt", b"zzzz"))
    assert (read_sound(source).place, read_sound(source).codec) == (1, "aac")
