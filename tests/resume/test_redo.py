"""A run makes clips again, is taken on with other settings, and goes on from its folder alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from delivered import QUICK, contents
from longvie_cli import GenerateRequest, RedoRequest, generate, redo
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.manifest import read_manifest, read_record

# Three clips, the last of them two frames.
COMMAND = ("generate", "-p", "green hills", "--seconds", "1.2", "--seed", "11", *QUICK)
# The same, with so many steps that a clip takes a while.
SLOW = (*COMMAND, "--steps", "40")
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, and beside it `redone`, the same with another prompt from clip 1 on."""
    folder = tmp_path_factory.mktemp("made")
    generate(
        GenerateRequest(
            output=folder / "out.mp4",
            prompt="green hills",
            seconds=1.2,
            seed=11,
            num_inference_steps=1,
            guidance_scale=1,
        )
    )
    redone = folder / "redone"
    redone.mkdir()
    run = copy_run(folder, redone).root
    redo(RedoRequest(run=run, clip=1, new_prompt="hills in snow"))
    return folder


def copy_run(made: Path, to: Path) -> RunFolder:
    shutil.copytree(made / "out.longvie", to / "out.longvie")
    shutil.copy2(made / "out.mp4", to / "out.mp4")
    return RunFolder(to / "out.longvie")


def wait_until(done: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not done():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_redo_keeps_the_clips_before_and_records_what_is_new(made: Path, longvie, tmp_path) -> None:
    before, after = RunFolder(made / "out.longvie"), RunFolder(made / "redone" / "out.longvie")
    for path in (before.clip_video(0), before.clip_record(0), before.tail(0)):
        same = after.root / path.relative_to(before.root)
        assert same.read_bytes() == path.read_bytes()
        assert same.stat().st_mtime_ns == path.stat().st_mtime_ns
    for index in (1, 2):
        assert after.clip_video(index).read_bytes() != before.clip_video(index).read_bytes()
        record = read_record(after.clip_record(index))
        assert (record.prompt, record.seed, record.revision) == ("hills in snow", 11, 1)
    assert (made / "out.mp4").read_bytes() != (made / "redone" / "out.mp4").read_bytes()

    # The command that began the run is told what it is now, and how to go on with it.
    folder = copy_run(made / "redone", tmp_path)
    untouched = contents(tmp_path)
    outcome = longvie(*COMMAND, "-o", "out.mp4")
    assert outcome.code == 4
    assert 'prompts ["green hills", "hills in snow", "hills in snow"]' in outcome.err
    assert "Clips 1 to 2 would be others." in outcome.err
    assert "longvie resume out.longvie" in outcome.err
    finished = longvie("resume", "out.mp4", "--json")
    assert (finished.code, finished.fields["frames"]) == (0, 19)
    assert contents(tmp_path) == untouched
    assert [redo.clip for redo in read_manifest(folder.run_json).redos] == [1]


def test_redo_refuses_what_it_cannot_keep(made: Path, longvie, tmp_path: Path) -> None:
    folder = copy_run(made, tmp_path)
    assert longvie("redo", "out.longvie", "--clip", "3").code == 2
    assert longvie("redo", "nothing.mp4", "--clip", "0").code == 5
    data = folder.tail(0).read_bytes()
    folder.tail(0).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    before = contents(tmp_path)
    outcome = longvie("redo", "out.longvie", "--clip", "1")
    assert outcome.code == 4
    assert "clip 0 cannot be kept: tails/0000.safetensors is not what was written" in outcome.err
    assert contents(tmp_path) == before


@pytest.mark.parametrize("harm", ["video", "record"])
def test_only_the_damaged_clip_is_made_again(
    made: Path, longvie, tmp_path: Path, harm: str
) -> None:
    folder = copy_run(made, tmp_path)
    folder.delivery.unlink()
    (tmp_path / "out.mp4").unlink()
    path = {"video": folder.clip_video, "record": folder.clip_record}[harm](1)
    data = path.read_bytes()
    middle = len(data) // 2
    torn = data[:middle] if harm == "record" else None
    path.write_bytes(torn or data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :])
    others = {i: folder.clip_video(i).stat().st_mtime_ns for i in (0, 2)}

    seen = longvie("status", "out.longvie", "--json").fields
    assert (seen["state"], seen["clips_done"]) == ("stopped", 2)
    assert [entry["clip"] for entry in seen["damaged"]] == [1]
    outcome = longvie("resume", "out.longvie")
    assert outcome.code == 0, outcome.err
    assert "warning: clip 1: " in outcome.err
    assert "it is made again" in outcome.err
    assert {i: folder.clip_video(i).stat().st_mtime_ns for i in (0, 2)} == others
    assert (tmp_path / "out.mp4").read_bytes() == (made / "out.mp4").read_bytes()


def test_from_clip_keeps_clips_and_takes_the_new_settings(
    made: Path, longvie, tmp_path: Path
) -> None:
    folder = copy_run(made, tmp_path)
    changed = (*COMMAND, "--track-strength", "0.5")
    refused = longvie(*changed, "-o", "out.mp4")
    assert refused.code == 4
    assert "track_strength 1.0, not 0.5" in refused.err
    assert "All clips would be others." in refused.err
    first = folder.clip_video(1).read_bytes()
    outcome = longvie(*changed, "--from-clip", "2", "-o", "out.mp4")
    assert outcome.code == 0, outcome.err
    assert folder.clip_video(1).read_bytes() == first
    assert read_record(folder.clip_record(2)).revision == 1
    stored = read_manifest(folder.run_json)
    assert stored.settings["track_strength"] == 0.5
    assert "this run is finished already" in longvie("resume", "out.longvie").err
    assert "this run is finished already" in longvie(*changed, "-o", "out.mp4").err

    fixed = longvie(*COMMAND, "--crf", "30", "--from-clip", "2", "-o", "out.mp4")
    assert fixed.code == 2
    assert "crf cannot change within a run" in fixed.err
    assert longvie(*COMMAND, "--from-clip", "1", "-o", "other.mp4").code == 2


