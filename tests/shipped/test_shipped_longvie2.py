"""The preset `longvie2` end to end at its real geometry, on toy weights in the released formats."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from delivered import QUICK, frames_of
from longvie_cli.media.metadata import read_settings
from longvie_cli.media.writer import VideoWriter
from longvie_cli.models.weights.convert import convert_released
from longvie_cli.models.weights.sources import ReleasedFiles
from longvie_cli.run_folder.layout import RunFolder
from released_checkpoints import (
    random_pipeline,
    write_configs,
    write_longvie2,
    write_original_base,
)
from small_models import small_vae


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `longvie models convert` makes it of the original repositories, at toy sizes."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    pipeline = random_pipeline(
        patch_size=(1, 2, 2), in_channels=36, out_channels=16, text_tokens=512
    )
    pipeline.register_modules(vae=small_vae(z_dim=16))
    files = ReleasedFiles(
        base=write_original_base(pipeline, folder / "base"),
        control=write_longvie2(pipeline, folder / "LongVie2") / "control.safetensors",
        attention=folder / "LongVie2" / "dit.safetensors",
        configs=write_configs(pipeline, folder / "configs"),
    )
    convert_released(files, folder / "converted")
    return folder / "converted"


@pytest.fixture
def horse(tmp_path: Path) -> Path:
    """Two released-format clips, 832x480, neighbours sharing a frame, and the first picture."""
    folder = tmp_path / "example" / "horse"
    folder.mkdir(parents=True)
    for index in range(2):
        for kind in ("depth", "track"):
            path = folder / f"{kind}_{index:02}.mp4"
            with VideoWriter(path, height=480, width=832, fps=16) as writer:
                for frame in range(81):
                    picture = np.full((480, 832, 3), 40, np.uint8)
                    picture[100:300, (8 * frame + 80 * index) % 700 :][:, :90] = 200
                    writer.write(picture)
    entries = [
        {"text": f"part {i}", "depth": f"depth_{i:02}.mp4", "track": f"track_{i:02}.mp4"}
        for i in range(2)
    ]
    (folder / "cond.json").write_text(json.dumps(entries))
    Image.new("RGB", (832, 480), (90, 120, 60)).save(folder / "first.png")
    return folder


@pytest.mark.slow
def test_released_controls_become_two_clips_of_the_real_geometry(
    longvie: Callable[..., object], tmp_path: Path, weights: Path, horse: Path
) -> None:
    ask = ("generate", "--preset", "longvie2", "--weights", weights, "--controls", horse)
    outcome = longvie(*ask, *QUICK, "-o", "out.mp4")
    assert (outcome.code, outcome.out) == (0, "out.mp4\n"), outcome.err
    frames = frames_of(tmp_path / "out.mp4")
    assert frames.shape == (161, 352, 640, 3)
    settings = read_settings(tmp_path / "out.mp4")
    assert settings is not None
    assert settings["settings"]["preset"] == "longvie2"
    assert settings["settings"]["prompts"] == ["part 0", "part 1"]
    assert str(weights) not in json.dumps(settings)
    hashes = json.loads(RunFolder(tmp_path / "out.longvie").run_json.read_text())["model_hashes"]
    assert any(name.startswith("transformer/") for name in hashes)

    # The same command returns at once; without the weights it would name what is missing.
    assert longvie(*ask, *QUICK, "-o", "out.mp4").code == 0
    gone = longvie(*ask[:4], tmp_path / "nowhere", *ask[5:], "-o", "other.mp4")
    assert gone.code == 3
    assert "there is no such folder" in gone.err
