"""`longvie evaluate`: any video, ours with its clips and controls; what cannot be read is said."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delivered import QUICK, frames_of
from longvie_cli.errors import MediaError
from longvie_cli.media.writer import VideoWriter
from made_frames import sliding, write
from sounds import run_ffmpeg

VBENCH = {
    *("aesthetic_quality", "imaging_quality", "dynamic_degree"),
    *("subject_consistency", "background_consistency"),
}


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, float):
        yield value


@pytest.fixture(scope="module")
def made_once(small_preset: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of ours: four clips of nine frames that share one, its run folder beside it."""
    from longvie_cli.settings.requests import GenerateRequest
    from longvie_cli.workflows.generate import generate

    output = tmp_path_factory.mktemp("made") / "ours.mp4"
    generate(
        GenerateRequest.model_validate(
            {"prompt": "hills", "seconds": 2, "steps": 1, "guidance": 1, "output": output}
        )
    )
    return output


@pytest.fixture
def ours(made_once: Path, tmp_path: Path) -> Path:
    """A copy of it in the test's folder."""
    shutil.copytree(made_once.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / "ours.mp4"


def test_a_file_of_ours_is_read_with_its_clips_and_controls(longvie, ours: Path) -> None:
    outcome = longvie("evaluate", "ours.mp4", "--json")
    assert outcome.code == 0, outcome.err
    fields = outcome.fields
    assert (fields["schema_version"], fields["status"]) == (1, "done")
    assert (fields["video"], fields["frames"], fields["seconds"]) == ("ours.mp4", 32, 2.0)
    assert [clip["first_frame"] for clip in fields["clips"]] == [0, 9, 17, 25]
    assert [clip["prompt"] for clip in fields["clips"]] == ["hills"] * 4
    metrics = fields["metrics"]
    assert [seam["frame"] for seam in metrics["seams"]] == [9, 17, 25]
    assert set(metrics["drift"]) >= {
        *("luma", "contrast", "saturation", "sharpness", "noise", "color"),
    }
    for drift in metrics["drift"].values():
        assert {"start", "end", "change", "slope_per_minute"} <= set(drift)
    assert set(metrics["motion"]) >= {"mean", "last_over_first", "freezes"}
    assert {"depth_l1", "depth_correlation"} <= set(metrics["control"])
    assert 0 <= metrics["control"]["depth_l1"] <= 1
    assert metrics["consistency"]["gaps"][0]["similarity"] <= 1
    # Of an untrained model's noise no point can be followed.
    assert set(fields["skipped"]) == {"reference", "control.track_error", *VBENCH}
    assert all(math.isfinite(number) for number in _numbers(fields))
    depth = fields["methods"]["control.depth"]
    assert depth["model"].startswith("depth_anything-") and depth["frames"] == 32


def test_without_its_folder_its_tag_says_where_clips_begin(longvie, ours: Path) -> None:
    (ours.parent / "elsewhere").mkdir()
    moved = ours.rename(ours.parent / "elsewhere" / "moved.mp4")
    found = longvie("evaluate", moved, "--json").fields
    assert [seam["frame"] for seam in found["metrics"]["seams"]] == [9, 17, 25]
    assert "--run RUN" in found["skipped"]["control"]
    named = longvie("evaluate", moved, "--run", "ours.longvie", "--json").fields
    assert "control" in named["metrics"] and "control" not in named["skipped"]


def test_what_another_program_did_to_it_is_measured_at_its_clips(longvie, ours: Path) -> None:
    frames = frames_of(ours).astype(np.int16)
    frames[17:] += 40
    frames = np.concatenate([frames, np.repeat(frames[-1:], 10, axis=0)])
    write(ours, frames.clip(0, 255).astype(np.uint8))
    found = longvie("evaluate", "ours.mp4", "--json").fields
    seams = {seam["frame"]: seam["score"] for seam in found["metrics"]["seams"]}
    assert max(seams, key=seams.__getitem__) == 17
    assert any("10 frames more than the run ours.longvie made (32)" in w for w in found["warnings"])
    (freeze,) = found["metrics"]["motion"]["freezes"]
    assert freeze == {"first_frame": 31, "frames": 11, "start": pytest.approx(31 / 16, abs=1e-4)}


def test_a_run_that_is_not_finished_is_measured_so_far(longvie, ours: Path) -> None:
    folder = ours.with_suffix(".longvie")
    ours.unlink()
    (folder / "delivery.json").unlink()
    (folder / "clips" / "0002.json").unlink()
    for named in ("ours.longvie", "ours.mp4"):
        found = longvie("evaluate", named, "--json").fields
        assert found["frames"] == 17
        assert [seam["frame"] for seam in found["metrics"]["seams"]] == [9]
        assert "depth_correlation" in found["metrics"]["control"]
        assert any("2 of 4 clips are finished" in warning for warning in found["warnings"])
    (folder / "clips" / "0000.json").unlink()
    nothing = longvie("evaluate", "ours.longvie", "--json")
    assert nothing.code == 5
    assert "no clip of this run is finished" in nothing.fields["error"]["message"]


@pytest.mark.slow
def test_an_extended_video_has_the_clips_of_its_run_after_what_was_there(
    longvie, ours: Path
) -> None:
    made = longvie("extend", "ours.mp4", "--seconds", "1", *QUICK, "-o", "more.mp4")
    assert made.code == 0, made.err
    found = longvie("evaluate", "more.mp4", "--json").fields
    assert [(clip["index"], clip["first_frame"]) for clip in found["clips"]] == [
        *((-1, 0), (0, 32), (1, 40)),
    ]
    assert [seam["frame"] for seam in found["metrics"]["seams"]] == [32, 40]
    assert found["methods"]["control.depth"]["frames"] == 17, "the last frame there and 16 more"


def test_controls_the_other_way_round_are_told(longvie, tmp_path: Path, reference_video) -> None:
    assert longvie("extract-controls", reference_video, "-o", "controls").code == 0
    right = longvie("evaluate", reference_video, "--controls", "controls", "--json").fields
    assert right["metrics"]["control"]["depth_correlation"] > 0.9
    assert right["metrics"]["control"]["depth_l1"] < 0.08
    assert right["metrics"]["control"]["depth_reliable"] is False
    assert right["metrics"]["control"]["track_error"] < 2.5
    assert any("knows landscapes only" in warning for warning in right["warnings"])
    (tmp_path / "swapped").mkdir()
    shutil.copy(tmp_path / "controls" / "cond.json", tmp_path / "swapped")
    for path in (tmp_path / "controls").glob("*.mp4"):
        turned = ("-vf", "negate") if path.name.startswith("depth") else ()
        run_ffmpeg("-i", path, *turned, "-crf", "4", tmp_path / "swapped" / path.name)
    swapped = longvie("evaluate", reference_video, "--controls", "swapped", "--json").fields
    assert swapped["metrics"]["control"]["depth_correlation"] < -0.9
    assert swapped["metrics"]["control"]["depth_l1"] > 2 * right["metrics"]["control"]["depth_l1"]


def test_a_foreign_video_is_one_clip(longvie, tmp_path: Path) -> None:
    write(tmp_path / "any.mp4", sliding(40))
    outcome = longvie("evaluate", "any.mp4", "--json")
    assert outcome.code == 0
    found = outcome.fields
    assert [(clip["first_frame"], clip["frames"]) for clip in found["clips"]] == [(0, 40)]
    assert "seams" not in found["metrics"] and "--run RUN" in found["skipped"]["seams"]
    shown = longvie("evaluate", "any.mp4")
    assert "luma" in shown.out and "Not measured:" in shown.out


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("odd.mkv", ("-vf", "scale=101:57", "-c:v", "ffv1", "-pix_fmt", "bgr0")),
        ("alpha.webm", ("-vf", "format=yuva420p", "-c:v", "libvpx-vp9", "-cpu-used", "8")),
        pytest.param(*("slow.gif", ("-r", "7")), marks=pytest.mark.slow),
        pytest.param(*("wide.mp4", ("-vf", "setsar=2/1")), marks=pytest.mark.slow),
        ("tiny.mp4", ("-vf", "scale=18:10", "-pix_fmt", "yuv444p")),
        ("field.mp4", ("-vf", "scale=96:64,interlace", "-flags", "+ilme+ildct")),
    ],
)
def test_whatever_ffmpeg_reads_is_measured(
    longvie, tmp_path: Path, name: str, options: tuple[str, ...]
) -> None:
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x64:r=16:d=1.5", *options, tmp_path / name)
    outcome = longvie("evaluate", name, "--reference", name, "--json")
    assert outcome.code == 0, outcome.err
    found = outcome.fields
    assert found["metrics"]["drift"]["luma"]["start"] > 20
    assert found["metrics"]["reference"]["identical"] is True
    assert all(math.isfinite(number) for number in _numbers(found))


