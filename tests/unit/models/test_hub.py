"""Models fetched from a hub on this machine: resumed, checked, kept and found again."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from hub_server import HubServer, Repository, serve_hub
from longvie_cli.errors import MissingResourceError, OutputConflictError, ResumableError
from longvie_cli.hub.installed import (
    entry_folder,
    entry_status,
    locate_weights,
    verify,
    weight_hashes,
)
from longvie_cli.hub.licences import acceptance_file, settle_licences
from longvie_cli.hub.pull import Hub, pull
from longvie_cli.hub.record import repo_folder, stored_record
from longvie_cli.hub.registry import (
    REGISTRY,
    ModelEntry,
    entries_of,
    entry_named,
    preset_entries,
)
from longvie_cli.progress import SilentProgress
from longvie_cli.settings.presets import PRESET_NAMES, Preset, load_preset

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BIG = "model/weights-00001-of-00002.safetensors"
BIG_TOO = "model/weights-00002-of-00002.safetensors"


def entry(**changes: object) -> ModelEntry:
    facts: dict[str, object] = {
        "name": "small",
        "role": "depth",
        "repo": "someone/small",
        "revision": COMMIT,
        "allow_patterns": ("model/*", "config.json"),
        "required": ("config.json", BIG, BIG_TOO),
        "licence": "Apache-2.0",
        "noncommercial": False,
        "purpose": "tests",
        "approximate_bytes": 1_000_000,
    }
    return ModelEntry(**(facts | changes))  # type: ignore[arg-type]


def preset(*models: str) -> Preset:
    return load_preset("tiny").model_copy(update={"models": models, "name": "small-preset"})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    content = random.Random(0).randbytes
    with serve_hub() as hub:
        hub.repositories["someone/small"] = Repository(
            COMMIT,
            {
                "config.json": b'{"a": 1}\n',
                BIG: content(300_000),
                BIG_TOO: content(200_001),
                "README.md": b"unused",
                "examples/cat.png": content(50_000),
            },
        )
        yield hub


@pytest.fixture
def hub(server: HubServer, tmp_path: Path) -> Hub:
    return Hub(server.endpoint, tmp_path / "cache", retry_waits_seconds=(0.0, 0.0))


def fetch(hub: Hub, *entries: ModelEntry) -> Path:
    (folder,) = pull(entries or (entry(),), hub, SilentProgress())
    return folder


def blob_of(folder: Path, name: str) -> Path:
    return (folder / name).resolve()


def spoil(path: Path) -> None:
    """Change one byte, as a bad disk does: size and time stay."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_is_used_is_fetched_and_nothing_else(server: HubServer, hub: Hub) -> None:
    folder = fetch(hub)
    files = server.repositories["someone/small"].files
    for name in ("config.json", BIG, BIG_TOO):
        assert (folder / name).read_bytes() == files[name]
    assert [name for name, _ in server.requests] == ["config.json", BIG, BIG_TOO]
    assert not (folder / "README.md").exists()
    assert list(hub.cache.rglob("*.part")) == []


def test_the_cache_is_the_one_that_huggingface_hub_reads(server: HubServer, hub: Hub) -> None:
    folder = fetch(hub, entry(revision="main"))
    found = huggingface_hub.try_to_load_from_cache("someone/small", BIG, cache_dir=hub.cache)
    assert found == str(folder / BIG)
    local = huggingface_hub.snapshot_download(
        "someone/small", cache_dir=hub.cache, local_files_only=True
    )
    assert Path(local) == folder
    scanned = huggingface_hub.scan_cache_dir(hub.cache)
    assert scanned.warnings == []
    assert {repo.repo_id for repo in scanned.repos} == {"someone/small"}


def test_a_second_pull_fetches_nothing(server: HubServer, hub: Hub) -> None:
    first = fetch(hub)
    server.requests.clear()
    assert fetch(hub) == first
    assert server.requests == []


