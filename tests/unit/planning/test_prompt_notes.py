"""What is said of prompts before anything is made with them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from longvie_cli.models.prompt_tokens import CutPrompt, cut_by, cut_prompt
from longvie_cli.planning.prompt_notes import say_of_prompts, say_of_texts
from longvie_cli.progress import SilentProgress
from longvie_cli.settings.presets import load_preset, preset_folder
from longvie_cli.settings.prompts import TimedPrompt
from longvie_cli.timeline import ClipGeometry, plan_clips
from longvie_cli.training.tiny.prompts import vocabulary
from longvie_cli.training.tiny.text import random_prompt

TINY = load_preset("tiny")
LONGVIE2 = load_preset("longvie2")


class Said(SilentProgress):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)


def said_of(*texts: str, negative: str = "") -> list[str]:
    said = Said()
    say_of_texts(said, TINY, dict.fromkeys(texts, "the prompt"), negative)
    return said.warnings


@pytest.mark.parametrize(
    "text", ["x" * 158, "x" * 159, "x" * 160, "\u96ea" * 60, "a &amp; " * 60, "snow  " * 100]
)
def test_what_is_kept_is_what_the_tokenizer_keeps(text: str) -> None:
    from transformers import ByT5Tokenizer

    tokenizer = ByT5Tokenizer.from_pretrained(preset_folder("tiny") / "tokenizer")
    from longvie_cli.models.prompt_tokens import clean_prompt

    expected = cut_by(tokenizer, clean_prompt(text), TINY.max_text_tokens)
    assert cut_prompt(text, TINY) == expected


def test_without_its_tokenizer_a_cut_is_an_estimate() -> None:
    assert cut_prompt("snowy mountains at dawn " * 20, LONGVIE2) is None
    cut = cut_prompt("snowy mountains at dawn " * 200, LONGVIE2)
    assert cut is not None and cut.estimated and cut.num_kept == LONGVIE2.max_text_tokens
    assert "an estimate" in cut.words


def test_a_cut_says_how_much_is_kept_and_where_it_ends() -> None:
    assert CutPrompt(19600, 160, "snow " * 31 + "moun").words == (
        "19600 tokens, more than are read; kept are the first 160, up to "
        "'...snow snow snow snow snow snow snow moun'."
    )
    assert said_of("snow " * 100) and said_of("snow", negative="blur " * 100) == [
        "--negative-prompt: 500 tokens, more than are read; kept are the first 160, up to "
        "'...blur blur blur blur blur blur blur blu'."
    ]


def test_prompts_are_named_by_their_clips_and_counted_when_many() -> None:
    said = Said()
    specs = plan_clips(TINY.geometry, 33 + 7 * 32)
    prompts = ["snow"] * 2 + [f"{'snow ' * 40}{n}" for n in range(6)]
    say_of_prompts(said, preset=TINY, specs=specs, prompts=prompts)
    assert [line.split(":")[0] for line in said.warnings[:2]] == [
        "the prompt of clip 2",
        "the prompt of clip 3",
    ]
    assert len(said.warnings) == 6 and "1 more prompts" in said.warnings[-1]


@pytest.mark.parametrize("continues", [False, True])
def test_prompts_over_time_that_no_clip_shows_are_named(continues: bool) -> None:
    said = Said()
    specs = plan_clips(ClipGeometry(num_frames=33, fps=16), 64, continues=continues)
    given = tuple(
        TimedPrompt(start_seconds=n, end_seconds=n + 1, text=text)
        for n, text in enumerate(("dawn", "noon", "sunset", "night"))
    )
    say_of_prompts(said, preset=TINY, specs=specs, prompts=("noon", "night"), given=given)
    assert len(said.warnings) == 2
    assert all(line.startswith("--prompt-file: [") for line in said.warnings)
    assert "'dawn'" in said.warnings[0] and "'sunset'" in said.warnings[1]


def test_the_preset_knows_the_words_it_was_trained_with() -> None:
    assert TINY.vocabulary is not None
    assert [(what, list(words)) for what, words in TINY.vocabulary.words] == vocabulary()
    assert LONGVIE2.vocabulary is None


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [
        ("a cat riding a bicycle in Paris", "'cat', 'riding', 'bicycle', 'Paris'"),
        ("\u96ea\u306e\u5c71", "'\u96ea\u306e\u5c71'"),
        ("\U0001f431", "'\U0001f431'"),
        ("city street at night in the rain", "'city', 'street'"),
        ("a dog in the snow", "'dog'"),
        ("ein Schneeberg am Morgen", "'ein', 'Schneeberg', 'Morgen'"),
    ],
)
def test_words_that_mean_nothing_to_a_preset_are_named_with_those_that_do(
    prompt: str, unknown: str
) -> None:
    (said,) = said_of(prompt)
    assert said.startswith(f"preset tiny knows landscapes only; {unknown} mean nothing to it. ")
    assert "snowy, desert, meadow" in said and "dawn, noon, sunset, night" in said


def test_nothing_is_said_of_ordinary_prompts() -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text("utf-8")
    commands = re.findall(r"^longvie (?!.*longvie2).*?(?:-p|--prompt) [\"']([^\"']+)", readme, re.M)
    assert len(commands) >= 5
    rng = np.random.default_rng(0)
    trained = [random_prompt(rng)[0] for _ in range(500)]
    others = ["x", "Lush green valley with a winding river at sunrise, cinematic drone shot, 4k"]
    assert [text for text in (*commands, *trained, *others) if said_of(text)] == []


def test_the_pipeline_logs_what_it_cuts(caplog: pytest.LogCaptureFixture) -> None:
    from small_models import small_pipeline

    pipeline = small_pipeline()
    with caplog.at_level("WARNING", "longvie_cli"):
        pipeline.encode_prompt(["snow", "snowy mountains at dawn"])
    (line,) = caplog.messages
    assert "24 tokens, more than are read; kept are the first 20" in line