def test_a_late_copy_is_compared_as_it_is_and_the_offset_is_said(longvie, tmp_path: Path) -> None:
    frames = sliding(40, height=112, width=192)
    write(tmp_path / "right.mp4", frames)
    write(tmp_path / "late.mp4", np.concatenate([frames[:1], frames[:39]]))
    write(tmp_path / "short.mp4", frames[:30])
    outcome = longvie(
        *("evaluate", "late.mp4", "--compare", "short.mp4"), "--reference", "right.mp4", "--json"
    )
    assert outcome.code == 0, outcome.err
    found = outcome.fields
    (short,) = found["compared"]
    assert found["metrics"]["reference"]["psnr"] < short["metrics"]["reference"]["psnr"] - 5
    assert any("1 frame earlier" in w and "is late" in w for w in found["warnings"])
    assert any("first 1.88 s (30 frames)" in w for w in found["warnings"])
    table = longvie("evaluate", "late.mp4", "--compare", "short.mp4").out
    assert "late.mp4 (40 frames" in table and "short.mp4 (30 frames" in table


def test_what_cannot_be_read_is_told_and_the_rest_is_measured(longvie, tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", sliding(20))
    run_ffmpeg("-f", "lavfi", "-i", "sine=d=1", tmp_path / "sound.wav")
    sound = longvie("evaluate", "sound.wav", "--json")
    assert (sound.code, sound.fields["error"]["code"]) == (5, 5)
    against = longvie("evaluate", "a.mp4", "--reference", "sound.wav", "--json")
    assert (against.code, against.fields["status"]) == (5, "incomplete")
    assert "sound, not a video" in against.fields["error"]["message"]
    assert "drift" in against.fields["metrics"]
    assert "sound, not a video" in against.fields["skipped"]["reference"]
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "cond.json").write_text(json.dumps([{"text": "", "depth": "no.mp4"}]))
    controls = longvie("evaluate", "a.mp4", "--controls", "broken", "--json")
    assert controls.code == 5 and 'it has no "track"' in controls.fields["skipped"]["control"]
    assert "motion" in controls.fields["metrics"]


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("no.mp4",), 5, "no.mp4: there is no such file"),
        (("a.mp4", "--reference", "no.mp4"), 5, "no.mp4: there is no such file"),
        (("a.mp4", "--controls", "no"), 5, "--controls no: there is no such file or folder"),
        (("a.mp4", "--run", "no"), 5, "no: there is no run here"),
        (("a.mp4", "--compare", "no.mp4"), 5, "no.mp4: there is no such file"),
        ((), 2, "VIDEO"),
    ],
)
def test_a_slip_costs_no_time(
    longvie, tmp_path: Path, flags: tuple[str, ...], code: int, words: str
) -> None:
    write(tmp_path / "a.mp4", sliding(10))
    outcome = longvie("evaluate", *flags)
    assert outcome.code == code
    assert words in outcome.err and "frames:" not in outcome.err


