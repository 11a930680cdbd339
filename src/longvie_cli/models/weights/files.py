"""Weight files on disk: tensors read one at a time, and written file by file.

Reads safetensors files and shards and PyTorch archives (`.pth`, tensors only: a file that carries
code is refused). Nothing here knows what the tensors are for.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from longvie_cli.disk.documents import MAX_JSON_BYTES, parse_json, read_document, reason_of
from longvie_cli.disk.durable import begin_part, commit_file, part_path, storage_error
from longvie_cli.errors import LongVieError, MissingResourceError

FETCH_HINT = "Fetch the files again: longvie models pull longvie2"

# No model has more; a file name can claim any number.
_MAX_SHARDS = 10_000

# The format's words for types (https://github.com/huggingface/safetensors).
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class TensorInfo:
    """Shape and type of a tensor, known without reading its values."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def tensor_info(tensors: Mapping[str, Tensor], name: str) -> TensorInfo:
    """Return shape and type of one of the tensors, without reading it from a file."""
    if isinstance(tensors, TensorFiles):
        return tensors.info(name)
    return TensorInfo(tuple(tensors[name].shape), tensors[name].dtype)


class TensorFiles(Mapping[str, Tensor]):
    """The tensors of some files, iterated file by file, each read when it is asked for.

    A tensor returned is a view on its mapped file: copy what shall stay. Only one file is mapped
    at a time, so that reading in order keeps no more than one shard in memory.

    Args:
        paths: `.safetensors` files or `.pth` archives. Headers are read at once.

    Raises:
        MissingResourceError: a file is missing, damaged, holds more than tensors, or two files
            hold a tensor of one name.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._where: dict[str, Path] = {}
        self._infos: dict[str, TensorInfo] = {}
        self._mapped: tuple[Path, Any] | None = None
        for path in self.paths:
            for name, info in _infos(path, self._map(path)):
                if name in self._where:
                    raise MissingResourceError(
                        f"{path}: {name} is also in {self._where[name].name}.", hint=FETCH_HINT
                    )
                self._where[name], self._infos[name] = path, info
        self.close()

    def info(self, name: str) -> TensorInfo:
        """Return shape and type of a tensor."""
        return self._infos[name]

    def close(self) -> None:
        """Unmap the file that is mapped; the next read maps its file again."""
        self._mapped = None

    def __getitem__(self, name: str) -> Tensor:
        handle = self._map(self._where[name])
        return handle[name] if isinstance(handle, dict) else handle.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)

    def __str__(self) -> str:
        """The file, or the folder of several."""
        return str(self.paths[0] if len(self.paths) == 1 else self.paths[0].parent)

    def _map(self, path: Path) -> Any:
        if self._mapped is None or self._mapped[0] != path:
            self._mapped = None
            self._mapped = (path, _open(path))
        return self._mapped[1]


def find_shards(folder: Path, stem: str) -> tuple[list[Path], list[Path]]:
    """Return the safetensors files of one model, and those of them that are absent.

    Args:
        folder: Where they lie.
        stem: `STEM.safetensors.index.json` lists the shards; without it they are
            `STEM.safetensors`, or `STEM-0000i-of-0000N.safetensors` for every i up to N.

    Raises:
        MissingResourceError: the index is damaged.
    """
    index = folder / f"{stem}.safetensors.index.json"
    single = folder / f"{stem}.safetensors"
    if index.is_file():
        try:
            listed = parse_json(read_document(index, MAX_JSON_BYTES))
            names = sorted(set(listed["weight_map"].values()))
            if not all(isinstance(name, str) and _is_plain(name) for name in names):
                raise ValueError("a shard lies outside its folder")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MissingResourceError(
                f"{index}: is damaged or no list of shards ({error}).", hint=FETCH_HINT
            ) from error
    elif single.is_file():
        names = [single.name]
    else:
        pattern = re.compile(rf"{re.escape(stem)}-(\d+)-of-(\d+)\.safetensors")
        files = folder.iterdir() if folder.is_dir() else ()
        found = [match for file in files if (match := pattern.fullmatch(file.name))]
        names = sorted(
            {
                f"{stem}-{number:0{len(match[1])}d}-of-{match[2]}.safetensors"
                for match in found
                for number in range(1, min(int(match[2]), _MAX_SHARDS) + 1)
            }
        )
    paths = [folder / name for name in names]
    # os.path: a name that is too long for the disk is one of no file.
    return paths, [path for path in paths if not os.path.isfile(path)]


def _is_plain(name: str) -> bool:
    """Return whether a name is that of a file in the same folder."""
    return name not in ("", "..") and "\0" not in name and Path(name).name == name


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as a safetensors file, read it back, and let it appear under its name.

    Args:
        path: Written beside and renamed when complete and verified; its folder is made.
        tensors: On the CPU. Views on mapped files cost no memory here.

    Raises:
        ResumableError: the disk is full.
        OutputConflictError: the folder cannot be written.
        LongVieError: a tensor reads back differently.
    """
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    # A folder: the library writes under a name of its own first, which a kill would leave behind.
    beside = part_path(path)
    part = beside / path.name
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        begin_part(part)
        mode = part.stat().st_mode
        save_file(tensors, part, metadata={"format": "pt"})
        # The library's files are for their owner alone.
        part.chmod(mode)
        _check_written(part, tensors)
        commit_file(part, path)
    except (OSError, SafetensorError) as reason:
        raise storage_error(path, _as_os_error(reason)) from reason
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _as_os_error(reason: OSError | SafetensorError) -> OSError:
    """Return the error of the system that the library passes on in words."""
    if isinstance(reason, OSError):
        return reason
    code = re.search(r"\(os error (\d+)\)", str(reason))
    return (
        OSError(str(reason)) if code is None else OSError(int(code[1]), os.strerror(int(code[1])))
    )


