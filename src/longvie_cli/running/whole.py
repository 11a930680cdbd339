"""One request from its first check to its result: what `generate` and `extend` do alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from longvie_cli.disk.hashing import fingerprint, input_state
from longvie_cli.errors import LongVieError
from longvie_cli.hub.installed import go_offline
from longvie_cli.planning.deciding import model_hashes
from longvie_cli.planning.job import Job
from longvie_cli.planning.paths import check_places
from longvie_cli.planning.prompt_notes import say_of_prompts
from longvie_cli.progress import Progress
from longvie_cli.result import JobResult
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.manifest import manifest_trouble
from longvie_cli.run_folder.run import Run
from longvie_cli.running.carry_out import carry_out
from longvie_cli.running.changes import redos_of_request
from longvie_cli.running.delivery import finished_run
from longvie_cli.running.dry_run import describe
from longvie_cli.running.together import with_helpers
from longvie_cli.settings.presets import load_preset
from longvie_cli.settings.request_json import request_json
from longvie_cli.settings.requests import ExtendRequest, GenerateRequest

if TYPE_CHECKING:
    from longvie_cli.engine.together import Leader

_Asked = TypeVar("_Asked", GenerateRequest, ExtendRequest)
_Decided = TypeVar("_Decided", GenerateRequest, ExtendRequest, contravariant=True)


class Decide(Protocol[_Decided]):
    """Makes a job of a request, as `planning.generate.decide`."""

    def __call__(self, request: _Decided, progress: Progress, *, to_run: bool = False) -> Job: ...


def run_through(request: _Asked, decide: Decide[_Asked], progress: Progress) -> JobResult:
    """Do what is asked from wherever it stands and return the result.

    Of several processes of torchrun the first does it, with the help of the others.

    Raises:
        LongVieError: See `longvie_cli.errors`; everything made so far is saved.
    """
    return with_helpers(
        lambda leader: _run_through(request, decide, progress, leader), request.output
    )


def _run_through(
    request: _Asked, decide: Decide[_Asked], progress: Progress, leader: Leader | None
) -> JobResult:
    check_places(request)
    if request.no_clobber and request.output.exists():
        progress.message(f"{request.output}: exists, skipped (--no-clobber).")
        return JobResult("skipped", request.output)
    if request.offline:
        go_offline()
    if finished := _finished_before(request, progress):
        progress.message(f"{request.output}: this run is finished already.")
        return finished
    return carry_out(decide(request, progress, to_run=True), progress, leader=leader)


def look_through(request: _Asked, decide: Decide[_Asked], progress: Progress) -> JobResult:
    """Say what `run_through` would do; writes nothing.

    Raises:
        LongVieError: What `run_through` would raise before its first clip.
    """
    check_places(request)
    if request.offline:
        go_offline()
    return describe(decide(request, progress), progress)


def _finished_before(
    request: GenerateRequest | ExtendRequest, progress: Progress
) -> JobResult | None:
    """Return the result of this very request if it was finished before, with the same inputs.

    Found out from hashes alone, before a source is read through or a model is loaded. Whenever
    anything is unclear this is None, and the job is decided and compared as a whole. What is said
    of prompts is said again.
    """
    folder = RunFolder.of(request.output, request.run_dir)
    if not folder.is_begun or request.from_clip is not None:
        return None
    try:
        folder.check_no_links()
        if manifest_trouble(folder):
            return None
        run = Run.read(folder)
        manifest = run.manifest
        if manifest.asked != fingerprint(request_json(request)) or redos_of_request(run.redos):
            return None
        states = manifest.inputs.states.items()
        if any(input_state(Path(path)) != state for path, state in states):
            return None
        weights = None if manifest.inputs.weights is None else Path(manifest.inputs.weights)
        preset = load_preset(manifest.preset, weights)
        if model_hashes(preset) != manifest.model_hashes:
            return None
        finished = finished_run(run, request.output, keeps_clips=request.keep_clips)
        if finished is not None:
            settings = manifest.settings
            say_of_prompts(
                progress,
                preset=preset,
                specs=manifest.plan,
                prompts=manifest.clip_prompts,
                given=request.prompts,
                negative_prompt="" if settings["guidance"] == 1 else settings["negative_prompt"],
            )
        return finished
    except (LongVieError, OSError, KeyError):
        return None
