"""`stitch`: clips and whole runs joined into one file without encoding a frame again."""

from __future__ import annotations

from typing import Any

from longvie_cli.disk.durable import make_folder, storage_error
from longvie_cli.errors import MediaError
from longvie_cli.media.join import write_joined
from longvie_cli.media.metadata import (
    NOT_SEALED,
    SEAL,
    encode_settings,
    is_as_sealed,
    read_settings,
)
from longvie_cli.planning.disk import unwritable
from longvie_cli.planning.paths import output_taken
from longvie_cli.planning.stitch import (
    StitchPlan,
    check_stitch_output,
    stitch_inputs,
    stitch_plan,
    stitched_from,
)
from longvie_cli.progress import Progress, SilentProgress
from longvie_cli.result import JobResult
from longvie_cli.settings.requests import StitchRequest
from longvie_cli.version import __version__

_STITCHED_FROM = "stitched_from"


def stitch(request: StitchRequest, progress: Progress | None = None) -> JobResult:
    """Join runs and clips in the order given.

    A run gives the clips it has finished; they hold only the frames they add, so no frame is shown
    twice. A folder gives its mp4 files by name. Their sound goes along, unless told otherwise: each
    beside its own frames, with silence where there is none.

    Raises:
        MediaError: An input is no video, or was encoded differently from the first.
        OutputConflictError: The output exists, or a run is damaged.
        UsageError: An input holds no clip, or there is no sound to take.
    """
    progress = progress or SilentProgress()
    output = request.output
    check_stitch_output(request)
    if output.exists() and request.no_clobber:
        return _skipped(request, progress)
    inputs = stitch_inputs(request, progress)
    made_from = stitched_from(request, inputs)
    if output.exists() and not request.overwrite:
        finished = _finished(request, made_from)
        if finished is None:
            raise output_taken(output)
        progress.message(f"{output}: joined from the same before, and unchanged since.")
        return finished
    if (locked := unwritable(output.parent)) is not None:
        raise locked
    plan = stitch_plan(request, inputs, progress)
    _say_result(request, plan, progress)
    try:
        make_folder(output.parent)
    except OSError as reason:
        raise storage_error(output.parent, reason) from reason
    settings = encode_settings(_settings(plan, made_from)) if request.embed_metadata else None
    write_joined(
        plan.clips, output, metadata=settings, sound=plan.sound, overwrite=request.overwrite
    )
    return JobResult("done", output, frames=plan.clips.num_frames, seconds=plan.seconds)


def plan(request: StitchRequest, progress: Progress | None = None) -> JobResult:
    """Say what `stitch` would do; writes nothing."""
    progress = progress or SilentProgress()
    output = request.output
    check_stitch_output(request)
    if output.exists() and request.no_clobber:
        return _skipped(request, progress)
    inputs = stitch_inputs(request, progress)
    planned = stitch_plan(request, inputs, progress)
    _say_result(request, planned, progress)
    state = "a new file"
    if output.exists() and not request.overwrite:
        state = "finished already"
        if _finished(request, stitched_from(request, inputs)) is None:
            state = "something else lies at the output"
            progress.warning(f"{output} exists already; without --overwrite nothing is joined.")
    if (locked := unwritable(output.parent)) is not None:
        progress.warning(f"Nothing will be joined: {locked.message}")
    return JobResult(
        "planned",
        output,
        frames=planned.clips.num_frames,
        seconds=planned.seconds,
        plan={
            "state": state,
            "clips": [
                {"name": clip.name, "frames": len(packets.timestamps)}
                for clip, packets in zip(planned.clips.paths, planned.clips.packets, strict=True)
            ],
            "fps": float(planned.clips.fps),
            "sound": [
                {
                    "name": part.sound.path.name if part.sound is not None else None,
                    "start": round(float(part.start), 3),
                    "seconds": round(float(part.duration), 3),
                }
                for part in planned.sound
            ],
        },
    )


def _skipped(request: StitchRequest, progress: Progress) -> JobResult:
    progress.message(f"{request.output}: exists, skipped (--no-clobber).")
    return JobResult("skipped", request.output)


def _say_result(request: StitchRequest, plan: StitchPlan, progress: Progress) -> None:
    clips, (first, *_) = plan.clips, plan.clips.packets
    progress.message(
        f"{request.output}: {clips.num_frames} frames, {plan.seconds:.2f} s at "
        f"{float(clips.fps):.5g} fps, {first.width}x{first.height} {first.codec}, of "
        f"{len(clips.paths)} clip{'s'[: len(clips.paths) > 1]}, "
        f"{'with' if plan.sound else 'without'} sound."
    )


def _settings(plan: StitchPlan, made_from: str) -> dict[str, Any]:
    """Return what the file says about itself: no paths, no names of users or machines."""
    fps = plan.clips.fps
    return {
        "tool": "longvie",
        "version": __version__,
        "command": "stitch",
        "inputs": [item.path.absolute().name for item in plan.inputs],
        **({"fps": fps.numerator} if fps.denominator == 1 else {}),
        "frames": plan.clips.num_frames,
        "seconds": plan.seconds,
        _STITCHED_FROM: made_from,
        SEAL: NOT_SEALED,
    }


def _finished(request: StitchRequest, made_from: str) -> JobResult | None:
    """Return the result of the same command before, where its file is as it was written."""
    if not request.embed_metadata:
        return None
    try:
        about = read_settings(request.output) or {}
    except MediaError:
        return None
    frames, seconds = about.get("frames"), about.get("seconds")
    if about.get(_STITCHED_FROM) != made_from or not is_as_sealed(request.output, about):
        return None
    if not isinstance(frames, int) or not isinstance(seconds, float):
        return None
    return JobResult("done", request.output, frames=frames, seconds=seconds)
