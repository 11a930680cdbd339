"""Plans cover every frame once, whatever the geometry."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from longvie_cli.timeline import ClipGeometry, plan_clips

geometries = st.builds(
    ClipGeometry, num_frames=st.integers(1, 40).map(lambda k: 4 * k + 1), fps=st.integers(1, 60)
)
totals = st.integers(1, 3000)


@given(geometries, totals, st.booleans())
def test_every_frame_is_made_exactly_once(geometry, total, continues):
    plan = plan_clips(geometry, total, continues=continues)
    covered = []
    for spec in plan:
        first_added = spec.first_frame + spec.skip_frames
        covered.extend(range(first_added, first_added + spec.added_frames))
    offset = 1 if continues else 0
    assert covered == list(range(offset, total + offset))


@given(geometries, totals, st.booleans())
def test_clips_are_in_order_and_never_longer_than_the_model_makes(geometry, total, continues):
    plan = plan_clips(geometry, total, continues=continues)
    assert [spec.index for spec in plan] == list(range(len(plan)))
    for spec in plan:
        assert spec.added_frames >= 1
        assert spec.skip_frames + spec.added_frames <= geometry.num_frames
        assert spec.first_frame == spec.index * geometry.stride
    for spec in plan[:-1]:
        assert spec.skip_frames + spec.added_frames == geometry.num_frames


@given(geometries, totals)
def test_the_number_of_clips_is_the_smallest_that_suffices(geometry, total):
    num_clips = geometry.num_clips(total)
    assert len(plan_clips(geometry, total)) == num_clips
    assert geometry.frames_of_clips(num_clips) >= total
    assert num_clips == 1 or geometry.frames_of_clips(num_clips - 1) < total


@given(geometries, totals, totals)
def test_a_run_and_its_continuation_are_one_long_run(geometry, clips, more):
    clips, more = clips % 20 + 1, more % 500 + 1
    earlier = geometry.frames_of_clips(clips)
    whole = plan_clips(geometry, earlier + more)
    continued = plan_clips(geometry, more, continues=True)
    assert [spec.added_frames for spec in whole[clips:]] == [s.added_frames for s in continued]


@given(geometries, st.integers(1, 100_000))
def test_seconds_and_frames_agree(geometry, frames):
    assert geometry.frames_of_seconds(frames / geometry.fps) == frames


@given(geometries, totals, st.booleans(), st.lists(st.integers(-5, 3100), max_size=30))
def test_cuts_never_lose_or_repeat_a_frame(geometry, total, continues, cuts):
    plan = plan_clips(geometry, total, continues=continues, cuts=cuts)
    covered = []
    for spec in plan:
        first_added = spec.first_frame + spec.skip_frames
        covered.extend(range(first_added, first_added + spec.added_frames))
        assert spec.added_frames >= 1
        assert spec.skip_frames + spec.added_frames <= geometry.num_frames
    offset = 1 if continues else 0
    assert covered == list(range(offset, total + offset))
    assert [spec.index for spec in plan] == list(range(len(plan)))


@given(geometries, totals, st.booleans(), st.lists(st.integers(-5, 3100), max_size=30))
def test_every_cut_begins_a_clip_that_knows_nothing_before_it(geometry, total, continues, cuts):
    plan = plan_clips(geometry, total, continues=continues, cuts=cuts)
    offset = 1 if continues else 0
    honoured = sorted({cut for cut in cuts if 0 < cut < total + offset})
    starts = [spec.first_frame for spec in plan if spec.starts_scene]
    assert starts == honoured
    assert all(spec.skip_frames == 0 for spec in plan if spec.starts_scene)
    for spec, after in pairwise(plan):
        assert spec.ends_scene == after.starts_scene
        end = spec.first_frame + spec.skip_frames + spec.added_frames
        assert after.first_frame == (end if after.starts_scene else end - 1)
    assert not plan[-1].ends_scene
