"""Sources of samples: one contract for stored shards and worlds, and the order of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from longvie_cli.errors import InputError, OutputConflictError
from longvie_cli.training.dataset import (
    ClipSize,
    Sample,
    Samples,
    StoredSamples,
    WorldSamples,
    sample_number,
    write_shards,
)

SIZE = ClipSize(num_frames=5, height=16, width=24, history_frames=4)


def worlds(seed: int = 3) -> WorldSamples:
    return WorldSamples(SIZE, fps=16, seed=seed, track_columns=3, track_rows=2)


def noise(number: int) -> Sample:
    rng = np.random.default_rng(number)
    clips = rng.integers(0, 256, (3, 5, 16, 24, 3), dtype=np.uint8)
    history = rng.integers(0, 256, (4, 16, 24, 3), dtype=np.uint8)
    return Sample(*clips, history=history, prompt=f"sample {number}")


def stored(folder: Path) -> StoredSamples:
    write_shards(folder, [noise(number) for number in range(5)], samples_per_shard=2)
    return StoredSamples(folder)


def same(first: Sample, second: Sample) -> bool:
    return first.prompt == second.prompt and all(
        np.array_equal(getattr(first, name), getattr(second, name))
        for name in ("video", "dense", "sparse", "history")
    )


MAKERS: dict[str, Callable[[Path], Samples]] = {"worlds": lambda _: worlds(), "stored": stored}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_number_is_one_sample_whenever_it_is_asked_for(kind: str, tmp_path: Path) -> None:
    source = MAKERS[kind](tmp_path)
    first = [source.sample(number) for number in range(2)]
    again = MAKERS[kind](tmp_path / "again")
    for number in reversed(range(2)):
        assert same(again.sample(number), first[number])
    assert not same(first[0], first[1])


@pytest.mark.parametrize("kind", MAKERS)
def test_samples_have_the_shapes_of_the_clip(kind: str, tmp_path: Path) -> None:
    sample = MAKERS[kind](tmp_path).sample(1)
    for frames in (sample.video, sample.dense, sample.sparse):
        assert (frames.shape, frames.dtype) == ((5, 16, 24, 3), np.uint8)
    assert sample.history.shape == (4, 16, 24, 3)
    assert sample.prompt
    assert sample.video.std() > 0
    assert sample.dense.std() > 0


def test_a_history_is_what_comes_just_before() -> None:
    sample = worlds().sample(0)
    steps = np.concatenate([sample.history, sample.video]).astype(int)
    jumps = np.abs(np.diff(steps, axis=0)).mean(axis=(1, 2, 3))
    assert jumps[3] < 3 * np.median(jumps)


def test_what_is_stored_is_what_is_read(tmp_path: Path) -> None:
    samples = stored(tmp_path)
    assert samples.length == 5
    samples.verify()
    assert all(same(samples.sample(number), noise(number)) for number in range(5))


def test_every_epoch_has_each_sample_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    samples = stored(tmp_path)
    epochs = [[sample_number(samples, 5 * epoch + i, seed=1) for i in range(5)] for epoch in (0, 1)]
    assert all(sorted(epoch) == list(range(5)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    # Asked for in the middle, as a resumed run does.
    assert sample_number(samples, 7, seed=1) == epochs[1][2]
    assert [sample_number(samples, i, seed=2) for i in range(5)] != epochs[0]


def test_worlds_never_repeat() -> None:
    assert [sample_number(worlds(), position, seed=1) for position in (0, 1, 10**9)] == [
        *(0, 1, 10**9)
    ]


def test_damage_is_named(tmp_path: Path) -> None:
    samples = stored(tmp_path)
    shard = tmp_path / "shard-00001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(InputError, match=r"shard-00001\.safetensors: its hash"):
        samples.verify()
    shard.write_bytes(data[:100])
    with pytest.raises(InputError, match=r"shard-00001\.safetensors: a sample cannot be read"):
        samples.sample(2)
    shard.unlink()
    with pytest.raises(InputError, match="missing"):
        StoredSamples(tmp_path)
    (tmp_path / "samples.json").write_text("{}")
    with pytest.raises(InputError, match="schema_version"):
        StoredSamples(tmp_path)
    with pytest.raises(OutputConflictError, match="already"):
        write_shards(tmp_path, [], samples_per_shard=1)
    with pytest.raises(InputError, match="no index"):
        StoredSamples(tmp_path / "nothing")
