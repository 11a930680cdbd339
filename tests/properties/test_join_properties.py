"""Joining keeps every frame of every clip, in order, whatever their lengths."""

from __future__ import annotations

import subprocess
import wave
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longvie_cli.media.ffmpeg import ffmpeg_executable
from longvie_cli.media.join import join_clips
from longvie_cli.media.packets import read_packets
from longvie_cli.media.probe import probe_video
from longvie_cli.media.reader import read_frames
from longvie_cli.media.sound import SoundPart, read_sound
from longvie_cli.media.writer import VideoWriter
from longvie_cli.timeline import ClipGeometry, plan_clips

HEIGHT, WIDTH = 16, 32


def _frame(number: int) -> np.ndarray:
    """Return the frame of a number: its bits, each a stripe black or white."""
    bits = np.array([255 * (number >> bit & 1) for bit in range(8)], np.uint8)
    return np.broadcast_to(np.repeat(bits, WIDTH // 8)[None, :, None], (HEIGHT, WIDTH, 3))


def _number(frame: np.ndarray) -> int:
    bits = frame.mean(axis=(0, 2)).reshape(8, -1).mean(axis=1) > 127
    return sum(int(on) << bit for bit, on in enumerate(bits))


def _write(path: Path, numbers: range) -> Path:
    with VideoWriter(path, height=HEIGHT, width=WIDTH, fps=16, preset="ultrafast") as writer:
        for number in numbers:
            writer.write(_frame(number))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Clips made so far, by the frames they hold, so that examples share them."""
    folder = tmp_path_factory.mktemp("clips")
    known: dict[range, Path] = {}

    def make(numbers: range) -> Path:
        if numbers not in known:
            known[numbers] = _write(folder / f"{len(known):04d}.mp4", numbers)
        return known[numbers]

    return make


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.sampled_from([1, 2, 5, 17]), min_size=1, max_size=6))
def test_joined_is_the_sum_of_its_clips(made, tmp_path, lengths):
    parts = [range(start, stop) for start, stop in pairwise(accumulate(lengths, initial=0))]
    output = tmp_path / "out.mp4"
    total = join_clips(
        [made(part) for part in parts], output, fps=16, metadata=None, overwrite=True
    )
    assert total == sum(lengths)
    packets = read_packets(output)
    assert packets.timestamps == tuple(1000 * index for index in range(total))
    frames = read_frames(probe_video(output), fps=16, height=HEIGHT, width=WIDTH, fit="native")
    assert [_number(frame) for frame in frames] == list(range(total))


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(total=st.integers(1, 120))
def test_a_plan_written_and_joined_is_the_video(made, tmp_path, total):
    clips = []
    for spec in plan_clips(ClipGeometry(33, 16), total):
        first = spec.first_frame + spec.skip_frames
        clips.append(made(range(first, first + spec.added_frames)))
    output = tmp_path / "out.mp4"
    assert join_clips(clips, output, fps=16, metadata=None, overwrite=True) == total
    frames = read_frames(probe_video(output), fps=None, height=HEIGHT, width=WIDTH, fit="native")
    assert [_number(frame) for frame in frames] == list(range(total))


AAC_FRAME = 1024


def _write_clicks(path: Path, rate: int, seconds: float, clicks: list[float]) -> Path:
    """Write a WAV of silence with a tone of 20 ms at each of these seconds."""
    samples = np.zeros(round(seconds * rate), np.int16)
    tone = (20_000 * np.sin(2 * np.pi * 1000 * np.arange(rate // 50) / rate)).astype(np.int16)
    for click in clicks:
        place = samples[round(click * rate) :][: len(tone)]
        place[:] = tone[: len(place)]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return path


def _sound(path: Path, rate: int) -> np.ndarray:
    """Return the sound of a file as a player hears it, from its first picture on."""
    command = [ffmpeg_executable(), "-v", "error", "-i", str(path), "-map", "0:a"]
    raw = subprocess.run(
        [*command, "-ar", str(rate), "-ac", "1", "-f", "s16le", "pipe:1"],
        check=True,
        capture_output=True,
    ).stdout
    return np.frombuffer(raw, np.int16)


def _beginnings(samples: np.ndarray, rate: int) -> np.ndarray:
    """Return the seconds at which it becomes loud after a twentieth of a second of silence."""
    loud = np.flatnonzero(np.abs(samples.astype(int)) > 4000)
    return loud[np.diff(loud, prepend=-rate) > rate // 20] / rate


@pytest.mark.slow
@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.sampled_from([5, 17, 33]), min_size=1, max_size=3),
    rate=st.sampled_from([44_100, 48_000]),
    clicks=st.sets(st.integers(0, 40), min_size=1, max_size=5),
    surplus=st.sampled_from([0.0, 0.03, 4.0]),
)
def test_sound_stays_where_it_was_and_ends_with_the_picture(
    made, tmp_path, lengths, rate, clicks, surplus
):
    parts = [range(start, stop) for start, stop in pairwise(accumulate(lengths, initial=0))]
    clips, seconds = [made(part) for part in parts], sum(lengths) / 16
    # Ten clicks a second at most, so that each begins in silence.
    wanted = [click / 10 for click in sorted(clicks) if click / 10 < seconds - 0.05]
    sound = _write_clicks(tmp_path / "sound.wav", rate, seconds + surplus, wanted)
    once, twice = tmp_path / "once.mp4", tmp_path / "twice.mp4"
    # First made AAC, then copied as it is.
    for source, output in ((sound, once), (once, twice)):
        heard = [SoundPart(read_sound(source), 0, seconds)]
        join_clips(clips, output, fps=16, metadata=None, sound=heard, overwrite=True)
        assert read_sound(output).codec == "aac"
        packets = read_packets(output)
        assert packets.timestamps == tuple(1000 * index for index in range(sum(lengths)))
        assert packets.is_constant(16)
        samples = _sound(output, rate)
        found = _beginnings(samples, rate)
        assert len(found) == len(wanted)
        assert np.abs(found - wanted).max(initial=0.0) <= AAC_FRAME / rate
        assert abs(len(samples) / rate - seconds) <= 2 * AAC_FRAME / rate