def test_an_answer_without_a_byte_is_not_asked_for_ever(server: HubServer, hub: Hub) -> None:
    server.tampered[BIG] = b""
    with pytest.raises(ResumableError, match="the download stopped at 0 of"):
        pull([entry()], hub, SilentProgress())
    assert [name for name, _ in server.requests].count(BIG) == 3


def test_a_dropped_connection_is_continued_at_its_byte(server: HubServer, hub: Hub) -> None:
    server.drop_after[BIG] = 100_000
    fetch(hub)
    assert server.requests[1:3] == [(BIG, 0), (BIG, 100_000)]
    assert server.sent[BIG] == 300_000


def test_a_stopped_pull_is_continued_by_the_next(server: HubServer, hub: Hub) -> None:
    server.drop_after[BIG] = 120_000
    server.broken_after_drop = True
    with pytest.raises(ResumableError, match="stopped at 120000 of 300000 bytes") as stopped:
        fetch(hub)
    assert stopped.value.hint.endswith("longvie models pull small")
    status = entry_status(entry(), hub.cache)
    assert (list(status.present), status.missing_bytes) == (["config.json"], 500_001)

    server.broken = False
    server.requests.clear()
    folder = fetch(hub)
    assert server.requests == [(BIG, 120_000), (BIG_TOO, 0)]
    assert server.sent[BIG] == 300_000
    assert (folder / BIG).read_bytes() == server.repositories["someone/small"].files[BIG]


def test_a_server_without_ranges_sends_the_file_anew(server: HubServer, hub: Hub) -> None:
    server.drop_after[BIG] = 120_000
    server.ignores_ranges = True
    folder = fetch(hub)
    assert (folder / BIG).read_bytes() == server.repositories["someone/small"].files[BIG]
    assert server.sent[BIG] == 420_000


def test_what_is_not_the_published_content_is_thrown_away(server: HubServer, hub: Hub) -> None:
    server.tampered[BIG] = bytes(300_000)
    with pytest.raises(ResumableError, match="not what the hub published"):
        fetch(hub)
    assert list(hub.cache.rglob("*.part")) == []
    assert BIG in entry_status(entry(), hub.cache).missing
    server.tampered.clear()
    fetch(hub)


def test_a_small_file_is_checked_by_its_git_hash(server: HubServer, hub: Hub) -> None:
    server.tampered["config.json"] = b'{"a": 2}\n'
    with pytest.raises(ResumableError, match=r"config\.json: what arrived is not"):
        fetch(hub)


def test_verify_names_a_damaged_file_and_pull_fetches_just_that(
    server: HubServer, hub: Hub
) -> None:
    folder = fetch(hub)
    (record,) = verify([entry()], cache=hub.cache)
    assert record.commit == COMMIT
    spoil(blob_of(folder, BIG_TOO))
    with pytest.raises(MissingResourceError) as found:
        verify([entry()], cache=hub.cache)
    assert found.value.message == f"small: damaged: {BIG_TOO}."
    assert found.value.hint == "longvie models pull small"
    server.requests.clear()
    fetch(hub)
    assert server.requests == [(BIG_TOO, 0)]
    verify([entry()], cache=hub.cache)


def test_verify_asks_no_network(server: HubServer, hub: Hub) -> None:
    fetch(hub)
    asked = server.asked
    verify([entry()], cache=hub.cache)
    assert server.asked == asked


def test_a_torn_file_counts_as_missing_and_is_fetched_again(server: HubServer, hub: Hub) -> None:
    folder = fetch(hub)
    blob_of(folder, BIG).write_bytes(b"torn")
    assert entry_status(entry(), hub.cache).missing == (BIG,)
    with pytest.raises(MissingResourceError, match=f"damaged: {BIG}"):
        verify([entry()], cache=hub.cache)
    fetch(hub)
    verify([entry()], cache=hub.cache)


