"""A clip exists when its record is of this run and its files are what the record says."""

from __future__ import annotations

from itertools import takewhile

import pytest

from longvie_cli.run_folder.manifest import Redo, retry_seed, write_record
from longvie_cli.run_folder.run import Run
from longvie_cli.timeline import ClipGeometry, plan_clips
from stored_runs import stored_manifest

PLAN = plan_clips(ClipGeometry(33, 16), 128)  # 33 + 32 + 32 + 31 frames


def _run(folder, redos=(), plan=PLAN) -> Run:
    return Run(folder, stored_manifest(plan, redos))


def _made(folder, redos=(), plan=PLAN):
    """Return the records of the clips that exist, up to the first that does not."""
    clips = takewhile(lambda clip: clip.record is not None, _run(folder, redos, plan).clips())
    return [clip.record for clip in clips]


def test_clips_exist_in_order(folder, finish_clip):
    assert _made(folder) == []
    records = [finish_clip(spec) for spec in PLAN[:3]]
    assert _made(folder) == records
    records.append(finish_clip(PLAN[3]))
    assert _made(folder) == records


@pytest.mark.parametrize("part", ["video", "tail", "record"])
@pytest.mark.parametrize("damage", ["missing", "changed", "cut", "empty"])
def test_a_clip_that_is_not_intact_ends_the_list(folder, finish_clip, part, damage):
    records = [finish_clip(spec) for spec in PLAN]
    path = {"video": folder.clip_video, "tail": folder.tail, "record": folder.clip_record}[part](2)
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        changed = {"changed": data[:-2] + b"!!", "cut": data[: len(data) // 2], "empty": b""}
        path.write_bytes(changed[damage])
    assert _made(folder) == records[:2]


def test_a_clip_made_before_a_redo_does_not_exist(folder, finish_clip):
    records = [finish_clip(spec) for spec in PLAN]
    assert _made(folder, [Redo(clip=2)]) == records[:2]
    found = _run(folder, [Redo(clip=3), Redo(clip=3)]).clips()
    assert [clip.record for clip in found] == [*records[:3], None]
    assert found[3].damage == ""
    write_record(folder.clip_record(3), records[3].model_copy(update={"revision": 2}))
    assert len(_made(folder, [Redo(clip=3), Redo(clip=0)])) == 0
    found = _run(folder, [Redo(clip=3), Redo(clip=0)]).clips()
    assert [clip.record is not None for clip in found] == [False, False, False, True]


def test_clips_after_a_damaged_one_are_seen(folder, finish_clip):
    for spec in PLAN:
        finish_clip(spec)
    folder.tail(1).unlink()
    found = _run(folder).clips()
    assert [clip.record is not None for clip in found] == [True, False, True, True]
    assert found[1].damage.startswith("tails/0001.safetensors: ")


def test_files_without_a_record_are_no_clip(folder, finish_clip):
    finish_clip(PLAN[0])
    folder.clip_record(0).unlink()
    assert _made(folder) == []


def test_a_clip_of_another_plan_does_not_exist(folder, finish_clip):
    finish_clip(PLAN[0])
    other = plan_clips(ClipGeometry(17, 16), 128)
    assert _made(folder, plan=other) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"run_id": "0" * 32}, "is of another run"),
        ({"index": 0}, "is of another clip"),
        ({"frames": 31}, "is of another clip"),
        ({"revision": 1}, "is of another clip"),
        ({"prompt": "dunes"}, "has another prompt or seed"),
        ({"seed": 8}, "has another prompt or seed"),
        ({"seed": retry_seed(7, 1)}, "has another prompt or seed"),
        ({"follows": "00"}, "was made after another clip"),
        ({"follows": ""}, "was made after another clip"),
    ],
)
def test_what_is_not_of_this_clip_of_this_run_is_damage(folder, finish_clip, change, words):
    records = [finish_clip(spec) for spec in PLAN]
    write_record(folder.clip_record(2), records[2].model_copy(update=change))
    found = _run(folder).clips()
    assert [clip.record is not None for clip in found] == [True, True, False, True]
    assert words in found[2].damage
    assert [clip.spec.index for clip in _run(folder).harmed(found)] == [2]


def test_the_seed_of_a_retry_is_a_clip_s_own(folder, finish_clip):
    records = [finish_clip(spec) for spec in PLAN]
    retried = records[3].model_copy(update={"seed": retry_seed(7, 2), "attempts": 3})
    write_record(folder.clip_record(3), retried)
    assert len(_made(folder)) == 4


def test_clips_swapped_within_a_run_are_damage(folder, finish_clip):
    for spec in PLAN:
        finish_clip(spec)
    for of_clip in (folder.clip_video, folder.tail, folder.clip_record):
        one, other = of_clip(1), of_clip(2)
        data = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(data)
    found = _run(folder).clips()
    assert [bool(clip.damage) for clip in found] == [False, True, True, False]


def test_clips_that_another_request_kept_are_those_it_was_told_of(folder, finish_clip):
    records = [finish_clip(spec) for spec in PLAN]
    kept = {"kept_prompts": ("a horse at dawn",) * 2, "kept_seeds": (7, 7)}
    redo = Redo(clip=2, new_request=True, **kept)
    manifest = stored_manifest(PLAN, [redo], settings={"prompt": "dunes", "seed": 8})
    for record in records[2:]:
        changes = {"prompt": "dunes", "seed": 8, "revision": 1}
        write_record(folder.clip_record(record.index), record.model_copy(update=changes))
    assert all(clip.record for clip in Run(folder, manifest).clips())
    again = manifest.model_copy(update={"redos": (redo, Redo(clip=1))})
    assert again.clip_prompts == ("a horse at dawn", "dunes", "dunes", "dunes")
    assert again.clip_seeds == (7, 8, 8, 8)
