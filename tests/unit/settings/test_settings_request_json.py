"""A request comes back from the run folder as it was, its paths absolute."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from longvie_cli.errors import OutputConflictError
from longvie_cli.settings.prompts import ClipPrompt, TimedPrompt
from longvie_cli.settings.request_json import files_of, request_json, request_of_json
from longvie_cli.settings.requests import ExtendRequest, GenerateRequest

COMMON = {"output": "out.mp4", "steps": 3, "guidance": 1.5}
GENERATED = [
    {"prompt": "hills", "minutes": 1.5, "camera": "forward 2, turn 30 in 10s, orbit", "fov": 70},
    {"prompts": (TimedPrompt(start_seconds=0, text="hills"),), "clips": 2, "lora": ["a.st:0.5"]},
    {"prompts": (ClipPrompt(first_clip=0, last_clip=1, text="x", seed=9),), "retries": 2},
    {
        **{"prompt": "x", "video": "a.mp4", "audio": "b.wav", "depth_model": "path:models/deep"},
        **{"tracker": "path:trackers/co:online", "track_grid": "50x40", "weights": "w"},
    },
]


@pytest.mark.parametrize("fields", GENERATED)
def test_a_generate_request_comes_back(tmp_path, monkeypatch, fields) -> None:
    monkeypatch.chdir(tmp_path)
    request = GenerateRequest.model_validate({**COMMON, **fields})
    stored = json.loads(json.dumps(request_json(request)))
    back = request_of_json("generate", stored, tmp_path / "run.json")
    assert request_json(back) == stored
    assert (back.prompts, back.camera, back.track_grid) == (
        *(request.prompts, request.camera, request.track_grid),
    )
    assert back.output == tmp_path / "out.mp4"
    assert all(path.is_absolute() for _, path in files_of(stored))
    if "video" in fields:
        assert dict(files_of(stored)) == {
            "--video": tmp_path / "a.mp4",
            "--weights": tmp_path / "w",
            "--depth-model": tmp_path / "models" / "deep",
            "--audio": tmp_path / "b.wav",
        }


def test_what_extend_leaves_open_stays_open(tmp_path) -> None:
    request = ExtendRequest(output=Path("out.mp4"), previous=Path("a.mp4"), from_clip=3)
    stored = json.loads(json.dumps(request_json(request)))
    back = request_of_json("extend", stored, tmp_path / "run.json")
    assert isinstance(back, ExtendRequest)
    assert (back.lora, back.seed, back.from_clip) == (None, None, None)


def test_a_setting_of_a_newer_version_is_refused(tmp_path) -> None:
    request = GenerateRequest.model_validate({**COMMON, "prompt": "x"})
    with pytest.raises(OutputConflictError, match="newer longvie"):
        request_of_json("generate", request_json(request) | {"later": 1}, tmp_path / "run.json")
