"""Where a command may write: inputs and runs are never replaced, and that is found out first."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from delivered import QUICK, contents
from longvie_cli.run_folder.layout import RunFolder

SHORT = ("--seconds", "0.2", *QUICK)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from longvie_cli import GenerateRequest, generate

    folder = tmp_path_factory.mktemp("made")
    generate(GenerateRequest(output=folder / "o.mp4", seconds=0.2, steps=1, guidance=1))
    return folder


@pytest.fixture
def made(made_once: Path, tmp_path: Path) -> Path:
    shutil.copytree(made_once, tmp_path, dirs_exist_ok=True)
    return tmp_path


INPUTS_OF_THE_RUN = [
    ("generate", "-p", "x", "--controls", "o.longvie/controls"),
    ("generate", "-p", "x", "--controls", "o.longvie/controls/cond.json"),
    ("generate", "-p", "x", "--image", "o.longvie/controls/first.png"),
    ("generate", "-p", "x", "--camera", "forward 1", "--image", "o.longvie/controls/first.png"),
    ("generate", "-p", "x", "--video", "o.longvie/clips/0000.mp4"),
    ("generate", "-p", "x", "--audio", "o.longvie/clips/0000.mp4"),
    ("extend", "o.longvie/clips/0000.mp4"),
    ("extend", "o.longvie/controls/depth_0000.mp4", "-p", "x"),
]


@pytest.mark.parametrize("arguments", INPUTS_OF_THE_RUN, ids=" ".join)
@pytest.mark.parametrize("how", [("--overwrite",), ("--overwrite", "--dry-run"), ()])
def test_an_input_in_the_run_folder_of_the_output_is_refused_and_stays(
    longvie, made: Path, arguments, how
) -> None:
    before = contents(made)
    outcome = longvie(*arguments, *SHORT, "-o", "o.mp4", *how)
    assert outcome.code == 4, outcome.err
    assert "o.longvie" in outcome.err and "--overwrite" not in outcome.err
    assert contents(made) == before


def test_an_input_is_found_through_links_and_in_what_is_only_implied(longvie, made: Path) -> None:
    (made / "link.png").symlink_to(made / "o.longvie" / "controls" / "first.png")
    before = contents(made)
    outcome = longvie(
        *("generate", "-p", "x", "--image", "link.png", *SHORT, "-o", "o.mp4", "--overwrite")
    )
    assert outcome.code == 4 and "link.png" in outcome.err
    # What `extend` reads beside the video: its run, here with the run folder taken for its own.
    outcome = longvie(
        *("extend", "o.mp4", *SHORT, "-o", "on.mp4", "--run-dir", "o.longvie", "--overwrite")
    )
    assert outcome.code == 4, outcome.err
    assert contents(made) == before


def test_a_source_that_an_earlier_run_names_is_an_input(longvie, made: Path) -> None:
    asked = ("--image", "o.longvie/controls/first.png", "-p", "dunes", *SHORT)
    outcome = longvie("generate", "--controls", "o.longvie/controls", *asked, "-o", "x.mp4")
    assert outcome.code == 0, outcome.err
    before = contents(made / "o.longvie")
    (made / "o.mp4").unlink()
    outcome = longvie("extend", "x.mp4", "--seconds", "0.1", "-o", "o.mp4", "--overwrite")
    assert outcome.code == 4 and "o.longvie" in outcome.err, outcome.err
    assert contents(made / "o.longvie") == before


@pytest.mark.slow
def test_overwrite_removes_only_what_a_run_wrote(longvie, made: Path) -> None:
    run = made / "o.longvie"
    notes = [run / "notes.txt", run / "clips" / "mine.txt", run / "controls" / "mine.png"]
    for path in notes:
        path.write_text("dear")
    outcome = longvie("generate", "--seed", "5", *SHORT, "-o", "o.mp4", "--overwrite")
    assert outcome.code == 0, outcome.err
    assert all(path.read_text() == "dear" for path in notes)


@pytest.mark.parametrize(
    ("run_dir", "output"),
    [
        ("r", "r/joined.mp4"),
        ("r", "r/JOINED.mp4"),
        ("r", "r/earlier.mp4"),
        ("r", "r/clips/0000.mp4"),
        ("r", "r/clips/x.mp4"),
        ("r", "r/controls/depth_0000.mp4"),
        ("r", "./r/../r/joined.mp4"),
        ("t.mp4", "t.mp4"),
        ("t.mp4/run", "t.mp4"),
    ],
)
@pytest.mark.parametrize("how", [(), ("--overwrite",), ("--dry-run",)])
def test_an_output_that_the_run_folder_needs_is_refused_before_work(
    longvie, tmp_path: Path, run_dir, output, how
) -> None:
    outcome = longvie("generate", "-p", "x", *SHORT, "--run-dir", run_dir, "-o", output, *how)
    assert outcome.code == 2, outcome.err
    assert list(tmp_path.iterdir()) == []


def test_an_output_beside_the_names_of_a_run_folder_stays(longvie, tmp_path: Path) -> None:
    command = ("generate", "-p", "x", *SHORT, "--run-dir", "r", "-o", "r/final.mp4")
    for _ in range(2):
        outcome = longvie(*command)
        assert outcome.code == 0, outcome.err
        assert (tmp_path / "r" / "final.mp4").is_file()


@pytest.mark.parametrize("command", ["generate", "stitch", "extract-controls"])
def test_files_of_another_run_are_no_output(longvie, made: Path, command) -> None:
    shutil.copy(made / "o.mp4", made / "in.mp4")
    before = contents(made)
    given = {
        "generate": ("generate", "-p", "x", *SHORT, "-o", "o.longvie/clips/0000.mp4"),
        "stitch": ("stitch", "in.mp4", "-o", "o.longvie/clips/0000.mp4"),
        "extract-controls": ("extract-controls", "--seed", "3", "-o", "o.longvie/controls"),
    }
    outcome = longvie(*given[command], "--overwrite")
    assert outcome.code == 4, outcome.err
    assert "belongs to the run" in outcome.err
    assert contents(made) == before


def test_extract_controls_never_replaces_what_it_reads(longvie, made: Path) -> None:
    outcome = longvie("extract-controls", "--seed", "3", "--seconds", "0.2", "-o", "controls")
    assert outcome.code == 0, outcome.err
    before = contents(made / "controls")
    for arguments in (
        ("--image", "controls/first.png", "--camera", "forward 1"),
        ("controls/depth_0000.mp4",),
        ("in.mp4", "--depth", "controls/depth_0000.mp4"),
    ):
        shutil.copy(made / "o.mp4", made / "in.mp4")
        for how in ("--overwrite", "--dry-run"):
            outcome = longvie("extract-controls", *arguments, "-o", "controls", how)
            assert outcome.code == 4, outcome.err
            assert contents(made / "controls") == before


def test_live_is_judged_with_the_rest(longvie, made: Path) -> None:
    shutil.copy(made / "o.mp4", made / "other.mp4")
    before = contents(made)
    for live, code in (
        ("n.mp4", 2),
        ("n.longvie/joined.mp4", 2),
        ("n.txt", 2),
        ("other.mp4", 4),
    ):
        for how in ((), ("--dry-run",)):
            outcome = longvie("generate", "-p", "x", *SHORT, "-o", "n.mp4", "--live", live, *how)
            assert outcome.code == code, (live, outcome.err)
    assert contents(made) == before


def test_a_run_folder_knows_its_own_files(made: Path) -> None:
    folder = RunFolder(made / "o.longvie")
    for path in folder.root.rglob("*"):
        assert folder.may_replace(path), path
    assert not folder.may_replace(made / "o.mp4")
    assert not folder.may_replace(folder.root / "final.mp4")
