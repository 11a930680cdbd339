"""Published files that are incomplete, damaged or of another model are refused, and say why."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from longvie_cli.engine.loader import load_pipeline
from longvie_cli.errors import MissingResourceError
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.models.weights.convert import convert_released
from longvie_cli.models.weights.load import load_weights
from longvie_cli.models.weights.sources import ReleasedFiles, find_released_files
from longvie_cli.settings.presets import load_preset
from released_checkpoints import (
    IMAGE_FILE,
    TEXT_FILE,
    VAE_FILE,
    base_tensors,
    longvie2_tensors,
    random_pipeline,
    write_configs,
    write_diffusers_base,
    write_longvie2,
    write_original_base,
)

SHARD = "diffusion_pytorch_model-00002-of-00003.safetensors"


@pytest.fixture(scope="module")
def source() -> LongViePipeline:
    return random_pipeline()


@pytest.fixture(scope="module")
def pristine(source: LongViePipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pristine")
    write_configs(source, folder / "configs")
    write_original_base(source, folder / "wan")
    write_diffusers_base(source, folder / "diffusers")
    write_longvie2(source, folder / "LongVie2")
    convert_released(
        find_released_files([folder / "wan", folder / "LongVie2"], configs=folder / "configs"),
        folder / "ours",
    )
    return folder


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    return shutil.copytree(pristine, tmp_path / "weights")


def refusal(folder: Path, base: str = "wan") -> str:
    """Return why the files are refused; before anything is read, as far as the headers tell."""
    with pytest.raises(MissingResourceError) as refused:
        load_weights(
            ReleasedFiles(
                folder / base,
                folder / "LongVie2" / "control.safetensors",
                folder / "LongVie2" / "dit.safetensors",
                folder / "configs",
            ),
            dtype=torch.float32,
        )
    assert refused.value.exit_code == 3
    assert refused.value.hint
    return str(refused.value)


Change = Callable[[dict[str, Tensor]], None]


def change(path: Path, edit: Change) -> None:
    """Rewrite a weight file with its tensors changed."""
    if path.suffix == ".pth":
        tensors = dict(torch.load(path, weights_only=True))
        edit(tensors)
        torch.save(tensors, path)
        return
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, {"format": "pt"})


FILES = {
    "control": "LongVie2/control.safetensors",
    "attention": "LongVie2/dit.safetensors",
    "base shard": f"wan/{SHARD}",
    "text encoder": f"wan/{TEXT_FILE}",
    "image encoder": f"wan/{IMAGE_FILE}",
    "vae": f"wan/{VAE_FILE}",
    "diffusers shard": f"diffusers/transformer/{SHARD}",
    "diffusers text encoder": "diffusers/text_encoder/model-00001-of-00002.safetensors",
    "diffusers image encoder": "diffusers/image_encoder/model.safetensors",
    "diffusers vae": "diffusers/vae/diffusion_pytorch_model.safetensors",
}


def files(*, quick: int) -> pytest.MarkDecorator:
    """Each file; all but every third, from number `quick` on, run with the slow tests."""
    cases = [
        pytest.param(path, id=name, marks=[] if (number - quick) % 3 == 0 else pytest.mark.slow)
        for number, (name, path) in enumerate(FILES.items())
    ]
    return pytest.mark.parametrize("path", cases)


def base_of(path: str) -> str:
    return "diffusers" if path.startswith("diffusers") else "wan"


def used(tensors: dict[str, Tensor]) -> str:
    """Return the name of a tensor that is read, and whose last axis can be cut."""
    ignored = r"textual|log_scale|visual\.head|norm_added_q|embed_tokens|shared"
    return next(n for n in tensors if not re.search(ignored, n) and tensors[n].shape[-1] > 1)


@files(quick=0)
def test_a_missing_tensor(path: str, folder: Path) -> None:
    removed: list[str] = []

    def remove(tensors: dict[str, Tensor]) -> None:
        removed.append(used(tensors))
        del tensors[removed[0]]

    change(folder / path, remove)
    bare = re.sub(r"^(pipe\.dual_controller|vision_model)\.", "", removed[0])
    assert f"1 missing ({bare})" in refusal(folder, base_of(path))


@files(quick=1)
def test_an_extra_tensor(path: str, folder: Path) -> None:
    change(folder / path, lambda tensors: tensors.update({"camera.weight": torch.zeros(2)}))
    assert "1 unknown (camera.weight)" in refusal(folder, base_of(path))


@files(quick=2)
def test_a_wrong_shape(path: str, folder: Path) -> None:
    cut: list[str] = []

    def shorten(tensors: dict[str, Tensor]) -> None:
        name = used(tensors)
        tensors[name] = tensors[name][..., :-1].contiguous()
        cut.append(f"{name} {list(tensors[name].shape)} instead of [")

    change(folder / path, shorten)
    assert cut[0] in refusal(folder, base_of(path))


@files(quick=3)
def test_a_truncated_file(path: str, folder: Path) -> None:
    file = folder / path
    file.write_bytes(file.read_bytes()[:-100])
    message = refusal(folder, base_of(path))
    assert str(file) in message and "cut short" in message


@files(quick=4)
def test_a_file_that_is_no_weights(path: str, folder: Path) -> None:
    file = folder / path
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "Git LFS pointer" in refusal(folder, base_of(path))
    file.write_bytes(b"<html>Not found</html>")
    assert "damaged" in refusal(folder, base_of(path))
    file.write_bytes(b"")
    assert str(file) in refusal(folder, base_of(path))


class Attack:
    """What a malicious file would hold: unpickling it calls a function."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return (touch, ("pwned",))


