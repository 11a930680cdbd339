"""`longvie stitch`: what can be joined is, what goes along is heard, and nothing is lost unsaid."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from delivered import QUICK, contents, frames_of
from longvie_cli.media.packets import read_packets
from longvie_cli.media.writer import VideoWriter
from sounds import beeps, run_ffmpeg, write_beep

TOLERANCE = 0.025
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p")
PLAIN = (*X264, "-bf", "0")

Film = Callable[..., Path]


@pytest.fixture
def film(tmp_path: Path) -> Film:
    """Write a small moving picture of another program; with a beep at a second where asked for."""

    def write(
        name: str,
        *options: str | Path,
        seconds: float = 1.0,
        rate: str = "30",
        size: str = "96x64",
        beep: float | None = None,
        encoding: tuple[str, ...] = PLAIN,
    ) -> Path:
        inputs: list[str | Path] = ["-f", "lavfi", "-i", f"testsrc2=s={size}:r={rate}:d={seconds}"]
        if beep is not None:
            sound = tmp_path / f"{name}.wav"
            write_beep(sound, at=beep, seconds=seconds)
            inputs += ["-i", sound, "-c:a", "aac"]
        run_ffmpeg(*inputs, *encoding, *options, tmp_path / name)
        return tmp_path / name

    return write


def _ours(path: Path, num_frames: int = 20) -> Path:
    with VideoWriter(path, height=64, width=96, fps=16) as writer:
        for index in range(num_frames):
            writer.write(np.full((64, 96, 3), 12 * index, np.uint8))
    return path


@pytest.mark.slow
def test_picture_and_sound_stay_in_step_over_many_joins(longvie, film) -> None:
    """Each clip has its own beep, and sound that is longer than its picture or begins late."""
    places = [0.3 + 0.05 * index for index in range(12)]
    for index, place in enumerate(places):
        # 33 frames of 1/16 s, and the padding of AAC at each end.
        film(f"{index}.mp4", seconds=33 / 16, rate="16", beep=place)
    names = [f"{index}.mp4" for index in range(12)]
    outcome = longvie("stitch", *names, "-o", "all.mp4", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.fields["frames"] == 12 * 33
    assert outcome.fields["warnings"] == ["The sound is encoded again, as stereo AAC."]
    heard = beeps(Path("all.mp4"))
    expected = [index * 33 / 16 + place for index, place in enumerate(places)]
    assert heard == pytest.approx(expected, abs=TOLERANCE)


def test_silence_where_a_clip_has_no_sound(longvie, film) -> None:
    film("voiced.mp4", beep=0.5)
    film("silent.mp4")
    outcome = longvie("stitch", "voiced.mp4", "silent.mp4", "voiced.mp4", "-o", "all.mp4", "--json")
    assert outcome.code == 0, outcome.err
    assert "silent.mp4 has no sound; it is silent there." in outcome.fields["warnings"]
    assert beeps(Path("all.mp4")) == pytest.approx([0.5, 2.5], abs=TOLERANCE)
    assert longvie("stitch", "silent.mp4", "silent.mp4", "-o", "none.mp4", "--json").code == 0
    assert read_packets(Path("none.mp4")).audio_codec is None


def test_sound_that_cannot_go_along_is_said(longvie, film, tmp_path: Path) -> None:
    film("voiced.mp4", beep=0.5)
    film("odd.mov", "-c:a", "pcm_s16le", beep=0.5)
    odd = tmp_path / "odd.mov"
    odd.write_bytes(odd.read_bytes().replace(b"sowt", b"zzzz"))
    outcome = longvie("stitch", "voiced.mp4", "odd.mov", "-o", "all.mp4", "--json")
    assert outcome.code == 0, outcome.err
    assert any(
        "The sound of odd.mov does not go along" in line for line in outcome.fields["warnings"]
    )
    assert beeps(Path("all.mp4")) == pytest.approx([0.5], abs=TOLERANCE)


@pytest.mark.slow
def test_audio_says_what_is_heard(longvie, film, tmp_path: Path) -> None:
    film("voiced.mp4", beep=0.5)
    write_beep(tmp_path / "song.wav", at=1.25, seconds=5)
    command = ("stitch", "voiced.mp4", "voiced.mp4", "--json")
    outcome = longvie(*command, "--audio", "none", "-o", "none.mp4")
    assert (outcome.code, outcome.fields["warnings"]) == (0, [])
    assert read_packets(Path("none.mp4")).audio_codec is None
    assert longvie(*command, "--audio", "song.wav", "-o", "song.mp4").code == 0
    assert beeps(Path("song.mp4")) == pytest.approx([1.25], abs=TOLERANCE)
    outcome = longvie(*command, "--audio", "source", "-o", "source.mp4")
    assert outcome.code == 2
    assert "none of the inputs is a run that was made from a video" in outcome.err
    # A single file keeps its sound as it is stored.
    outcome = longvie("stitch", "voiced.mp4", "-o", "one.mp4", "--json")
    assert (outcome.code, outcome.fields["warnings"]) == (0, [])
    assert beeps(Path("one.mp4")) == pytest.approx([0.5], abs=TOLERANCE)


def _joined(longvie, *names: str) -> np.ndarray:
    """Return the frames of the result, once its times are known to be exact."""
    outcome = longvie("stitch", *names, "-o", "joined.mp4", "--json")
    assert outcome.code == 0, outcome.err
    packets = read_packets(Path("joined.mp4"))
    fps = packets.average_fps
    assert fps is not None and packets.is_constant(fps) and packets.timestamps[0] == 0
    assert fps.denominator in (1, 1001)
    assert len(packets.timestamps) == outcome.fields["frames"]
    return frames_of(Path("joined.mp4"))


@pytest.mark.parametrize(
    ("encoding", "rate"),
    [
        (PLAIN, "30"),
        pytest.param((*X264, "-bf", "3"), "30", marks=pytest.mark.slow),
        ((*X264, "-bf", "2"), "30000/1001"),
        ((*PLAIN, "-video_track_timescale", "90000"), "24000/1001"),
        (("-c:v", "libx265", "-x265-params", "log-level=none", "-pix_fmt", "yuv420p"), "25"),
        (("-c:v", "mpeg4"), "25"),
    ],
    ids=["plain", "b-frames", "29.97", "23.976", "hevc", "mpeg4"],
)
def test_files_of_another_program_are_joined(longvie, film, encoding, rate) -> None:
    film("a.mp4", rate=rate, encoding=encoding)
    film("b.mp4", rate=rate, encoding=encoding, seconds=1.4)
    first, second = frames_of(Path("a.mp4")), frames_of(Path("b.mp4"))
    assert np.array_equal(_joined(longvie, "a.mp4"), first)
    Path("joined.mp4").unlink()
    joined = _joined(longvie, "a.mp4", "b.mp4", "a.mp4")
    assert np.array_equal(joined, np.concatenate([first, second, first]))


@pytest.mark.parametrize(
    "name",
    [
        *("b.mkv", "b.flv", "slow.mp4", "late.mp4", "edits.mp4"),
        pytest.param("b.mov", marks=pytest.mark.slow),
    ],
)
def test_the_container_of_a_clip_does_not_matter(longvie, film, name) -> None:
    """Times rounded to milliseconds, another timescale, a picture that begins late."""
    film("a.mp4", rate="30000/1001", encoding=(*X264, "-bf", "2"), beep=0.4)
    options = {
        "slow.mp4": ("-video_track_timescale", "600"),
        "edits.mp4": ("-use_editlist", "0"),
    }
    moved = ("-itsoffset", "0.7") if name == "late.mp4" else ()
    beside = ("-i", "a.mp4", "-map", "0:v", "-map", "1:a")
    run_ffmpeg(*moved, "-i", "a.mp4", *beside, "-c", "copy", *options.get(name, ()), name)
    frames = frames_of(Path("a.mp4"))
    assert np.array_equal(_joined(longvie, name, "a.mp4"), np.concatenate([frames, frames]))


def test_our_own_file_remuxed_is_joined_and_extended(longvie, tmp_path: Path) -> None:
    _ours(tmp_path / "ours.mp4")
    run_ffmpeg("-i", "ours.mp4", "-c", "copy", tmp_path / "ours.mkv")
    frames = frames_of(tmp_path / "ours.mp4")
    assert np.array_equal(_joined(longvie, "ours.mkv", "ours.mp4"), np.concatenate([frames] * 2))
    assert read_packets(tmp_path / "joined.mp4").time_base == Fraction(1, 16_000)


def _trimmed(source: Path, output: Path) -> None:
    run_ffmpeg("-ss", "0.4", "-i", source, "-c", "copy", output)


def test_what_cannot_be_joined_is_said_in_plain_words(longvie, film, tmp_path: Path) -> None:
    film("a.mp4", rate="16")
    film("size.mp4", rate="16", size="128x64")
    film("rate.mp4", rate="24")
    film("codec.mp4", rate="16", encoding=("-c:v", "mpeg4"))
    film("format.mp4", rate="16", encoding=(*PLAIN, "-pix_fmt", "yuv444p"))
    film("profile.mp4", rate="16", encoding=(*PLAIN, "-profile:v", "baseline"))
    film("settings.mp4", rate="16", encoding=(*PLAIN, "-refs", "1", "-crf", "40"))
    run_ffmpeg("-display_rotation", "90", "-i", "a.mp4", "-c", "copy", tmp_path / "turned.mp4")
    varying = "setpts='(N+gte(N,8)*3)/(16*TB)'"
    film("varies.mp4", "-vf", varying, "-fps_mode", "passthrough", rate="16")
    _trimmed(film("whole.mp4", rate="16", seconds=2), tmp_path / "trimmed.mp4")
    run_ffmpeg("-i", "a.mp4", "-c", "copy", "-frames:v", "0", tmp_path / "empty.mp4")
    write_beep(tmp_path / "song.wav", at=0.5, seconds=1)
    (tmp_path / "notes.mp4").write_text("not a video")
    before = contents(tmp_path)
    for name, why in {
        "size.mp4": "to a.mp4 without encoding it again: it is 128x64, not 96x64",
        "rate.mp4": "its frames come at 24 fps, not at 16",
        "codec.mp4": "its codec is mpeg4, not h264",
        "format.mp4": "its pixel format is yuv444p, that of a.mp4 yuv420p",
        "profile.mp4": "its h264 profile is Constrained Baseline, that of a.mp4 High",
        "settings.mp4": "its encoder parameters are others than those of a.mp4",
        "turned.mp4": "it is to be turned by 90 degrees, a.mp4 by 0",
        "varies.mp4": "its frame rate varies",
        "trimmed.mp4": "of its frames are hidden by an edit list",
        "empty.mp4": "",
        "song.wav": "this is sound",
        "notes.mp4": "",
    }.items():
        for more in ((), ("--dry-run",)):
            outcome = longvie("stitch", "a.mp4", name, "-o", "both.mp4", *more)
            assert outcome.code == 5, (name, outcome.err)
            assert f"{name}: " in outcome.err and why in outcome.err, outcome.err
            assert "Unexpected" not in outcome.err
    assert contents(tmp_path) == before


def test_what_is_left_out_of_a_file_is_said(longvie, film, tmp_path: Path) -> None:
    film("a.mp4", beep=0.5)
    (tmp_path / "words.srt").write_text("1\n00:00:00,000 --> 00:00:00,500\nHello\n")
    chapters = ";FFMETADATA1\ntitle=Film\nartist=Me\n[CHAPTER]\nTIMEBASE=1/1\nSTART=0\nEND=1\n"
    (tmp_path / "chapters.txt").write_text(chapters)
    inputs = ("-i", "a.mp4", "-i", "words.srt", "-i", "chapters.txt", "-i", "a.mp4")
    maps = ("-map", "0:v", "-map", "0:a", "-map", "0:a", "-map", "1", "-map", "3:v")
    tags = ("-map_metadata", "2", "-map_chapters", "2")
    run_ffmpeg(*inputs, *maps, *tags, "-c", "copy", "-c:s", "mov_text", tmp_path / "rich.mp4")
    for more in (("--dry-run",), ()):
        outcome = longvie("stitch", "rich.mp4", "a.mp4", "-o", "out.mp4", "--json", *more)
        assert outcome.code == 0, outcome.err
        said = " ".join(outcome.fields["warnings"])
        for words in (
            "rich.mp4: it holds 2 videos; number 1 is used.",
            "rich.mp4: its subtitle track is left out.",
            "rich.mp4: its chapter is left out.",
            "rich.mp4: its tags (title, artist) are left out.",
            "rich.mp4: it holds 2 sound tracks; number 1, its default, is used.",
        ):
            assert words in said, said
        assert "a.mp4:" not in said


@pytest.mark.slow
def test_the_output_is_never_among_what_is_read(longvie, film, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    for name in ("clips/1.mp4", "clips/2.MP4", "a.mp4", "a.mp4.part"):
        shutil.copy(film("film.mp4", beep=0.5), tmp_path / name)
    (tmp_path / "clips" / "._1.mp4").write_bytes(b"notes of another system")
    (tmp_path / "link").symlink_to("clips")
    before = contents(tmp_path)
    for arguments in (
        ("clips", "-o", "clips/1.mp4"),
        ("clips", "-o", "clips/all.mp4"),
        ("link", "-o", "clips/all.mp4"),
        ("a.mp4", "-o", "a.mp4"),
        ("clips/1.mp4", "a.mp4.part", "-o", "a.mp4"),
        ("clips", "--audio", "a.mp4", "-o", "a.mp4"),
    ):
        for more in ((), ("--dry-run",)):
            outcome = longvie("stitch", *arguments, "--overwrite", *more)
            assert outcome.code == 2, (arguments, outcome.err)
    assert contents(tmp_path) == before
    outcome = longvie("stitch", "clips", "-o", "new/folder/all.mp4", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.fields["frames"] == 60


def test_the_same_command_again_is_finished_only_if_nothing_changed(
    longvie, film, tmp_path: Path
) -> None:
    film("a.mp4", beep=0.5)
    film("b.mp4", beep=0.2)
    command = ("stitch", "a.mp4", "b.mp4", "-o", "out.mp4", "--json")
    first = longvie(*command)
    assert first.code == 0, first.err
    output = tmp_path / "out.mp4"
    made = output.read_bytes()
    again = longvie(*command)
    assert (again.code, again.fields["frames"], again.fields["seconds"]) == (0, 60, 2.0)
    assert "joined from the same before" in again.err
    assert longvie(*command, "--dry-run").fields["plan"]["state"] == "finished already"
    for other in (("--audio", "none"), ("--no-embed-metadata",)):
        assert longvie(*command, *other).code == 4
    assert longvie("stitch", "b.mp4", "a.mp4", "-o", "out.mp4").code == 4
    assert output.read_bytes() == made
    # Other programs keep the tag, whatever they do to the file.
    for change in (("-t", "1", "-c", "copy"), ("-c", "copy", "-an"), ("-crf", "40")):
        run_ffmpeg("-i", output, *change, "-movflags", "+use_metadata_tags", tmp_path / "other.mp4")
        (tmp_path / "other.mp4").replace(output)
        changed = output.read_bytes()
        assert longvie(*command).code == 4, change
        assert output.read_bytes() == changed
        assert longvie(*command, "--overwrite").code == 0
        assert output.read_bytes() == made
    film("b.mp4", beep=0.3)
    assert longvie(*command).code == 4


def test_a_dry_run_says_it_all_and_writes_nothing(longvie, film, tmp_path: Path) -> None:
    film("a.mp4", beep=0.5)
    film("b.mp4")
    before = contents(tmp_path)
    outcome = longvie("stitch", "a.mp4", "b.mp4", "-o", "out.mp4", "--dry-run", "--json")
    assert outcome.code == 0, outcome.err
    fields = outcome.fields
    assert (fields["status"], fields["frames"], fields["seconds"]) == ("planned", 60, 2.0)
    assert [clip["frames"] for clip in fields["plan"]["clips"]] == [30, 30]
    assert [part["name"] for part in fields["plan"]["sound"]] == ["a.mp4", None]
    assert "b.mp4 has no sound; it is silent there." in fields["warnings"]
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_a_run_brings_its_own_sound(longvie, film, tmp_path: Path) -> None:
    """The sound of its source begins late, in a container that counts from what is read."""
    write_beep(tmp_path / "beep.wav", at=0.25, seconds=2)
    picture = ("-f", "lavfi", "-i", "testsrc2=s=192x112:r=16:d=2")
    late = ("-itsoffset", "0.75", "-i", tmp_path / "beep.wav")
    run_ffmpeg(*picture, *late, *X264, "-c:a", "aac", tmp_path / "late.ts")
    made = ("generate", "--video", "late.ts", "-p", "hills", "--seconds", "1.5", *QUICK)
    for name, audio in (("voiced", "source"), ("silent", "none")):
        outcome = longvie(*made, "--at-cut", "ignore", "--audio", audio, "-o", f"{name}.mp4")
        assert outcome.code == 0, outcome.err
    assert beeps(Path("voiced.mp4")) == pytest.approx([1.0], abs=TOLERANCE)
    both = ("voiced.longvie", "silent.longvie", "voiced.mp4")
    outcome = longvie("stitch", *both, "-o", "own.mp4", "--json")
    assert outcome.code == 0, outcome.err
    assert "silent.longvie has no sound; it is silent there." in outcome.fields["warnings"]
    assert beeps(Path("own.mp4")) == pytest.approx([1.0, 4.0], abs=TOLERANCE)
    outcome = longvie("stitch", *both, "--audio", "source", "-o", "source.mp4")
    assert outcome.code == 0, outcome.err
    assert beeps(Path("source.mp4")) == pytest.approx([1.0, 2.5, 4.0], abs=TOLERANCE)
    # Nothing that a run was made from is replaced by what is joined from it.
    (tmp_path / "late.ts").rename(tmp_path / "late.mp4")
    outcome = longvie("stitch", *both, "-o", "gone.mp4", "--json")
    assert outcome.code == 0, outcome.err
    assert any("late.ts: there is no such file" in line for line in outcome.fields["warnings"])
    assert beeps(Path("gone.mp4")) == pytest.approx([4.0], abs=TOLERANCE)
    assert longvie("stitch", *both, "--audio", "source", "-o", "none.mp4").code == 5
    assert not Path("none.mp4").exists()
