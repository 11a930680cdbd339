"""Files are written in one step, and what the disk refuses is said."""

from __future__ import annotations

import errno
import os

import pytest

from longvie_cli.disk.durable import commit_file, storage_error, write_atomic
from longvie_cli.disk.hashing import hash_file
from longvie_cli.errors import OutputConflictError, ResumableError


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
