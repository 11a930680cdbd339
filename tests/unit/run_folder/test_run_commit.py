"""A clip exists when its record does and its files are what the record says."""

from __future__ import annotations

import errno
import os

import pytest

from longvie_cli.disk.durable import storage_error
from longvie_cli.disk.hashing import hash_file
from longvie_cli.errors import OutputConflictError, ResumableError
from longvie_cli.run_folder.commit import commit_file, completed_clips, stored_clips, write_atomic
from longvie_cli.run_folder.manifest import Redo, write_record
from longvie_cli.timeline import ClipGeometry, plan_clips

PLAN = plan_clips(ClipGeometry(33, 16), 128)  # 33 + 32 + 32 + 31 frames


def test_clips_exist_in_order(folder, finish_clip):
    assert completed_clips(folder, PLAN) == []
    records = [finish_clip(spec) for spec in PLAN[:3]]
    assert completed_clips(folder, PLAN) == records
    records.append(finish_clip(PLAN[3]))
    assert completed_clips(folder, PLAN) == records


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
    assert completed_clips(folder, PLAN) == records[:2]


def test_a_clip_made_before_a_redo_does_not_exist(folder, finish_clip):
    records = [finish_clip(spec) for spec in PLAN]
    assert completed_clips(folder, PLAN, [Redo(clip=2)]) == records[:2]
    found = stored_clips(folder, PLAN, [Redo(clip=3), Redo(clip=3)])
    assert [clip.record for clip in found] == [*records[:3], None]
    assert found[3].damage == ""
    write_record(folder.clip_record(3), records[3].model_copy(update={"revision": 2}))
    assert len(completed_clips(folder, PLAN, [Redo(clip=3), Redo(clip=0)])) == 0
    found = stored_clips(folder, PLAN, [Redo(clip=3), Redo(clip=0)])
    assert [clip.record is not None for clip in found] == [False, False, False, True]


def test_clips_after_a_damaged_one_are_seen(folder, finish_clip):
    for spec in PLAN:
        finish_clip(spec)
    folder.tail(1).unlink()
    found = stored_clips(folder, PLAN)
    assert [clip.record is not None for clip in found] == [True, False, True, True]
    assert found[1].damage.startswith("tails/0001.safetensors: ")


def test_files_without_a_record_are_no_clip(folder, finish_clip):
    finish_clip(PLAN[0])
    folder.clip_record(0).unlink()
    assert completed_clips(folder, PLAN) == []


def test_a_clip_of_another_plan_does_not_exist(folder, finish_clip):
    finish_clip(PLAN[0])
    other = plan_clips(ClipGeometry(17, 16), 128)
    assert completed_clips(folder, other) == []


def test_write_atomic_replaces_and_leaves_nothing_beside(tmp_path):
    path = tmp_path / "file.json"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_torn_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    write_atomic(path, b"old")
    (tmp_path / "file.json.part").mkdir()  # what should be written cannot be
    with pytest.raises(OutputConflictError, match=r"file\.json"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"


def test_commit_file_moves(tmp_path):
    part, final = tmp_path / "clip.mp4.part", tmp_path / "clip.mp4"
    part.write_bytes(b"frames")
    commit_file(part, final)
    assert final.read_bytes() == b"frames"
    assert not part.exists()
    with pytest.raises(OutputConflictError, match=r"clip\.mp4"):
        commit_file(part, final)


def test_what_the_disk_refuses_is_said_with_what_to_do(tmp_path):
    for code, kind in (
        (errno.ENOSPC, ResumableError),
        (errno.EDQUOT, ResumableError),
        (errno.EIO, ResumableError),
        (errno.ESTALE, ResumableError),
        (errno.EROFS, OutputConflictError),
        (errno.EISDIR, OutputConflictError),
    ):
        error = storage_error(tmp_path / "file", OSError(code, os.strerror(code)))
        assert type(error) is kind
        assert str(tmp_path / "file") in error.message and error.hint


def test_a_link_is_replaced_and_not_written_through(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"dear")
    (tmp_path / "file.json.part").symlink_to(elsewhere)
    (tmp_path / "file.json").symlink_to(elsewhere)
    write_atomic(tmp_path / "file.json", b"data")
    assert elsewhere.read_bytes() == b"dear"
    assert (tmp_path / "file.json").read_bytes() == b"data"
    assert not (tmp_path / "file.json").is_symlink()


def test_other_troubles_of_the_disk_are_conflicts(tmp_path):
    error = storage_error(tmp_path, PermissionError(13, "Permission denied"))
    assert isinstance(error, OutputConflictError)
    assert "Permission denied" in error.message


def test_hash_is_of_the_bytes(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"")
    assert hash_file(path) == "99aa06d3014798d86001c324468d497f"  # xxh3-128 of nothing
    path.write_bytes(bytes(3_000_000))
    assert len(hash_file(path)) == 32
