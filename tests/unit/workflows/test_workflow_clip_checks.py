"""Broken clips are noticed, and ordinary ones are not."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from longvie_cli.evaluation.clip_checks import check_clip
from longvie_cli.run_folder.manifest import retry_seed
from longvie_cli.worlds import Flight


@pytest.fixture(scope="module")
def flown() -> np.ndarray:
    flight = Flight(5, width=96, height=56, fps=16)
    return np.stack([flight.frame(index).rgb for index in range(20)])


@pytest.fixture(scope="module")
def depth(flown: np.ndarray) -> np.ndarray:
    """Controls that move, of the clip that follows the first eight frames."""
    return np.roll(flown, 3, axis=2)[8:]


@pytest.mark.slow
def test_an_ordinary_flight_is_in_order(flown, depth) -> None:
    assert check_clip(flown[8:], before=flown[:8], controls=depth) == ()
    assert check_clip(flown) == ()
    assert check_clip(flown[:1], before=flown[:1]) == ()


@pytest.mark.parametrize(("level", "word"), [(0, "black"), (255, "white"), (90, "of one colour")])
def test_flat_frames(flown, level: int, word: str) -> None:
    broken = flown[8:].copy()
    broken[2:] = level
    (warning,) = check_clip(broken)
    assert warning == f"flat: 10 of 12 frames are {word}"
    few = flown[8:].copy()
    few[:3] = level
    assert not any("flat" in warning for warning in check_clip(few))


def test_frozen_only_where_the_controls_move(flown, depth) -> None:
    still = np.repeat(flown[8:9], 12, axis=0)
    (warning,) = check_clip(still, controls=depth)
    assert warning.startswith("frozen: ")
    assert check_clip(still, controls=np.repeat(depth[:1], 12, axis=0)) == ()
    assert check_clip(still) == ()


def test_jumps_at_the_seam(flown) -> None:
    before, after = flown[:8], flown[8:]
    (scene,) = check_clip(255 - after, before=before)
    assert scene.startswith("another scene: ")
    warm = after.astype(int) + np.array([16, 0, -16])
    (colour,) = check_clip(warm.clip(0, 255).astype(np.uint8), before=before)
    assert colour.startswith("colours jump by 1")
    # Where a scene begins, nothing comes before.
    assert check_clip(255 - after) == ()


def test_values_that_are_no_numbers(flown) -> None:
    (warning,) = check_clip(flown, finite=False)
    assert warning.startswith("not a number")


def test_retries_have_seeds_of_their_own() -> None:
    seeds = [retry_seed(seed, attempt) for seed in range(50) for attempt in range(11)]
    assert len(set(seeds)) == len(seeds)
    assert retry_seed(7, 0) == 7
    assert 0 <= retry_seed(2**63 - 1, 3) < 2**63


def test_no_torch_is_loaded() -> None:
    code = "import sys, longvie_cli.evaluation.clip_checks; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
