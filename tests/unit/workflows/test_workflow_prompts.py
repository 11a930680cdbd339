"""Which prompt each clip is made with."""

from __future__ import annotations

import pytest

from longvie_cli.errors import SettingsError, UsageError
from longvie_cli.planning.decide import clip_prompts, clip_seeds
from longvie_cli.settings.presets import load_preset
from longvie_cli.settings.prompts import ClipPrompt, TimedPrompt
from longvie_cli.settings.sampling import Sampling
from longvie_cli.sources.source import NoSource
from longvie_cli.timeline import ClipGeometry, plan_clips

GEOMETRY = ClipGeometry(num_frames=33, fps=16)
TIMED = (
    TimedPrompt(start_seconds=0, end_seconds=4, text="day"),
    TimedPrompt(start_seconds=4, end_seconds=None, text="night"),
)


@pytest.mark.parametrize("continues", [False, True])
def test_a_clip_takes_the_prompt_at_its_middle(continues: bool) -> None:
    specs = plan_clips(GEOMETRY, 128, continues=continues)
    assert clip_prompts(specs, None, TIMED, NoSource(), 16) == ("day", "day", "night", "night")


def test_one_prompt_is_for_all_clips() -> None:
    assert clip_prompts(plan_clips(GEOMETRY, 60), "hills", (), NoSource(), 16) == ("hills",) * 2


def test_without_any_prompt_there_is_nothing_to_make() -> None:
    with pytest.raises(UsageError, match="--prompt"):
        clip_prompts(plan_clips(GEOMETRY, 60), None, (), NoSource(), 16)


def test_prompts_over_time_must_fit() -> None:
    with pytest.raises(SettingsError, match="past the end"):
        clip_prompts(plan_clips(GEOMETRY, 60), None, TIMED, NoSource(), 16)


BY_CLIP = (
    ClipPrompt(first_clip=0, last_clip=0, text="day"),
    ClipPrompt(first_clip=2, last_clip=3, text="night", seed=40),
)


@pytest.mark.parametrize("continues", [False, True])
def test_clips_are_counted_from_the_first_of_the_run(continues: bool) -> None:
    specs = plan_clips(GEOMETRY, 128, continues=continues)
    assert clip_prompts(specs, None, BY_CLIP, NoSource(), 16) == ("day", "day", "night", "night")


def test_a_clip_the_video_has_not_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"\[clip 2-3\] is past the last clip"):
        clip_prompts(plan_clips(GEOMETRY, 60), None, BY_CLIP, NoSource(), 16)


@pytest.mark.parametrize(
    ("per_clip", "expected"), [(False, (7, 7, 40, 40, 7)), (True, (7, 8, 40, 40, 11))]
)
def test_seeds_a_clip(per_clip: bool, expected: tuple[int, ...]) -> None:
    sampling = Sampling.of(load_preset("tiny"), seed=7, seed_per_clip=per_clip)
    specs = plan_clips(GEOMETRY, 161)
    assert clip_seeds(specs, sampling, BY_CLIP) == expected
    assert clip_seeds(specs, sampling, ())[0] == 7
