"""The clips of a run, one after another; each is on disk before the next begins."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from longvie_cli.disk.checksums import is_intact, with_digest
from longvie_cli.disk.durable import write_atomic
from longvie_cli.disk.hashing import hash_file
from longvie_cli.evaluation.clip_checks import check_clip, retry_seed
from longvie_cli.media.frames import last_frames, png_bytes
from longvie_cli.media.reader import read_image
from longvie_cli.media.writer import VideoWriter
from longvie_cli.planning.expected_time import expected_time, note_clip
from longvie_cli.planning.job import Job
from longvie_cli.progress import Progress
from longvie_cli.run_folder.commit import StoredClip, stored_clips
from longvie_cli.run_folder.events import append_event
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.manifest import (
    ClipRecord,
    Redo,
    read_manifest,
    revision_of,
    write_record,
)
from longvie_cli.run_folder.tails import load_tail, save_tail
from longvie_cli.running.live import LiveVideo
from longvie_cli.settings.sampling import Offload
from longvie_cli.sources.source import PlayedControls
from longvie_cli.timeline import ClipSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from longvie_cli.engine.clip_generator import ClipGenerator, ClipTimings


def make_missing_clips(
    job: Job,
    folder: RunFolder,
    controls: PlayedControls | None,
    progress: Progress,
    *,
    offload: Offload,
    redos: Sequence[Redo] = (),
    live: LiveVideo | None = None,
) -> None:
    """Make every clip that does not exist yet, in order.

    A clip starts on the last frame so far and is told the last few as history; both come from the
    lossless tail, never from the delivered video, so a resumed run makes the same frames. Memory
    does not grow with the number of clips. A clip that starts a scene of the source starts anew:
    from the scene's own picture and without history, in the same noise. A damaged clip is made
    again; the clips after it are kept if it comes out with the tail that they were made after.
    """
    stored = stored_clips(folder, job.specs, redos)
    kept = sum(clip.record is not None for clip in stored)
    for clip in stored:
        if clip.damage:
            progress.warning(f"clip {clip.spec.index}: {clip.damage}; it is made again.")
    if kept < len(stored):
        if kept:
            progress.message(f"{kept} of {len(stored)} clips are there already; going on.")
        left = len(stored) - kept
        if (expected := expected_time(job, left, offload=offload)) is not None:
            progress.message(f"expected time: {expected.text}")
        _make(job, folder, controls, progress, stored, redos, live, offload)
    if live is not None:
        live.refresh(len(stored), last=True)


def _make(
    job: Job,
    folder: RunFolder,
    controls: PlayedControls | None,
    progress: Progress,
    stored: Sequence[StoredClip],
    redos: Sequence[Redo],
    live: LiveVideo | None,
    offload: Offload,
) -> None:
    _paint_pictures(job, folder, controls, progress, stored, redos)
    generator = _load_generator(job, folder, offload, progress)
    kept = sum(clip.record is not None for clip in stored)
    progress.start("clips", len(stored), done=kept)
    previous, made_any = "", False
    for clip in stored:
        spec, record = clip.spec, clip.record
        follows = "" if spec.starts_scene else previous
        if record is not None:
            known = not made_any if record.follows is None else record.follows == follows
            if known:
                previous = record.tail_hash
                continue
            progress.message(
                f"clip {spec.index} is made again: the clip before it came out otherwise."
            )
            kept -= 1
            progress.start("clips", len(stored), done=kept)
        record, timings = _make_clip(
            job, folder, controls, progress, generator, spec, redos, follows
        )
        if record.attempts == 1:
            note_clip(job, record.seconds, timings, offload=offload)
        previous, made_any = record.tail_hash, True
        kept += 1
        append_event(
            folder.events,
            "clip_done",
            clip=spec.index,
            seconds=round(record.seconds, 3),
            **({"warnings": list(record.warnings)} if record.warnings else {}),
        )
        progress.advance("clips", detail=f"{record.seconds:.1f} s")
        if live is not None:
            live.refresh(spec.index + 1)
    progress.finish("clips")


def _make_clip(
    job: Job,
    folder: RunFolder,
    controls: PlayedControls | None,
    progress: Progress,
    generator: ClipGenerator,
    spec: ClipSpec,
    redos: Sequence[Redo],
    follows: str,
) -> tuple[ClipRecord, ClipTimings]:
    began = time.monotonic()
    shown = None if controls is None else controls.read(spec)
    dense, sparse = (None, None) if shown is None else (shown.dense, shown.sparse)
    revision = revision_of(redos, spec.index)
    tail = None
    if not spec.starts_scene:
        tail = load_tail(folder.tail(spec.index - 1)) if spec.index else job.start.history
    if tail is not None:
        image = tail[-1]
    else:
        made = folder.scene_picture(spec.index, revision)
        image = _first_picture(job, spec, made, generator, progress, dense, sparse)
    stretch = slice(spec.skip_frames, spec.skip_frames + spec.added_frames)
    best: _Attempt | None = None
    attempts = 0
    while best is None or (best.warnings and attempts <= job.delivery.retries):
        seed = retry_seed(job.seeds[spec.index], attempts)
        clip = generator.generate(
            spec.index,
            job.prompts[spec.index],
            image=image,
            history=tail,
            dense=dense,
            sparse=sparse,
            seed=seed,
        )
        added = clip.frames[stretch]
        steering = None if dense is None or job.sampling.depth_strength == 0 else dense[stretch]
        warnings = check_clip(added, before=tail, controls=steering, finite=clip.finite)
        if best is None or len(warnings) < len(best.warnings):
            best = _Attempt(added, seed, warnings, clip.timings)
        attempts += 1
        if warnings and attempts <= job.delivery.retries:
            progress.message(
                f"clip {spec.index}, seed {seed}: {'; '.join(warnings)}; made again with another "
                "seed."
            )
    for warning in best.warnings:
        progress.warning(f"clip {spec.index}: {warning}.")
    tail = last_frames(tail, best.frames, job.preset.history_frames)
    _write_files(job, folder, spec, best.frames, tail)
    record = ClipRecord(
        index=spec.index,
        frames=len(best.frames),
        video_hash=hash_file(folder.clip_video(spec.index)),
        tail_hash=hash_file(folder.tail(spec.index)),
        seconds=time.monotonic() - began,
        seed=best.seed,
        prompt=job.prompts[spec.index],
        follows=follows,
        revision=revision,
        attempts=attempts,
        warnings=best.warnings,
    )
    # Last of all: with its record the clip exists.
    write_record(folder.clip_record(spec.index), record)
    return record, best.timings


@dataclass(frozen=True)
class _Attempt:
    frames: NDArray[np.uint8]
    seed: int
    warnings: tuple[str, ...]
    timings: ClipTimings


def _paint_pictures(
    job: Job,
    folder: RunFolder,
    controls: PlayedControls | None,
    progress: Progress,
    stored: Sequence[StoredClip],
    redos: Sequence[Redo],
) -> None:
    """Make the pictures that a text-to-image model gives, before the video model needs the memory.

    Those of clip 0 and of every scene still to be made that starts from the prompt.
    """
    model = job.start.image_model
    if model is None:
        return
    assert controls is not None, "a first frame is made from controls"
    for clip in stored:
        spec = clip.spec
        made = folder.scene_picture(spec.index, revision_of(redos, spec.index))
        starts = spec.starts_scene or (spec.index == 0 and job.start.history is None)
        if clip.record is not None or not starts or _is_painted(made, progress):
            continue
        from longvie_cli.engine.first_frame import make_first_frame

        picture = make_first_frame(
            model,
            job.prompts[spec.index],
            controls.read(spec).dense[0],
            seed=job.seeds[0],
            device=job.sampling.device,
            dtype=job.sampling.dtype,
            negative_prompt=job.sampling.negative_prompt,
        )
        write_atomic(made, with_digest(png_bytes(picture)))


def _first_picture(
    job: Job,
    spec: ClipSpec,
    made: Path,
    generator: ClipGenerator,
    progress: Progress,
    dense: NDArray[np.uint8] | None,
    sparse: NDArray[np.uint8] | None,
) -> NDArray[np.uint8]:
    """Return the picture a new video or scene starts from, made at `made` where none is given."""
    if not spec.starts_scene and job.start.image is not None:
        return job.start.image
    if spec.starts_scene and not job.start.scenes_from_prompt:
        picture = job.source.picture(spec.first_frame)
        assert picture is not None, "checked when the job was decided"
        return picture
    if not _is_painted(made, progress):
        assert dense is not None and sparse is not None, "a first frame is made from controls"
        picture = generator.first_frame(
            job.prompts[spec.index], dense=dense[0], sparse=sparse[0], seed=job.seeds[0]
        )
        write_atomic(made, with_digest(png_bytes(picture)))
    return read_image(made, height=job.preset.height, width=job.preset.width, fit="native")


def _is_painted(made: Path, progress: Progress) -> bool:
    if is_intact(made):
        return True
    if made.is_file():
        progress.warning(f"{made.name} is not what was written; it is made again.")
    return False


def _write_files(
    job: Job,
    folder: RunFolder,
    spec: ClipSpec,
    added: NDArray[np.uint8],
    tail: NDArray[np.uint8],
) -> None:
    preset = job.preset
    with VideoWriter(
        folder.clip_video(spec.index),
        height=preset.height,
        width=preset.width,
        fps=preset.fps,
        crf=job.delivery.crf,
    ) as writer:
        for frame in added:
            writer.write(frame)
    save_tail(folder.tail(spec.index), tail)


def _load_generator(
    job: Job, folder: RunFolder, offload: Offload, progress: Progress
) -> ClipGenerator:
    from longvie_cli.engine.clip_generator import ClipGenerator
    from longvie_cli.engine.loader import load_pipeline
    from longvie_cli.engine.prompt_cache import prompt_embeds

    sampling = replace(job.sampling, offload=offload)
    negative = [] if sampling.guidance_scale == 1 else [sampling.negative_prompt]
    # Before the transformer is loaded: the two are never in memory together.
    embeds = prompt_embeds(
        folder,
        job.preset,
        [*job.prompts, *negative],
        sampling,
        model_hashes=read_manifest(folder.run_json).model_hashes,
    )
    pipeline = load_pipeline(job.preset, sampling, text_encoder=False, warn=progress.warning)
    return ClipGenerator(pipeline, job.preset, sampling, prompt_embeds=embeds, progress=progress)
