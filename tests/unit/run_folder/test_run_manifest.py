"""`run.json` and the clips' records."""

from __future__ import annotations

import json

import pytest

from longvie_cli.disk.hashing import fingerprint
from longvie_cli.errors import OutputConflictError
from longvie_cli.run_folder.manifest import (
    differences,
    read_manifest,
    read_record,
    write_manifest,
    write_record,
)
from longvie_cli.timeline import ClipGeometry, plan_clips
from stored_runs import stored_manifest, stored_record


@pytest.fixture
def manifest():
    return stored_manifest(plan_clips(ClipGeometry(33, 16), 160))


def test_manifest_round_trip(folder, manifest):
    write_manifest(folder.run_json, manifest)
    assert read_manifest(folder.run_json) == manifest
    stored = json.loads(folder.run_json.read_text())
    assert stored["schema_version"] == 1
    assert stored["plan"][1] == {
        "index": 1,
        "first_frame": 32,
        "skip_frames": 1,
        "added_frames": 32,
        "starts_scene": False,
        "ends_scene": False,
    }


def test_record_round_trip(folder):
    record = stored_record(index=3, frames=32, prompt="é")
    write_record(folder.clip_record(3), record)
    assert read_record(folder.clip_record(3)) == record


DAMAGED = [
    b"",
    b"{",
    b"\x00" * 300,
    b"\xff\xfe",
    b"[]",
    b"null",
    b'"text"',
    b"{}",
    b"[" * 100_000,
    b'{"schema_version": 1, "surprise": true}',
    b'{"schema_version": "one"}',
]


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_files_are_our_own_error(folder, content):
    for path, read in ((folder.run_json, read_manifest), (folder.clip_record(0), read_record)):
        path.write_bytes(content)
        with pytest.raises(OutputConflictError, match="damaged") as raised:
            read(path)
        assert raised.value.message.startswith(str(path))
        assert "\n" not in raised.value.message


def test_settings_that_contradict_each_other_are_damage(folder, manifest):
    values = json.loads(manifest.model_dump_json())
    values["settings"] |= {"control_start": 0.5, "control_end": 0.25}
    folder.run_json.write_text(json.dumps(values))
    with pytest.raises(OutputConflictError, match=r"damaged.*control-start 0.5"):
        read_manifest(folder.run_json)


def test_missing_files_and_newer_formats_are_said(folder, manifest):
    with pytest.raises(OutputConflictError, match="cannot be read"):
        read_manifest(folder.run_json)
    newer = json.loads(manifest.model_dump_json()) | {"schema_version": 2, "more": 1}
    folder.run_json.write_text(json.dumps(newer))
    with pytest.raises(OutputConflictError, match="newer longvie"):
        read_manifest(folder.run_json)


def test_values_of_the_wrong_type_are_not_converted(folder, manifest):
    wrong = json.loads(manifest.model_dump_json()) | {"seed": "7"}
    folder.run_json.write_text(json.dumps(wrong))
    with pytest.raises(OutputConflictError, match="seed"):
        read_manifest(folder.run_json)


def test_fingerprint_ignores_the_order_of_keys_only():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1, "b": [1, 2]}) != fingerprint({"a": 1, "b": [2, 1]})
    assert fingerprint({"a": 1}) != fingerprint({"a": 1.5})


def test_differences_are_said_in_words():
    stored = {"seed": 7, "prompt": "snow", "image": "a.png", "steps": 12}
    wanted = {"seed": 8, "prompt": "x" * 100, "steps": 12, "lora": None}
    assert differences(stored, wanted) == [
        'image "a.png", not nothing',
        "lora nothing, not null",
        'prompt "snow", not "' + "x" * 56 + "...",
        "seed 7, not 8",
    ]
    assert differences(stored, dict(stored)) == []
