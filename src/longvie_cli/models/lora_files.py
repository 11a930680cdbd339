"""LoRA files as they lie on disk: judged by their header, and read."""

from __future__ import annotations

import importlib.util
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from longvie_cli.disk.documents import MAX_YAML_BYTES, parse_json, read_document, reason_of
from longvie_cli.errors import InputError, MissingResourceError
from longvie_cli.models.lora_layers import translate_lora

# What is multiplied; anything else is numbers of a quantized file, or no weights at all.
_FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
_ALPHA = ".alpha"
_WHOLE_NUMBERS = {"I64", "I32", "I16", "I8", "U8"}
_METADATA_KEY = "lora_adapter_metadata"
_CONFIG_NAME = "adapter_config.json"
# What other files that go by the name of a LoRA begin with.
_OTHER_FILES = (
    (b"PK\x03\x04", "a PyTorch file (.pt, .ckpt, .bin), which may run code when it is read"),
    (b"\x80", "a Python pickle (.pt, .ckpt), which may run code when it is read"),
    (b"version https://git-lfs", "a pointer of Git LFS in place of the file; run `git lfs pull`"),
    (b"GGUF", "a GGUF file"),
    (b"<", "a web page in place of the file, as a download without login gives it"),
)


def judge_lora(path: Path, transformer: nn.Module) -> tuple[str, ...]:
    """Return what the user should know of a LoRA file, before anything is made with it.

    Names, shapes, types, alphas and metadata are judged by the file's header, as `read_tensors`
    and `translate_lora` do when it is loaded; and that all its values are numbers, one tensor at a
    time.

    Args:
        path: The file.
        transformer: What it shall be added to; may be on the meta device.

    Raises:
        InputError: It is no LoRA file, or none for this transformer.
        MissingResourceError: peft is not installed.
    """
    require_peft()
    tensors: dict[str, Tensor] = {}
    with _opened(path) as file:
        for key, shape, dtype in _listing(path, file):
            values = file.get_tensor(key)
            _check_values(path, key, values)
            kept = key.endswith(_ALPHA)
            tensors[key] = values if kept else torch.empty(shape, dtype=dtype, device="meta")
        metadata = _metadata(path, file)
    return translate_lora(tensors, metadata, transformer, name=path.name).notices


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a file, and the adapter config within or beside it.

    Raises:
        InputError: It is no safetensors file, or holds something else than weights.
    """
    with _opened(path) as file:
        tensors = {key: file.get_tensor(key) for key, _, _ in _listing(path, file)}
        return tensors, _metadata(path, file)


def require_peft() -> None:
    """Raises MissingResourceError where peft, which only LoRA needs, is not installed."""
    if importlib.util.find_spec("peft") is None:
        raise MissingResourceError(
            "--lora: the package peft is missing.", hint="pip install 'peft>=0.17'"
        )


def located(source: str | Path, weight_name: str | None, download: Mapping[str, Any]) -> Path:
    """Return a LoRA file of a folder, or fetched from a repository of the hub."""
    path = Path(source)
    if path.is_dir() and weight_name is not None:
        return path / weight_name
    if path.exists() or weight_name is None:
        return path
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(str(source), weight_name, **download))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    _check_file(path)
    try:
        with safe_open(path, "pt") as file:
            yield file
    except SafetensorError as error:
        raise _wrong_file(path, error) from error
    except OSError as error:
        raise InputError(f"{path.name}: cannot be read ({reason_of(error)}).") from error


def _check_file(path: Path) -> None:
    """Do nothing if there is a file here that may be a safetensors file."""
    try:
        found = os.stat(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such LoRA file.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    if stat.S_ISDIR(found.st_mode):
        inside = next(iter(sorted(path.glob("*.safetensors"))), path / "NAME.safetensors")
        raise InputError(f"{path}: a folder, not a LoRA file.", hint=f"Pass --lora {inside}.")
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path}: no regular file.")
    if found.st_size == 0:
        raise InputError(f"{path.name}: an empty file.")


def _wrong_file(path: Path, error: SafetensorError) -> InputError:
    """Return what a file is that is no safetensors file."""
    with open(path, "rb") as file:
        begin = file.read(64).lstrip()
    for magic, words in _OTHER_FILES:
        # Looked at only now: a safetensors file begins with a number, which may be any of these.
        if begin.startswith(magic):
            return InputError(
                f"{path.name}: no safetensors file, but {words}.",
                hint="Pass the LoRA as a .safetensors file.",
            )
    reason = reason_of(error)
    if "incomplete" in reason.lower() or "too small" in reason.lower():
        reason = "it is cut off; fetch it again"
    return InputError(f"{path.name}: no safetensors file ({reason}).")


def _listing(path: Path, file: Any) -> Iterator[tuple[str, list[int], torch.dtype]]:
    """Yield name, shape and type of each tensor, as the header says them."""
    for key in file.keys():  # noqa: SIM118 - no mapping, and it cannot be iterated over
        header = file.get_slice(key)
        kind = header.get_dtype()
        if kind not in _FLOATS and not (key.endswith(_ALPHA) and kind in _WHOLE_NUMBERS):
            raise InputError(
                f"{path.name}: {key} holds numbers of type {kind}, not the weights of a LoRA."
            )
        yield key, header.get_shape(), _FLOATS.get(kind, torch.float32)


def _check_values(path: Path, key: str, values: Tensor) -> None:
    if values.is_floating_point() and values.numel():
        if values.dtype.itemsize == 1:
            values = values.float()
        # Not a number stays in both, as infinity does.
        smallest, largest = values.aminmax()
        if not (smallest.isfinite() and largest.isfinite()):
            raise InputError(f"{path.name}: {key} holds values that are no numbers.")


def _metadata(path: Path, file: Any) -> dict[str, Any]:
    """Return the adapter config in a file's header, or beside it where peft wrote both."""
    stored, where = (file.metadata() or {}).get(_METADATA_KEY), f"{path.name}: {_METADATA_KEY}"
    beside = path.with_name(_CONFIG_NAME)
    try:
        if stored is None and path.name.startswith("adapter_model") and beside.is_file():
            where = f"{path.name}: {_CONFIG_NAME} beside it"
            stored = read_document(beside, MAX_YAML_BYTES)
        metadata = {} if stored is None else parse_json(stored)
    except (OSError, ValueError) as error:
        raise InputError(f"{where}: cannot be read ({reason_of(error)}).") from error
    if not isinstance(metadata, dict):
        raise InputError(f"{where}: no mapping of settings.")
    return {key.removeprefix("transformer."): value for key, value in metadata.items()}