@pytest.mark.slow
def test_resume_names_a_source_that_moved_or_changed(
    longvie, tmp_path: Path, reference_video: Path
) -> None:
    shutil.copy2(reference_video, tmp_path / "ref.mp4")
    command = ("generate", "--video", "ref.mp4", "-p", "dunes", "--seconds", "0.5", *QUICK)
    assert longvie(*command, "-o", "out.mp4").code == 0
    folder = RunFolder(tmp_path / "out.longvie")
    folder.delivery.unlink()
    (tmp_path / "out.mp4").rename(tmp_path / "first.mp4")
    (tmp_path / "ref.mp4").rename(tmp_path / "gone.mp4")
    gone = longvie("resume", "out.longvie")
    assert gone.code == 5
    assert f"{tmp_path / 'ref.mp4'}: --video of this run is not there any more" in gone.err
    assert "longvie resume out.longvie" in gone.err
    with open(tmp_path / "gone.mp4", "ab") as file:
        file.write(b"\0\0\0\x08free")
    (tmp_path / "gone.mp4").rename(tmp_path / "ref.mp4")
    changed = longvie("resume", "out.longvie")
    assert changed.code == 4
    assert f"{tmp_path / 'ref.mp4'} (--video)" in changed.err
    shutil.copy2(reference_video, tmp_path / "ref.mp4")
    # From another folder, with nothing but the run.
    os.chdir("/")
    outcome = longvie("resume", tmp_path / "out.longvie")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "first.mp4").read_bytes()


@pytest.mark.slow
def test_an_extended_run_is_redone_and_resumed(made: Path, longvie, tmp_path: Path) -> None:
    copy_run(made, tmp_path)
    assert longvie("extend", "out.mp4", "--clips", "1", *QUICK, "-o", "longer.mp4").code == 0
    first = (tmp_path / "longer.mp4").read_bytes()
    outcome = longvie("redo", "longer.mp4", "--clip", "0", "--seed", "12", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.fields["frames"] == 19 + 8
    record = read_record(RunFolder(tmp_path / "longer.longvie").clip_record(0))
    assert (record.seed, record.revision) == (12, 1)
    second = (tmp_path / "longer.mp4").read_bytes()
    assert second != first
    (tmp_path / "longer.mp4").unlink()
    assert longvie("resume", "longer.longvie").code == 0
    assert (tmp_path / "longer.mp4").read_bytes() == second


@pytest.mark.slow
def test_status_is_read_while_a_run_goes_on(start_longvie: Start, longvie, tmp_path: Path) -> None:
    process = start_longvie(*SLOW, "--live", "live.mp4", "-o", "out.mp4")
    folder = RunFolder(tmp_path / "out.longvie")
    wait_until(folder.clip_record(0).is_file, process)
    wait_until((tmp_path / "live.mp4").is_file, process)
    before = contents(folder.clips_dir)
    outcome = longvie("status", "out.longvie", "--json")
    fields = outcome.fields
    assert outcome.code == 0, outcome.err
    assert (fields["state"], fields["holder"]) == ("running", process.pid)
    assert fields["clips_total"] == 3
    assert 1 <= fields["clips_done"] < 3
    assert fields["left_seconds"] > 0
    assert fields["clips"][0]["prompt"] == "green hills"
    assert before.items() <= contents(folder.clips_dir).items()
    process.send_signal(signal.SIGKILL)
    process.communicate()

    stopped = longvie("status", "out.longvie")
    assert "stopped, " in stopped.out
    assert "to go on: longvie resume out.longvie" in stopped.out
    from longvie_cli.media.packets import read_packets

    assert len(read_packets(tmp_path / "live.mp4").timestamps) == 9


def test_status_loads_no_torch_and_watch_ends_with_the_run(made: Path, tmp_path: Path) -> None:
    copy_run(made, tmp_path)
    code = (
        "import json, sys\n"
        "from longvie_cli.cli.app import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print([m for m in ('torch', 'cv2', 'diffusers') if m in sys.modules], "
        "file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", code, "status", "out.longvie", "--watch", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    fields = json.loads(done.stdout)
    assert (fields["schema_version"], fields["state"]) == (1, "finished")
    assert [clip["frames"] for clip in fields["clips"]] == [9, 8, 2]


@pytest.mark.slow
def test_a_clip_that_looks_wrong_is_made_again(longvie, tmp_path: Path, monkeypatch) -> None:
    from longvie_cli.running import clip_loop

    verdicts = iter([("flat: so", "frozen: so"), ("flat: so",), ("flat: so",), ()])
    monkeypatch.setattr(clip_loop, "check_clip", lambda *_, **__: next(verdicts))
    command = ("generate", "-p", "hills", "--seconds", "0.4", "--seed", "3", *QUICK, "--json")
    kept = longvie(*command, "--retries", "2", "-o", "out.mp4")
    record = read_record(RunFolder(tmp_path / "out.longvie").clip_record(0))
    assert (record.seed, record.attempts, record.warnings) == (1_000_006, 3, ("flat: so",))
    assert kept.fields["warnings"] == ["clip 0: flat: so."]
    assert longvie("status", "out.mp4", "--json").fields["clips"][0]["warnings"] == ["flat: so"]
    # A run without retries asks once.
    assert longvie(*command, "-o", "other.mp4").code == 0
    assert read_record(RunFolder(tmp_path / "other.longvie").clip_record(0)).attempts == 1