def touch(name: str) -> None:
    Path(name).touch()


@pytest.mark.parametrize("name", [TEXT_FILE, IMAGE_FILE, VAE_FILE])
def test_a_pickle_with_code_is_never_run(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    torch.save({"norm.weight": Attack()}, folder / "wan" / name)
    assert "holds more than tensors" in refusal(folder)
    assert not (folder / "pwned").exists()
    torch.save({"model": {"norm.weight": torch.zeros(1)}}, folder / "wan" / name)
    assert "something else than named tensors" in refusal(folder)


def test_an_archive_older_than_zip_files_is_read(folder: Path, source: LongViePipeline) -> None:
    path = folder / "wan" / VAE_FILE
    torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=False)
    files = find_released_files([folder / "wan", folder / "LongVie2"], configs=folder / "configs")
    vae = load_weights(files, dtype=torch.float32).vae.state_dict()
    for name, value in source.vae.state_dict().items():
        assert torch.equal(vae[name], value)


def test_absent_shards_and_files_are_all_listed(folder: Path) -> None:
    for path in (
        f"wan/{SHARD}",
        f"wan/{VAE_FILE}",
        "wan/google/umt5-xxl/tokenizer_config.json",
        "LongVie2/dit.safetensors",
    ):
        (folder / path).unlink()
    with pytest.raises(MissingResourceError) as refused:
        find_released_files([folder / "wan", folder / "LongVie2"])
    assert str(refused.value).endswith(
        f"missing {VAE_FILE}; {SHARD}; google/umt5-xxl/tokenizer_config.json; "
        "dit.safetensors (LongVie2)."
    )
    assert "longvie models pull longvie2" in refused.value.hint
    message = refusal(folder)
    assert SHARD in message and VAE_FILE in message
    # Without the index the numbers in the names say how many there should be.
    (folder / "wan" / "diffusion_pytorch_model.safetensors.index.json").unlink()
    assert SHARD in refusal(folder)


