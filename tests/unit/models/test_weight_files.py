"""Weight files are written whole or not at all, whoever reads them later."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from longvie_cli.errors import OutputConflictError, ResumableError
from longvie_cli.models.weights.files import write_safetensors

TENSORS = {
    "a": torch.arange(6.0).reshape(2, 3).T,
    "b": torch.ones(3, dtype=torch.bfloat16),
    "c": torch.zeros(()),
}


def test_a_file_reads_back_and_may_be_read_by_those_who_may_read_others(tmp_path: Path) -> None:
    path, other = tmp_path / "new" / "x.safetensors", tmp_path / "other"
    write_safetensors(path, TENSORS)
    other.touch()
    found = load_file(path)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], value) for name, value in TENSORS.items())
    # The library itself writes for the owner alone: a shared model folder would be of no use.
    assert path.stat().st_mode == other.stat().st_mode


def test_what_a_killed_process_left_behind_goes(tmp_path: Path) -> None:
    left = tmp_path / "x.safetensors.part"
    left.mkdir()
    (left / ".tmpAbCdEf").write_bytes(bytes(100))
    write_safetensors(tmp_path / "x.safetensors", TENSORS)
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The error of a file that is too large stands for that of a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(ResumableError, match="no space left"):
            write_safetensors(tmp_path / "x.safetensors", {"a": torch.zeros(1000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_a_place_that_is_taken_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputConflictError):
        write_safetensors(tmp_path / "file" / "x.safetensors", TENSORS)
