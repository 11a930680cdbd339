"""JSON and YAML that anybody may have written."""

from __future__ import annotations

import json
import math
import os
import time

import pytest

from longvie_cli.disk.documents import (
    briefly,
    decoded,
    json_line,
    one_line,
    parse_json,
    parse_yaml,
    read_document,
)

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
MERGES = "m0: &m0 {k: v}\n" + "".join(
    f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}, *m{n - 1}]}}\n" for n in range(1, 25)
)


def test_plain_values_come_back():
    assert parse_json(b'\xef\xbb\xbf{"a": [1, -2.5, null, true, "\\u00e9"]}') == {
        "a": [1, -2.5, None, True, "é"]
    }
    text = "a: &x [1, 2.5, ~, yes]\nb: *x\nc: {<<: {d: e}}\n"
    assert parse_yaml(text) == {
        "a": [1, 2.5, None, True],
        "b": [1, 2.5, None, True],
        "c": {"d": "e"},
    }
    assert parse_yaml("# nothing\n") is None
    assert parse_json(str(2**63)) == 2**63 and parse_json("-9223372036854775808") == -(2**63)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON, line 1"),
        ("[" * 100_000, "nested"),
        ("[" * 65 + "]" * 65, "nested"),
        ('{"a":' * 65 + "1" + "}" * 65, "nested"),
        ("NaN", "NaN"),
        ("-Infinity", "Infinity"),
        ("1e999", "too large"),
        ("9" * 30, "too large"),
        ("9" * 5000, "too large"),
        ('"\\ud800"', "half a character"),
        ('{"\\udcff": 1}', "half a character"),
        ('{"seed": 1, "seed": 1}', "'seed' is given twice"),
        ('[{"a": {"b": 1, "c": 2, "\\u0062": 3}}]', "'b' is given twice"),
    ],
)
def test_json_of_another_kind_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


def test_nesting_that_people_write_is_taken():
    assert parse_json("[" * 60 + "]" * 60)
    assert parse_yaml("[" * 60 + "]" * 60)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LAUGHS, "more than 100000 values"),
        (MERGES, "more than 100000 values"),
        ("&a [*a]", "inside what it repeats"),
        ("a: &a {b: *a}", "inside what it repeats"),
        ("seed: 1\nseed: 2", "'seed' is given twice .line 1"),
        ("!!python/object/apply:os.getcwd []", "constructor"),
        ("!!timestamp soon", "tag"),
        ("!!bool maybe", "tag"),
        ("2001-99-99", "month"),
        ("0x" + "f" * 5000, "too large"),
        ("[" * 5000, "nested"),
        ("- " * 5000, "nested"),
        ('"\\ud800"', "half a character"),
        ("x" * (1 << 21), "larger than 1 MiB"),
        ("a: 1\n---\nb: 2", "single document"),
        ("a: 1\nb: [", "not YAML, line 2: "),
    ],
)
def test_yaml_of_another_kind_is_refused(text, reason):
    began = time.process_time()
    with pytest.raises(ValueError, match=reason) as raised:
        parse_yaml(text)
    assert time.process_time() - began < 5
    assert "\n" not in str(raised.value)


def test_files_are_read_up_to_a_size(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1000)
    assert read_document(path, 1000) == b"x" * 1000
    with pytest.raises(ValueError, match="larger than"):
        read_document(path, 999)
    with pytest.raises(ValueError, match="no UTF-8"):
        decoded(b"\xff")


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs an endless device")
def test_a_file_without_end_is_left(tmp_path):
    with pytest.raises(ValueError, match="larger than"):
        read_document(tmp_path.joinpath("/dev/zero"), 1 << 20)


def test_anything_is_shown_in_a_few_words(tmp_path):
    bomb: list = ["x"]
    for _ in range(50):
        bomb = [bomb] * 10
    for value in (bomb, "x" * 10_000, 10**4000, math.nan, tmp_path / "name", {"a": bomb}):
        assert len(briefly(value)) < 5000
    assert briefly("seven") == "'seven'"
    assert one_line("a\n  b\tc") == "a b c"
    assert len(one_line("x" * 1000, 80)) == 80


def test_json_on_a_line_steers_no_terminal():
    value = {"a\x1b[2J": ["\x9b\x7f\u202e\u2028", "\u96ea \U000e0041 \ud800"]}
    line = json_line(value)
    assert parse_json(line.replace("\\ud800", "")) and json.loads(line) == value
    assert line.isprintable() and "\u96ea" in line
