"""Running ffmpeg: its own process group, never a shell, never a question, its last words kept."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import IO

from longvie_cli.disk.durable import disk_full_error, scarcity_error, storage_error
from longvie_cli.errors import LongVieError, MediaError, MissingResourceError, ResumableError
from longvie_cli.media.formats import FORMATS, other_file_error

# Only local files and our own pipes: a playlist or a crafted container must not reach the network.
_PROTOCOLS = ("-protocol_whitelist", "file,pipe")
_NAMED_BY = "IMAGEIO_FFMPEG_EXE"
_CONDA_FOLDERS = (("bin",), ("Library", "bin"))
_KEPT_ERROR_BYTES = 65_536
_KEPT_REMARK_BYTES = 1 << 20  # tags of any length among them
_LOG_PREFIX = re.compile(r"^(\[[^\]]* @ 0x[0-9a-f]+\] )+")
_LOG_LEVEL = re.compile(r"^\[(?P<level>\w+)\] ")
_FAILURE_LEVELS = ("error", "fatal", "panic")

# No decoder may set aside memory for a larger picture, whatever a header claims: 8192 x 8192, twice
# as many as 8K has. One of them is 200 MB as 8-bit RGB.
MAX_PIXELS = 1 << 26
# Nor anything else more at once than such a picture with four channels of 16 bits takes: a header
# of a few bytes can claim billions of frames, each with an entry in a table.
_MAX_BLOCK_BYTES = MAX_PIXELS * 8 + (1 << 26)

# What ffmpeg says, with exit status 0, when a file ends in the middle or frames are lost.
_CUT_OFF_SIGNS = ("partial file", "File ended prematurely")
_NO_INDEX_SIGNS = ("moov atom not found",)
_DECODING_SIGNS = (
    "Decoding error",
    "Error submitting packet to decoder",
    "error while decoding MB",  # H.264: the picture is patched up and looks plausible
)
_DAMAGE_SIGNS = (
    "Error during demuxing",
    "exceeds containing master element",  # Matroska: packets are skipped
    "invalid as first byte of an EBML number",
)

# What ffmpeg says where it lacks files to open.
_SCARCITY_ERRORS = {os.strerror(code): code for code in (errno.EMFILE, errno.ENFILE)}

# What ffmpeg says where a file cannot be written.
_STORAGE_ERRORS = {
    os.strerror(code): code
    for name in (
        *("ENOSPC", "EDQUOT", "EFBIG", "EIO", "ESTALE", "EACCES", "EPERM", "EROFS"),
        *("EISDIR", "ENOTDIR", "ELOOP"),
    )
    if (code := getattr(errno, name, None)) is not None
}


class DamagedVideoError(MediaError):
    """Frames of a video cannot be decoded, or only as a guess."""


class CutOffError(MediaError):
    """A file ends in the middle."""


@cache
def ffmpeg_executable() -> str:
    """Return the path of the bundled ffmpeg, or of the one `IMAGEIO_FFMPEG_EXE` names.

    Raises:
        MissingResourceError: There is none.
    """
    import imageio_ffmpeg

    if named := os.environ.get(_NAMED_BY):
        return named
    # Not asked of the package: that would start what it finds, and take any error of starting it
    # (too many open files, no memory) for a program that is not there.
    bundled = Path(imageio_ffmpeg.__file__).parent / "binaries"
    conda = os.pathsep.join(str(Path(sys.prefix, *folder)) for folder in _CONDA_FOLDERS)
    found = (
        next(map(str, sorted(bundled.glob("ffmpeg-*"))), None)
        or shutil.which("ffmpeg", path=conda)
        or shutil.which("ffmpeg")
    )
    if found is None:
        raise MissingResourceError("ffmpeg was not found.", hint=mending_command())
    return found


def mending_command() -> str:
    """Return the command after which there is an ffmpeg again."""
    if _NAMED_BY in os.environ:
        return f"unset {_NAMED_BY}"
    return "pip install --force-reinstall imageio-ffmpeg"


def input_arguments(path: Path) -> list[str]:
    """Return the arguments that make ffmpeg read exactly the file `path`, whatever its name."""
    bounds = ("-format_whitelist", ",".join(FORMATS), "-max_pixels", str(MAX_PIXELS))
    return [*_PROTOCOLS, *bounds, "-i", f"file:{path}"]


def is_chainable(path: Path) -> bool:
    """Return whether `chained_arguments` can name a file: a line of its list holds one name."""
    return not {"\n", "\r"} & set(str(path))


@contextmanager
def chained_arguments(parts: Sequence[tuple[Path, Fraction]]) -> Iterator[tuple[list[str], int]]:
    """The arguments that read mp4 files of ours as one, and the descriptor ffmpeg must inherit.

    One file is open at a time, however many there are.

    Args:
        parts: Each file, encoded like the first, and the seconds it lasts.
    """
    lines = ["ffconcat version 1.0"]
    for path, seconds in parts:
        quoted = str(path.absolute()).replace("'", "'\\''")
        lines += [f"file 'file:{quoted}'", f"duration {float(seconds):.6f}"]
    with unnamed_file("\n".join(lines).encode("utf-8", "surrogateescape") + b"\n") as listed:
        number = listed.fileno()
        opened = ("-protocol_whitelist", "fd,file", "-format_whitelist", "concat,mov")
        # Otherwise the parameter sets would be stored a second time, in front of every key frame.
        read = ("-f", "concat", "-safe", "0", "-auto_convert", "0", "-fd", str(number), "-i", "fd:")
        yield [*opened, *read], number


@contextmanager
def unnamed_file(data: bytes = b"") -> Iterator[IO[bytes]]:
    """A file without a name for the length of a `with` block.

    However the process ends, nothing is left of it.

    Raises:
        ResumableError: The disk of the temp folder is full or failed.
        OutputConflictError: The temp folder cannot be written.
    """
    with ExitStack() as closing:
        try:
            file = closing.enter_context(tempfile.TemporaryFile())
            file.write(data)
            file.seek(0)
        except OSError as reason:
            raise _no_temp_file(reason) from reason
        yield file


def unnamed_arguments(file: int) -> list[str]:
    """Return the arguments that make ffmpeg read an mp4 without a name, which it must inherit."""
    return ["-protocol_whitelist", "fd", "-f", "mp4", "-fd", str(file), "-i", "fd:"]


def metadata_arguments(metadata_file: int) -> list[str]:
    """Return the arguments that make ffmpeg read an ffmetadata file, inherited likewise."""
    return [*_PROTOCOLS, "-f", "ffmetadata", "-i", f"pipe:{metadata_file}"]


def check_readable(path: Path) -> None:
    """Do nothing if `path` is a file with bytes in it.

    Raises:
        MediaError: It is missing, a folder, empty or not permitted.
    """
    try:
        if path.is_dir():
            raise MediaError(f"{path}: is a folder, not a file.")
        if not stat.S_ISREG(path.stat().st_mode):
            # Opening a pipe without a writer would wait for ever.
            raise MediaError(
                f"{path}: is a pipe or a device, not a file.",
                hint="Write it to a file first; a video is read several times.",
            )
        with open(path, "rb") as file:
            if not file.read(1):
                raise MediaError(f"{path}: the file is empty (0 bytes).")
    except FileNotFoundError as reason:
        raise MediaError(f"{path}: there is no such file.") from reason
    except OSError as reason:
        if (scarce := scarcity_error(f"{path}: cannot be read", reason)) is not None:
            raise scarce from reason
        if reason.errno in (errno.EFBIG, errno.ENOSPC, errno.EDQUOT):
            raise storage_error(path, reason) from reason
        raise MediaError(f"{path}: cannot be read ({reason.strerror or reason}).") from reason


class FfmpegProcess:
    """A running ffmpeg and its pipes; made by `running_ffmpeg`."""

    def __init__(
        self, process: subprocess.Popen[bytes], errors: IO[bytes], *, informative: bool
    ) -> None:
        self._process = process
        self._errors = errors
        self._informative = informative

    @property
    def stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def wait(self) -> int:
        """Return the exit status, once ffmpeg has ended by itself."""
        return self._process.wait()

    def complaints(self) -> list[str]:
        """Return the errors ffmpeg wrote to stderr by line, without its internal addresses."""
        if not self._informative:
            return [line for _, line in self._said()]
        return [line for level, line in self._said() if level in _FAILURE_LEVELS]

    def remarks(self) -> list[str]:
        """Return everything ffmpeg wrote to stderr, line by line."""
        return [line for _, line in self._said()]

    def _said(self) -> Iterator[tuple[str, str]]:
        # What it finds in a file is said first, what went wrong last.
        size = self._errors.seek(0, 2)
        self._errors.seek(0)
        said = self._errors.read(_KEPT_REMARK_BYTES if self._informative else 0)
        self._errors.seek(max(len(said), size - _KEPT_ERROR_BYTES))
        text = (said + self._errors.read()).decode("utf-8", "replace")
        for raw_line in text.splitlines():
            line = _LOG_PREFIX.sub("", raw_line)
            level = ""
            if self._informative and (found := _LOG_LEVEL.match(line)):
                level, line = found["level"], line[found.end() :]
            if line.strip():
                yield level, line.strip()

    def close(self) -> None:
        """Kill ffmpeg if it still runs, and let go of its pipes."""
        if self._process.poll() is None:
            self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        self._process.wait()


def _no_temp_file(reason: OSError) -> LongVieError:
    try:
        # Where no file can be opened, tempfile says that no folder is writable.
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as scarce:
        reason = scarce
    try:
        folder = tempfile.gettempdir()
    except OSError:
        folder = "the temp folder"  # no candidate can be written
    return storage_error(f"{folder} (TMPDIR)", reason)


def _start_error(program: str, reason: OSError) -> LongVieError:
    """Return the error for a program that could not be started, each reason in its own words."""
    if reason.errno == errno.ENOSPC:
        return disk_full_error(program)
    if (scarce := scarcity_error(f"{program}: cannot be started", reason)) is not None:
        return scarce
    if reason.errno == errno.ENOENT and Path(program).exists():
        why = "is there, but what it needs to run is not on this machine"
    elif reason.errno == errno.ENOENT:
        why = "there is no such program"
    elif reason.errno in (errno.EACCES, errno.EPERM):
        why = "may not be run (its permissions, or its disk's)"
    elif reason.errno == errno.ENOEXEC:
        why = "is no program of this machine"
    else:
        why = "cannot be started"
    return MissingResourceError(f"{program}: {why} ({reason.strerror}).", hint=mending_command())


@contextmanager
def running_ffmpeg(
    arguments: Sequence[str],
    *,
    feed: bool = False,
    informative: bool = False,
    inherited: Sequence[int] = (),
) -> Iterator[FfmpegProcess]:
    """Run ffmpeg for the length of a `with` block; what still runs at its end is killed.

    It has a session of its own: a Ctrl-C at the terminal must not reach it, or it would close its
    file early and leave something short that plays.

    Args:
        arguments: Everything after `ffmpeg`.
        feed: Whether it reads frames from its stdin; otherwise it writes to its stdout.
        informative: Whether it says what it finds in a file (`remarks`), and not errors alone.
        inherited: Open descriptors that it reads by number (`pipe:N`).

    Raises:
        MissingResourceError: ffmpeg is missing or cannot be run.
        ResumableError: The disk of the temp folder is full or failed, or the machine lacks what it
            takes to start a program.
    """
    level = ("level+info", "-nostats") if informative else ("error",)
    bounds = ("-max_alloc", str(_MAX_BLOCK_BYTES))
    command = [ffmpeg_executable(), "-hide_banner", "-nostdin", "-v", *level, *bounds, *arguments]
    with unnamed_file() as errors:
        try:
            started = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if feed else subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                pass_fds=inherited,
            )
        except OSError as reason:
            raise _start_error(command[0], reason) from reason
        process = FfmpegProcess(started, errors, informative=informative)
        try:
            yield process
        finally:
            process.close()


def run_reading(path: Path, arguments: Sequence[str]) -> bytes:
    """Return what ffmpeg writes to stdout while it reads `path`; for small outputs.

    Raises:
        MediaError: ffmpeg failed, the file ends in the middle, or frames are damaged.
        ResumableError: Something killed ffmpeg.
    """
    with running_ffmpeg(arguments) as process:
        output = process.stdout.read()
        check_read_to_the_end(path, process)
    return output


def run_inspecting(path: Path, arguments: Sequence[str]) -> tuple[bytes, list[str]]:
    """Return what ffmpeg writes to stdout and what it says about `path` while it reads it.

    Raises:
        MediaError, ResumableError: As `run_reading`.
    """
    with running_ffmpeg(arguments, informative=True) as process:
        output = process.stdout.read()
        check_read_to_the_end(path, process)
        return output, process.remarks()


def check_read_to_the_end(path: Path, process: FfmpegProcess, *, decoded: bool = True) -> None:
    """Wait for a process that read `path`, and do nothing if all went well.

    Args:
        path: The file.
        process: The process.
        decoded: Whether what its decoders complain of counts.

    Raises:
        MediaError: ffmpeg failed, the file ends in the middle, or frames are damaged.
        ResumableError: Something killed ffmpeg.
    """
    status = process.wait()
    if status < 0:
        raise _killed_error(path, status)
    complaints = process.complaints()
    if said := _line_with(_CUT_OFF_SIGNS, complaints):
        raise CutOffError(
            f"{path}: the file is cut off ({said}).", hint="Copy or download it again."
        )
    if said := _line_with(tuple(_SCARCITY_ERRORS), complaints):
        code = next(code for text, code in _SCARCITY_ERRORS.items() if text in said)
        scarce = scarcity_error(f"{path}: ffmpeg cannot read it", OSError(code, os.strerror(code)))
        assert scarce is not None, "chosen for that"
        raise scarce
    if status != 0 and (what := other_file_error(path, complaints)) is not None:
        raise what
    if said := _line_with(_NO_INDEX_SIGNS, complaints):
        # A file of something else, named so, looks the same.
        raise MediaError(
            f"{path}: cannot be read as a video: its index is missing, so no frame can be read "
            f"({said}).",
            hint="If it is cut off, copy or download it again.",
        )
    if status != 0:
        raise MediaError(f"{path}: cannot be read as a video ({_reason(complaints, status)}).")
    signs = (*_DAMAGE_SIGNS, *_DECODING_SIGNS) if decoded else _DAMAGE_SIGNS
    if said := _line_with(signs, complaints):
        raise DamagedVideoError(
            f"{path}: some frames are damaged and cannot be decoded ({said}).",
            hint="Encode the video again with a player or editor that repairs it.",
        )


def writing_error(path: Path, process: FfmpegProcess) -> LongVieError:
    """Return the error to raise after a process that should write `path` has failed."""
    status = process.wait()
    if status < 0:
        return _killed_error(path, status)
    complaints = process.complaints()
    for said, code in _STORAGE_ERRORS.items():
        if _line_with((said,), complaints):
            return storage_error(path, OSError(code, said))
    # A full disk is often met after the last word: then only the exit status, 256 less, names it.
    if (code := 256 - status) in _STORAGE_ERRORS.values():
        return storage_error(path, OSError(code, os.strerror(code)))
    return MediaError(f"{path}: cannot be written ({_reason(complaints, status)}).")


def _killed_error(path: Path, status: int) -> ResumableError:
    if -status == getattr(signal, "SIGXFSZ", None):
        return disk_full_error(path)  # no file may become that large here
    return ResumableError(
        f"{path}: ffmpeg was killed by signal {-status}.",
        hint="Memory may have run out; the same command continues.",
    )


def _line_with(signs: tuple[str, ...], complaints: list[str]) -> str | None:
    return next((line for line in complaints if any(sign in line for sign in signs)), None)


def _reason(complaints: list[str], status: int) -> str:
    return complaints[0] if complaints else f"ffmpeg ended with status {status} and said nothing"
