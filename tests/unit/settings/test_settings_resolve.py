"""Where settings come from, and how wrong ones are answered."""

from __future__ import annotations

import json
from pathlib import Path

import platformdirs
import pytest

from longvie_cli.errors import LongVieError, SettingsError, UsageError
from longvie_cli.settings.presets import FrameSize, load_preset, preset_folder, with_size
from longvie_cli.settings.requests import (
    ExtendRequest,
    ExtractControlsRequest,
    GenerateRequest,
    RedoRequest,
    StitchRequest,
)
from longvie_cli.settings.resolve import resolve
from longvie_cli.settings.sampling import Sampling
from longvie_cli.sources.choose import usual_fit


def generate_request(
    folder: Path,
    flags: dict[str, object] | None = None,
    *,
    environment: dict[str, str] | None = None,
    local: str | None = None,
    user: str | None = None,
    config: Path | None = None,
) -> GenerateRequest:
    if local is not None:
        (folder / "longvie.yaml").write_text(local)
    if user is not None:
        path = platformdirs.user_config_path("longvie") / "longvie.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(user)
    given = {"output": folder / "out.mp4", "prompt": "hills"} | (flags or {})
    request, _ = resolve(
        GenerateRequest, given, config=config, environment=environment or {}, working_folder=folder
    )
    return request


def test_the_preset_gives_what_nobody_set(tmp_path: Path) -> None:
    request = generate_request(tmp_path)
    preset = load_preset("tiny")
    sampling = Sampling.of(preset, **request.said())
    assert sampling.num_inference_steps == preset.num_inference_steps
    assert sampling.guidance_scale == preset.guidance_scale
    assert sampling.negative_prompt == preset.negative_prompt
    assert usual_fit(request, preset) == preset.fit


def test_each_place_gives_way_to_the_one_above_it(tmp_path: Path) -> None:
    places: dict[str, object] = {"user": "seed: 1", "local": "seed: 2"}
    assert generate_request(tmp_path, user="seed: 1").seed == 1
    assert generate_request(tmp_path, user="seed: 1", local="seed: 2").seed == 2
    variables = {"LONGVIE_SEED": "3"}
    assert generate_request(tmp_path, environment=variables, **places).seed == 3  # type: ignore[arg-type]
    assert generate_request(tmp_path, {"seed": 4}, environment=variables, **places).seed == 4  # type: ignore[arg-type]


def test_a_named_settings_file_stands_for_the_local_one(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("crf: 30")
    request = generate_request(tmp_path, local="seed: 2", config=other)
    assert (request.seed, request.crf) == (None, 30)


def test_a_length_flag_hides_every_length_beneath_it(tmp_path: Path) -> None:
    request = generate_request(tmp_path, {"minutes": 2.0}, local="seconds: 5")
    assert (request.minutes, request.seconds) == (2.0, None)


def test_a_section_is_for_its_command_alone(tmp_path: Path) -> None:
    text = "seed: 1\ngenerate:\n  seed: 5\nstitch:\n  audio: none\n"
    assert generate_request(tmp_path, local=text).seed == 5


def test_shared_settings_may_be_unknown_to_a_command(tmp_path: Path) -> None:
    (tmp_path / "longvie.yaml").write_text("seed: 1\n")
    request, _ = resolve(
        StitchRequest,
        {"output": "o.mp4", "inputs": ["a.mp4"]},
        config=None,
        environment={},
        working_folder=tmp_path,
    )
    assert request.inputs == (Path("a.mp4"),)


def test_paths_in_a_file_start_from_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    settings = folder / "job.yaml"
    settings.write_text("video: ref.mp4\naudio: song.mp3")
    request = generate_request(tmp_path, config=settings)
    assert request.video == folder / "ref.mp4"
    assert request.audio == str(folder / "song.mp3")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("sead: 3", "longvie.yaml: sead", "Did you mean 'seed'?"),
        ("negative-promt: x", "negative-promt", "Did you mean 'negative_prompt'?"),
        ("generate:\n  step: 4", "generate: step", "Did you mean 'steps'?"),
        ("stitch:\n  seed: 4", "stitch: seed", "Known are"),
        ("seed: many", "longvie.yaml: seed: 'many'", ""),
        ("crf: 99", "longvie.yaml: crf: 99", ""),
        ("minutes: 1\nseconds: 2", "pass only one of them", ""),
        ("preset: tiiny", "longvie.yaml: preset", "Did you mean 'tiny'?"),
        ("- a\n- b", "expected settings by name", ""),
        ("a: [", "cannot be read: not YAML, line 1", ""),
        ("generate: 3", "expected settings by name", ""),
    ],
)
def test_a_wrong_settings_file_says_where_and_what(
    tmp_path: Path, text: str, message: str, hint: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        generate_request(tmp_path, local=text)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == 5


def test_a_wrong_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="LONGVIE_STEPS: 'x'"):
        generate_request(tmp_path, environment={"LONGVIE_STEPS": "x"})


