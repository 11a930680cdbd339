"""Which run folder a user means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from longvie_cli.disk.hashing import hash_file
from longvie_cli.errors import InputError, OutputConflictError
from longvie_cli.run_folder.delivery_record import read_delivery
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.manifest import RunManifest


def find_run(run: Path) -> RunFolder:
    """Return the run folder that a user names by itself or by the output it made.

    Raises:
        InputError: There is no run.
        OutputConflictError: The record of the run beside the output is damaged, or the run holds a
            link that leads out of it.
    """
    folder = RunFolder(run)
    if folder.is_begun:
        folder.check_no_links()
        return folder
    if run.suffix.lower() == ".mp4":
        beside = RunFolder.beside(run)
        if beside.is_begun:
            beside.check_no_links()
            return beside
        if (found := _delivered(run)) is not None:
            return found
    raise InputError(
        f"{run}: there is no run here (no run.json).",
        hint="Pass the run folder, OUT.longvie beside the output unless --run-dir said otherwise.",
    )


def output_of(folder: RunFolder, manifest: RunManifest) -> Path:
    """Return the file a run makes: beside its folder and named as it is, wherever that is now.

    Only a run whose folder was named with --run-dir keeps its output where the command said.
    """
    stored: dict[str, Any] = manifest.request.get("request") or {}
    output = Path(stored.get("output") or folder.root.with_suffix(".mp4"))
    if stored.get("run_dir"):
        return output
    here = folder.root.parent / output.name
    is_named_so = output.name and RunFolder.beside(here).root == folder.root
    return here if is_named_so else folder.root.with_suffix(".mp4")


def _delivered(output: Path) -> RunFolder | None:
    if not output.is_file():
        return None
    content_hash = hash_file(output)
    for path in sorted(output.absolute().parent.glob("*/delivery.json")):
        folder = RunFolder(path.parent)
        try:
            folder.check_no_links()
            record = read_delivery(folder)
        except OutputConflictError:
            continue  # Some other run is damaged; nothing says that it made this video.
        if record is not None and record["output_hash"] == content_hash:
            return folder
    return None
