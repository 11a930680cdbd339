"""`doctor`: what this machine has of what longvie stands on, tried out, and what mends the rest."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from longvie_cli.hub.installed import entry_status, gigabytes, hub_cache
from longvie_cli.hub.registry import REGISTRY, ModelEntry, preset_entries
from longvie_cli.media.ffmpeg import (
    ffmpeg_executable,
    input_arguments,
    mending_command,
    run_reading,
    running_ffmpeg,
    unnamed_file,
)
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.result import ReportResult
from longvie_cli.settings.presets import DEFAULT_PRESET, PRESET_NAMES, Preset, load_preset
from longvie_cli.version import __version__

TINY_BYTES = 1_200_000_000
"""Memory that the embedded preset makes its videos in, with some to spare."""

# Of a minute of tiny with its controls; one of longvie2 takes about ten times as much.
_FEWEST_FREE_BYTES = 100_000_000
_CPU_BUILDS = "https://download.pytorch.org/whl/cpu"
_OLDER_CUDA_BUILDS = "https://download.pytorch.org/whl/cu126"
_TEMP_COMMAND = "mkdir -p ~/tmp && export TMPDIR=~/tmp"
_PIP = f"{shlex.quote(sys.executable)} -m pip install"
# What cameras, phones, screen recorders and websites make, and the decoders that read it.
_INPUTS = {
    **{name: (name,) for name in ("h264", "hevc", "mpeg4", "mjpeg", "prores", "vp8", "vp9")},
    "av1": ("libdav1d", "av1", "libaom-av1"),
    **{name: (name,) for name in ("aac", "mp3", "opus", "flac")},
}

Status = Literal["ok", "missing", "warning"]


@dataclass(frozen=True)
class Check:
    """One thing that longvie stands on.

    Args:
        name: What it is.
        status: `warning`: works, but not as it could; `missing`: not here, or broken.
        found: What is here.
        needed: How much of it is needed, or what for.
        fix: The command that mends it; None where nothing is to be mended.
    """

    name: str
    status: Status
    found: str
    needed: str
    fix: str | None = None


class _Wanting(Exception):
    """What was looked at is not as it should be."""

    def __init__(self, found: str, fix: str | None, *, status: Status = "missing") -> None:
        super().__init__(found)
        self.check = partial(Check, status=status, found=found, fix=fix)


@dataclass(frozen=True)
class _Probe:
    """How one thing is looked at.

    Args:
        name: What it is.
        needed: As in `Check`.
        look: Returns what is found, or raises `_Wanting`; what else it raises is a thing broken.
        fix: The command for what is broken.
        exit_code: With which the embedded preset ends for want of it; 0: it does without.
    """

    name: str
    needed: str
    look: Callable[[], str]
    fix: str | None = None
    exit_code: int = 0

    def check(self) -> Check:
        try:
            return Check(self.name, "ok", self.look(), self.needed)
        except _Wanting as wanting:
            return wanting.check(name=self.name, needed=self.needed)
        except Exception as reason:
            # Whatever is broken here is what was asked about.
            words = " ".join(str(reason).split()) or type(reason).__name__
            needs_torch = isinstance(reason, ImportError) and reason.name == "torch"
            fix = _torch_command() if needs_torch else self.fix
            return Check(self.name, "missing", words, self.needed, fix)


def doctor(progress: Progress | None = None) -> ReportResult:
    """Try what longvie stands on; exit code 0 where the embedded preset can run here."""
    progress = progress or SilentProgress()
    probes = _probes()
    progress.start("checks", len(probes))
    checks: list[Check] = []
    codes = {0}
    temp_is_broken = False
    for probe in probes:
        check = probe.check()
        if check.status == "missing" and temp_is_broken and probe.name.startswith("ffmpeg"):
            check = replace(check, fix=_TEMP_COMMAND)
        elif check.status == "missing":
            codes.add(probe.exit_code)
            temp_is_broken |= probe.name == "temp folder"
        checks.append(check)
        progress.advance("checks")
    progress.finish("checks")
    exit_code = 3 if 3 in codes else max(codes)
    fields = {"can_run": not exit_code, "checks": [asdict(check) for check in checks]}
    return ReportResult(_table(checks, can_run=not exit_code), fields, exit_code)


def _probes() -> list[_Probe]:
    tiny = f"preset {DEFAULT_PRESET}"
    # First what others stand on: with torch missing, tiny is missing too.
    probes = [
        _Probe("longvie", "", _longvie),
        _Probe("python", "3.11 or newer", _python, exit_code=3),
        _Probe("packages", "as longvie requires them", _packages, f"{_PIP} packaging", 3),
        _Probe("torch", "computes everything", _torch, _torch_command(), exit_code=3),
        _Probe("gpu", "none for tiny; 24 GB or more for longvie2", _gpu),
        _Probe("memory", f"{gigabytes(TINY_BYTES)} for tiny", _memory, exit_code=1),
        _Probe("temp folder", "written while work goes on", _temp_folder, exit_code=1),
        _Probe("output folder", _space(), _output_folder, "cd ~", exit_code=1),
        _Probe("ffmpeg", "reads and writes videos", _ffmpeg, mending_command(), exit_code=3),
        _Probe("ffmpeg libx264", "every mp4", _video_encoder, mending_command(), exit_code=3),
        _Probe("ffmpeg aac", "--audio", _sound_encoder, mending_command()),
        _Probe("ffmpeg decoders", "common videos and sounds", _decoders, mending_command()),
        _Probe("text encoding", "UTF-8, for names of files", _encoding, "export LC_ALL=C.UTF-8"),
        _Probe(tiny, "the default model", _tiny, f"{_PIP} --force-reinstall longvie", exit_code=3),
        _Probe("peft", "--lora", _peft, f"{_PIP} 'peft>=0.17'"),
        _Probe("tensorboard", "curves of train", _tensorboard, f"{_PIP} 'tensorboard>=2.16'"),
    ]
    for name in PRESET_NAMES:
        preset = load_preset(name)
        if preset.models:
            needed = f"--preset {name}"
            entries = preset_entries(preset)
            probes.append(_Probe(f"preset {name}", needed, partial(_weights, name, entries)))
    for entry in REGISTRY:
        if entry.role in ("depth", "tracks"):
            look = partial(_weights, entry.name, (entry,))
            probes.append(_Probe(f"model {entry.name}", entry.purpose, look))
    return probes


def _longvie() -> str:
    return f"{__version__} in {Path(__file__).parents[1]}"


def _python() -> str:
    return f"{platform.python_version()} on {platform.platform()}"


def _packages() -> str:
    from packaging.requirements import Requirement

    wrong: list[str] = []
    try:
        lines = importlib.metadata.requires("longvie") or []
    except importlib.metadata.PackageNotFoundError as reason:
        found = "longvie runs from its sources, so what it requires is not known"
        raise _Wanting(found, f"{_PIP} -e .", status="warning") from reason
    wanted = [Requirement(line) for line in lines]
    wanted = [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    for requirement in wanted:
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            version = ""
        if not requirement.specifier.contains(version or "0", prereleases=True):
            wrong.append(f"{requirement} ({version or 'not installed'})")
    if wrong:
        names = " ".join(shlex.quote(each.rpartition(" (")[0]) for each in wrong)
        raise _Wanting(", ".join(wrong), f"{_PIP} {names}")
    return f"all {len(wanted)}"


def _torch_command() -> str:
    return f"{_PIP} torch" + ("" if _driver() else f" --index-url {_CPU_BUILDS}")


def _torch() -> str:
    import torch

    threads, cores = torch.get_num_threads(), _usable_cores()
    found = f"{torch.__version__}, {threads} threads on {cores:g} cores"
    if threads > cores:
        number = max(1, int(cores))
        raise _Wanting(found, f"export OMP_NUM_THREADS={number}", status="warning")
    return found


def _usable_cores() -> float:
    cores: float = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):
        # A container may have the time of fewer cores than it sees.
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        cores = min(cores, float(quota) / float(period))
    return cores


def _driver() -> str | None:
    """Return the version of the NVIDIA driver, None where there is none."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        return next(iter(done.stdout.split()), None)
    return None