def test_a_misspelt_variable_is_pointed_out(tmp_path: Path) -> None:
    environment = {"LONGVIE_SEEED": "3", "LONGVIE_GOLDEN_DIR": "somewhere"}
    flags = {"output": "o.mp4", "inputs": ["a.mp4"]}
    _, warnings = resolve(
        StitchRequest, flags, config=None, environment=environment, working_folder=tmp_path
    )
    assert warnings == ("LONGVIE_SEEED is no setting of longvie; did you mean LONGVIE_SEED?",)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"minutes": 1.0, "seconds": 2.0}, "--minutes, --seconds: pass only one"),
        ({"video": "a.mp4", "controls": "c"}, "--video, --controls: pass only one"),
        ({"overwrite": True, "no_clobber": True}, "--overwrite, --no-clobber"),
        ({"image": "a.png", "first_frame": "prompt"}, "--image, --first-frame"),
        ({"seconds": 0.0}, "--seconds: 0.0"),
        ({"steps": 0}, "--steps: 0"),
        ({"seed": -1}, "--seed: -1"),
        ({"audio": "source"}, "--audio source"),
        ({"repeat": "pingpong"}, "--repeat"),
        ({"preset": "huge"}, "--preset"),
        ({"video": "a.mp4", "prompt": None}, "--prompt"),
    ],
)
def test_wrong_flags_are_usage_errors(
    tmp_path: Path, flags: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        generate_request(tmp_path, flags)
    assert message in caught.value.message
    assert caught.value.exit_code == 2


def test_a_missing_settings_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such file"):
        generate_request(tmp_path, config=tmp_path / "nowhere.yaml")


def test_extend_leaves_open_what_the_earlier_video_decides(tmp_path: Path) -> None:
    flags = {"output": "o.mp4", "previous": "p.mp4", "steps": 3}
    request, _ = resolve(ExtendRequest, flags, config=None, environment={}, working_folder=tmp_path)
    assert (request.num_inference_steps, request.guidance_scale, request.seed) == (3, None, None)


def test_every_error_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LongVieError) as caught:
        generate_request(tmp_path, local="seed: [1, 2]")
    assert "\n" not in caught.value.message