def test_diffusers_folders_that_are_absent_are_listed(folder: Path) -> None:
    shutil.rmtree(folder / "diffusers" / "vae")
    shutil.rmtree(folder / "diffusers" / "tokenizer")
    (folder / "diffusers" / "text_encoder" / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(
        MissingResourceError,
        match=r"missing text_encoder/model-00002-of-00002\.safetensors; "
        r"vae/diffusion_pytorch_model\.safetensors; tokenizer/tokenizer_config\.json\.",
    ):
        find_released_files([folder / "diffusers", folder / "LongVie2"])


def test_nothing_found_names_everything(tmp_path: Path) -> None:
    with pytest.raises(
        MissingResourceError,
        match=r"the Wan base .*; control\.safetensors \(LongVie2\); dit\.safetensors \(LongVie2\)",
    ):
        find_released_files([tmp_path, tmp_path / "nowhere"])


@pytest.mark.parametrize(
    "content", ["{}", "[]", "not json", '{"weight_map": {"a": "../../etc/passwd"}}']
)
def test_a_damaged_index(content: str, folder: Path) -> None:
    index = "diffusion_pytorch_model.safetensors.index.json"
    (folder / "wan" / index).write_text(content)
    assert "damaged or no list of shards" in refusal(folder)


def test_the_same_tensor_in_two_shards(folder: Path) -> None:
    first = load_file(folder / "wan" / SHARD.replace("00002", "00001", 1))
    name = next(iter(first))
    change(folder / "wan" / SHARD, lambda tensors: tensors.update({name: first[name]}))
    assert f"{name} is also in" in refusal(folder)


def test_a_token_embedding_that_differs_from_its_copy(folder: Path) -> None:
    for path in (folder / "diffusers" / "text_encoder").glob("*.safetensors"):
        tensors = load_file(path)
        if "encoder.embed_tokens.weight" in tensors:
            tensors["encoder.embed_tokens.weight"] += 1
            save_file(tensors, path, {"format": "pt"})
    assert "should be the same" in refusal(folder, "diffusers")


def test_a_tokenizer_of_another_model(folder: Path) -> None:
    config = folder / "configs" / "text_encoder" / "config.json"
    vocabulary = json.loads(config.read_text()) | {"vocab_size": 100}
    config.write_text(json.dumps(vocabulary))
    change(
        folder / "wan" / TEXT_FILE,
        lambda t: t.update({"token_embedding.weight": t["token_embedding.weight"][:100]}),
    )
    assert re.search(r"\d+ tokens, but the text encoder knows 100", refusal(folder))


@pytest.mark.slow
def test_files_in_the_wrong_place_are_recognised(folder: Path, source: LongViePipeline) -> None:
    control = folder / "LongVie2" / "control.safetensors"
    attention = folder / "LongVie2" / "dit.safetensors"
    kept = control.read_bytes()
    wrong: dict[str, dict[str, Tensor]] = {
        "dit.safetensors of LongVie2": longvie2_tensors(source)[1],
        "a diffusers transformer: patch_embedding has 16 input": base_tensors(source),
        "a transformer written by longvie models convert": source.transformer.state_dict(),
        "a LoRA": {"blocks.0.self_attn.q.lora_A.weight": torch.zeros(2, 2)},
        "a VAE in diffusers layout": source.vae.state_dict(),
        "an image encoder in transformers layout": source.image_encoder.state_dict(),
        "the image encoder of the original Wan": {"visual.cls_embedding": torch.zeros(1, 1, 4)},
        "the text encoder of the original Wan": {"token_embedding.weight": torch.zeros(2, 2)},
        "a checkpoint packed for another": {"model.diffusion_model.x.weight": torch.zeros(2)},
        "an empty file": {},
    }
    for words, tensors in wrong.items():
        save_file({name: value.contiguous().clone() for name, value in tensors.items()}, control)
        message = refusal(folder)
        assert "control weights: " in message
        # The toy transformer happens to read 16 channels, as text-to-video models do.
        assert f"it looks like {words}" in message.replace(", a text-to-video (T2V) one", "")
    control.write_bytes(kept)
    shutil.copy(control, attention)
    message = refusal(folder)
    assert "self-attention weights: " in message
    assert "it looks like control.safetensors of LongVie2" in message


def test_a_text_to_video_base_is_recognised(folder: Path) -> None:
    def without_image(tensors: dict[str, Tensor]) -> None:
        for name in list(tensors):
            if "img" in name:
                del tensors[name]

    configs = folder / "configs" / "transformer" / "config.json"
    wider = json.loads(configs.read_text()) | {"in_channels": 36}
    configs.write_text(json.dumps(wider))
    for path in (folder / "wan").glob("*.safetensors"):
        change(path, without_image)
    message = refusal(folder)
    assert "a text-to-video (T2V) one: patch_embedding has 16 input channels" in message


@pytest.mark.parametrize("component", ["transformer", "text_encoder", "image_encoder", "vae"])
def test_our_own_folder_is_as_strict(component: str, folder: Path) -> None:
    ours = folder / "ours"
    (file,) = (ours / component).glob("*.safetensors")
    change(file, lambda tensors: tensors.pop(used(tensors)))
    with pytest.raises(MissingResourceError, match="1 missing"):
        load_weights(ours)
    file.unlink()
    with pytest.raises(MissingResourceError, match=f"missing {component}/"):
        load_weights(ours)
    shutil.rmtree(ours / component)
    with pytest.raises(MissingResourceError, match="configs are missing"):
        load_weights(ours)


def test_a_refused_conversion_leaves_no_model(folder: Path) -> None:
    files = find_released_files([folder / "wan", folder / "LongVie2"], configs=folder / "configs")
    change(files.control, lambda tensors: tensors.pop(used(tensors)))
    with pytest.raises(MissingResourceError, match="control weights"):
        convert_released(files, folder / "out")
    assert not (folder / "out").exists()


def test_weights_that_were_never_fetched_name_the_command() -> None:
    with pytest.raises(MissingResourceError) as refused:
        load_pipeline(load_preset("longvie2"))
    assert refused.value.hint == "longvie models pull longvie2"
