"""Names in documents lead nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from longvie_cli.disk.containment import is_inside, named_in


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "file").touch()
    (tmp_path / "outside").touch()
    return folder


def test_names_stay_in_their_folder(folder: Path) -> None:
    for name in ("file", "inner/file", "inner/../inner/file", "./a b", "-i", "http://x/y"):
        assert named_in(folder, name) == folder / name
    assert named_in(folder, "/elsewhere/file") == Path("/elsewhere/file")
    assert named_in(folder, "~/file") == Path.home() / "file"


@pytest.mark.parametrize("name", ["../outside", "inner/../../outside", "..", "a\0b", "link", "l/x"])
def test_names_that_lead_out_are_refused(folder: Path, name: str) -> None:
    (folder / "link").symlink_to("../outside")
    (folder / "l").symlink_to("..")
    with pytest.raises(ValueError, match=r"leads out|NUL"):
        named_in(folder, name)


def test_a_folder_reached_by_a_link_is_a_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "way").symlink_to("folder")
    assert named_in(tmp_path / "way", "inner/file") == tmp_path / "way" / "inner" / "file"


def test_links_are_followed_to_where_they_lead(folder: Path) -> None:
    (folder / "link").symlink_to("inner/file")
    (folder / "out").symlink_to("/etc")
    (folder / "loop").symlink_to("loop")
    assert is_inside(folder, folder / "link") and named_in(folder, "link") == folder / "link"
    assert not is_inside(folder, folder / "out")
    assert not is_inside(folder, folder / "loop")
