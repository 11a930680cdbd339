"""Manifests and records come back as they were written, whatever people type into prompts."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longvie_cli.disk.checksums import read_checksummed_json
from longvie_cli.disk.hashing import fingerprint
from longvie_cli.errors import OutputConflictError
from longvie_cli.run_folder.manifest import (
    Redo,
    differences,
    read_manifest,
    read_record,
    write_manifest,
    write_record,
)
from longvie_cli.timeline import ClipGeometry, plan_clips
from stored_runs import stored_manifest, stored_record

# Characters that UTF-8 cannot hold (lone surrogates) cannot come from a file or a terminal.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
# Names of fields whose form is checked (`request`, `settings` ...) are not for any value.
requests = st.dictionaries(texts.map(lambda text: f"a {text}"), values, max_size=6)
plans = st.builds(
    plan_clips, st.sampled_from([ClipGeometry(33, 16), ClipGeometry(81, 16)]), st.integers(1, 900)
)
redos = st.builds(
    Redo,
    clip=st.integers(0, 40),
    prompt=st.none() | texts,
    seed=st.none() | st.integers(0, 2**63 - 1),
)
manifests = st.builds(
    stored_manifest,
    plans,
    redos=st.lists(redos, max_size=3),
    settings=requests,
    request=requests.map(lambda request: request | {"output": "out.mp4"}),
    seed=st.integers(0, 2**63),
    preset=texts,
    model_hashes=st.dictionaries(texts, texts, max_size=3),
    versions=st.dictionaries(texts, texts, max_size=3),
    created=texts,
)
records = st.builds(
    stored_record,
    index=st.integers(0, 10_000),
    frames=st.integers(1, 200),
    video_hash=texts,
    tail_hash=texts,
    seconds=st.floats(0, 1e9),
    seed=st.integers(0, 2**63),
    prompt=texts,
    follows=texts,
    revision=st.integers(0, 50),
    attempts=st.integers(1, 11),
    warnings=st.lists(texts, max_size=3).map(tuple),
)
# Fields that a later version may add; ours have no such names.
additions = st.dictionaries(texts.map("later_".__add__), values, max_size=3)
# Each example writes over the last one's file, which is the point of writing in one step.
quick = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(manifest=manifests)
def test_manifest_round_trip(tmp_path, manifest):
    write_manifest(tmp_path / "run.json", manifest)
    assert read_manifest(tmp_path / "run.json") == manifest


@quick
@given(record=records)
def test_record_round_trip(tmp_path, record):
    write_record(tmp_path / "0000.json", record)
    assert read_record(tmp_path / "0000.json") == record


@quick
@given(manifest=manifests, record=records, more=additions)
def test_what_a_later_version_adds_is_read_past_and_kept(tmp_path, manifest, record, more):
    for path, stored, read, write in (
        (tmp_path / "run.json", manifest, read_manifest, write_manifest),
        (tmp_path / "0000.json", record, read_record, write_record),
    ):
        later = json.loads(stored.model_dump_json()) | more
        path.write_text(json.dumps(later), "utf-8")
        found = read(path)
        known = type(stored).model_fields
        assert all(getattr(found, name) == getattr(stored, name) for name in known)
        write(path, found)
        assert read_checksummed_json(path.read_bytes()) == later


@quick
@given(manifest=manifests, cut=st.floats(0, 1), junk=st.binary(max_size=5))
def test_a_torn_manifest_is_our_own_error_or_whole(tmp_path, manifest, cut, junk):
    path = tmp_path / "run.json"
    write_manifest(path, manifest)
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * len(data))] + junk)
    try:
        assert read_manifest(path) == manifest
    except OutputConflictError as error:
        assert error.message.startswith(str(path))


@quick
@given(request=requests)
def test_fingerprint_survives_a_trip_through_the_file(tmp_path, request):
    manifest = stored_manifest((), settings=request)
    write_manifest(tmp_path / "run.json", manifest)
    stored = read_manifest(tmp_path / "run.json")
    assert fingerprint(stored.settings) == stored.fingerprint
    assert differences(stored.settings, request) == []


@quick
@given(version=st.integers(2, 2**40), more=additions)
def test_a_newer_format_is_refused_by_its_number(tmp_path, version, more):
    path = tmp_path / "run.json"
    # A later format may have changed anything but the name of its number.
    later = {"schema_version": version, "plan": "elsewhere"} | more
    path.write_text(json.dumps(later), "utf-8")
    with pytest.raises(OutputConflictError, match=f"newer longvie .format {version},"):
        read_manifest(path)


@quick
@given(manifest=manifests, more=additions)
def test_what_a_later_version_adds_to_a_redo_is_kept(tmp_path, manifest, more):
    path = tmp_path / "run.json"
    later = json.loads(manifest.model_dump_json())
    later["redos"].append({"clip": 3} | more)
    path.write_text(json.dumps(later), "utf-8")
    write_manifest(path, read_manifest(path))
    kept = json.loads(path.read_bytes())["redos"][-1]
    assert more.items() <= kept.items()
