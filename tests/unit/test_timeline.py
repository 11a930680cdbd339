"""Frames, seconds and clips."""

from __future__ import annotations

import pytest

from longvie_cli.timeline import ClipGeometry, ClipSpec, plan_clips

LONGVIE2 = ClipGeometry(num_frames=81, fps=16)
TINY = ClipGeometry(num_frames=33, fps=16)


def test_five_minutes_of_longvie2_are_sixty_clips():
    assert LONGVIE2.stride == 80
    assert LONGVIE2.frames_of_seconds(300) == 4800
    assert LONGVIE2.num_clips(4800) == 60
    assert LONGVIE2.frames_of_clips(60) == 4801


def test_plan_of_the_released_example():
    plan = plan_clips(LONGVIE2, 961)
    assert len(plan) == 12
    assert plan[0] == ClipSpec(index=0, first_frame=0, skip_frames=0, added_frames=81)
    assert plan[1] == ClipSpec(index=1, first_frame=80, skip_frames=1, added_frames=80)
    assert plan[11] == ClipSpec(index=11, first_frame=880, skip_frames=1, added_frames=80)


def test_the_last_clip_adds_only_what_is_asked_for():
    assert plan_clips(TINY, 34)[-1] == ClipSpec(1, 32, 1, 1)
    assert plan_clips(TINY, 33)[-1] == ClipSpec(0, 0, 0, 33)
    assert plan_clips(TINY, 1) == (ClipSpec(0, 0, 0, 1),)


def test_a_continuation_adds_no_first_frame():
    plan = plan_clips(TINY, 64, continues=True)
    assert plan == (ClipSpec(0, 0, 1, 32), ClipSpec(1, 32, 1, 32))


@pytest.mark.parametrize("num_frames", [0, 1, 4, 80, 82])
def test_clip_lengths_the_vae_cannot_make_are_refused(num_frames):
    with pytest.raises(ValueError, match=f"not {num_frames}"):
        ClipGeometry(num_frames=num_frames)


def test_nothing_is_no_video():
    with pytest.raises(ValueError, match="not 0"):
        plan_clips(TINY, 0)
    with pytest.raises(ValueError, match="not 0"):
        TINY.num_clips(0)
    with pytest.raises(ValueError, match="not 0"):
        ClipGeometry(fps=0)


def test_seconds_are_rounded_to_the_nearest_frame():
    assert TINY.frames_of_seconds(10) == 160
    assert TINY.frames_of_seconds(0.04) == 1
    assert TINY.frames_of_seconds(0.001) == 1
