"""Which run folder a user means."""

from __future__ import annotations

from pathlib import Path

from longvie_cli.disk.hashing import hash_file
from longvie_cli.errors import InputError, OutputConflictError
from longvie_cli.run_folder.delivery_record import read_delivery
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.run import Run


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
        if run.is_file() and (found := run_that_delivered(run)) is not None:
            return found
    raise InputError(
        f"{run}: there is no run here (no run.json).",
        hint="Pass the run folder, OUT.longvie beside the output unless --run-dir said otherwise.",
    )


def output_of(run: Run) -> Path:
    """Return the file a run makes: beside its folder and named as it is, wherever that is now.

    Only a run whose folder was named with --run-dir keeps its output where the command said.
    """
    stored, root = run.manifest.request, run.folder.root
    output = Path(stored["output"])
    if stored.get("run_dir"):
        return output
    here = root.parent / output.name
    is_named_so = output.name and RunFolder.beside(here).root == root
    return here if is_named_so else root.with_suffix(".mp4")


def run_that_delivered(output: Path) -> RunFolder | None:
    """Return the folder of the run that made exactly the bytes of a file, None if none did.

    `OUTPUT.longvie` is asked first, then every other run folder beside it.

    Raises:
        OutputConflictError: `OUTPUT.longvie` is damaged, or holds a link that leads out of it.
    """
    content_hash = hash_file(output)
    beside = RunFolder.beside(output)
    beside.check_no_links()
    record = read_delivery(beside)
    if record is not None and record.output_hash == content_hash:
        return beside
    for path in sorted(output.absolute().parent.glob("*/delivery.json")):
        folder = RunFolder(path.parent)
        try:
            folder.check_no_links()
            record = read_delivery(folder)
        except OutputConflictError:
            continue  # Some other run is damaged; nothing says that it made this video.
        if record is not None and record.output_hash == content_hash:
            return folder
    return None