def test_loras_come_from_every_place(tmp_path: Path) -> None:
    def scales(request: GenerateRequest) -> list[tuple[str, float]]:
        return [(str(lora.path), lora.scale) for lora in request.lora]

    given = generate_request(tmp_path, {"lora": ["a.safetensors:0.5", "b:c.safetensors"]})
    assert scales(given) == [("a.safetensors", 0.5), ("b:c.safetensors", 1.0)]
    variable = {"LONGVIE_LORA": "a.safetensors:-1,b.safetensors"}
    assert scales(generate_request(tmp_path, environment=variable)) == [
        ("a.safetensors", -1.0),
        ("b.safetensors", 1.0),
    ]
    local = "lora: [styles/a.safetensors:0.5, {path: b.safetensors, scale: 2}]"
    # A flag that was not given is an empty list from the command line.
    assert scales(generate_request(tmp_path, {"lora": []}, local=local)) == [
        (str(tmp_path / "styles" / "a.safetensors"), 0.5),
        (str(tmp_path / "b.safetensors"), 2.0),
    ]
    assert scales(generate_request(tmp_path, local="lora: a.safetensors:0.5")) == [
        (str(tmp_path / "a.safetensors"), 0.5)
    ]
    assert generate_request(tmp_path, {"lora": ["none"]}, local=local).lora == ()
    with pytest.raises(UsageError, match="--lora: "):
        generate_request(tmp_path, {"lora": ["a.safetensors:nan"]})


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"control_start": 0.5, "control_end": 0.5}, "--control-start 0.5: it must be less than"),
        ({"control_end": 1.5}, "--control-end: 1.5"),
        ({"control_start": -0.1}, "--control-start: -0.1"),
    ],
)
def test_a_control_range_lies_within_the_steps(
    tmp_path: Path, flags: dict[str, object], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        generate_request(tmp_path, flags)


@pytest.mark.parametrize("preset", ["tiny", "longvie2"])
@pytest.mark.parametrize("source", [{"video": "ref.mp4"}, {"controls": "made"}, {}])
def test_a_request_made_in_python_takes_what_a_command_takes(
    tmp_path: Path, preset: str, source: dict[str, object]
) -> None:
    made = GenerateRequest.model_validate(
        {"output": tmp_path / "out.mp4", "prompt": "hills", "preset": preset, **source}
    )
    assert made == generate_request(tmp_path, {"preset": preset, **source})
    expected = load_preset(preset)
    assert usual_fit(made, expected) == (expected.source_fit if "video" in source else expected.fit)


def test_a_size_is_a_multiple_or_the_nearest_are_named(tmp_path: Path) -> None:
    assert generate_request(tmp_path, {"size": "256X144"}).size == FrameSize(width=256, height=144)
    with pytest.raises(UsageError, match="multiples of 16") as refused:
        with_size(load_preset("tiny"), generate_request(tmp_path, {"size": "641x359"}).size)
    assert refused.value.hint == "The nearest sizes that fit are 640x352 and 656x368."
    for size in ("640", "32x64", "64x9999", "0x0", "x", "-64x64"):
        with pytest.raises(UsageError, match=r"--size: .*WIDTHxHEIGHT, each from 64 to 4096"):
            generate_request(tmp_path, {"size": size})


def test_controls_of_another_size_are_not_stretched() -> None:
    preset = load_preset("longvie2")
    assert with_size(preset, FrameSize(width=640, height=352)) is preset
    assert (preset.control_size, preset.fit, preset.source_fit) == ((480, 832), "stretch", "crop")
    other = with_size(preset, FrameSize(width=832, height=480))
    assert (other.size.label, other.control_size) == ("832x480", (480, 832))
    assert (other.fit, other.source_fit) == ("crop", "crop")


@pytest.mark.parametrize("name", ["tiny", "longvie2"])
def test_sizes_are_multiples_of_what_the_model_needs(name: str) -> None:
    folder = preset_folder(name)
    vae = json.loads((folder / "vae" / "config.json").read_text())
    transformer = json.loads((folder / "transformer" / "config.json").read_text())
    factor = vae["scale_factor_spatial"] * transformer["patch_size"][1]
    assert load_preset(name).size_multiple == factor


@pytest.mark.parametrize(
    ("flags", "idle"),
    [
        ({"controls": "made", "depth_model": "small"}, "--depth-model"),
        ({"controls": "made", "tracker": "lk"}, "--tracker"),
        ({"controls": "made", "track_grid": "9x9"}, "--track-grid"),
        ({"controls": "made", "depth_smoothing": "none"}, "--depth-smoothing"),
        ({"camera": "forward", "image": "x.png", "tracker": "lk"}, "--tracker"),
        ({"camera": "forward", "depth_model": "small"}, "--depth-model"),
        ({"depth_smoothing": "flow"}, "--depth-smoothing"),
        ({"at_cut": "restart"}, "--at-cut"),
        ({"fit": "pad"}, "--fit"),
        ({"fov": 60}, "--fov"),
        ({"camera": "forward", "fov": 60}, "--fov"),
        ({"video": "x.mp4", "depth_polarity": "near-white"}, "--depth-polarity"),
        ({"video": "x.mp4", "image": "x.png", "first_frame_model": "m"}, "--first-frame-model"),
        ({"video": "x.mp4", "first_frame_model": "m"}, "--first-frame-model"),
        ({"guidance": 1, "negative_prompt": "fog"}, "--negative-prompt"),
    ],
)
def test_a_flag_that_would_do_nothing_is_said(
    tmp_path: Path, flags: dict[str, object], idle: str
) -> None:
    with pytest.raises(UsageError, match=f"^{idle}: it would do nothing: "):
        generate_request(tmp_path, flags)


@pytest.mark.parametrize(
    "flags",
    [
        {"video": "x.mp4", "tracker": "lk", "depth_model": "small", "at_cut": "ignore"},
        {"video": "x.mp4", "depth": "d.mp4", "depth_polarity": "near-black", "fit": "pad"},
        {"camera": "forward", "image": "x.png", "fov": 60, "depth_model": "small", "fit": "pad"},
        {"video": "x.mp4", "first_frame": "prompt", "first_frame_model": "m"},
        {"first_frame_model": "m", "negative_prompt": "fog", "guidance": 2},
        {"image": "x.png", "fit": "pad", "track_grid": "9x9"},
    ],
)
def test_flags_that_do_something_pass(tmp_path: Path, flags: dict[str, object]) -> None:
    generate_request(tmp_path, flags)


def test_what_a_file_says_may_be_meant_for_other_commands(tmp_path: Path) -> None:
    request = generate_request(
        tmp_path, {"controls": "made"}, local="tracker: lk\ndepth-model: small\nfov: 70"
    )
    assert request.depth_model == "small"


@pytest.mark.parametrize(
    ("flags", "idle"),
    [
        ({"controls": "made", "depth_model": "small"}, "--depth-model"),
        ({"camera": "forward", "tracker": "lk"}, "--tracker"),
        ({"video": "x.mp4", "fov": 60}, "--fov"),
        ({"first_frame": "prompt", "at_cut": "ignore"}, "--first-frame"),
    ],
)
def test_extend_says_it_too(tmp_path: Path, flags: dict[str, object], idle: str) -> None:
    given = {"output": tmp_path / "on.mp4", "previous": "out.mp4"} | flags
    with pytest.raises(UsageError, match=f"^{idle}: it would do nothing: "):
        resolve(ExtendRequest, given, config=None, environment={}, working_folder=tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: true", "steps: true: it must be a whole number"),
        ("steps: 4.0", "steps: 4.0: it must be a whole number"),
        ('seed: "7"', "seed: '7': it must be a whole number"),
        ("guidance: yes", "guidance: true: it must be a number"),
        ('guidance: "2"', "guidance: '2': it must be a number"),
        ("overwrite: 1", "overwrite: 1: it must be true or false"),
        ('offline: "false"', "offline: 'false': it must be true or false"),
        ("prompt: 5", "prompt: 5: it must be text"),
        ("video: no", "video: false: it must be text"),
        ("audio: no", "audio: false: it must be text"),
        ("size: 640", "size: 640: it must be text"),
        ("fit: true", "fit: true: it must be text"),
        ("lora: {path: a.safetensors, scale: true}", "lora"),
        ("seed:", "seed: it has no value"),
        ("prompt_file: ~", "prompt_file: it has no value"),
        ("prompt: '  '", "a prompt must say something"),
        ('prompt: "\\u200b\\e"', "a prompt must say something"),
        ("track-grid: 9x9\ntrack_grid: 8x8", "track_grid: it is given twice"),
        ("generate:\n  control-end: 1\n  control_end: 1", "control_end: it is given twice"),
    ],
)
def test_a_value_of_another_kind_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        generate_request(tmp_path, {"prompt": None}, local=text)
    assert caught.value.message.startswith("longvie.yaml: ")
    assert message in caught.value.message


