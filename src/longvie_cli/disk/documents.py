"""JSON and YAML that anybody may have written: bounded in size, depth and expansion.

Every reader of a settings file, a record or a tag goes through here, so that whatever stands in it
ends as one `ValueError` with a reason, never as another exception, a hang or a full memory.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from longvie_cli.disk.durable import scarcity_error
from longvie_cli.progress import printable

if TYPE_CHECKING:
    import yaml
    from pydantic import ValidationError

# A run of 24 hours has a plan of some 10 MB; people write a few kilobytes.
MAX_JSON_BYTES = 1 << 26
MAX_YAML_BYTES = 1 << 20

_MAX_DEPTH = 64
# Values a document may stand for, those that YAML aliases repeat counted each time.
_MAX_VALUES = 100_000
# 64 bits: seeds are the largest numbers there are.
_MAX_INTEGER = 1 << 64
_MAX_NUMBER_CHARACTERS = 400

_TOO_DEEP = f"it is nested more than {_MAX_DEPTH} deep"
_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
_short.maxlevel = 3


def read_document(path: Path, max_bytes: int) -> bytes:
    """Return the bytes of a file that is read whole.

    Raises:
        OSError: It cannot be read.
        ResumableError: The machine has no file left to open, or no memory.
        ValueError: It is larger than `max_bytes`, or its name holds a NUL character.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as reason:
        if (scarce := scarcity_error(f"{path}: cannot be read", reason)) is not None:
            raise scarce from reason
        raise
    if len(data) > max_bytes:
        raise ValueError(f"it is larger than {max_bytes >> 20} MiB")
    return data


def decoded(data: bytes) -> str:
    """Return UTF-8 bytes as text.

    Raises:
        ValueError: They are something else.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("it is no UTF-8 text") from error


def parse_json(data: bytes | str) -> Any:
    """Return the value of a JSON text: numbers finite and of 64 bits, text that UTF-8 can hold.

    Raises:
        ValueError: It is no JSON, not of this kind, or an object in it holds a key twice.
    """
    text = decoded(data) if isinstance(data, bytes) else data
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_no_constant,
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON, line {error.lineno}: {error.msg}") from error
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    if text.count("[") + text.count("{") > _MAX_DEPTH:
        _check_depth(value)
    if "\\u" in text:
        # An escape may stand for half a character, which cannot be written down again.
        _check_text(json.dumps(value, ensure_ascii=False))
    return value


def json_line(value: object) -> str:
    """Return a value as JSON on one line that a terminal shows as it is."""
    line = json.dumps(value, ensure_ascii=False)
    # What is not shown as itself stands inside strings, where JSON may escape it.
    return line if line.isprintable() else "".join(map(_json_character, line))


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML document of plain data; None for an empty one.

    Raises:
        ValueError: It is no YAML, holds a tag of something else or a key twice, or is too large
            once its aliases are followed.
    """
    import yaml

    if len(text) > MAX_YAML_BYTES:
        raise ValueError(f"it is larger than {MAX_YAML_BYTES >> 20} MiB")
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _num_values(node, {}, 0)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f", line {mark.line + 1}"
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        raise ValueError(one_line(f"not YAML{line}: {reason}", 400)) from error
    except yaml.YAMLError as error:
        raise ValueError(one_line(f"not YAML: {error}", 400)) from error
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError) as error:
        # What PyYAML does with `!!bool maybe` or `!!timestamp soon`.
        raise ValueError(f"a tag does not fit its value ({type(error).__name__})") from error
    finally:
        if loader is not None:
            loader.dispose()


def briefly(value: object) -> str:
    """Return any value as a few words for a message."""
    return _short.repr(str(value) if isinstance(value, Path) else value)


def reason_of(error: Exception) -> str:
    """Return what an exception of a library says, on one line and not longer than a line."""
    return one_line(str(error))


def first_reason_of(error: ValidationError) -> str:
    """Return where the first value stands that pydantic does not take, and why."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return one_line(f"{where}: {first['msg']}" if where else first["msg"])


def one_line(text: str, longest: int = 200) -> str:
    """Return a text on one line and cut to a length, for a message."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError(f"{briefly(_given_twice(key for key, _ in pairs))} is given twice")
    return values


def _given_twice(keys: Iterable[str]) -> str | None:
    known: set[str] = set()
    for key in keys:
        if key in known:
            return key
        known.add(key)
    return None


def _json_character(character: str) -> str:
    return character if printable(character) == character else json.dumps(character)[1:-1]


def _integer(digits: str) -> int:
    number = int(digits) if len(digits) <= _MAX_NUMBER_CHARACTERS else None
    if number is None or abs(number) > _MAX_INTEGER:
        raise ValueError(f"a number of {len(digits)} digits is too large")
    return number


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:20]} is too large a number")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _check_depth(value: object) -> None:
    level: list[object] = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, list | dict)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, list | dict)
        ]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("it holds half a character (a lone surrogate)") from error


def _num_values(node: yaml.Node, known: dict[int, int | None], depth: int) -> int:
    """Return how many values a node stands for, and check each of them."""
    import yaml

    place = id(node)
    if place in known:
        number = known[place]
        if number is None:
            raise ValueError("an alias stands inside what it repeats")
        return number
    if depth > _MAX_DEPTH:
        raise ValueError(_TOO_DEEP)
    known[place], number = None, 1
    if isinstance(node, yaml.ScalarNode):
        _check_text(node.value)
        is_number = node.tag.endswith((":int", ":float"))
        if is_number and len(node.value) > _MAX_NUMBER_CHARACTERS:
            raise ValueError(f"a number of {len(node.value)} digits is too large")
    elif isinstance(node, yaml.SequenceNode):
        number += sum(_num_values(item, known, depth + 1) for item in node.value)
    elif isinstance(node, yaml.MappingNode):
        keys = (key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if (twice := _given_twice(keys)) is not None:
            raise ValueError(f"{briefly(twice)} is given twice (line {node.start_mark.line + 1})")
        number += sum(
            _num_values(key, known, depth + 1) + _num_values(value, known, depth + 1)
            for key, value in node.value
        )
    if number > _MAX_VALUES:
        raise ValueError(f"it stands for more than {_MAX_VALUES} values once aliases are followed")
    known[place] = number
    return number
