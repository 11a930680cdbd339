"""A carried condition looks back at the video's first frame; a run that goes on does so too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from longvie_cli import GenerateRequest, RunRequest, generate, resume
from longvie_cli.engine.clip_generator import Clip, ClipGenerator
from longvie_cli.progress import SilentProgress
from longvie_cli.settings.prompts import read_prompt_file


@pytest.fixture(scope="module")
def carried_weights(small_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small preset, whose condition is carried, with a number of its own."""
    (shipped,) = small_package.rglob("assets/tiny")
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    shutil.copytree(shipped, folder)
    told = json.loads((folder / "preset.json").read_text())
    assert told["image_condition"] == "carried"
    (folder / "preset.json").write_text(json.dumps(told | {"flow_shift": 4.0}))
    return folder


class _Said(SilentProgress):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)

    def note(self, text: str) -> None:
        self.warnings.append(text)


def _request(output: Path, weights: Path) -> GenerateRequest:
    prompts = output.with_name("prompts.txt")
    prompts.write_text("[clip 0] green hills\n[clip 1-2] snow at night\n")
    return GenerateRequest(
        output=output,
        prompts=read_prompt_file(prompts),
        clips=3,
        seed=5,
        num_inference_steps=2,
        weights=weights,
    )


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bytes | None]]:
    """What each clip is told to look like, as the generator is asked for it."""
    told: list[tuple[int, bytes | None]] = []
    really = ClipGenerator.generate

    def noting(self: ClipGenerator, clip_index: int, *rest: Any, **options: Any) -> Clip:
        known = options["carrying"]
        pictures = () if known.look is None else (known.look.picture, known.look.depth)
        words = (known.look_words, known.words_before)
        numbers = (*pictures, *(each.numpy() for each in words if each is not None))
        told.append((clip_index, b"".join(each.tobytes() for each in numbers) or None))
        return really(self, clip_index, *rest, **options)

    monkeypatch.setattr(ClipGenerator, "generate", noting)
    return told


def test_clips_made_again_look_back_at_the_same_first_frame(
    carried_weights: Path, looks: list[tuple[int, bytes | None]], tmp_path: Path
) -> None:
    said = _Said()
    generate(_request(tmp_path / "whole.mp4", carried_weights), said)
    # The weights say themselves what they were trained with.
    assert f"By {carried_weights}/preset.json: flow_shift 4.0." in said.warnings
    (first, none), (_, look), (_, same) = looks
    assert (first, none) == (0, None)
    # Both look like the first frame; the second clip begins in colours of the third's prompt.
    assert look is not None
    assert same is not None
    assert look != same
    looks.clear()
    whole = (tmp_path / "whole.mp4").read_bytes()
    clips = tmp_path / "whole.longvie" / "clips"
    made = {path.name: path.read_bytes() for path in clips.glob("*.mp4")}
    assert len(made) == 3
    (tmp_path / "whole.mp4").unlink()
    for stem in ("0001", "0002"):
        for path in clips.glob(f"{stem}*"):
            path.unlink()
    resume(RunRequest(run=tmp_path / "whole.longvie"))
    assert looks == [(1, look), (2, same)]
    assert {path.name: path.read_bytes() for path in clips.glob("*.mp4")} == made
    assert (tmp_path / "whole.mp4").read_bytes() == whole
