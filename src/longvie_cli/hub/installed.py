"""Which weights are on this machine, where, and whether they are intact. Never asks the network."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from longvie_cli.disk.folder_hashes import folder_hashes
from longvie_cli.errors import MissingResourceError
from longvie_cli.hub.record import (
    PullRecord,
    check_content,
    is_checked,
    known_record,
    snapshot_folder,
    write_record,
)
from longvie_cli.hub.registry import REGISTRY, ModelEntry, preset_entries
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.settings.presets import Preset

_MEGABYTE = 1_000_000
_SHARD = re.compile(r"(?P<before>.*-)(?P<number>\d{5})(?P<after>-of-\d{5}\..*)")


@dataclass(frozen=True)
class EntryStatus:
    """What is there of one entry.

    Args:
        entry: The entry.
        folder: Where its files are, under their names in the repository; None: nothing is there.
        commit: The commit they belong to.
        present: Paths in the repository of the files that are there, with their bytes.
        missing: Paths of those that are not there or not whole.
        missing_bytes: Their size; a guess where the hub was never asked.
    """

    entry: ModelEntry
    folder: Path | None
    commit: str | None
    present: dict[str, int]
    missing: tuple[str, ...]
    missing_bytes: int

    @property
    def complete(self) -> bool:
        """Whether every file is there, with its right size."""
        return not self.missing

    @property
    def present_bytes(self) -> int:
        """Size of the files that are there."""
        return sum(self.present.values())


def hub_cache() -> Path:
    """Return the cache of the hub: HF_HUB_CACHE, or `hub` in HF_HOME or in the user's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def is_offline() -> bool:
    """Return whether HF_HUB_OFFLINE or `--offline` forbids the network."""
    from huggingface_hub import constants

    return constants.is_offline_mode()


def go_offline() -> None:
    """Keep this process, and those it starts, from asking the network, as HF_HUB_OFFLINE=1 does."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    if "huggingface_hub" in sys.modules:
        # The library reads the variable once, when it is imported.
        from huggingface_hub import constants

        constants.HF_HUB_OFFLINE = True


def entry_status(entry: ModelEntry, cache: Path | None = None) -> EntryStatus:
    """Return what is there of an entry, by names and sizes; reads no content."""
    cache = cache or hub_cache()
    record = known_record(entry, cache)
    if record is None:
        return EntryStatus(entry, None, None, {}, entry.required, entry.approximate_bytes)
    folder = snapshot_folder(cache, entry.repo, record.commit)
    present = {
        name: file.bytes
        for name, file in record.files.items()
        if _size(folder / name) == file.bytes
    }
    wanted = dict.fromkeys((*record.files, *entry.required))
    missing = tuple(name for name in wanted if name not in present)
    if all(name in record.files for name in missing):
        missing_bytes = sum(record.files[name].bytes for name in missing)
    else:
        missing_bytes = max(0, entry.approximate_bytes - sum(present.values()))
    return EntryStatus(entry, folder, record.commit, present, missing, missing_bytes)


def preset_status(
    preset: Preset, *, entries: Sequence[ModelEntry] = REGISTRY, cache: Path | None = None
) -> list[EntryStatus]:
    """Return what is there of everything a preset needs fetched: nothing for an embedded one."""
    if preset.weights is not None:
        return []
    return [entry_status(entry, cache) for entry in preset_entries(preset, entries)]


def locate_weights(
    preset: Preset, *, entries: Sequence[ModelEntry] = REGISTRY, cache: Path | None = None
) -> list[Path]:
    """Return the folders with a preset's weights, in the order of `preset.models`.

    Raises:
        MissingResourceError: Something was not fetched; the message names the files.
    """
    if preset.weights is not None:
        if not preset.weights.is_dir():
            raise MissingResourceError(f"--weights {preset.weights}: there is no such folder.")
        return [preset.weights]
    found = preset_status(preset, entries=entries, cache=cache)
    if not all(status.complete for status in found):
        raise missing_error(found, command=preset.name, what=f"preset {preset.name}")
    return [status.folder for status in found if status.folder is not None]


def entry_folder(entry: ModelEntry, *, cache: Path | None = None) -> Path:
    """Return the folder with the files of one entry.

    Raises:
        MissingResourceError: It was not fetched.
    """
    status = entry_status(entry, cache)
    if status.folder is None or not status.complete:
        raise missing_error([status], command=entry.name, what=entry.name)
    return status.folder


def missing_error(found: Sequence[EntryStatus], *, command: str, what: str) -> MissingResourceError:
    """Return the error that names every missing file, and the command that fetches them.

    Args:
        found: What is there.
        command: Names to give to `longvie models pull`.
        what: Who needs the files.
    """
    lists = [
        f"{status.entry.name}, {len(status.missing)} files of about "
        f"{gigabytes(status.missing_bytes)} ({', '.join(_shortened(status.missing))})"
        for status in found
        if not status.complete
    ]
    return MissingResourceError(
        f"{what}: weights are missing: {'; '.join(lists)}.",
        hint=f"longvie models pull {command}",
    )


def verify(
    entries: Sequence[ModelEntry],
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> list[PullRecord]:
    """Read every file of these entries, compare size and hash, and return their records.

    Damaged files lose their mark of having been checked, so that the next pull fetches them.

    Raises:
        MissingResourceError: Files are missing or damaged; the message names them.
    """
    cache, progress = cache or hub_cache(), progress or SilentProgress()
    statuses = [entry_status(entry, cache) for entry in entries]
    records: list[PullRecord] = []
    problems: list[str] = []
    refetch: list[str] = []
    meter = Meter(progress, "verify (MB)", sum(status.present_bytes for status in statuses))
    for status in statuses:
        record = known_record(status.entry, cache)
        checked = _checked(record, status, meter) if record and status.folder else None
        damaged = [
            name
            for name in status.present
            if checked is None or checked.files[name].checked_mtime_ns is None
        ]
        if checked is not None:
            write_record(checked, cache)
            records.append(checked)
        cut = [name for name in status.missing if status.folder and (status.folder / name).exists()]
        missing = [name for name in status.missing if name not in cut]
        if damaged or status.missing:
            refetch.append(status.entry.name)
        for names, word in ((damaged + cut, "damaged"), (missing, "missing")):
            if names:
                problems.append(f"{status.entry.name}: {word}: {', '.join(names)}")
    meter.finish()
    if problems:
        raise MissingResourceError(
            f"{'; '.join(problems)}.", hint=f"longvie models pull {' '.join(refetch)}"
        )
    return records


def weight_hashes(
    preset: Preset, *, entries: Sequence[ModelEntry] = REGISTRY, cache: Path | None = None
) -> dict[str, str]:
    """Return the sha256 of every fetched file of a preset, by `ENTRY/path`.

    Read from the records; only files that changed since they were checked are read again.

    Raises:
        MissingResourceError: A file is missing, or its content is not what was published.
    """
    cache = cache or hub_cache()
    locate_weights(preset, entries=entries, cache=cache)
    if preset.weights is not None:
        return folder_hashes(preset.weights)
    hashes: dict[str, str] = {}
    for entry in preset_entries(preset, entries):
        record = known_record(entry, cache)
        assert record is not None, "located above"
        folder = snapshot_folder(cache, entry.repo, record.commit)
        if not all(is_checked(folder / name, file) for name, file in record.files.items()):
            (record,) = verify([entry], cache=cache)
        hashes |= {f"{entry.name}/{name}": file.sha256 or "" for name, file in record.files.items()}
    return hashes


def gigabytes(size: int) -> str:
    """Return a number of bytes for people, in the unit that fits."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"


