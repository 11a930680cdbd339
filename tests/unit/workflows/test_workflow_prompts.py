"""Which prompt each clip is made with."""

from __future__ import annotations

import pytest

from longvie_cli.errors import SettingsError, UsageError
from longvie_cli.settings.prompts import TimedPrompt
from longvie_cli.timeline import ClipGeometry, plan_clips
from longvie_cli.workflows.job import clip_prompts
from longvie_cli.workflows.sources import NoSource

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
