"""Foreign text as it is shown, and commands as they can be typed."""

from __future__ import annotations

import subprocess
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longvie_cli.progress import command_line, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]2;title\x07\x1b[2J", r"\x1b]2;title\x07\x1b[2J"),
        ("a\r\nb\tc\x08d\x7f", r"a\r\nb\tc\x08d\x7f"),
        ("\x9b2J\x85", r"\x9b2J\x85"),
        ("gpj\u202e4pm.\u2066", r"gpj\u202e4pm.\u2066"),
        ("zero\u200bwidth\ufeff\u2028", r"zero\u200bwidth\ufeff\u2028"),
        ("tag\U000e0041", r"tag\U000e0041"),
        ("byte\udcff half\ud800", r"byte\xff half\ud800"),
        ("[bold]markup[/bold] :smile:", "[bold]markup[/bold] :smile:"),
        ("caf\u00e9 \u96ea\u3000\u5c71 \U0001f469\u200d\U0001f680", None),
    ],
)
def test_what_is_not_shown_as_itself_is_escaped(text: str, shown: str | None) -> None:
    assert printable(text) == (text if shown is None else shown)


@given(st.text())
def test_nothing_that_steers_is_left(text: str) -> None:
    left = {unicodedata.category(character) for character in printable(text)}
    assert not left & {"Cc", "Cs", "Zl", "Zp"}
    assert printable(printable(text)) == printable(text)


@pytest.mark.parametrize(
    "name",
    ["plain", "with space", "it's", "\x1b]2;x\x07", "a\nb'\\c", "\u202egpj", "\udcff\x9b", "-", ""],
)
def test_a_command_can_be_shown_and_typed_as_it_stands_there(name: str) -> None:
    line = command_line(["printf", "%s", name])
    assert printable(line) == line
    typed = subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout
    assert typed == name.encode("utf-8", "surrogateescape")
