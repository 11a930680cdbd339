"""`--depth-model` and `--depth`: what tells two choices apart, and what is missed in time."""

from __future__ import annotations

from pathlib import Path

import pytest

from longvie_cli.errors import MediaError, MissingResourceError
from longvie_cli.settings.presets import load_preset
from longvie_cli.sources.depth_choice import DepthChoice

PRESET = load_preset("tiny")


def test_models_in_folders_of_one_name_are_two(tmp_path: Path) -> None:
    choices = []
    for place, content in (("one", b"1"), ("other", b"2")):
        folder = tmp_path / place / "depth"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(content)
        choices.append(DepthChoice(model=str(folder)))
    first, second = (choice.facts(PRESET)["depth_model"] for choice in choices)
    assert first != second and first.startswith("depth ")
    assert str(tmp_path) not in first


@pytest.mark.parametrize(
    ("choice", "error", "words"),
    [
        (DepthChoice(model="large"), MissingResourceError, "depth-anything-v2-large: weights are"),
        (DepthChoice(model="path:nowhere"), MissingResourceError, "there is no such folder"),
        (DepthChoice(video=Path("nowhere.mp4")), MediaError, "there is no such file"),
    ],
)
def test_what_is_not_there_is_missed_without_loading_anything(
    choice: DepthChoice, error: type[Exception], words: str
) -> None:
    assert DepthChoice().state(PRESET).missing is None
    with pytest.raises(error, match=words):
        missing = choice.state(PRESET).missing
        assert missing is not None
        raise missing
