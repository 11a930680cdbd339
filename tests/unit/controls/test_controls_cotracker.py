"""CoTracker3 through torch.hub: a stand-in repository on disk, nothing from the network."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch

from longvie_cli.controls.cotracker import (
    COTRACKER_REVISION,
    CoTrackerTracker,
    hub_folder,
)
from longvie_cli.errors import ControlError, MissingResourceError
from standin_cotracker import write_standin, write_weights

POINTS = np.array([[3.0, 4.0], [20.5, 11.25]], np.float32)


@pytest.fixture(autouse=True)
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A torch.hub cache of its own, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def refuse(*arguments: object, **options: object) -> None:
        raise URLError("no network in tests")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    return tmp_path / "torch"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return write_standin(tmp_path / "co-tracker")


def still(num_frames: int = 5) -> np.ndarray:
    picture = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    return np.repeat(picture[None], num_frames, axis=0)


@pytest.mark.parametrize("online", [False, True])
def test_the_cached_repository_is_used_without_asking_anything(
    torch_home: Path, checkout: Path, online: bool
) -> None:
    assert hub_folder() == torch_home / "hub" / f"facebookresearch_co-tracker_{COTRACKER_REVISION}"
    write_standin(hub_folder())
    weights = checkout / f"scaled_{'online' if online else 'offline'}.pth"
    tracker = CoTrackerTracker(weights, online=online, offline_machine=True)
    tracks = tracker.track(still(), POINTS)
    assert tracks.visible.all() and np.abs(tracks.points - POINTS).max() < 0.01
    assert COTRACKER_REVISION[:12] in tracker.name


@pytest.mark.parametrize("online", [False, True])
def test_what_third_party_code_prints_is_not_on_stdout(
    checkout: Path, capsys: pytest.CaptureFixture[str], online: bool
) -> None:
    weights = checkout / f"scaled_{'online' if online else 'offline'}.pth"
    CoTrackerTracker(weights, online=online, checkout=checkout).track(still(), POINTS)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "noise while importing" in shown.err and "noise while tracking" in shown.err


def test_weights_decide_the_tracks_and_the_name(checkout: Path, tmp_path: Path) -> None:
    frames = still(6)
    for index in range(6):
        frames[index] = np.roll(frames[0], 2 * index, axis=1)
    write_weights(tmp_path / "double.pth", gain=2.0)
    once = CoTrackerTracker(checkout / "scaled_offline.pth", checkout=checkout)
    twice = CoTrackerTracker(tmp_path / "double.pth", checkout=checkout)
    assert once.name != twice.name
    moved = [tracker.track(frames, POINTS).points[-1, 0, 0] - 3 for tracker in (once, twice)]
    np.testing.assert_allclose(moved, [10, 20], atol=0.01)


def test_the_callers_random_numbers_are_left_alone(checkout: Path) -> None:
    tracker = CoTrackerTracker(checkout / "scaled_offline.pth", checkout=checkout)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    tracker.track(still(), POINTS)
    assert torch.rand(1) == expected


def test_a_stale_cache_is_explained_with_what_mends_it(checkout: Path) -> None:
    hub_folder().mkdir(parents=True)
    (hub_folder() / "hubconf.py").write_text("def cotracker2():\n    pass\n")
    tracker = CoTrackerTracker(checkout / "scaled_offline.pth")
    with pytest.raises(MissingResourceError, match="old or damaged and gives no") as caught:
        tracker.track(still(), POINTS)
    assert str(hub_folder()) in caught.value.message
    assert caught.value.hint.startswith(f"rm -r {hub_folder()}")


def test_a_cache_without_hubconf_is_explained_too(checkout: Path) -> None:
    hub_folder().mkdir(parents=True)
    with pytest.raises(MissingResourceError, match="old or damaged") as caught:
        CoTrackerTracker(checkout / "scaled_online.pth", online=True).track(still(), POINTS)
    assert "rm -r" in caught.value.hint


def test_an_old_checkout_is_told_how_to_move_on(checkout: Path) -> None:
    (checkout / "hubconf.py").write_text("def cotracker2():\n    pass\n")
    tracker = CoTrackerTracker(checkout / "scaled_offline.pth", checkout=checkout)
    with pytest.raises(MissingResourceError, match="cotracker3_offline") as caught:
        tracker.track(still(), POINTS)
    assert COTRACKER_REVISION in caught.value.hint


def test_a_package_that_co_tracker_needs_is_named(checkout: Path) -> None:
    text = (checkout / "hubconf.py").read_text()
    (checkout / "hubconf.py").write_text(text.replace('["torch"]', '["torch", "no_such_thing"]'))
    tracker = CoTrackerTracker(checkout / "scaled_offline.pth", checkout=checkout)
    with pytest.raises(MissingResourceError) as caught:
        tracker.track(still(), POINTS)
    assert caught.value.hint == "pip install no_such_thing"
    (checkout / "hubconf.py").write_text("import no_such_thing_either\n")
    with pytest.raises(MissingResourceError) as caught:
        CoTrackerTracker(checkout / "scaled_offline.pth", checkout=checkout).track(still(), POINTS)
    assert caught.value.hint == "pip install no_such_thing_either"


def test_without_cache_and_network_the_way_out_is_named(checkout: Path) -> None:
    weights = checkout / "scaled_offline.pth"
    with pytest.raises(MissingResourceError, match="the machine is offline") as caught:
        CoTrackerTracker(weights, offline_machine=True)
    assert "--tracker path:DIR" in caught.value.hint
    with pytest.raises(MissingResourceError, match="no network in tests"):
        CoTrackerTracker(weights).track(still(), POINTS)


def test_missing_files_are_found_out_before_anything_runs(checkout: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingResourceError, match="no such CoTracker3 weights"):
        CoTrackerTracker(tmp_path / "none.pth", checkout=checkout)
    with pytest.raises(MissingResourceError, match=r"has no hubconf\.py"):
        CoTrackerTracker(checkout / "scaled_offline.pth", checkout=tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a state dict"])
def test_damaged_weights_are_refused(checkout: Path, content: bytes) -> None:
    (checkout / "scaled_offline.pth").write_bytes(content)
    tracker = CoTrackerTracker(checkout / "scaled_offline.pth", checkout=checkout)
    with pytest.raises(MissingResourceError, match="no weights of cotracker3_offline"):
        tracker.track(still(), POINTS)


def test_weights_of_another_model_are_refused(checkout: Path) -> None:
    torch.save({"other": torch.zeros(2)}, checkout / "scaled_offline.pth")
    tracker = CoTrackerTracker(checkout / "scaled_offline.pth", checkout=checkout)
    with pytest.raises(MissingResourceError, match="no weights of"):
        tracker.track(still(), POINTS)


def test_tracks_that_are_not_finite_are_refused(checkout: Path) -> None:
    write_weights(checkout / "scaled_offline.pth", gain=float("nan"))
    tracker = CoTrackerTracker(checkout / "scaled_offline.pth", checkout=checkout)
    with pytest.raises(ControlError, match="2 of 2 tracks are not finite"):
        tracker.track(still(), POINTS)
