"""Where a command may write: never over its inputs, never where it would fail at the end."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from longvie_cli.disk.documents import briefly
from longvie_cli.disk.durable import part_path
from longvie_cli.errors import OutputConflictError, UsageError
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.settings.recorded import files_of, recorded
from longvie_cli.settings.requests import ExtendRequest, GenerateRequest

if TYPE_CHECKING:
    pass


def check_paths(request: GenerateRequest | ExtendRequest) -> None:
    """Do nothing if the output and the run folder of a request can be written.

    Raises:
        UsageError: As `check_output_path` and `check_name`.
    """
    check_output_path(request.output, input_files(request), run_dir=request.run_dir)
    check_name(request.run_dir)


def input_files(request: BaseModel) -> list[Path]:
    """Return everything a request reads."""
    return [path for _, path in files_of(recorded(request))]


def is_input(path: Path, inputs: Sequence[Path]) -> bool:
    """Return whether a file is one of these, by whatever name or link."""
    try:
        return path.resolve() in [place.resolve() for place in inputs]
    except (OSError, RuntimeError):
        return False  # What cannot be followed cannot be written either, as is said later.


def check_output_path(output: Path, inputs: Sequence[Path], *, run_dir: Path | None) -> None:
    """Do nothing if a video can be written to this path.

    Args:
        output: The file.
        inputs: Files and folders that the same command reads.
        run_dir: Its run folder where that is not beside it.

    Raises:
        UsageError: It is no .mp4 name, too long, a folder, or one of the inputs.
    """
    if output.suffix.lower() != ".mp4":
        raise UsageError(f"-o {output}: the output must be named .mp4.")
    if os.path.isdir(output):
        raise UsageError(f"-o {output}: this is a folder.", hint=f"Pass -o {output / 'out.mp4'}.")
    check_name(output)
    _check_name_length(output, run_dir)
    if is_input(output, inputs):
        raise UsageError(
            f"-o {output}: this file is an input of the same command.", hint="Pass another -o."
        )


def check_name(path: Path | None) -> None:
    """Do nothing if clips that lie under this name can be joined.

    Raises:
        UsageError: It holds a line break, which ends an entry of ffmpeg's list of clips.
    """
    if path is not None and {"\n", "\r"} & {*str(path.absolute())}:
        raise UsageError(
            f"{briefly(path)}: clips under a name with a line break cannot be joined.",
            hint="Choose a file or folder without one.",
        )


def _check_name_length(output: Path, run_dir: Path | None) -> None:
    """Do nothing if the output can be written beside itself first, and have a run folder.

    Found out only at the end, it would cost the whole run.

    Raises:
        UsageError: The file system takes no names that long.
    """
    for path in (part_path(output), run_dir or RunFolder.beside(output).root):
        try:
            path.lstat()
        except OSError as reason:
            if reason.errno == errno.ENAMETOOLONG:
                raise UsageError(
                    f"-o {output.name[:40]}...: this name is too long for the disk: "
                    f"{len(os.fsencode(path.name))} bytes as {path.suffix} file.",
                    hint="Choose a name of 200 bytes at most.",
                ) from reason


def output_taken(output: Path) -> OutputConflictError:
    """Return the error for an output that exists and is not this run's own."""
    return OutputConflictError(
        f"{output}: exists already.",
        hint="Pass --overwrite to replace it at the end, --no-clobber to skip, or another -o; or "
        "move that file away.",
    )
