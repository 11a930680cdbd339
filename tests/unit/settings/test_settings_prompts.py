"""Prompt files: what is read, what is refused, and which text is in force when."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longvie_cli.errors import SettingsError
from longvie_cli.settings.prompts import (
    ClipPrompt,
    TimedPrompt,
    check_clips_fit,
    check_prompts_fit,
    parse_time,
    prompt_at,
    prompt_of_clip,
    read_prompt_file,
    seed_of_clip,
)


def written(folder: Path, text: str, name: str = "prompts.txt") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("1.5m", 90),
        ("1m30s", 90),
        ("1:30", 90),
        ("0:01:30.5", 90.5),
        (7, 7),
    ],
)
def test_times_are_read_in_every_spelling(text: str | int, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5 minutes", "-3", "1:2:3:4", -1])
def test_other_words_are_no_time(text: str | int) -> None:
    with pytest.raises(ValueError, match="time"):
        parse_time(text)


def test_lines_and_yaml_say_the_same(tmp_path: Path) -> None:
    lines = written(
        tmp_path, "# two scenes\n[0s-20s] a forest\n in snow\n\n[20s-end] a forest at night\n"
    )
    document = written(
        tmp_path,
        "- {from: 0, to: 20s, text: a forest in snow}\n- {from: 20s, text: a forest at night}\n",
        "prompts.yaml",
    )
    prompts = read_prompt_file(lines)
    assert prompts == read_prompt_file(document)
    assert [prompt.text for prompt in prompts] == ["a forest in snow", "a forest at night"]
    assert prompts[0].end_seconds == 20
    assert prompts[1].end_seconds is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[5s-10s] late", "begins at 5 s"),
        ("[0s-10s] a\n[12s-20s] b", "leave a gap"),
        ("[0s-10s] a\n[8s-20s] b", "overlap"),
        ("[0s-0s] a", "ends before it begins"),
        ("[0s-10s]", "has no text"),
        ("[0s-10s] a\n[10s] b", "range"),
        ("just a prompt", "expected a list"),
        ("- {form: 0, text: a}", "unknown key 'form'"),
        ("- {from: 0}", "has no text"),
        ("- [", "while parsing"),
        ("", "expected a list"),
        ("[clip 1] a", "for clip 1, not for clip 0"),
        ("[clip 0-2] a\n[clip 2] b", r"\[clip 2\] does not come after \[clip 0-2\]"),
        ("[clip 0] a\n[clip 3-2] b", "ends before it begins"),
        ("[clip 0]", "has no text"),
        ("[clip 0] a\n[5s-end] b", "line 2: .* times and clips cannot be mixed"),
        ("[0s-5s] a\n\n[clip 1] b", "line 3: .* times and clips cannot be mixed"),
        ("[clip 0] a\n[clip x] b", "line 2: .*begins with no"),
        ("- {clip: 0, text: a}\n- {from: 5, text: b}", "entry 2: times and clips"),
        ("- {clip: 0, from: 5, text: b}", "entry 1: times and clips"),
        ("- {clip: first, text: a}", "'first' is no clip; write 0 or 0-3"),
        ("- {clip: 0, text: a, seed: -1}", "seed must be a whole number"),
        ("- {clip: 0, text: a, seed: true}", "seed must be a whole number"),
        ("- {from: 0, text: a, seed: 1}", "a seed belongs to a clip"),
    ],
)
def test_a_wrong_file_is_refused_with_its_reason(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason) as caught:
        read_prompt_file(written(tmp_path, text))
    assert caught.value.message.startswith("prompts.txt: ")
    assert "\n" not in caught.value.message


def test_clips_in_lines_and_yaml_say_the_same(tmp_path: Path) -> None:
    lines = written(tmp_path, "[clip 0-1] a forest\n in snow\n[Clip 4] night\n")
    document = written(
        tmp_path,
        "- {clip: 0-1, text: a forest in snow}\n- {clip: 4, text: night}\n",
        "prompts.yaml",
    )
    prompts = read_prompt_file(lines)
    assert prompts == read_prompt_file(document)
    clips = tuple(prompt for prompt in prompts if isinstance(prompt, ClipPrompt))
    assert [prompt_of_clip(clips, index) for index in range(6)] == [
        *["a forest in snow"] * 4,
        *["night"] * 2,
    ]
    check_clips_fit(clips, 5, "prompts.txt")
    with pytest.raises(
        SettingsError, match=r"\[clip 4\] is past the last clip; .* 4 clips, 0 to 3"
    ):
        check_clips_fit(clips, 4, "prompts.txt")


def test_a_seed_is_for_the_clips_an_entry_names(tmp_path: Path) -> None:
    prompts = read_prompt_file(
        written(tmp_path, "- {clip: 0, text: a, seed: 0}\n- {clip: 2-3, text: b, seed: 9}\n")
    )
    clips = tuple(prompt for prompt in prompts if isinstance(prompt, ClipPrompt))
    assert [seed_of_clip(clips, index) for index in range(5)] == [0, None, 9, 9, None]


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.txt"):
        read_prompt_file(tmp_path / "nowhere.txt")


def prompts_of(*ranges: tuple[float, float | None]) -> tuple[TimedPrompt, ...]:
    return tuple(
        TimedPrompt(start_seconds=start, end_seconds=end, text=f"from {start}")
        for start, end in ranges
    )


@pytest.mark.parametrize(
    ("ranges", "reason"),
    [
        ([(0, 20), (20, None)], "past the end"),
        ([(0, 12)], "past the end"),
        ([(0, 6)], "ends at 6 s"),
    ],
)
def test_prompts_must_cover_the_video(
    ranges: list[tuple[float, float | None]], reason: str
) -> None:
    with pytest.raises(SettingsError, match=reason):
        check_prompts_fit(prompts_of(*ranges), 10.0, "prompts.txt")


def test_prompts_that_fit_to_half_a_second_are_taken() -> None:
    check_prompts_fit(prompts_of((0, 5), (5, 10)), 9.9375, "prompts.txt")


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.floats(0, 400))
def test_exactly_one_text_is_in_force_at_any_time(lengths: list[int], seconds: float) -> None:
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    prompts = prompts_of(*((start, start + n) for start, n in zip(starts, lengths, strict=True)))
    expected = max(start for start in starts if start <= seconds)
    assert prompt_at(prompts, seconds) == f"from {expected}"