def test_a_disk_too_small_stops_before_the_first_byte(server: HubServer, hub: Hub) -> None:
    with pytest.raises(ResumableError) as full:
        pull([entry()], hub, SilentProgress(), free_space=lambda folder: 500_000)
    assert "500010 bytes (500.0 kB) are needed, 500000 bytes (500.0 kB) are free" in str(full.value)
    assert server.requests == []
    pull([entry()], hub, SilentProgress(), free_space=lambda folder: 500_010)


def test_offline_lists_what_is_missing_and_asks_nobody(server: HubServer, hub: Hub) -> None:
    offline = Hub(hub.endpoint, hub.cache, offline=True)
    with pytest.raises(MissingResourceError) as missing:
        fetch(offline)
    assert "config.json, model/weights-{00001..00002}-of-00002.safetensors" in str(missing.value)
    assert server.asked == 0
    folder = fetch(hub)
    assert fetch(offline) == folder


def test_a_branch_is_pinned_to_the_commit_of_the_first_pull(server: HubServer, hub: Hub) -> None:
    branch = entry(revision="main")
    first = fetch(hub, branch)
    record = stored_record(branch, hub.cache)
    assert record is not None and record.commit == COMMIT
    files = server.repositories["someone/small"].files
    # The branch moves on; what was fetched stays what is used.
    server.repositories["someone/small"] = Repository(COMMIT, files, branch="other")
    assert fetch(hub, branch) == first


def test_a_cache_copied_to_another_machine_is_checked_there(
    server: HubServer, hub: Hub, tmp_path: Path
) -> None:
    fetch(hub)
    other = tmp_path / "other machine"
    shutil.copytree(hub.cache, other, symlinks=True)
    (record,) = verify([entry()], cache=other)
    assert len(record.files) == 3
    spoil(next((repo_folder(other, "someone/small") / "blobs").iterdir()))
    with pytest.raises(MissingResourceError, match="damaged"):
        verify([entry()], cache=other)


def test_files_fetched_by_another_program_are_found_and_checked(
    server: HubServer, hub: Hub
) -> None:
    folder = fetch(hub)
    (repo_folder(hub.cache, "someone/small") / "longvie.json").unlink()
    assert entry_status(entry(), hub.cache).complete
    spoil(blob_of(folder, BIG))
    with pytest.raises(MissingResourceError, match="damaged"):
        verify([entry()], cache=hub.cache)


def test_what_the_hub_does_not_have_is_said(server: HubServer, hub: Hub) -> None:
    with pytest.raises(MissingResourceError, match="has no such repository"):
        fetch(hub, entry(repo="nobody/nothing"))
    with pytest.raises(MissingResourceError, match="has no revision fff"):
        fetch(hub, entry(revision="f" * 40))
    with pytest.raises(MissingResourceError, match=r"the hub has no more\.bin"):
        fetch(hub, entry(required=("more.bin",)))
    with pytest.raises(ResumableError, match="cannot be reached"):
        fetch(Hub("http://127.0.0.1:9", hub.cache))


def test_a_file_system_without_links_keeps_the_files_themselves(
    server: HubServer, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "symlink", refuse)
    folder = fetch(hub)
    assert (folder / BIG).is_file() and not (folder / BIG).is_symlink()
    verify([entry()], cache=hub.cache)
    server.requests.clear()
    fetch(hub)
    assert server.requests == []
    spoil(folder / BIG)
    with pytest.raises(MissingResourceError, match=f"damaged: {BIG}"):
        verify([entry()], cache=hub.cache)
    fetch(hub)
    assert server.requests == [(BIG, 0)]


def test_files_of_the_same_content_are_fetched_once(server: HubServer, hub: Hub) -> None:
    files = server.repositories["someone/small"].files
    files["model/copy.safetensors"] = files[BIG]
    folder = fetch(hub)
    assert (folder / "model/copy.safetensors").read_bytes() == files[BIG]
    assert server.sent[BIG] == 300_000 and "model/copy.safetensors" not in server.sent
    record = stored_record(entry(), hub.cache)
    assert record is not None
    assert all(file.checked_mtime_ns is not None for file in record.files.values())


