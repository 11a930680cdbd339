"""Checkpoints of a training run: one folder each, there whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from longvie_cli.disk.durable import make_folder, storage_error, write_atomic
from longvie_cli.disk.hashing import hash_file
from longvie_cli.errors import InputError

_NAME = re.compile(r"step-(\d{8})")
_STATE = "state.pt"
_HASH = "state.hash"
SHARDS = "shards"
"""Folder of a checkpoint of sharded weights, as `torch.distributed.checkpoint` writes it."""


def checkpoint_folder(folder: Path, step: int) -> Path:
    """Return the folder of the checkpoint after `step` optimizer steps."""
    return folder / f"step-{step:08d}"


def checkpoint_step(path: Path) -> int | None:
    """Return the step of a checkpoint's folder, by its name; None where it is none."""
    found = _NAME.fullmatch(path.name)
    return None if found is None else int(found[1])


def finished_checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints of a run, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def begin_sharded(folder: Path, step: int) -> Path:
    """Make and return the folder that all processes write their shards of a checkpoint in.

    Raises:
        ResumableError: The disk is full or failed.
        OutputConflictError: The folder cannot be written.
    """
    shards = shards_of_part(folder, step)
    try:
        make_folder(folder)
        _remove_parts(folder)
        shards.mkdir(parents=True)
    except OSError as reason:
        raise storage_error(shards, reason) from reason
    return shards


def shards_of_part(folder: Path, step: int) -> Path:
    """Return where the shards of a checkpoint are written before it has its name."""
    final = checkpoint_folder(folder, step)
    return final.with_name(f"{final.name}.part") / SHARDS


def save_checkpoint(
    folder: Path, step: int, state: dict[str, Any], *, keep: int, shards: Path | None = None
) -> Path:
    """Write a checkpoint and remove all but the newest `keep`; return its folder.

    It is written under another name, flushed, and renamed in one step: a process killed at any
    instant leaves the checkpoint before it.

    Args:
        folder: Of all checkpoints of the run.
        step: Optimizer steps taken.
        state: Values that `torch.load` reads without executing anything.
        keep: How many stay.
        shards: What `begin_sharded` gave, where the processes have written theirs; they become
            part of the checkpoint, with their hashes.

    Raises:
        ResumableError: The disk is full or failed.
        OutputConflictError: The folder cannot be written.
    """
    final = checkpoint_folder(folder, step)
    part = final.with_name(f"{final.name}.part")
    try:
        make_folder(folder)
        if shards is None:
            _remove_parts(folder)
            part.mkdir()
        else:
            state |= {"shards": {path.name: hash_file(path) for path in _files(part / SHARDS)}}
        with open(part / _STATE, "xb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        write_atomic(part / _HASH, hash_file(part / _STATE).encode())
        if final.exists():
            shutil.rmtree(final)
        os.rename(part, final)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        for old in finished_checkpoints(folder)[:-keep]:
            # First its name goes, so that a half removed one is never taken for a whole one.
            doomed = old.with_name(f"{old.name}.part")
            os.rename(old, doomed)
            shutil.rmtree(doomed)
    except OSError as reason:
        raise storage_error(final, reason) from reason
    return final


def load_checkpoint(path: Path, *, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return the state of a checkpoint; nothing in it is executed.

    Raises:
        InputError: It is damaged.
    """
    try:
        sound = hash_file(path / _STATE).encode() == (path / _HASH).read_bytes()
    except FileNotFoundError:
        sound = False
    if not sound:
        raise _damaged(path)
    state: dict[str, Any] = torch.load(path / _STATE, map_location=device, weights_only=True)
    for name, known in state.get("shards", {}).items():
        if not (path / SHARDS / name).is_file() or hash_file(path / SHARDS / name) != known:
            raise _damaged(path)
    return state


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def _damaged(path: Path) -> InputError:
    return InputError(
        f"{path}: this checkpoint is damaged: its hash is not the one it was written with.",
        hint="Remove its folder; the run then goes on from the one before.",
    )


def _remove_parts(folder: Path) -> None:
    """Remove what a killed process left half written or half removed."""
    for path in folder.iterdir():
        if path.name.endswith(".part") and _NAME.fullmatch(path.name.removesuffix(".part")):
            shutil.rmtree(path)
