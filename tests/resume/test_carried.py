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
    return GenerateRequest(
        output=output, prompt="hills", clips=3, seed=5, num_inference_steps=2, weights=weights
    )


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bytes | None]]:
    """What each clip is told to look like, as the generator is asked for it."""
    told: list[tuple[int, bytes | None]] = []
    really = ClipGenerator.generate

    def noting(self: ClipGenerator, clip_index: int, *rest: Any, **options: Any) -> Clip:
        look = options["carrying"].look
        both = None if look is None else look.picture.tobytes() + look.depth.tobytes()
        told.append((clip_index, both))
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
    assert look == same is not None
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
    assert looks == [(1, look), (2, look)]
    assert {path.name: path.read_bytes() for path in clips.glob("*.mp4")} == made
    assert (tmp_path / "whole.mp4").read_bytes() == whole
