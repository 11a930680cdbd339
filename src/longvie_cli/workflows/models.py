"""`models`: what presets stand on, listed, fetched, checked, found and converted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from longvie_cli.errors import UsageError
from longvie_cli.hub.installed import (
    EntryStatus,
    entry_status,
    gigabytes,
    go_offline,
    hub_cache,
    missing_error,
    verify,
)
from longvie_cli.hub.licences import settle_licences
from longvie_cli.hub.registry import REGISTRY, ModelEntry, entries_of
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.result import ReportResult, aligned
from longvie_cli.settings.presets import PRESET_NAMES, load_preset, preset_folder
from longvie_cli.settings.requests import ConvertModelsRequest, ModelsRequest


def list_models(*, entries: Sequence[ModelEntry] = REGISTRY) -> ReportResult:
    """Return every preset and model: purpose, licence, size, and what is here of it."""
    presets = [load_preset(name) for name in PRESET_NAMES]
    found = [entry_status(entry) for entry in entries]
    here = {status.entry.name: status.complete for status in found}
    users = {
        entry.name: [preset.name for preset in presets if entry.name in preset.models]
        for entry in entries
    }
    header = ("NAME", "STATE", "SIZE", "LICENCE", "FOR")
    rows = [
        (
            status.entry.name,
            _state(status),
            _size(status),
            status.entry.licence,
            status.entry.purpose,
        )
        for status in found
    ]
    preset_rows = [
        (
            preset.name,
            "embedded"
            if not preset.models
            else ("here" if all(here[name] for name in preset.models) else "missing"),
            ", ".join(preset.models) or "nothing to fetch",
        )
        for preset in presets
    ]
    return ReportResult(
        [*aligned([("PRESET", "STATE", "MODELS"), *preset_rows]), "", *aligned([header, *rows])],
        {
            "cache": str(hub_cache()),
            "presets": [
                {"name": name, "state": state, "models": list(load_preset(name).models)}
                for name, state, _ in preset_rows
            ],
            "models": [_facts(status) | {"presets": users[status.entry.name]} for status in found],
        },
    )


def pull_models(
    request: ModelsRequest,
    progress: Progress | None = None,
    *,
    entries: Sequence[ModelEntry] = REGISTRY,
) -> ReportResult:
    """Fetch what is missing of the named models and return their folders.

    Raises:
        MissingResourceError: A licence is not accepted; offline, and something is missing; or the
            hub does not have it.
        ResumableError: The disk is too small, or the network failed.
        UsageError: There is no model of this name.
    """
    progress = progress or SilentProgress()
    if request.offline:
        go_offline()
    wanted = entries_of(request.names, entries)
    for name in request.names:
        if name in PRESET_NAMES and not load_preset(name).models:
            progress.message(f"{name}: part of longvie, nothing to fetch.")
    settle_licences(
        wanted,
        accept=request.accept_noncommercial,
        how=f"longvie models pull {' '.join(request.names)} --accept-noncommercial",
        progress=progress,
    )
    # The library behind it is imported only now, when the network may really be asked.
    from longvie_cli.hub.pull import Hub, pull

    pull(wanted, Hub.of_environment(), progress)
    return _paths(request.names, entries)


def verify_models(
    request: ModelsRequest,
    progress: Progress | None = None,
    *,
    entries: Sequence[ModelEntry] = REGISTRY,
) -> ReportResult:
    """Read every file of the named models, or of all that were fetched, and compare hashes.

    Raises:
        MissingResourceError: Files are missing or damaged.
        UsageError: There is no model of this name.
    """
    progress = progress or SilentProgress()
    wanted: Sequence[ModelEntry] = entries_of(request.names, entries)
    if not request.names:
        wanted = [entry for entry in entries if entry_status(entry).folder is not None]
    if not wanted:
        progress.message("Nothing was fetched so far.")
    records = verify(wanted, progress=progress)
    lines = [
        f"{record.name}: {len(record.files)} files, "
        f"{gigabytes(sum(file.bytes for file in record.files.values()))}, intact"
        for record in records
    ]
    return ReportResult(
        lines,
        {
            "models": [
                {
                    "name": record.name,
                    "commit": record.commit,
                    "files": {
                        name: {"bytes": file.bytes, "sha256": file.sha256}
                        for name, file in record.files.items()
                    },
                }
                for record in records
            ]
        },
    )


def path_of_models(
    request: ModelsRequest, *, entries: Sequence[ModelEntry] = REGISTRY
) -> ReportResult:
    """Return the folders of the named models.

    Raises:
        MissingResourceError: Something was not fetched.
        UsageError: There is no model of this name.
    """
    return _paths(request.names, entries)


def convert_models(request: ConvertModelsRequest, progress: Progress | None = None) -> ReportResult:
    """Make one folder in diffusers layout of released files.

    Raises:
        MissingResourceError: A file is missing, or holds another model.
        OutputConflictError: The output exists.
    """
    for folder in request.inputs:
        if not folder.is_dir():
            raise UsageError(f"{folder}: there is no such folder.")
    import torch

    from longvie_cli.models.weights.convert import convert_released
    from longvie_cli.models.weights.sources import find_released_files

    dtype = None if request.dtype == "auto" else getattr(torch, request.dtype)
    files = find_released_files(request.inputs)
    convert_released(files, request.output, dtype=dtype, progress=progress)
    return ReportResult(
        [str(request.output)],
        {"output": str(request.output), "dtype": request.dtype},
        paths=True,
    )


def _paths(names: Sequence[str], entries: Sequence[ModelEntry]) -> ReportResult:
    paths: dict[str, str] = {
        name: str(preset_folder(name))
        for name in names
        if name in PRESET_NAMES and not load_preset(name).models
    }
    found = [entry_status(entry) for entry in entries_of(names, entries)]
    if not all(status.complete for status in found):
        raise missing_error(found, command=" ".join(names), what=", ".join(names))
    paths |= {status.entry.name: str(status.folder) for status in found}
    return ReportResult([*paths.values()], {"paths": paths}, paths=True)


def _facts(status: EntryStatus) -> dict[str, Any]:
    entry = status.entry
    return {
        "name": entry.name,
        "repo": entry.repo,
        "revision": entry.revision,
        "commit": status.commit or (entry.revision if entry.pinned else None),
        "licence": entry.licence,
        "noncommercial": entry.noncommercial,
        "purpose": entry.purpose,
        "state": _state(status),
        "path": str(status.folder) if status.folder is not None else None,
        "bytes": status.present_bytes,
        "missing_bytes": status.missing_bytes,
        "missing": list(status.missing),
    }


def _state(status: EntryStatus) -> str:
    if status.complete:
        return "here"
    return "in part" if status.present else "missing"


def _size(status: EntryStatus) -> str:
    total = gigabytes(status.present_bytes + status.missing_bytes)
    return total if status.complete else f"about {total}"