def test_a_damaged_run_beside_it_does_not_hinder(longvie, tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", sliding(10))
    (tmp_path / "a.longvie").mkdir()
    (tmp_path / "a.longvie" / "run.json").write_text("{")
    outcome = longvie("evaluate", "a.mp4", "--json")
    assert outcome.code == 0
    assert any("The run of a.mp4 is not used" in warning for warning in outcome.fields["warnings"])
    assert longvie("evaluate", "a.mp4", "--run", "a.longvie").code == 4


def test_one_frame_and_one_colour_are_videos_too(longvie, tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "flat.mp4", height=64, width=96, fps=16) as writer:
        for _ in range(20):
            writer.write(np.zeros((64, 96, 3), np.uint8))
    found = longvie("evaluate", "flat.mp4", "--reference", "flat.mp4", "--json").fields
    assert set(found["metrics"]["drift"]["luma"]) == {"start", "end", "slope_per_minute"}
    assert "last_over_first" not in found["metrics"]["motion"]
    assert {"drift.luma.change", "motion.last_over_first"} <= set(found["skipped"])
    assert [freeze["frames"] for freeze in found["metrics"]["motion"]["freezes"]] == [20]
    assert found["metrics"]["reference"]["psnr"] == 100
    assert "of one colour" in found["skipped"]["reference.vmaf"]
    assert all(math.isfinite(number) for number in _numbers(found))
    run_ffmpeg("-i", tmp_path / "flat.mp4", "-frames:v", "1", tmp_path / "one.mp4")
    one = longvie("evaluate", "one.mp4", "--json").fields
    assert {"drift", "motion", "consistency", "seams"} <= set(one["skipped"])


def test_no_place_is_said_that_nobody_named(longvie, ours: Path, tmp_path: Path) -> None:
    shutil.copytree(ours.with_suffix(".longvie") / "controls", tmp_path / "brought")
    made = longvie(
        *("generate", "--controls", "brought", "--prompt", "hills", *QUICK, "-o", "more.mp4")
    )
    assert made.code == 0, made.err
    for file in ("cond.json", "depth_0001.mp4"):
        (tmp_path / "brought" / file).write_bytes(b"")
        for named in ((), ("--controls", "brought"), ("--controls", "brought/cond.json")):
            outcome = longvie("evaluate", "more.mp4", *named, "--report", f"{file}.html", "--json")
            assert outcome.fields["skipped"]["control"].startswith("brought/"), outcome.out
            page = (tmp_path / f"{file}.html").read_text()
            assert all(str(tmp_path) not in text for text in (outcome.out, outcome.err, page))
            (tmp_path / f"{file}.html").unlink()
        shutil.copy(ours.with_suffix(".longvie") / "controls" / file, tmp_path / "brought")


def test_broken_tracks_do_not_hinder_the_depth(
    longvie, ours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: Any, **_kwargs: Any) -> None:
        raise MediaError("track_0000.mp4: gone.")

    monkeypatch.setattr("longvie_cli.evaluation.controllability.measure_tracks", broken)
    outcome = longvie("evaluate", "ours.mp4", "--json")
    assert (outcome.code, outcome.fields["status"]) == (5, "incomplete")
    assert "depth_correlation" in outcome.fields["metrics"]["control"]
    assert outcome.fields["skipped"]["control.track_error"] == "track_0000.mp4: gone."
    assert "control" not in outcome.fields["skipped"]


def test_pictures_too_small_for_ssim_are_shown_without_it(longvie, tmp_path: Path) -> None:
    write(tmp_path / "small.mp4", sliding(10, height=10, width=18))
    shown = longvie("evaluate", "small.mp4", "--reference", "small.mp4").out
    assert "PSNR" in shown and "identical" in shown
    assert "nan" not in shown and "reference.ssim: pictures of less than 11 pixels" in shown
