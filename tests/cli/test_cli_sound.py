"""`--audio` of generate and extend: heard at its second, judged before work, its choice said."""

from __future__ import annotations

from pathlib import Path

import pytest

from delivered import QUICK
from sounds import beeps, run_ffmpeg, write_beep

TOLERANCE = 0.025
H264 = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p")
PICTURE = ("-f", "lavfi", "-i", "testsrc2=s=192x112:r=25:d=2")
RECORDINGS = {
    "late.ts": (*H264, "-c:a", "aac"),
    "late.mpg": ("-c:v", "mpeg2video", "-bf", "2", "-c:a", "mp2"),
    "late.mkv": (*H264, "-c:a", "libopus"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECORDINGS)
def test_late_sound_is_heard_at_its_second_and_goes_on(longvie, tmp_path: Path, name) -> None:
    write_beep(tmp_path / "one.wav", at=0.05, seconds=0.9)
    write_beep(tmp_path / "two.wav", at=0.25, seconds=0.6)
    both = ("-i", tmp_path / "one.wav", "-i", tmp_path / "two.wav")
    joined = "[0:a][1:a]concat=n=2:v=0:a=1"
    run_ffmpeg(*both, "-filter_complex", joined, tmp_path / "beeps.wav")
    late = ("-itsoffset", "0.4", "-i", tmp_path / "beeps.wav")
    run_ffmpeg(*PICTURE, *late, *RECORDINGS[name], tmp_path / name)
    expected = pytest.approx([0.45, 1.55], abs=TOLERANCE)
    assert beeps(tmp_path / name) == expected
    made = ("--video", name, "--audio", "source", "--at-cut", "ignore", "-p", "hills", *QUICK)
    outcome = longvie("generate", *made, "--seconds", "1", "-o", "first.mp4")
    assert outcome.code == 0, outcome.err
    assert beeps(tmp_path / "first.mp4") == pytest.approx([0.45], abs=TOLERANCE)
    outcome = longvie("extend", "first.mp4", "--seconds", "0.9", "-o", "whole.mp4")
    assert outcome.code == 0, outcome.err
    assert beeps(tmp_path / "whole.mp4") == expected


def test_sound_is_judged_before_anything_is_made(longvie, tmp_path: Path) -> None:
    write_beep(tmp_path / "song.m4a", at=0.5, seconds=5)
    song = (tmp_path / "song.m4a").read_bytes()
    (tmp_path / "cut.m4a").write_bytes(song[: len(song) // 2])
    write_beep(tmp_path / "odd.mov", at=0.5, seconds=1)
    run_ffmpeg("-i", tmp_path / "odd.mov", "-c:a", "pcm_s16le", tmp_path / "odd_.mov")
    odd = (tmp_path / "odd_.mov").read_bytes().replace(b"sowt", b"zzzz")
    (tmp_path / "odd.mov").write_bytes(odd)
    (tmp_path / "odd_.mov").unlink()
    run_ffmpeg(*PICTURE, *H264, tmp_path / "silent.mp4")
    (tmp_path / "notes.txt").write_text("no sound at all")
    before = {path.name for path in tmp_path.iterdir()}
    for name in ("cut.m4a", "odd.mov", "silent.mp4", "notes.txt", "gone.mp3"):
        for more in ((), ("--dry-run",)):
            flags = ("-p", "hills", "--seconds", "0.4", *QUICK, "--audio", name, "-o", "out.mp4")
            outcome = longvie("generate", *flags, *more)
            assert outcome.code == 5 and name in outcome.err, (name, outcome.err)
    assert {path.name for path in tmp_path.iterdir()} == before


def test_which_of_several_sounds_is_heard_is_said(longvie, tmp_path: Path) -> None:
    write_beep(tmp_path / "one.wav", at=0.2, seconds=2)
    write_beep(tmp_path / "two.wav", at=1.2, seconds=2)
    sounds = ("-i", tmp_path / "one.wav", "-i", tmp_path / "two.wav")
    default = ("-disposition:a:0", "0", "-disposition:a:1", "default")
    maps = ("-map", "0", "-map", "1", "-map", "2")
    run_ffmpeg(*PICTURE, *sounds, *maps, *H264, *default, tmp_path / "film.mkv")
    made = ("--video", "film.mkv", "-p", "hills", "--audio", "source", "--seconds", "0.4", *QUICK)
    outcome = longvie("generate", *made, "--dry-run", "--json", "-o", "out.mp4")
    assert outcome.code == 0, outcome.err
    said = "film.mkv: it holds 2 sound tracks; number 2, its default, is used."
    assert said in outcome.fields["warnings"]
