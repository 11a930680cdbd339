"""Runs tests in a process of their own where Triton interprets its kernels on the CPU.

Triton reads TRITON_INTERPRET when it is imported, so a process either interprets or compiles.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import importlib.util
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from recorded import REQUIRED


def triton_is_installed() -> bool:
    """Whether it is; it is not imported."""
    return importlib.util.find_spec("triton") is not None


def require_triton() -> None:
    """Skip the tests of a module where Triton is not installed, or fail where it has to be."""
    if not triton_is_installed():
        if REQUIRED:
            raise RuntimeError("LONGVIE_REQUIRE_GOLDEN is set, but triton is not installed")
        pytest.skip("triton is not installed (pip install -e '.[dev]')", allow_module_level=True)


def interpreted(test: Callable[..., None]) -> Callable[..., None]:
    """Make a test of a module run in the process that interprets; what fails there fails here."""

    @functools.wraps(test)
    def submitted(**arguments: Any) -> None:
        _pool().submit(_run, test.__module__, test.__name__, arguments).result()

    return submitted


def _run(module: str, name: str, arguments: dict[str, Any]) -> None:
    getattr(importlib.import_module(module), name).__wrapped__(**arguments)


@functools.cache
def _pool() -> ProcessPoolExecutor:
    pool = ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn"), initializer=_become_interpreter
    )
    atexit.register(pool.shutdown)
    return pool


def _become_interpreter() -> None:
    assert "triton" not in sys.modules
    os.environ["TRITON_INTERPRET"] = "1"
    from triton.runtime import interpreter

    torch.set_num_threads(1)
    # Overflow of an exponential to infinity is what the GPU does, too.
    np.seterr(over="ignore")
    interpreter._convert_float = functools.partial(_convert_float, interpreter._convert_float)
    interpreter._patch_lang = _patched_once(interpreter)


def _patched_once(interpreter: ModuleType) -> Callable[[Any], Any]:
    """Return what makes Triton's language interpreted, once for each way a module imports it.

    Triton does it at every call of a function inside a kernel: two thirds of the time.
    """
    patch, done = interpreter._patch_lang, set()

    def patch_once(function: Any) -> Any:
        languages = (interpreter.tl, interpreter.tl.core)
        imported = tuple(
            any(value is language for value in function.__globals__.values())
            for language in languages
        )
        if imported not in done:
            done.add(imported)
            patch(function)
        return interpreter._LangPatchScope()

    return patch_once


def _convert_float(
    stock: Callable[..., Any], data: Any, from_type: Any, to_type: Any, rounding: Any
) -> Any:
    """Cast as the hardware does: to the nearest, ties to even, float8 saturating.

    Triton's own replacement truncates on the way to bfloat16, and loses the carry on the way to
    float8.
    """
    types = {
        "fp32": torch.float32,
        "fp16": torch.float16,
        "bf16": torch.bfloat16,
        "fp8e4nv": torch.float8_e4m3fn,
    }
    if str(from_type) not in types or str(to_type) not in types:
        return stock(data, from_type, to_type, rounding)
    raw = torch.from_numpy(np.ascontiguousarray(data)).view(torch.uint8)
    value, target = raw.view(types[str(from_type)]), types[str(to_type)]
    if target == torch.float8_e4m3fn:
        value = value.float().clamp(-448.0, 448.0)
    bits = value.to(target).view(torch.uint8).numpy()
    return bits.view(f"uint{8 * target.itemsize}").reshape(data.shape)


class Traffic:
    """Counts the bytes that kernels read and write, lane by lane; masked lanes touch nothing."""

    def __init__(self) -> None:
        self._touched: dict[str, list[np.ndarray]] = {"read": [], "written": []}

    def note(self, kind: str, pointers: Any, mask: Any) -> None:
        """Take down an access of the interpreter."""
        places = pointers.data[mask.data.astype(bool)].astype(np.int64)
        size = pointers.get_element_ty().primitive_bitwidth // 8
        self._touched[kind].append((places[:, None] + np.arange(size)).ravel())

    def times(self, kind: str, tensor: Tensor) -> set[int]:
        """Return how often the bytes of a contiguous tensor were touched: {1} is each once."""
        touched = np.concatenate(self._touched[kind]) - tensor.data_ptr()
        inside = touched[(touched >= 0) & (touched < tensor.nbytes)]
        return set(np.bincount(inside, minlength=tensor.nbytes).tolist())

    def total(self) -> int:
        """Return all bytes read and written."""
        return sum(len(places) for kind in self._touched.values() for places in kind)


@contextmanager
def traffic() -> Iterator[Traffic]:
    """Count what the kernels that are interpreted inside read and write."""
    from triton.runtime.interpreter import InterpreterBuilder

    counted = Traffic()
    load, store = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store

    def counting_load(builder: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        counted.note("read", pointers, mask)
        return load(builder, pointers, mask, *rest)

    def counting_store(builder: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        counted.note("written", pointers, mask)
        return store(builder, pointers, value, mask, *rest)

    with mock.patch.multiple(
        InterpreterBuilder, create_masked_load=counting_load, create_masked_store=counting_store
    ):
        yield counted
