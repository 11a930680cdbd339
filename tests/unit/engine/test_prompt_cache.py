"""Prompts in the run folder: encoded once, bit for bit what the pipeline computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from longvie_cli.engine import prompt_cache
from longvie_cli.engine.loader import load_pipeline
from longvie_cli.engine.prompt_cache import prompt_embeds
from longvie_cli.errors import MissingResourceError
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.settings.sampling import Sampling
from small_preset import SMALL as PRESET

pytestmark = pytest.mark.usefixtures("small_preset")
HASHES = {"text_encoder/model.safetensors": "1", "vae/model.safetensors": "2"}
TEXTS = ["green hills", "", "green hills", "dunes"]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "out.longvie")
    folder.create()
    return folder


def embeds_of(
    run: RunFolder,
    texts: list[str] = TEXTS,
    *,
    dtype: str = "float32",
    model_hashes: dict[str, str] = HASHES,
) -> dict[str, torch.Tensor]:
    sampling = Sampling.of(PRESET, dtype=dtype)
    return prompt_embeds(run, PRESET, texts, sampling, model_hashes=model_hashes)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_are_the_pipelines_own(run: RunFolder, dtype: str) -> None:
    pipeline = load_pipeline(PRESET, dtype=dtype)
    made, read = embeds_of(run, dtype=dtype), embeds_of(run, dtype=dtype)
    assert list(made) == list(read) == ["green hills", "", "dunes"]
    with torch.no_grad():
        for text in made:
            expected = pipeline.encode_prompt([text])
            assert made[text].dtype == read[text].dtype == expected.dtype
            assert torch.equal(made[text], expected) and torch.equal(read[text], expected)


def test_what_is_there_needs_no_text_encoder(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = embeds_of(run)
    files = {path: path.read_bytes() for path in run.prompts_dir.iterdir()}
    assert len(files) == 3

    def gone(*_: object, **__: object) -> None:
        raise MissingResourceError("no text encoder")

    # The loader is taken away: reading must do without.
    monkeypatch.setattr(prompt_cache, "load_preset_text_encoder", gone)
    after = embeds_of(run)
    assert all(torch.equal(after[text], before[text]) for text in TEXTS)
    with pytest.raises(MissingResourceError):
        embeds_of(run, ["a new one"])
    # Another text encoder or type has other embeddings; another VAE has not.
    with pytest.raises(MissingResourceError):
        embeds_of(run, model_hashes=HASHES | {"text_encoder/model.safetensors": "3"})
    with pytest.raises(MissingResourceError):
        embeds_of(run, dtype="bfloat16")
    embeds_of(run, model_hashes=HASHES | {"vae/model.safetensors": "3"})


@pytest.mark.parametrize("damage", ["cut", "flipped", "exchanged", "empty"])
def test_a_damaged_file_is_made_again(run: RunFolder, damage: str) -> None:
    before = embeds_of(run)
    path, other = sorted(run.prompts_dir.iterdir())[:2]
    whole = path.read_bytes()
    broken = {
        "cut": whole[:-7],
        "flipped": whole[:-7] + bytes([whole[-7] ^ 1]) + whole[-6:],
        "exchanged": other.read_bytes(),
        "empty": b"",
    }
    path.write_bytes(broken[damage])
    after = embeds_of(run)
    assert all(torch.equal(after[text], before[text]) for text in TEXTS)
    assert path.read_bytes() == whole