def _gpu() -> str:
    import torch

    driver = _driver()
    if not torch.cuda.is_available():
        if driver is None:
            return "none"
        if torch.version.cuda is not None and "CUDA_VISIBLE_DEVICES" in os.environ:
            fix = "unset CUDA_VISIBLE_DEVICES"
        elif torch.version.cuda is not None:
            # The driver is older than this build of torch wants it.
            fix = f"{_PIP} --force-reinstall torch --index-url {_OLDER_CUDA_BUILDS}"
        else:
            fix = f"{_PIP} --force-reinstall torch"
        found = f"driver {driver}, but torch {torch.__version__} sees no GPU"
        raise _Wanting(found, fix, status="warning")
    free, total = torch.cuda.mem_get_info(0)
    found = f"{torch.cuda.get_device_name(0)}, {gigabytes(free)} of {gigabytes(total)} free"
    found += f", driver {driver}" if driver else ""
    try:
        torch.ones(2, device="cuda").sum().item()
    except RuntimeError as reason:
        first = str(reason).strip().splitlines()[0]
        raise _Wanting(
            f"{found}: {first}", "export LONGVIE_DEVICE=cpu", status="warning"
        ) from reason
    return found


def _memory() -> str:
    from longvie_cli.engine.machine import machine_memory

    memory = machine_memory("cpu")
    free, total = memory.host_free, memory.host_total
    found = " of ".join(gigabytes(size) for size in (free, total) if size is not None)
    if total is not None and total < TINY_BYTES:
        raise _Wanting(f"{found} in all", None)
    if free is not None and free < TINY_BYTES:
        raise _Wanting(f"{found} free", "ps aux --sort=-rss | head", status="warning")
    return f"{found} free" if free is not None else found or "unknown"


