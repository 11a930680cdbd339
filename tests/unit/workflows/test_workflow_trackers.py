"""`--tracker` and `--track-grid`: what they may say, the licence, where weights are looked for."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from longvie_cli.controls.tracks import LucasKanadeTracker
from longvie_cli.errors import MissingResourceError
from longvie_cli.hub.registry import entry_named
from longvie_cli.progress import SilentProgress
from longvie_cli.settings.tracking import (
    TrackerChoice,
    parse_track_grid,
    parse_tracker,
    tracker_placed,
)
from longvie_cli.sources.tracker_choice import cotracker_weights, make_tracker, tracker_fact
from standin_cotracker import write_standin


def made(text: str, *, accept: bool = False) -> object:
    return make_tracker(
        parse_tracker(text), device="cpu", accept_noncommercial=accept, progress=SilentProgress()
    )


@pytest.mark.parametrize(
    ("text", "kind", "checkout", "label"),
    [
        ("lk", "lk", None, "lk"),
        ("cotracker3", "cotracker3", None, "cotracker3"),
        ("cotracker3-online", "cotracker3-online", None, "cotracker3-online"),
        ("path:/a/code", "cotracker3", Path("/a/code"), "path:code"),
        ("path:/a/code:online", "cotracker3-online", Path("/a/code"), "path:code:online"),
    ],
)
def test_forms_of_a_tracker(text: str, kind: str, checkout: Path | None, label: str) -> None:
    choice = parse_tracker(text)
    assert (choice.kind, choice.checkout, choice.label) == (kind, checkout, label)


@pytest.mark.parametrize("text", ["cotracker", "path:", "path::online", "LK", ""])
def test_anything_else_is_no_tracker(text: str) -> None:
    with pytest.raises(ValueError, match="use lk, cotracker3"):
        parse_tracker(text)


@pytest.mark.parametrize("text", ["50", "1x5", "50x", "300x20", "a x b", "-3x4"])
def test_a_grid_is_columns_by_rows(text: str) -> None:
    assert parse_track_grid("70x30").label == "70x30"
    with pytest.raises(ValueError, match="COLUMNSxROWS"):
        parse_track_grid(text)


def test_folders_in_a_settings_file_start_at_the_file() -> None:
    assert tracker_placed("path:code:online", "/a/{}".format) == "path:/a/code:online"
    assert tracker_placed("lk", "/a/{}".format) == "lk"
    assert tracker_placed("path:", "/a/{}".format) == "path:"


def test_the_embedded_tracker_needs_no_licence() -> None:
    assert isinstance(made("lk"), LucasKanadeTracker)
    assert TrackerChoice().label == "lk"


def test_cotracker_runs_only_once_its_licence_is_accepted(tmp_path: Path) -> None:
    checkout = write_standin(tmp_path / "code")
    with pytest.raises(MissingResourceError, match="not for commercial use") as caught:
        made(f"path:{checkout}")
    assert "--accept-noncommercial" in caught.value.hint
    tracker = made(f"path:{checkout}", accept=True)
    assert "offline" in tracker.name  # type: ignore[attr-defined]
    # It is remembered.
    assert "online" in made(f"path:{checkout}:online").name  # type: ignore[attr-defined]


def test_a_checkout_is_known_by_its_code_and_weights_not_by_its_name(tmp_path: Path) -> None:
    choices = [parse_tracker(f"path:{tmp_path / place / 'code'}") for place in "abc"]
    for choice in choices[:2]:
        write_standin(choice.checkout)
    first = tracker_fact(choices[0])
    assert first.startswith("path:code ")
    assert tracker_fact(choices[1]) == first
    with (choices[1].checkout / "hubconf.py").open("a") as code:
        code.write("# changed\n")
    assert tracker_fact(choices[1]) != first
    (choices[0].checkout / "scaled_offline.pth").write_bytes(b"other weights")
    assert tracker_fact(choices[0]) != first
    assert tracker_fact(choices[2]) == "path:code"
    assert tracker_fact(TrackerChoice()) == "lk"


def test_weights_are_found_in_or_beside_the_checkout_or_in_the_cache(
    tmp_path: Path, isolated_home: Path
) -> None:
    checkout = write_standin(tmp_path / "code")
    name = "scaled_offline.pth"
    data = (checkout / name).read_bytes()
    (checkout / name).unlink()
    with pytest.raises(
        MissingResourceError, match=f"{name} of facebook/cotracker3 is not"
    ) as caught:
        cotracker_weights(online=False, checkout=checkout)
    assert caught.value.hint == "longvie models pull cotracker3 --accept-noncommercial"
    (tmp_path / name).write_bytes(data)
    assert cotracker_weights(online=False, checkout=checkout) == tmp_path / name
    (checkout / "checkpoints").mkdir()
    (checkout / "checkpoints" / name).write_bytes(data)
    found = cotracker_weights(online=False, checkout=checkout)
    assert found == checkout / "checkpoints" / name


def test_weights_of_the_pinned_revision_are_taken_from_the_hub_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    repository = tmp_path / "models--facebook--cotracker3"
    folder = repository / "snapshots" / entry_named("cotracker3").revision
    (repository / "blobs").mkdir(parents=True)
    folder.mkdir(parents=True)
    blob = repository / "blobs" / hashlib.sha256(b"weights").hexdigest()
    blob.write_bytes(b"weights")
    (folder / "scaled_online.pth").symlink_to(blob)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    found = cotracker_weights(online=True, checkout=None)
    assert found == folder / "scaled_online.pth"


@pytest.mark.usefixtures("small_preset")
def test_extract_controls_tracks_with_what_was_asked(
    longvie, reference_video: Path, tmp_path: Path
) -> None:
    checkout = write_standin(tmp_path / "code")
    ask = ("extract-controls", reference_video, "-o", "controls", "--seconds", "0.6")
    refused = longvie(*ask, "--tracker", f"path:{checkout}")
    assert refused.code == 3 and "--accept-noncommercial" in refused.err
    wrong = longvie(*ask, "--tracker", "spatial")
    assert wrong.code == 2 and "--tracker" in wrong.err and "cotracker3-online" in wrong.err
    more = ("--tracker", f"path:{checkout}", "--track-grid", "6x4", "--accept-noncommercial")
    done = longvie(*ask, *more)
    assert done.code == 0 and done.out.splitlines() == ["controls"]
    assert "CC-BY-NC-4.0" in done.err
    record = json.loads((tmp_path / "controls" / "normalization.json").read_text())["settings"]
    assert record["track_grid"] == [6, 4]
    assert record["tracks"].startswith("cotracker3_offline-")

    # Controls made otherwise are replaced only where that is asked for.
    others = longvie(*ask)
    assert others.code == 4 and "--overwrite" in others.err
    assert longvie(*ask, "--overwrite").code == 0
    record = json.loads((tmp_path / "controls" / "normalization.json").read_text())["settings"]
    assert record["tracks"].startswith("lucas-kanade")


@pytest.mark.usefixtures("small_preset")
def test_a_refused_tracker_leaves_no_run_behind(
    longvie, reference_video: Path, tmp_path: Path
) -> None:
    checkout = write_standin(tmp_path / "code")
    ask = ("generate", "--video", reference_video, "-p", "hills", "--seconds", "0.5")
    ask = (*ask, "--tracker", f"path:{checkout}", "-o", "out.mp4")
    planned = longvie(*ask, "--dry-run")
    assert planned.code == 0
    assert "The run will not start: cotracker3 (CC-BY-NC-4.0)" in planned.err
    refused = longvie(*ask)
    assert refused.code == 3 and "--accept-noncommercial" in refused.err
    # So that the hint, another tracker, does not meet a run begun with this one.
    assert not (tmp_path / "out.longvie").exists()
