"""The clips of a run, one after another; each is on disk before the next begins."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from longvie_cli.disk.checksums import is_intact, with_digest
from longvie_cli.disk.durable import write_atomic
from longvie_cli.disk.hashing import hash_file
from longvie_cli.evaluation.clip_checks import check_clip
from longvie_cli.media.frames import last_frames, png_bytes
from longvie_cli.media.image import read_image
from longvie_cli.media.writer import VideoWriter
from longvie_cli.planning.expected_time import expected_time
from longvie_cli.planning.job import Job
from longvie_cli.progress import Progress
from longvie_cli.run_folder.events import append_event
from longvie_cli.run_folder.manifest import ClipRecord, retry_seed, write_record
from longvie_cli.run_folder.run import Run, StoredClip
from longvie_cli.run_folder.tails import load_tail, save_tail
from longvie_cli.running.live import LiveVideo
from longvie_cli.running.noted_time import note_clip
from longvie_cli.settings.sampling import Offload
from longvie_cli.sources.source import PlayedControls
from longvie_cli.timeline import ClipSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from longvie_cli.engine.clip_generator import ClipGenerator, ClipTimings
    from longvie_cli.engine.together import Leader
    from longvie_cli.models.carrying import Carrying


# Clips of a process after which `--compile` compiles nothing more.
_COMPILING_CLIPS = 2


@dataclass(frozen=True)
class _Making:
    """What every clip of a run is made with."""

    job: Job
    run: Run
    controls: PlayedControls | None
    progress: Progress
    offload: Offload
    leader: Leader | None


def make_missing_clips(
    job: Job,
    run: Run,
    clips: Sequence[StoredClip],
    controls: PlayedControls | None,
    progress: Progress,
    *,
    offload: Offload,
    leader: Leader | None = None,
) -> None:
    """Make every clip that does not exist yet, in order.

    A clip starts on the last frame so far and is told the last few as history; both come from the
    lossless tail, never from the delivered video, so a resumed run makes the same frames. Memory
    does not grow with the number of clips. A clip that starts a scene of the source starts anew:
    from the scene's own picture and without history, in the same noise. A damaged clip is made
    again; the clips after it are kept if it comes out with the tail that they were made after.
    """
    live = LiveVideo(job)
    kept = sum(clip.record is not None for clip in clips)
    for clip in clips:
        if clip.damage:
            progress.warning(f"clip {clip.spec.index}: {clip.damage}; it is made again.")
    if kept < len(clips):
        if kept:
            progress.message(f"{kept} of {len(clips)} clips are there already; going on.")
        left = len(clips) - kept
        # What one process takes says nothing of several, nor the other way round.
        expected = expected_time(job, left, offload=offload) if leader is None else None
        if expected is not None:
            progress.message(f"expected time: {expected.text}")
        _make(_Making(job, run, controls, progress, offload, leader), clips, live)
    live.refresh(len(clips), last=True)


def _make(making: _Making, clips: Sequence[StoredClip], live: LiveVideo) -> None:
    job, progress = making.job, making.progress
    _paint_pictures(making, clips)
    generator = _load_generator(making)
    kept = sum(clip.record is not None for clip in clips)
    progress.start("clips", len(clips), done=kept)
    previous, made = "", 0
    known_of = lru_cache(maxsize=1)(lambda first: _known(making, first, generator))
    first = clips[0].spec
    for clip in clips:
        spec, record = clip.spec, clip.record
        first = spec if spec.starts_scene else first
        follows = "" if spec.starts_scene else previous
        if record is not None:
            if record.follows == follows:
                previous = record.tail_hash
                continue
            progress.message(
                f"clip {spec.index} is made again: the clip before it came out otherwise."
            )
            kept -= 1
            progress.start("clips", len(clips), done=kept)
        known = _told_before(making, spec, generator, None if spec is first else known_of(first))
        record, timings = _make_clip(making, generator, spec, follows, known)
        made += 1
        # The first clips compile: graphs of a first clip, then those of one with history.
        is_usual = job.sampling.compile == "none" or made > _COMPILING_CLIPS
        if record.attempts == 1 and making.leader is None and is_usual:
            note_clip(job, record.seconds, timings, offload=making.offload)
        previous = record.tail_hash
        kept += 1
        append_event(
            job.folder.events,
            "clip_done",
            clip=spec.index,
            seconds=round(record.seconds, 3),
            **({"warnings": list(record.warnings)} if record.warnings else {}),
        )
        progress.advance("clips", detail=f"{record.seconds:.1f} s")
        live.refresh(spec.index + 1)
    progress.finish("clips")


def _make_clip(
    making: _Making, generator: ClipGenerator, spec: ClipSpec, follows: str, known: Carrying
) -> tuple[ClipRecord, ClipTimings]:
    job, run, progress = making.job, making.run, making.progress
    folder = run.folder
    began = time.monotonic()
    shown = None if making.controls is None else making.controls.read(spec)
    dense, sparse = (None, None) if shown is None else (shown.dense, shown.sparse)
    tail = None
    if not spec.starts_scene:
        tail = load_tail(folder.tail(spec.index - 1)) if spec.index else job.start.history
    image = None if tail is None else tail[-1]
    if image is None:
        image = _first_picture(making, spec, generator, dense, sparse)
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
            carrying=replace(known, tracked_frames=None if shown is None else shown.tracked_frames),
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
    _write_files(job, spec, best.frames, tail)
    record = ClipRecord(
        run_id=run.manifest.run_id,
        index=spec.index,
        frames=len(best.frames),
        video_hash=hash_file(folder.clip_video(spec.index)),
        tail_hash=hash_file(folder.tail(spec.index)),
        seconds=time.monotonic() - began,
        seed=best.seed,
        prompt=job.prompts[spec.index],
        follows=follows,
        revision=run.revision_of(spec.index),
        attempts=attempts,
        warnings=best.warnings,
    )
    # Last of all: with its record the clip exists.
    write_record(folder.clip_record(spec.index), record)
    return record, best.timings


def _known(making: _Making, first: ClipSpec, generator: ClipGenerator) -> Carrying:
    """Return what the clips after the first of a video or scene know of it."""
    from longvie_cli.models.carrying import Carrying
    from longvie_cli.models.depth_colours import Look

    job, controls = making.job, making.controls
    if controls is None or generator.pipeline.config.image_condition != "carried":
        return Carrying()
    shown = controls.read(first)
    history = None if first.starts_scene else job.start.history
    if history is None:
        picture = _first_picture(making, first, generator, shown.dense, shown.sparse)
        prompt = job.prompts[first.index]
    else:
        picture, prompt = history[-1], job.start.prompt or job.prompts[first.index]
    return Carrying(look=Look.of(picture, shown.dense[0]), look_words=generator.words(prompt))


def _told_before(
    making: _Making, spec: ClipSpec, generator: ClipGenerator, known: Carrying | None
) -> Carrying:
    """Return what a clip knows, with the words that its first frame is of."""
    from longvie_cli.models.carrying import Carrying

    job, before = making.job, None
    if not spec.starts_scene and job.preset.image_condition == "carried":
        before = job.prompts[spec.index - 1] if spec.index else job.start.prompt
    words = None if before is None else generator.words(before)
    return replace(known or Carrying(), words_before=words)


@dataclass(frozen=True)
class _Attempt:
    frames: NDArray[np.uint8]
    seed: int
    warnings: tuple[str, ...]
    timings: ClipTimings


def _paint_pictures(making: _Making, clips: Sequence[StoredClip]) -> None:
    """Make the pictures that a text-to-image model gives, before the video model needs the memory.

    Those of clip 0 and of every scene still to be made that starts from the prompt.
    """
    job, controls = making.job, making.controls
    model = job.start.image_model
    if model is None:
        return
    assert controls is not None, "a first frame is made from controls"
    for clip in clips:
        spec = clip.spec
        made = making.run.picture_of(spec.index)
        wanted = clip.record is None and job.start.is_made_for(spec)
        if not wanted or _is_painted(made, making.progress):
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
    making: _Making,
    spec: ClipSpec,
    generator: ClipGenerator,
    dense: NDArray[np.uint8] | None,
    sparse: NDArray[np.uint8] | None,
) -> NDArray[np.uint8]:
    """Return the picture a new video or scene starts from, made where none is given."""
    job = making.job
    if not spec.starts_scene and job.start.image is not None:
        return job.start.image
    if spec.starts_scene and job.start.scenes_label is None:
        picture = job.source.picture(spec.first_frame)
        assert picture is not None, "checked when the job was decided"
        return picture
    made = making.run.picture_of(spec.index)
    if not _is_painted(made, making.progress):
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
    job: Job, spec: ClipSpec, added: NDArray[np.uint8], tail: NDArray[np.uint8]
) -> None:
    preset, folder = job.preset, job.folder
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


def _load_generator(making: _Making) -> ClipGenerator:
    from longvie_cli.engine.clip_generator import ClipGenerator
    from longvie_cli.engine.loader import load_pipeline
    from longvie_cli.engine.prompt_cache import prompt_embeds

    job, progress = making.job, making.progress
    sampling = replace(job.sampling, offload=making.offload)
    carries = job.preset.image_condition == "carried"
    before = [job.start.prompt] if carries and job.start.prompt is not None else []
    negative = [] if sampling.guidance_scale == 1 else [sampling.negative_prompt]
    # Before the transformer is loaded: the two are never in memory together.
    embeds = prompt_embeds(
        job.folder,
        job.preset,
        [*job.prompts, *before, *negative],
        sampling,
        model_hashes=making.run.manifest.model_hashes,
    )
    load = load_pipeline if making.leader is None else making.leader.load
    pipeline = load(
        job.preset,
        sampling,
        text_encoder=False,
        warn=lambda notice: None,  # Said when the job was decided.
        fell_back=progress.warning,
    )
    return ClipGenerator(pipeline, job.preset, sampling, prompt_embeds=embeds, progress=progress)
