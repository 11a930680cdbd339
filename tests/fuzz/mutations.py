"""Damaging valid files, by bytes and by structure; the same seed damages in the same way."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_LONG_TEXT = "long " * 400
_HUGE_TEXT = "x" * 200_000
_NAMES = (
    *("../../../../etc/passwd", "/etc/passwd", "~nobody/x", "~", "..", ".", "", "/", "//"),
    *("http://localhost/x.mp4", "file:x.mp4", "concat:a|b", "pipe:0", "-i", "a\nb.mp4"),
    *("%d.mp4", "a\0b", "x" * 300, "x/" * 3000, "\u202e", "\U0001f600", "[a]*?.mp4"),
)
_WORDS = ("nan", "inf", "-inf", "true", "end", "tiny", "longvie", "generate", "1e999", "0x10")
_SCALARS: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**31 - 1, 2**63, 2**64, -(2**63), 10**30, 10**400),
    *(0.0, -0.0, 1.5, -1.5, 1e308, 1e-308, float("nan"), float("inf"), float("-inf")),
    *([], {}, [[]], [None], {"": None}, "\ud800", "\udcff", "\0", "\n", "\x1b[2J", _LONG_TEXT),
    *_NAMES,
    *_WORDS,
)


@dataclass(frozen=True)
class Raw:
    """Text that goes into a document as it is, where a value would stand."""

    text: str


_DEEP = (Raw("[" * 60 + "]" * 60), Raw("[" * 70 + "]" * 70), Raw('{"a":' * 3000 + "1" + "}" * 3000))
_RAW_JSON = (
    *_DEEP,
    *(Raw("1e999"), Raw("-1e400"), Raw("1" * 5000), Raw("0" * 10), Raw("tru"), Raw("'x'")),
    *(Raw('"\\ud800"'), Raw('"\\u0000"'), Raw('{"a": 1, "a": 2}'), Raw("[" * 5_000)),
)
_LAUGHS = "[&l0 [x, x, x, x, x, x, x, x, x]" + "".join(
    f", &l{level} [{', '.join([f'*l{level - 1}'] * 9)}]" for level in range(1, 12)
)
_MERGES = "[&m0 {k: v}" + "".join(
    f", &m{level} {{<<: [*m{level - 1}, *m{level - 1}, *m{level - 1}]}}" for level in range(1, 24)
)
_RAW_YAML = (
    *_DEEP,
    *(Raw(_LAUGHS + "]"), Raw(_MERGES + "]"), Raw("&r [*r]"), Raw("&r {a: *r}"), Raw("*gone")),
    *(Raw("{<<: {seed: 1}, seed: 2}"), Raw("{seed: 1, seed: 2}"), Raw("{? [1, 2] : 3}")),
    *(Raw("!!python/object/apply:os.getcwd []"), Raw("!!python/name:os.system ''")),
    *(Raw("!!timestamp soon"), Raw("!!bool maybe"), Raw("!!int ''"), Raw("!!float x")),
    *(Raw("!!binary '='"), Raw("!!set {a, b}"), Raw("!!omap [1]"), Raw("!!pairs [[1]]")),
    *(Raw("2001-99-99"), Raw("2001-01-01"), Raw("0x" + "f" * 5000), Raw("1:" * 300 + "1")),
    *(Raw(".nan"), Raw(".inf"), Raw("-.inf"), Raw("1e9999"), Raw("9" * 5000), Raw("~")),
    *(Raw('"\\ud800"'), Raw('"\\uffff"'), Raw('"\\U00110000"'), Raw('"\\0"'), Raw("|\n  x")),
    *(Raw("[" * 5000), Raw("- " * 3000), Raw("!<x> y"), Raw("%TAG ! x"), Raw("--- 1\n--- 2")),
)


def damaged_bytes(chance: random.Random, data: bytes) -> bytes:
    """Return the bytes with a few of them changed, gone, repeated or new."""
    damaged = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        place = chance.randrange(len(damaged) + 1)
        end = min(len(damaged), place + chance.choice((1, 1, 2, 4, 8, 64)))
        chance.choice(_BYTE_CHANGES)(chance, damaged, place, end)
    return bytes(damaged)


def _flip(chance: random.Random, data: bytearray, place: int, end: int) -> None:
    if place < len(data):
        data[place] ^= 1 << chance.randrange(8)


def _drop(chance: random.Random, data: bytearray, place: int, end: int) -> None:
    del data[place:end]


def _cut(chance: random.Random, data: bytearray, place: int, end: int) -> None:
    del data[place:]


def _repeat(chance: random.Random, data: bytearray, place: int, end: int) -> None:
    data[place:place] = data[place:end] * chance.choice((1, 2, 50))


def _add(chance: random.Random, data: bytearray, place: int, end: int) -> None:
    data[place:place] = chance.choice(
        (b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b"\n", b'"', b"[", b"{")
    )


def _number(chance: random.Random, data: bytearray, place: int, end: int) -> None:
    size, code = chance.choice(((4, ">I"), (8, "<Q"), (8, ">Q"), (2, ">H"), (4, "<I")))
    value = chance.choice((0, 1, 2 ** (8 * size) - 1, 2 ** (8 * size - 1), 2 ** (4 * size)))
    data[place : place + size] = struct.pack(code, value)


def _digits(chance: random.Random, data: bytearray, place: int, end: int) -> None:
    data[place:end] = chance.choice((b"9" * 40, b"-1", b"1e400", b"NaN", b"0", b"100000", b"1:1"))


_BYTE_CHANGES: tuple[Callable[[random.Random, bytearray, int, int], None], ...] = (
    *(_flip, _flip, _drop, _cut, _repeat, _add, _number, _digits),
)


def damaged_document(chance: random.Random, document: Any, *, yaml: bool) -> Any:
    """Return a copy of a document in which one to three values are others, gone or new."""
    document = copy.deepcopy(document)
    if chance.randrange(200) == 0:
        return [document, chance.choice((_HUGE_TEXT, Raw("[" * 100_000), Raw("{" * 100_000)))]
    extremes = _SCALARS + (_RAW_YAML if yaml else _RAW_JSON)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        places = list(_places(document))
        if not places:
            return copy.deepcopy(chance.choice(extremes))
        holder, key = chance.choice(places)
        action = chance.randrange(10)
        if action < 6:
            holder[key] = copy.deepcopy(chance.choice(extremes))
        elif action == 6:
            del holder[key]
        elif action == 7 and isinstance(holder, dict):
            holder[chance.choice((*_NAMES, *_WORDS, "schema_version", "extra"))] = holder[key]
        elif action == 7:
            holder.extend([holder[key]] * chance.choice((1, 3, 200)))
        elif action == 8:
            holder[key] = _nearby(chance, holder[key])
        else:
            other_holder, other_key = chance.choice(places)
            holder[key] = copy.deepcopy(other_holder[other_key])
    return document


def _nearby(chance: random.Random, value: Any) -> Any:
    """Return a value of the same type that is a little or very much other."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return chance.choice((value + 1, value - 1, -value, value * 1000, value << 40, str(value)))
    if isinstance(value, float):
        return chance.choice((-value, value * 1e6, value / 3, str(value)))
    if isinstance(value, str):
        return chance.choice(
            (value + " ", value[1:], value.upper(), value * 3, [value], {value: 1})
        )
    return [value]


