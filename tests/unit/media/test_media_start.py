"""ffmpeg cannot be started: each reason says itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from longvie_cli.errors import MissingResourceError
from longvie_cli.media.ffmpeg import ffmpeg_executable, running_ffmpeg

PROBE = (
    "import sys, resource\n"
    "from pathlib import Path\n"
    "from longvie_cli.errors import LongVieError\n"
    "from longvie_cli.media.probe import probe_video\n"
    "import imageio_ffmpeg\n"
    "held = [open(sys.argv[1]) for _ in range(int(sys.argv[2]))]\n"
    "resource.setrlimit(resource.RLIMIT_NOFILE, (3 + len(held) + int(sys.argv[3]),) * 2)\n"
    "try:\n"
    "    print(probe_video(Path(sys.argv[1])).num_frames)\n"
    "except LongVieError as error:\n"
    "    print(error.message, error.hint)\n"
    "    sys.exit(error.exit_code)\n"
)


@pytest.fixture(autouse=True)
def _found_anew():
    ffmpeg_executable.cache_clear()
    yield
    ffmpeg_executable.cache_clear()


def named(monkeypatch, path: Path) -> str:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(path))
    ffmpeg_executable.cache_clear()
    with pytest.raises(MissingResourceError) as error, running_ffmpeg(["-version"]):
        pass
    assert error.value.hint == "unset IMAGEIO_FFMPEG_EXE"
    return error.value.message


def test_a_program_that_is_not_there_may_not_run_or_is_none(monkeypatch, tmp_path):
    assert "there is no such program" in named(monkeypatch, tmp_path / "gone")
    (tmp_path / "text").write_text("no program")
    assert "may not be run" in named(monkeypatch, tmp_path / "text")
    (tmp_path / "text").chmod(0o755)
    assert "no program of this machine" in named(monkeypatch, tmp_path / "text")
    (tmp_path / "script").write_text("#!/no/such/interpreter\n")
    (tmp_path / "script").chmod(0o755)
    assert "what it needs to run is not on this machine" in named(monkeypatch, tmp_path / "script")


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts open files as Linux does")
def test_too_many_open_files_say_so_and_what_helps(numbered_video):
    """Whichever open is the first that fails, in Python, at the start of ffmpeg or within it."""
    path = numbered_video("v.mp4", num_frames=3, fps="16")
    codes = []
    for left in range(12):
        command = [sys.executable, "-c", PROBE, str(path), "20", str(left)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        codes.append(ended.returncode)
        if ended.returncode:
            assert ended.returncode == 75, (left, ended.stdout, ended.stderr[-500:])
            assert "Too many open files" in ended.stdout and "ulimit -n" in ended.stdout
    assert codes[0] == 75 and codes[-1] == 0


def test_the_bundled_program_is_found_without_starting_it(monkeypatch):
    def started(*_args: object, **_options: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.delenv("IMAGEIO_FFMPEG_EXE", raising=False)
    monkeypatch.setattr(subprocess, "Popen", started)
    assert os.access(ffmpeg_executable(), os.X_OK)
