"""One JSON line an event."""

from __future__ import annotations

from datetime import datetime

import pytest

from longvie_cli.errors import OutputConflictError
from longvie_cli.run_folder.events import append_event, read_events


def test_events_come_back_in_order(folder):
    assert read_events(folder.events) == []
    append_event(folder.events, "run_started", clips=5, prompt="é\nline")
    append_event(folder.events, "clip_done", clip_index=0, seconds=1.5)
    first, second = read_events(folder.events)
    assert (first["event"], first["clips"], first["prompt"]) == ("run_started", 5, "é\nline")
    assert (second["event"], second["clip_index"]) == ("clip_done", 0)
    assert datetime.fromisoformat(first["time"]) <= datetime.fromisoformat(second["time"])
    assert len(folder.events.read_text().splitlines()) == 2


def test_a_line_torn_by_a_kill_spoils_no_other(folder):
    append_event(folder.events, "run_started")
    with open(folder.events, "ab") as file:
        file.write('{"time": "2026", "event": "clip_dé'.encode()[:-1])
    append_event(folder.events, "run_started")
    assert [event["event"] for event in read_events(folder.events)] == ["run_started"] * 2


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(OutputConflictError, match=r"events\.jsonl"):
        append_event(tmp_path / "no" / "events.jsonl", "run_started")