def test_no_file_is_written_outside_the_model(server: HubServer, hub: Hub) -> None:
    server.repositories["someone/small"].files["model/../../../../out.safetensors"] = b"out"
    fetch(hub)
    assert [name for name, _ in server.requests] == ["config.json", BIG, BIG_TOO]
    server.repositories["someone/small"].commit = "../../out"
    with pytest.raises(MissingResourceError, match="has no commit"):
        fetch(Hub(hub.endpoint, hub.cache / "other"), entry(revision="main"))


def test_two_pulls_of_one_model_do_not_meet(server: HubServer, hub: Hub) -> None:
    from filelock import FileLock

    fetch(hub)
    with (
        FileLock(repo_folder(hub.cache, "someone/small") / "longvie.lock"),
        pytest.raises(OutputConflictError, match="another process"),
    ):
        fetch(hub)


def test_weights_of_a_preset_are_located_and_hashed(server: HubServer, hub: Hub) -> None:
    entries, where = [entry()], {"cache": hub.cache}
    with pytest.raises(MissingResourceError) as missing:
        locate_weights(preset("small"), entries=entries, **where)
    assert missing.value.hint == "longvie models pull small-preset"
    folder = fetch(hub)
    assert locate_weights(preset("small"), entries=entries, **where) == [folder]
    assert entry_folder(entries[0], **where) == folder
    hashes = weight_hashes(preset("small"), entries=entries, **where)
    lfs = server.repositories["someone/small"].sibling(BIG)["lfs"]
    assert hashes[f"small/{BIG}"] == lfs["sha256"]
    assert all(len(value) == 64 for value in hashes.values())
    # Untouched files are not read again; a changed one is.
    spoil(blob_of(folder, BIG))
    assert weight_hashes(preset("small"), entries=entries, **where) == hashes
    os.utime(blob_of(folder, BIG))
    with pytest.raises(MissingResourceError, match="damaged"):
        weight_hashes(preset("small"), entries=entries, **where)


def test_an_embedded_preset_needs_nothing() -> None:
    tiny = load_preset("tiny")
    assert locate_weights(tiny) == []
    assert weight_hashes(tiny) == {}


def test_noncommercial_licences_are_accepted_once() -> None:
    closed = entry(name="closed", licence="CC-BY-NC-4.0", noncommercial=True)
    progress = SilentProgress()

    def settle(*entries: ModelEntry, accept: bool = False) -> None:
        settle_licences(
            entries,
            accept=accept,
            how="longvie models pull closed --accept-noncommercial",
            progress=progress,
        )

    settle(entry())
    with pytest.raises(MissingResourceError, match=r"closed \(CC-BY-NC-4\.0\)") as refused:
        settle(entry(), closed)
    assert refused.value.hint.endswith("longvie models pull closed --accept-noncommercial")
    assert not acceptance_file().exists()
    settle(closed, accept=True)
    settle(closed)
    # Of another licence nothing was said.
    with pytest.raises(MissingResourceError):
        settle(entry(name="closed", licence="CC-BY-NC-SA-4.0", noncommercial=True))


def test_names_of_presets_and_models_are_distinct_and_resolve() -> None:
    names = [known.name for known in REGISTRY]
    assert len({*names, *PRESET_NAMES}) == len(names) + len(PRESET_NAMES)
    roles = [known.role for known in preset_entries(load_preset("longvie2"))]
    assert roles == ["base", "release", "depth"]
    both = entries_of(["longvie2", "wan2.1-i2v-14b-480p", "tiny"])
    assert both == preset_entries(load_preset("longvie2"))
    assert all(not known.noncommercial for known in both)


def test_every_required_file_would_be_fetched_and_unused_ones_not() -> None:
    for known in REGISTRY:
        assert all(known.wants(name) for name in known.required)
    wan = entry_named("wan2.1-i2v-14b-480p")
    for name in ("scheduler/scheduler_config.json", "image_processor/preprocessor_config.json"):
        assert not wan.wants(name)
    assert not wan.wants("examples/i2v_input.JPG")
    assert not wan.wants("README.md")