def _check_written(part: Path, tensors: Mapping[str, Tensor]) -> None:
    written = TensorFiles([part])
    for name, tensor in tensors.items():
        if _digest(written[name]) != _digest(tensor):
            raise LongVieError(
                f"{part}: {name} reads back other than it was written.",
                hint="Check the disk, or write to another one.",
            )
    written.close()


def _digest(tensor: Tensor) -> int:
    values: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return xxhash.xxh3_64_intdigest(values)


def _infos(path: Path, handle: Any) -> Iterator[tuple[str, TensorInfo]]:
    if isinstance(handle, dict):
        for name, tensor in handle.items():
            yield name, TensorInfo(tuple(tensor.shape), tensor.dtype)
        return
    for name in handle.keys():  # noqa: SIM118
        view = handle.get_slice(name)
        if (dtype := _DTYPES.get(view.get_dtype())) is None:
            raise MissingResourceError(
                f"{path}: {name} is stored as {view.get_dtype()}, which longvie does not read."
            )
        yield name, TensorInfo(tuple(view.get_shape()), dtype)


def _open(path: Path) -> Any:
    """Return an open safetensors file, or the mapped tensors of a PyTorch archive by name."""
    if not path.is_file():
        raise MissingResourceError(f"{path}: there is no such file.", hint=FETCH_HINT)
    if _is_pointer(path):
        raise MissingResourceError(
            f"{path}: is a Git LFS pointer, not the weights themselves.",
            hint="Run git lfs pull in its repository, or longvie models pull longvie2",
        )
    try:
        return _open_archive(path) if path.suffix == ".pth" else safe_open(path, "pt")
    except (SafetensorError, OSError) as error:
        raise MissingResourceError(
            f"{path}: is cut short, damaged or no safetensors file ({reason_of(error)}).",
            hint=FETCH_HINT,
        ) from error


def _open_archive(path: Path) -> dict[str, Tensor]:
    is_zip = zipfile.is_zipfile(path)
    try:
        # Files older than PyTorch 1.6 are no zip archives and cannot be mapped.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        with open(path, "rb") as file:
            is_cut = not is_zip and file.read(2) in (b"PK", b"")
        reason = (str(error) or type(error).__name__).splitlines()[0][:120]
        what = "is cut short" if is_cut else f"is damaged, or holds more than tensors ({reason})"
        raise MissingResourceError(f"{path}: {what}.", hint=FETCH_HINT) from error
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise MissingResourceError(
            f"{path}: holds something else than named tensors.", hint=FETCH_HINT
        )
    return dict(content)


def _is_pointer(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(24) == b"version https://git-lfs."
