"""`longvie generate` end to end on the embedded preset, with as few steps as it takes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from delivered import QUICK, contents, frames_of
from longvie_cli.media.ffmpeg import ffmpeg_executable
from longvie_cli.media.image import read_image
from longvie_cli.media.metadata import read_settings
from longvie_cli.media.packets import read_packets
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.tails import load_tail
from longvie_cli.running import clip_loop
from small_image_model import save_depth_controlnet
from small_preset import SMALL


def test_a_video_becomes_a_video_of_its_length(
    longvie, tmp_path: Path, reference_video: Path
) -> None:
    outcome = longvie(
        "generate", "--video", reference_video, "-p", "dunes", *QUICK, "-o", "out.mp4"
    )
    assert (outcome.code, outcome.out) == (0, "out.mp4\n"), outcome.err
    assert "24 fps is resampled to 16 fps" in outcome.err
    packets = read_packets(tmp_path / "out.mp4")
    assert len(packets.timestamps) == 16
    assert packets.is_constant(16)
    assert (packets.height, packets.width) == (SMALL.height, SMALL.width)
    clips = [tmp_path / "out.longvie" / "clips" / f"000{index}.mp4" for index in range(2)]
    assert [len(frames_of(clip)) for clip in clips] == [9, 7]
    assert np.array_equal(frames_of(tmp_path / "out.mp4"), np.concatenate([*map(frames_of, clips)]))
    tail = load_tail(RunFolder(tmp_path / "out.longvie").tail(1))
    assert tail.shape == (SMALL.history_frames, SMALL.height, SMALL.width, 3)


@pytest.mark.slow
def test_the_settings_travel_with_the_file_but_no_path_does(
    longvie, tmp_path: Path, reference_video: Path
) -> None:
    arguments = ("--video", reference_video, "-p", "dunes", "--seconds", "0.5", "--seed", "7")
    longvie("generate", *arguments, *QUICK, "-o", "out.mp4")
    settings = read_settings(tmp_path / "out.mp4")
    assert settings is not None
    assert settings["settings"]["seed"] == 7
    assert settings["settings"]["prompt"] == "dunes"
    assert settings["settings"]["video"] == "reference.mp4"
    assert settings["frames"] == 8
    text = json.dumps(settings)
    assert str(reference_video.parent) not in text
    assert str(tmp_path) not in text


@pytest.mark.slow
def test_no_settings_are_written_when_not_wanted(longvie, tmp_path: Path) -> None:
    longvie("generate", "--seconds", "0.4", *QUICK, "--no-embed-metadata", "-o", "out.mp4")
    assert read_settings(tmp_path / "out.mp4") is None


@pytest.mark.slow
def test_json_is_one_object(longvie, tmp_path: Path) -> None:
    flight = ("generate", "-p", "green hills", "--clips", "1", "--seed", "5")
    outcome = longvie(*flight, *QUICK, "--json", "-o", "out.mp4")
    assert outcome.code == 0, outcome.err
    assert outcome.fields == {
        "schema_version": 1,
        "status": "done",
        "output": "out.mp4",
        "run_dir": "out.longvie",
        "frames": SMALL.num_frames,
        "seconds": SMALL.num_frames / 16,
        "seed": 5,
        "warnings": [],
    }


def test_a_flight_without_a_length_lasts_ten_seconds_and_says_so(longvie, tmp_path: Path) -> None:
    outcome = longvie("generate", "-p", "green hills", "--dry-run", "--json", "-o", "out.mp4")
    assert outcome.fields["seconds"] == 10
    assert "the flight lasts 10 s" in outcome.err
    assert outcome.fields["plan"]["first_frame"] == "from the prompt"


def test_a_flight_without_a_prompt_uses_its_captions_and_its_own_look(
    longvie, tmp_path: Path
) -> None:
    outcome = longvie("generate", "--clips", "2", "--dry-run", "--json", "-o", "out.mp4")
    plan = outcome.fields["plan"]
    assert plan["first_frame"] == "of the flight"
    assert all(len(clip["prompt"]) > 20 for clip in plan["clips"])


def test_a_dry_run_writes_nothing(longvie, tmp_path: Path, reference_video: Path) -> None:
    outcome = longvie(
        "generate",
        "--video",
        reference_video,
        "-p",
        "dunes",
        "--dry-run",
        "--json",
        "-o",
        "out.mp4",
    )
    assert outcome.code == 0, outcome.err
    assert contents(tmp_path) == {}
    fields = outcome.fields
    assert (fields["status"], fields["frames"]) == ("planned", 16)
    assert [clip["frames"] for clip in fields["plan"]["clips"]] == [9, 7]
    assert any("resampled to 16 fps" in line for line in fields["plan"]["inputs"])
    assert 0 < fields["plan"]["disk_bytes"] < fields["plan"]["disk_free_bytes"]


@pytest.mark.slow
def test_a_dry_run_says_how_long_this_machine_will_take(longvie, tmp_path: Path) -> None:
    def planned(*more: str) -> dict[str, object]:
        flags = ("generate", "-p", "dunes", "--guidance", "1", "--dry-run", "--json")
        fields = longvie(*flags, "-o", "plan.mp4", *more).fields
        return fields["plan"]

    assert planned("--clips", "3")["expected_seconds"] is None
    made = longvie(
        *("generate", "-p", "dunes", "--guidance", "1", "-o", "made.mp4"),
        *("--clips", "1", "--steps", "2"),
    )
    assert made.code == 0, made.err
    run = Path(made.out.strip()).with_suffix(".longvie")
    took = json.loads((tmp_path / run / "clips" / "0000.json").read_text("utf-8"))["seconds"]
    same = planned("--clips", "3", "--steps", "2")
    # Rounded to a tenth.
    assert same["expected_seconds"] == pytest.approx(3 * took, abs=0.06)

    def of_steps(*flags: str) -> float:
        return planned("--clips", "100", *flags)["expected_seconds"]

    # Each further pass adds the same, and guidance makes two passes of a step.
    two, four, six = (of_steps("--steps", number) for number in ("2", "4", "6"))
    assert two < four
    assert six - four == pytest.approx(four - two, abs=0.2)
    assert of_steps("--steps", "2", "--guidance", "3") == pytest.approx(four, abs=0.2)
    assert (
        planned("--clips", "3", "--steps", "2", "--dtype", "bfloat16")["expected_seconds"] is None
    )


def test_an_output_that_cannot_be_written_is_said_before_the_work(longvie, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    flags = ("generate", "-p", "dunes", "--clips", "1", "-o", "file/out.mp4", "--run-dir", "run")
    outcome = longvie(*flags)
    assert outcome.code == 4, outcome.err
    assert "file: nothing can be written here" in outcome.err
    assert not (tmp_path / "run").exists()
    assert "will not start" in longvie(*flags, "--dry-run").err


def test_prompts_over_time_reach_their_clips(longvie, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("[0s-0.5s] hills\n[0.5s-end] hills in snow\n")
    outcome = longvie(
        *("generate", "--prompt-file", "prompts.txt", "--clips", "2"),
        *("--dry-run", "--json", "-o", "out.mp4"),
    )
    assert [clip["prompt"] for clip in outcome.fields["plan"]["clips"]] == [
        "hills",
        "hills in snow",
    ]


@pytest.mark.slow
def test_the_first_frame_can_come_from_image_source_or_prompt(
    longvie, tmp_path: Path, reference_video: Path
) -> None:
    picture = np.zeros((SMALL.height, SMALL.width, 3), np.uint8)
    picture[:, : SMALL.width // 2] = (200, 40, 40)
    Image.fromarray(picture).save(tmp_path / "first.png")
    common = ("generate", "--video", reference_video, "-p", "dunes", "--seconds", "0.4", *QUICK)
    starts = {
        "image": ("--image", "first.png"),
        "video": ("--first-frame", "video"),
        "prompt": ("--first-frame", "prompt"),
    }
    firsts = {}
    for name, flags in starts.items():
        outcome = longvie(*common, *flags, "-o", f"{name}.mp4")
        assert outcome.code == 0, outcome.err
        firsts[name] = frames_of(tmp_path / f"{name}.mp4")[0].astype(int)
    for one, other in (("image", "video"), ("video", "prompt"), ("image", "prompt")):
        assert np.abs(firsts[one] - firsts[other]).mean() > 1
    made = RunFolder(tmp_path / "prompt.longvie").first_picture
    size = {"height": SMALL.height, "width": SMALL.width}
    assert read_image(made, **size, fit="native").shape == picture.shape
    assert not RunFolder(tmp_path / "video.longvie").first_picture.exists()


@pytest.mark.slow
def test_the_first_frame_can_come_from_an_image_model(
    longvie, tmp_path: Path, reference_video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_depth_controlnet(tmp_path / "image-model")
    loaded_after: list[bool] = []

    def load_generator(making: Any) -> Any:
        loaded_after.append(making.job.folder.first_picture.is_file())
        return load(making)

    load = clip_loop._load_generator
    monkeypatch.setattr(clip_loop, "_load_generator", load_generator)
    common = ("generate", "--video", reference_video, "-p", "snow", "--seconds", "0.4", *QUICK)
    chosen = ("--first-frame", "prompt", "--first-frame-model", model)
    outcome = longvie(*common, *chosen, "-o", "out.mp4")
    assert outcome.code == 0, outcome.err
    # The two models are never in memory together, and neither draws bars of its own.
    assert loaded_after == [True]
    assert "%|" not in outcome.err
    settings = read_settings(tmp_path / "out.mp4")
    assert settings is not None
    assert settings["settings"]["first_frame"].startswith("from the prompt by image-model ")
    picture = read_image(
        RunFolder(tmp_path / "out.longvie").first_picture,
        height=SMALL.height,
        width=SMALL.width,
        fit="native",
    )
    # An untrained image model paints noise; the video model's own first frames are smooth.
    assert np.abs(np.diff(picture.astype(int), axis=1)).mean() > 10

    # Its tokenizer knows letters only, and reads 77 of them.
    long = ("-p", " ".join(["snow"] * 70 + ["peaks"] * 9), "--dry-run", "--json")
    said = longvie(*common, *chosen, *long, "-o", "long.mp4").fields["warnings"]
    assert any(line.startswith("--first-frame-model image-model: the prompt has") for line in said)
    assert not any("image-model" in line for line in outcome.err.splitlines())

    missing = longvie(*common, *chosen[:3], tmp_path / "nothing", "-o", "other.mp4")
    assert missing.code == 3
    assert "no pipeline in diffusers layout" in missing.err
    refused = longvie(
        *common[:-2], "--preset", "longvie2", "--first-frame", "prompt", "--dry-run", "-o", "x.mp4"
    )
    assert refused.code == 2
    assert "longvie2 continues pictures and makes none" in refused.err


@pytest.mark.slow
def test_a_source_too_short_is_played_back_and_forth(
    longvie, tmp_path: Path, reference_video: Path
) -> None:
    common = ("generate", "--video", reference_video, "-p", "dunes", "--seconds", "1.25", *QUICK)
    assert longvie(*common, "-o", "out.mp4").code == 2
    outcome = longvie(*common, "--repeat", "pingpong", "-o", "out.mp4")
    assert outcome.code == 0, outcome.err
    assert len(frames_of(tmp_path / "out.mp4")) == 20


def test_controls_are_extracted_once_and_used_again(
    longvie, tmp_path: Path, reference_video: Path
) -> None:
    outcome = longvie("extract-controls", reference_video, "-p", "dunes", "-o", "controls")
    assert (outcome.code, outcome.out) == (0, "controls\n"), outcome.err
    conditions = json.loads((tmp_path / "controls" / "cond.json").read_text())
    assert [entry["text"] for entry in conditions] == ["dunes", "dunes"]
    before = contents(tmp_path / "controls")
    again = longvie("extract-controls", reference_video, "-p", "dunes", "-o", "controls", "--json")
    assert (again.code, again.fields["frames"]) == (0, 16)
    assert contents(tmp_path / "controls") == before

    longvie("generate", "--controls", "controls", *QUICK, "-o", "from_controls.mp4")
    longvie("generate", "--video", reference_video, "-p", "dunes", *QUICK, "-o", "from_video.mp4")
    assert np.array_equal(
        frames_of(tmp_path / "from_controls.mp4"), frames_of(tmp_path / "from_video.mp4")
    )


@pytest.mark.slow
def test_strengths_and_seed_and_prompt_each_change_the_video(
    longvie, tmp_path: Path, reference_video: Path
) -> None:
    common = ("generate", "--video", reference_video, "--seconds", "0.4", "--steps", "1")
    runs = {
        "plain": ("-p", "dunes"),
        "seed": ("-p", "dunes", "--seed", "1"),
        "prompt": ("-p", "snow"),
        # These two need a trained model: before training the branches add nothing.
        "depth": ("-p", "dunes", "--depth-strength", "0"),
        "tracks": ("-p", "dunes", "--track-strength", "0"),
    }
    frames = {}
    for name, flags in runs.items():
        assert longvie(*common, *flags, "-o", f"{name}.mp4").code == 0
        frames[name] = load_tail(RunFolder(tmp_path / f"{name}.longvie").tail(0)).tobytes()
    assert len(set(frames.values())) == len(runs)


@pytest.mark.slow
def test_a_finished_run_returns_at_once_and_touches_nothing(longvie, tmp_path: Path) -> None:
    command = ("generate", "--seconds", "0.4", *QUICK, "-o", "out.mp4")
    longvie(*command)
    before = contents(tmp_path)
    outcome = longvie(*command)
    assert (outcome.code, outcome.out) == (0, "out.mp4\n")
    assert "finished already" in outcome.err
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_another_request_on_the_same_run_names_what_differs(longvie, tmp_path: Path) -> None:
    longvie("generate", "--seconds", "0.4", "--seed", "7", *QUICK, "-o", "out.mp4")
    before = contents(tmp_path)
    command = ("generate", "--seconds", "0.4", "--seed", "8", *QUICK, "-o", "out.mp4")
    outcome = longvie(*command)
    assert outcome.code == 4
    assert "seed 7, not 8" in outcome.err
    assert contents(tmp_path) == before
    outcome = longvie(*command, "--overwrite")
    assert outcome.code == 0, outcome.err
    settings = read_settings(tmp_path / "out.mp4")
    assert settings is not None
    assert settings["settings"]["seed"] == 8


def test_a_lost_output_is_joined_again_from_its_clips(longvie, tmp_path: Path) -> None:
    command = ("generate", "--seconds", "0.4", *QUICK, "-o", "out.mp4")
    longvie(*command)
    made = (tmp_path / "out.mp4").read_bytes()
    (tmp_path / "out.mp4").unlink()
    outcome = longvie(*command)
    assert outcome.code == 0
    assert "clips 1/1" not in outcome.err
    assert (tmp_path / "out.mp4").read_bytes() == made


def test_sound_of_the_source_needs_a_source_with_sound(
    longvie, tmp_path: Path, reference_video: Path
) -> None:
    outcome = longvie(
        "generate", "--video", reference_video, "-p", "x", "--audio", "source", "-o", "out.mp4"
    )
    assert outcome.code == 2
    assert "reference.mp4 has no sound" in outcome.err


@pytest.mark.parametrize(
    ("height", "width", "fps"),
    [
        pytest.param(90, 161, "16", marks=pytest.mark.slow),
        (160, 90, "60000/1001"),
        pytest.param(50, 50, "10", marks=pytest.mark.slow),
    ],
    ids=["odd", "portrait 59.94", "square"],
)
def test_any_shape_and_rate_is_taken(
    longvie, tmp_path: Path, height: int, width: int, fps: str
) -> None:
    path = tmp_path / "odd.mov"
    pattern = f"testsrc=size={width}x{height}:rate={fps}:duration=1"
    encoding = ("-c:v", "ffv1", "-f", "matroska", str(path))
    command = [ffmpeg_executable(), "-v", "error", "-f", "lavfi", "-i", pattern, *encoding]
    subprocess.run(command, check=True)
    outcome = longvie("generate", "--video", path, "-p", "x", *QUICK, "-o", "out.mp4")
    assert outcome.code == 0, outcome.err
    assert f"odd.mov: {width}x{height} is resized to {SMALL.width}x{SMALL.height}" in outcome.err
    assert len(frames_of(tmp_path / "out.mp4")) == 16
