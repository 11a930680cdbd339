"""The files of `longvie train`: every example is one, each says where its numbers come from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from longvie_cli.errors import SettingsError
from longvie_cli.settings.training import LEARNING_RATES, STEPS
from longvie_cli.settings.training_config import place_named, read_training_config

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "train"
STAGES = ("control", "degradation", "history")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_read_and_every_number_has_a_source(path: Path) -> None:
    config = read_training_config(path)
    preset, _, stage = path.stem.partition("-")
    assert config.preset == preset
    if config.start_from and config.start_from.endswith(".train"):
        # The run folder of another example.
        earlier = place_named(path, "start_from", config.start_from).with_suffix(".yaml")
        assert earlier.is_file()
    if preset == "longvie2":
        assert config.steps == STEPS[stage] and config.learning_rate == LEARNING_RATES[stage]
    for line in path.read_text().splitlines():
        value, _, said = line.partition("#")
        if any(character.isdigit() for character in value.split(":", 1)[-1]):
            is_name = value.startswith(("preset", "data", "validation:", "start_from"))
            assert is_name or any(word in said for word in ("paper", "code", "ours")), line


def test_there_is_an_example_of_every_stage_and_a_way_to_start_them() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.yaml")}
    assert names == {f"longvie2-{stage}" for stage in STAGES} | {
        f"tiny-{stage}" for stage in ("base", *STAGES)
    }
    for script in EXAMPLES.glob("*.sh"):
        subprocess.run(["bash", "-n", str(script)], check=True)
        assert "-m longvie_cli train" in script.read_text()
        assert "longvie2-$stage.yaml" in script.read_text()


def test_a_number_without_a_point_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("data: {worlds: {}}\nlearning_rate: 1e-5\n")
    assert read_training_config(path).learning_rate == 1e-5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected settings by name"),
        ("- data", "expected settings by name"),
        ("steps: 3", "data: say what is trained on"),
        ("data: {worlds: {}, folder: x}", "name one of"),
        ("data: {worlds: {}}\nsteps: 3\nsteps: 4", "given twice"),
        ("data: !!python/object:os.system {}", "cannot be read"),
        ("data: {worlds: {}}\nseed: 2026-11-26", "seed"),
        ("data: {worlds: {}}\ndegradation: {frame: {cyles: [1]}}", "Did you mean 'cycles'?"),
        ("data: {worlds: {}}\nexport: [onnx]", "export"),
        ("data: {worlds: {}}\nhistory_frames: 6", "history_frames"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError) as raised:
        read_training_config(path)
    assert words in f"{raised.value.message} {raised.value.hint}"


def test_a_file_that_is_not_there_or_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such file"):
        read_training_config(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(SettingsError, match="larger than 1 MiB"):
        read_training_config(tmp_path / "b.yaml")