def _space() -> str:
    return f"{gigabytes(_FEWEST_FREE_BYTES)} for a minute of tiny, ten times that of longvie2"


def _temp_folder() -> str:
    try:
        with unnamed_file(b"longvie"):
            pass
    except Exception as reason:
        raise _Wanting(str(reason), _TEMP_COMMAND) from reason
    folder = tempfile.gettempdir()
    wanted = os.environ.get("TMPDIR")
    if wanted and Path(wanted).absolute() != Path(folder).absolute():
        found = f"{folder}, since TMPDIR={wanted} cannot be written"
        raise _Wanting(found, "unset TMPDIR", status="warning")
    return _folder(Path(folder), _TEMP_COMMAND)


def _output_folder() -> str:
    return _folder(Path.cwd(), "cd ~")


def _folder(folder: Path, fix: str) -> str:
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"longvie")
    free = shutil.disk_usage(folder).free
    found = f"{folder}, {gigabytes(free)} free"
    if free < _FEWEST_FREE_BYTES:
        raise _Wanting(found, fix)
    return found


def _ffmpeg() -> str:
    with running_ffmpeg(["-version"]) as process:
        words = process.stdout.read().decode(errors="replace").split()
        status = process.wait()
    if words[:2] != ["ffmpeg", "version"] or status != 0:
        raise _Wanting(f"{ffmpeg_executable()} is no ffmpeg", mending_command())
    return f"{words[2]} in {ffmpeg_executable()}"


