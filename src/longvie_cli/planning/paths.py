"""Where a command may write: never over its inputs, never where it would fail at the end."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from longvie_cli.disk.documents import briefly
from longvie_cli.disk.durable import part_path
from longvie_cli.errors import MediaError, OutputConflictError, UsageError
from longvie_cli.media.metadata import read_settings
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.settings.request_json import files_of, request_json
from longvie_cli.settings.requests import (
    Delivery,
    ExtendRequest,
    ExtractControlsRequest,
    GenerateRequest,
)

Input = tuple[str, Path]
"""A file or folder that a command reads, after the flag, or the words, that name it."""


def check_places(request: GenerateRequest | ExtendRequest) -> None:
    """Do nothing if the output, the run folder and --live of a request can be written.

    Raises:
        UsageError: As `check_output_path`, or --live is no file that can be.
        OutputConflictError: As `check_inputs_stay`, or something else lies at --live.
    """
    inputs = files_of(request_json(request))
    check_output_path(request.output, [path for _, path in inputs], run_dir=request.run_dir)
    check_name(request.run_dir)
    check_inputs_stay(inputs, RunFolder.of(request.output, request.run_dir))
    _check_live(request, request.output, [path for _, path in inputs])


def check_inputs_stay(inputs: Iterable[Input], folder: RunFolder) -> None:
    """Do nothing if no input lies where a run in this folder would replace or remove it.

    Raises:
        OutputConflictError: One does, by whatever name or link.
    """
    for flag, path in inputs:
        if folder.may_replace(path):
            raise OutputConflictError(
                f"{path} ({flag}): it lies in {folder.root}, the run folder of this very command, "
                "where it would be replaced or removed.",
                hint="Pass another -o or --run-dir, or copy it to another place first.",
            )


def check_control_folder(request: ExtractControlsRequest) -> None:
    """Do nothing if controls can be written to the output of a request.

    Raises:
        UsageError: It is a file.
        OutputConflictError: A file there is an input of the same command and would be replaced, or
            the folder is part of a run.
    """
    from longvie_cli.controls.control_folder import is_control_name

    output = request.output
    if output.exists() and not output.is_dir():
        raise UsageError(f"-o {output}: this is a file; the controls need a folder.")
    _check_no_run_has(output)
    for flag, path in files_of(request_json(request)):
        if is_control_name(path.name) and _is_same(path.parent, output):
            raise OutputConflictError(
                f"{path} ({flag}): it lies in the folder of -o, under a name that the new controls "
                "need.",
                hint="Pass another -o, or copy it to another place first.",
            )


def check_data_folder(output: Path, inputs: Sequence[Path]) -> None:
    """Do nothing if training samples can be written to a folder.

    Raises:
        UsageError: It is a file, or cannot be told.
        OutputConflictError: It belongs to a run, or an input lies in it.
    """
    if output.exists() and not output.is_dir():
        raise UsageError(f"-o {output}: this is a file; the samples need a folder.")
    check_name(output)
    _check_no_run_has(output)
    for path in inputs:
        if _is_within(path, output):
            raise OutputConflictError(
                f"{path}: it lies in the folder of -o, which is for samples alone.",
                hint="Pass another -o.",
            )


def is_input(path: Path, inputs: Sequence[Path]) -> bool:
    """Return whether a file is one of these, by whatever name or link."""
    return any(_is_same(path, place) for place in inputs)


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.resolve() == other.resolve()
    except (OSError, RuntimeError):
        return False  # What cannot be followed cannot be written either, as is said later.


def check_output_path(output: Path, inputs: Sequence[Path], *, run_dir: Path | None) -> None:
    """Do nothing if a video can be written to this path.

    Args:
        output: The file.
        inputs: Files and folders that the same command reads.
        run_dir: Its run folder where that is not beside it.

    Raises:
        UsageError: It is no .mp4 name, too long, a folder, one of the inputs, or a place that its
            own run folder needs.
        OutputConflictError: It is a file of a run.
    """
    if output.suffix.lower() != ".mp4":
        raise UsageError(f"-o {output}: the output must be named .mp4.")
    if os.path.isdir(output):
        raise UsageError(f"-o {output}: this is a folder.", hint=f"Pass -o {output / 'out.mp4'}.")
    check_name(output)
    _check_name_length(output, run_dir)
    if is_input(output, inputs) or is_input(part_path(output), inputs):
        raise UsageError(
            f"-o {output}: this file is an input of the same command.", hint="Pass another -o."
        )
    folder = RunFolder.of(output, run_dir)
    if folder.may_replace(output):
        raise UsageError(
            f"-o {output}: the run folder {folder.root} needs this place for files of its own.",
            hint="Pass another -o or --run-dir.",
        )
    if _is_within(folder.root, output):
        raise UsageError(f"--run-dir {folder.root}: it lies under the output {output}, a file.")
    _check_no_run_has(output)


def _is_within(path: Path, other: Path) -> bool:
    try:
        return path.resolve().is_relative_to(other.resolve())
    except (OSError, RuntimeError):
        return False


def _check_no_run_has(output: Path) -> None:
    """Do nothing if what is written to a path is not part of some run.

    Raises:
        OutputConflictError: It is.
    """
    for parent in (output, *output.absolute().parents):
        folder = RunFolder(parent)
        if folder.is_begun and folder.may_replace(output):
            raise OutputConflictError(
                f"-o {output}: it belongs to the run in {parent}.", hint="Pass another -o."
            )


def _check_live(delivery: Delivery, output: Path, inputs: Sequence[Path]) -> None:
    """Do nothing if the file of `--live` can be kept at what is finished.

    Raises:
        UsageError: It is no .mp4, or part of the same command.
        OutputConflictError: Something that no `--live` wrote lies there.
    """
    live = delivery.live
    if live is None:
        return
    if live.suffix.lower() != ".mp4" or os.path.isdir(live):
        raise UsageError(f"--live {live}: it must be a file named .mp4.")
    check_name(live)
    folder = RunFolder.of(output, delivery.run_dir)
    if is_input(live, [output, part_path(output), *inputs]) or folder.may_replace(live):
        raise UsageError(f"--live {live}: this file is part of the same command.")
    if live.exists() and not delivery.overwrite and not _is_live_video(live):
        raise OutputConflictError(
            f"--live {live}: exists already, and is no file that --live wrote.",
            hint="Pass another name, or --overwrite.",
        )


def _is_live_video(path: Path) -> bool:
    try:
        return bool((read_settings(path) or {}).get("live"))
    except MediaError:
        return False


def check_name(path: Path | None) -> None:
    """Do nothing if a result of this name can be told.

    Raises:
        UsageError: It holds a line break, and a result is one line on stdout.
    """
    if path is not None and {"\n", "\r"} & {*str(path.absolute())}:
        raise UsageError(
            f"{briefly(path)}: a result whose name has a line break cannot be told as one line.",
            hint="Choose a file or folder without one.",
        )


def _check_name_length(output: Path, run_dir: Path | None) -> None:
    """Do nothing if the output can be written beside itself first, and have a run folder.

    Found out only at the end, it would cost the whole run.

    Raises:
        UsageError: The file system takes no names that long.
    """
    for path in (part_path(output), RunFolder.of(output, run_dir).root):
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