def test_values_as_they_are_meant_are_taken(tmp_path: Path) -> None:
    text = "steps: 4\nguidance: 2\nfov: 55.5\noverwrite: yes\nsize: 192x112\nlora: none\nseconds: 1"
    request = generate_request(tmp_path, local=text)
    assert (request.num_inference_steps, request.guidance_scale, request.overwrite) == (4, 2, True)


@pytest.mark.parametrize("prompt", ["", "   ", "\u200b", "\x1b\n"])
def test_a_blank_prompt_is_refused_wherever_it_is_given(tmp_path: Path, prompt: str) -> None:
    with pytest.raises(UsageError, match=r"^--prompt: .*must say something"):
        generate_request(tmp_path, {"prompt": prompt})
    with pytest.raises(SettingsError, match=r"^LONGVIE_PROMPT: .*must say something"):
        generate_request(tmp_path, {"prompt": None}, environment={"LONGVIE_PROMPT": prompt})
    with pytest.raises(UsageError, match=r"^--prompt: .*must say something"):
        flags = {"run": tmp_path, "clip": 0, "new_prompt": prompt}
        resolve(RedoRequest, flags, config=None, environment={}, working_folder=tmp_path)
    with pytest.raises(UsageError, match=r"^--prompt: .*must say something"):
        flags = {"output": tmp_path, "seed": 1, "prompt": prompt}
        resolve(ExtractControlsRequest, flags, config=None, environment={}, working_folder=tmp_path)