def _places(document: Any) -> Any:
    """Yield every place of a document that holds a value, as holder and key or index."""
    if isinstance(document, dict | list):
        for key in list(document) if isinstance(document, dict) else range(len(document)):
            yield document, key
            yield from _places(document[key])


def rendered(document: Any) -> bytes:
    """Return a document as JSON (which is YAML too), raw parts and half characters included."""
    raws: list[str] = []

    def marked(value: Any) -> Any:
        if isinstance(value, Raw):
            raws.append(value.text)
            return f"raw-{len(raws) - 1}-raw"
        if isinstance(value, dict):
            return {key: marked(inner) for key, inner in value.items()}
        return [marked(inner) for inner in value] if isinstance(value, list) else value

    text = json.dumps(marked(document)) if not isinstance(document, Raw) else document.text
    for index, raw in enumerate(raws):
        text = text.replace(f'"raw-{index}-raw"', raw)
    return text.encode("utf-8", "surrogatepass")


def damaged_words(chance: random.Random, text: str, words: tuple[str, ...]) -> bytes:
    """Return a text with some of its words changed for others of its language, or for odd ones."""
    parts = text.split(" ")
    for _ in range(chance.choice((1, 1, 2, 5))):
        place = chance.randrange(len(parts) + 1)
        odd = (*_NAMES, *_WORDS, "9" * 400, "-1", "0", "1e5", "\ud800", "١٢", "²", ",", "+" * 50)
        word = chance.choice((*words, chance.choice(odd)))
        parts[place : place + chance.randrange(2)] = [word] * chance.choice((1, 1, 1, 2, 300))
    return chance.choice((" ", " ", "", "\n")).join(parts).encode("utf-8", "surrogatepass")
