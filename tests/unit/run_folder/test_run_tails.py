"""The last frames of a clip come back bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save

from longvie_cli.errors import MediaError
from longvie_cli.run_folder.tails import load_tail, save_tail


def test_round_trip(folder):
    frames = np.random.default_rng(0).integers(0, 256, (8, 36, 64, 3), np.uint8)
    save_tail(folder.tail(0), frames[:, ::-1])
    assert np.array_equal(load_tail(folder.tail(0)), frames[:, ::-1])
    assert [path.name for path in folder.tails_dir.iterdir()] == ["0000.safetensors"]


def test_only_frames_are_saved(folder):
    with pytest.raises(ValueError, match="float32"):
        save_tail(folder.tail(0), np.zeros((8, 4, 4, 3), np.float32))


def test_missing_and_damaged_tails_are_our_own_error(folder):
    with pytest.raises(MediaError, match=r"0000\.safetensors"):
        load_tail(folder.tail(0))
    save_tail(folder.tail(0), np.zeros((8, 4, 4, 3), np.uint8))
    data = folder.tail(0).read_bytes()
    others = (
        b"",
        data[:50],
        data[:-1],
        save({"other": np.zeros(3, np.uint8)}),
        save({"frames": np.zeros((2, 2), np.uint8)}),
        save({"frames": np.zeros((1, 2, 2, 3), np.float32)}),
    )
    for content in others:
        folder.tail(0).write_bytes(content)
        with pytest.raises(MediaError, match="saved last frames"):
            load_tail(folder.tail(0))