class Meter:
    """Reports bytes to a progress stage that counts megabytes.

    Args:
        progress: Where to report.
        stage: Name of the stage.
        total_bytes: All there is to do; the stage begins at once.
    """

    def __init__(self, progress: Progress, stage: str, total_bytes: int) -> None:
        self._progress = progress
        self._stage = stage
        self._bytes = 0
        self._reported = 0
        progress.start(stage, -(-total_bytes // _MEGABYTE))

    def add(self, amount: int) -> None:
        """Count bytes."""
        self._bytes += amount
        whole = self._bytes // _MEGABYTE
        if whole > self._reported:
            self._progress.advance(self._stage, whole - self._reported)
            self._reported = whole

    def finish(self) -> None:
        """End the stage."""
        self._progress.finish(self._stage)


def _checked(record: PullRecord, status: EntryStatus, meter: Meter) -> PullRecord:
    assert status.folder is not None
    files = dict(record.files)
    for name in status.present:
        intact = check_content(status.folder / name, files[name], meter.add)
        files[name] = intact or files[name].model_copy(update={"checked_mtime_ns": None})
    return record.model_copy(update={"files": files})


def _shortened(names: Sequence[str]) -> list[str]:
    """Return the names with the shards of one model as one, as a shell writes them: `{1..14}`."""
    shards: dict[tuple[str, str], list[str]] = {}
    for name in names:
        match = _SHARD.fullmatch(name)
        key = (match["before"], match["after"]) if match else (name, "")
        shards.setdefault(key, []).append(match["number"] if match else "")
    shortened = []
    for (before, after), numbers in shards.items():
        whole = [f"{i:05d}" for i in range(int(numbers[0] or 0), int(numbers[-1] or 0) + 1)]
        if len(numbers) > 1 and numbers == whole:
            numbers = [f"{{{numbers[0]}..{numbers[-1]}}}"]
        shortened += [f"{before}{number}{after}" for number in numbers]
    return shortened


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
