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
    is_blank,
    never_shown,
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
        ("[0s..10s] a", "line 1: .* begins with no range"),
        ("[0s-10s a", "line 1: .* begins with no range"),
        ("# a\n[0s-10s] a\n[10s-later] b", "line 3: 'later' is no time"),
        ("[0s-10s] \u200b", "has no text"),
        ("- {from: 0, text: '\u2800 '}", "has no text"),
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


@pytest.mark.parametrize(
    "lines",
    [
        *(
            f"[0s{dash}20s] a\n[20s {dash} end] b"
            for dash in "-\u2010\u2011\u2013\u2014\u2212\u301c"
        ),
        "[0s to 20s] a\n[20s to END] b",
        "\uff3b\uff10:00\uff0d0\uff1a20\uff3d a\n\u3010\uff12\uff10s\uff5eend\u3011b",
        "\ufeff[0 - 20] a\r\n[\u0662\u0660s-end] b",
    ],
)
def test_ranges_are_read_in_every_hand(tmp_path: Path, lines: str) -> None:
    assert read_prompt_file(written(tmp_path, lines)) == (
        TimedPrompt(start_seconds=0, end_seconds=20, text="a"),
        TimedPrompt(start_seconds=20, end_seconds=None, text="b"),
    )


@pytest.mark.parametrize(
    "content",
    ["[clip 0\u20131] a\n[Clips 2 to 3] b", "- {clip: 0\u20131, text: a}\n- {clip: 2-3, text: b}"],
)
def test_clips_are_read_in_every_hand(tmp_path: Path, content: str) -> None:
    assert read_prompt_file(written(tmp_path, content)) == (
        ClipPrompt(first_clip=0, last_clip=1, text="a"),
        ClipPrompt(first_clip=2, last_clip=3, text="b"),
    )


def test_a_text_that_shows_nothing_is_blank() -> None:
    for text in (
        "",
        "  \t\n",
        "\u200b\ufeff",
        "\x00\x1b",
        "\u00a0\u3000",
        "\u3164",
        "\u2800",
        "\ufe0f",
    ):
        assert is_blank(text)
    for text in ("x", ".", " \u96ea", "\U0001f3d4", "\u200bsnow"):
        assert not is_blank(text)


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


def test_each_prompt_that_no_clip_shows_is_named_with_the_shortest_that_one_would() -> None:
    clips = [(0.0, 2.0625), (2.0625, 4.0)]
    prompts = prompts_of((0, 1), (1, 2), (2, 3), (3, None))
    first, second = never_shown(prompts, clips)
    assert "[0s-1s] 'from 0'" in first and "[0s-1.04s]" in first and "(2.062 s)" in first
    assert "[2s-3s] 'from 2'" in second and "[2s-3.04s]" in second
    longer = prompts_of((0, 1.04), (1.04, 2), (2, 3.04), (3.04, None))
    assert {prompt_at(longer, middle) for middle in (1.03125, 3.03125)} == {"from 0", "from 2"}
    (last,) = never_shown(prompts_of((0, 3.5), (3.5, None)), clips)
    assert "[3.5s-end]" in last and "The shortest video that shows it lasts 4.14 s." in last
    assert never_shown(prompts_of((0, 2.0625), (2.0625, None)), clips) == []


def test_a_text_that_is_shown_all_the_same_is_not_missed() -> None:
    clips = [(0.0, 2.0), (2.0, 4.0)]
    same = (
        TimedPrompt(start_seconds=0, end_seconds=0.5, text="snow"),
        TimedPrompt(start_seconds=0.5, end_seconds=None, text="snow"),
    )
    assert never_shown(same, clips) == []


def test_of_many_prompts_that_are_never_shown_each_is_named() -> None:
    ranges = [*((n / 10, (n + 1) / 10) for n in range(40)), (4, None)]
    said = " ".join(never_shown(prompts_of(*ranges), [(0, 2), (2, 4), (4, 6)]))
    hidden = [f"[{n / 10:g}s-{(n + 1) / 10:g}s]" for n in range(40) if n not in (10, 30)]
    assert all(label in said for label in hidden)