def _video_encoder() -> str:
    import numpy as np

    from longvie_cli.media.writer import VideoWriter

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trial.mp4"
        with VideoWriter(path, height=64, width=64, fps=16) as writer:
            for _ in range(3):
                writer.write(np.zeros((64, 64, 3), np.uint8))
        size = len(run_reading(path, [*input_arguments(path), "-f", "rawvideo", "pipe:1"]))
    frames = size // (64 * 64 * 3 // 2)  # yuv420p
    if frames != 3:
        raise _Wanting(f"3 frames were written, {frames} read", mending_command())
    return "3 frames written and read"


def _sound_encoder() -> str:
    sound = ["-f", "s16le", "-ar", "48000", "-ac", "2", "-i", "pipe:0"]
    with running_ffmpeg([*sound, "-c:a", "aac", "-f", "null", "-"], feed=True) as process:
        process.stdin.write(bytes(48000))
        process.stdin.close()
        if process.wait() != 0:
            raise _Wanting("; ".join(process.complaints()), mending_command())
    return "a quarter of a second encoded"


def _decoders() -> str:
    with running_ffmpeg(["-decoders"]) as process:
        lines = process.stdout.read().decode(errors="replace").splitlines()
    known = {line.split()[1] for line in lines if len(line.split()) > 1}
    absent = [name for name, decoders in _INPUTS.items() if not known.intersection(decoders)]
    if absent:
        raise _Wanting(f"none for {', '.join(absent)}", mending_command(), status="warning")
    return ", ".join(_INPUTS)


def _encoding() -> str:
    names = {sys.getfilesystemencoding(), sys.stderr.encoding or "utf-8"}
    setting = next(
        (f"{k}={os.environ[k]}" for k in ("LC_ALL", "LC_CTYPE", "LANG") if os.environ.get(k)), ""
    )
    found = ", ".join(sorted(names)) + (f" ({setting})" if setting else "")
    if any(name.lower().replace("-", "") != "utf8" for name in names):
        raise _Wanting(found, "export LC_ALL=C.UTF-8", status="warning")
    return found


def _tiny() -> str:
    import longvie_cli.workflows.generate  # noqa: F401  # everything a run imports
    from longvie_cli.engine.loader import load_pipeline

    preset: Preset = load_preset(DEFAULT_PRESET)
    pipeline = load_pipeline(preset)
    parameters = sum(weights.numel() for weights in pipeline.transformer.parameters())
    return f"loads; {parameters / 1e6:.1f} million parameters, {preset.size.label}"


def _peft() -> str:
    if importlib.util.find_spec("peft") is None:
        raise ModuleNotFoundError("not installed")
    return importlib.metadata.version("peft")


def _tensorboard() -> str:
    if importlib.util.find_spec("tensorboard") is None:
        raise ModuleNotFoundError("not installed")
    return importlib.metadata.version("tensorboard")


def _weights(name: str, entries: tuple[ModelEntry, ...]) -> str:
    statuses = [entry_status(entry) for entry in entries]
    present = sum(status.present_bytes for status in statuses)
    missing = sum(status.missing_bytes for status in statuses)
    if all(status.complete for status in statuses):
        return f"{gigabytes(present)} in {hub_cache()}"
    accepting = " --accept-noncommercial" if any(e.noncommercial for e in entries) else ""
    here = f"{gigabytes(present)} here, " if present else ""
    raise _Wanting(
        f"{here}about {gigabytes(missing)} not fetched", f"longvie models pull {name}{accepting}"
    )


def _table(checks: list[Check], *, can_run: bool) -> list[str]:
    width = max(len(check.name) for check in checks)
    lines: list[str] = []
    for check in checks:
        needed = f" (for: {check.needed})" if check.status != "ok" and check.needed else ""
        lines.append(f"{check.status:<7}  {check.name:<{width}}  {check.found}{needed}")
        if check.fix:
            lines.append(f"{'':<{width + 11}}{check.fix}")
    verdict = "can run" if can_run else "cannot run"
    return [*lines, "", f"{DEFAULT_PRESET} {verdict} here."]
