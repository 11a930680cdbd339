"""Joining keeps every frame of every clip, in order, whatever their lengths."""

from __future__ import annotations

from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longvie_cli.media.join import join_clips
from longvie_cli.media.packets import read_packets
from longvie_cli.media.reader import read_frames
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
    frames = read_frames(output, fps=16, height=HEIGHT, width=WIDTH, fit="native")
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
    frames = read_frames(output, fps=None, height=HEIGHT, width=WIDTH, fit="native")
    assert [_number(frame) for frame in frames] == list(range(total))