def test_other_empty_variables_are_not_set(tmp_path: Path) -> None:
    assert (
        generate_request(tmp_path, environment={"LONGVIE_SEED": "", "LONGVIE_LORA": ""}).seed
        is None
    )


def test_home_is_found_in_every_path(tmp_path: Path, isolated_home: Path) -> None:
    home = isolated_home
    flags: dict[str, object] = {
        "output": Path("~/out.mp4"),
        "video": "~/a.mp4",
        "audio": "~/s.wav",
        "run_dir": Path("~/run"),
        "lora": ["~/x.safetensors:0.8"],
        "depth_model": "path:~/depth",
        "tracker": "path:~/tracker:online",
        "prompt": "~/not a path",
    }
    by_flag = generate_request(tmp_path, flags)
    asked = {key: value for key, value in flags.items() if key not in ("output", "prompt")}
    text = json.dumps(asked | {"run_dir": "~/run"})
    by_file = generate_request(tmp_path, {"prompt": "~/not a path"}, local=text)
    (tmp_path / "longvie.yaml").unlink()
    variables = {f"LONGVIE_{key.upper()}": str(value) for key, value in asked.items()}
    variables |= {"LONGVIE_LORA": "~/x.safetensors:0.8"}
    by_variable = generate_request(tmp_path, {"prompt": "~/not a path"}, environment=variables)
    assert by_flag.output == home / "out.mp4"
    for request in (by_flag, by_file, by_variable):
        assert (request.video, request.run_dir) == (home / "a.mp4", home / "run")
        assert (request.audio, request.depth_model) == (f"{home}/s.wav", f"{home}/depth")
        assert request.lora is not None and request.tracker is not None
        assert (request.lora[0].path, request.lora[0].scale) == (home / "x.safetensors", 0.8)
        assert request.tracker.checkout == home / "tracker"
        assert request.prompt == "~/not a path"
    user = Path("~root").expanduser()
    assert generate_request(tmp_path, {"video": "~root/a.mp4"}).video == user / "a.mp4"
    # As in a shell, what is nobody's home is a name.
    assert generate_request(tmp_path, {"video": "~nobody-here.mp4"}).video == Path(
        "~nobody-here.mp4"
    )
    (home / "mine.yaml").write_text("seed: 9")
    assert generate_request(tmp_path, config=Path("~/mine.yaml")).seed == 9
