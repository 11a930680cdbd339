"""Prompts over time: one text for every clip, or one clear reason why not."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from longvie_cli.errors import SettingsError
from longvie_cli.planning.decide import clip_prompts
from longvie_cli.settings.prompts import (
    END_TOLERANCE_SECONDS,
    TimedPrompt,
    check_clips_fit,
    check_prompts_fit,
    prompt_at,
    prompt_of_clip,
    read_prompt_file,
)
from longvie_cli.sources.source import NoSource
from longvie_cli.timeline import ClipGeometry, plan_clips

words = st.text("abcdefgh ,.é", min_size=1, max_size=30).map(str.strip).filter(bool)
# Milliseconds, so that what is written down is what is meant.
lengths = st.lists(st.integers(1, 90_000), min_size=1, max_size=6)
quick = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _lines(edges: list[int], texts: list[str], *, open_end: bool = False) -> str:
    ranges = [f"[{a / 1000}s-{b / 1000}s]" for a, b in itertools.pairwise(edges)]
    if open_end:
        ranges[-1] = f"[{edges[-2] / 1000}s-end]"
    return "".join(f"{r} {text}\n" for r, text in zip(ranges, texts, strict=True))


def _edges(parts: list[int]) -> list[int]:
    return [0, *itertools.accumulate(parts)]


def _read(folder, content: str):
    path = folder / "prompts.txt"
    path.write_text(content, "utf-8")
    return read_prompt_file(path)


@quick
@given(parts=lengths, texts=st.lists(words, min_size=6, max_size=6), data=st.data())
def test_every_clip_has_a_prompt_in_force_within_it(tmp_path, parts, texts, data):
    edges = _edges(parts)
    geometry = ClipGeometry(33, 16)
    total = geometry.frames_of_seconds(edges[-1] / 1000)
    # Half a frame is lost or won by rounding to frames.
    assume(all(edge / 1000 < total / 16 for edge in edges[:-1]))
    open_end = data.draw(st.booleans())
    prompts = _read(tmp_path, _lines(edges, texts[: len(parts)], open_end=open_end))
    specs = plan_clips(geometry, total)
    chosen = clip_prompts(specs, None, prompts, NoSource(), 16)
    assert len(chosen) == len(specs)
    for spec, text in zip(specs, chosen, strict=True):
        middle = 1000 * (spec.first_frame + spec.skip_frames + spec.added_frames / 2) / 16
        index = max(i for i, edge in enumerate(edges[:-1]) if edge <= middle)
        assert text == texts[index]


@quick
@given(parts=lengths, data=st.data())
def test_a_gap_an_overlap_or_a_wrong_start_is_said(tmp_path, parts, data):
    assume(len(parts) > 1)
    edges = _edges(parts)
    ranges = [list(pair) for pair in itertools.pairwise(edges)]
    place = data.draw(st.integers(0, len(ranges) - 1))
    shift = data.draw(st.integers(1, 60_000)) * data.draw(st.sampled_from([-1, 1]))
    assume(ranges[place][0] + shift >= 0)
    ranges[place][0] += shift
    content = "".join(f"[{a / 1000}s-{b / 1000}s] text\n" for a, b in ranges)
    with pytest.raises(SettingsError) as raised:
        _read(tmp_path, content)
    assert raised.value.exit_code == 5
    # Every range a message names can be written into the file as it is named.
    for label in re.findall(r"\[[^\]]+\]", raised.value.message):
        start, end = (round(1000 * float(part[:-1])) for part in label.strip("[]").split("-"))
        assert [start, end] in ranges
        if 0 < start < end:
            (_, read) = _read(tmp_path, f"[0s-{start / 1000}s] before\n{label} text\n")
            assert (1000 * read.start_seconds, 1000 * read.end_seconds) == pytest.approx(
                (start, end)
            )


@quick
@given(parts=lengths, off=st.integers(-5_000, 5_000))
def test_the_end_is_within_the_tolerance_or_said(tmp_path, parts, off):
    edges = _edges(parts)
    prompts = _read(tmp_path, _lines(edges, ["text"] * len(parts)))
    total = (edges[-1] + off) / 1000
    assume(total > 0)
    fits = abs(off) / 1000 <= END_TOLERANCE_SECONDS and edges[-2] / 1000 < total
    if not fits:
        with pytest.raises(SettingsError):
            check_prompts_fit(prompts, total, "--prompt-file")
        return
    check_prompts_fit(prompts, total, "--prompt-file")
    assert prompt_at(prompts, total) == "text"


@quick
@given(parts=lengths, texts=st.lists(words, min_size=6, max_size=6))
def test_what_was_read_can_be_written_and_read_again(tmp_path, parts, texts):
    prompts = _read(tmp_path, _lines(_edges(parts), texts[: len(parts)]))
    again = "".join(f"[{p.start_seconds}s-{p.end_seconds}s] {p.text}\n" for p in prompts)
    assert _read(tmp_path, again) == prompts
    assert all(isinstance(prompt, TimedPrompt) for prompt in prompts)


@quick
@given(
    ranges=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=5),
    texts=st.lists(words, min_size=5, max_size=5),
    num_clips=st.integers(1, 30),
)
def test_clips_by_number_have_one_prompt_each(tmp_path, ranges, texts, num_clips):
    """Ranges are given as the clips left out before each, and those it names after its first."""
    first, lines, named = 0, [], []
    for index, (left_out, more) in enumerate(ranges):
        first += left_out if index else 0
        lines.append(f"[clip {first}-{first + more}] {texts[index]}")
        named.append((first, first + more))
        first += more + 1
    prompts = _read(tmp_path, "\n".join(lines))
    if named[-1][1] >= num_clips:
        with pytest.raises(SettingsError, match="past the last clip"):
            check_clips_fit(prompts, num_clips, "--prompt-file")
        return
    check_clips_fit(prompts, num_clips, "--prompt-file")
    for clip in range(num_clips):
        index = max(i for i, (begin, _) in enumerate(named) if begin <= clip)
        assert prompt_of_clip(prompts, clip) == texts[index]
