"""The clips of a run, one after another; each is on disk before the next begins."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from longvie_cli.durable import write_atomic
from longvie_cli.media.frames import last_frames, png_bytes
from longvie_cli.media.reader import read_image
from longvie_cli.media.writer import VideoWriter
from longvie_cli.progress import Progress
from longvie_cli.run_folder.commit import completed_clips, hash_file
from longvie_cli.run_folder.events import append_event
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.manifest import ClipRecord, read_manifest, write_record
from longvie_cli.run_folder.tails import load_tail, save_tail
from longvie_cli.settings.requests import Offload
from longvie_cli.timeline import ClipSpec
from longvie_cli.workflows.job import Job
from longvie_cli.workflows.sources import PlayedControls

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from longvie_cli.engine.clip_generator import ClipGenerator


def make_missing_clips(
    job: Job,
    folder: RunFolder,
    controls: PlayedControls | None,
    progress: Progress,
    *,
    offload: Offload,
) -> None:
    """Make every clip that does not exist yet, in order.

    A clip starts on the last frame so far and is told the last few as history; both come from the
    lossless tail, never from the delivered video, so a resumed run makes the same frames. Memory
    does not grow with the number of clips. A clip that starts a scene of the source starts anew:
    from the scene's own picture and without history, in the same noise.
    """
    done = completed_clips(folder, job.specs)
    if len(done) == len(job.specs):
        return
    if done:
        progress.message(f"{len(done)} of {len(job.specs)} clips are there already; going on.")
    _paint_pictures(job, folder, controls, len(done))
    generator = _load_generator(job, folder, offload, progress)
    tail = load_tail(folder.tail(done[-1].index)) if done else job.start.history
    progress.start("clips", len(job.specs), done=len(done))
    for spec in job.specs[len(done) :]:
        began = time.monotonic()
        shown = None if controls is None else controls.read(spec)
        dense, sparse = (None, None) if shown is None else (shown.dense, shown.sparse)
        prompt = job.prompts[spec.index]
        if spec.starts_scene:
            tail = None
        if tail is not None:
            image = tail[-1]
        else:
            image = _first_picture(job, spec, folder, generator, dense, sparse)
        clip = generator.generate(
            spec.index,
            prompt,
            image=image,
            history=tail,
            dense=dense,
            sparse=sparse,
            seed=job.seeds[spec.index],
        )
        added = clip.frames[spec.skip_frames : spec.skip_frames + spec.added_frames]
        tail = last_frames(tail, added, job.preset.history_frames)
        seconds = time.monotonic() - began
        _commit(job, folder, spec, added, tail, seconds)
        append_event(folder.events, "clip_done", clip=spec.index, seconds=round(seconds, 3))
        progress.advance("clips", detail=f"{seconds:.1f} s")
    progress.finish("clips")


def _paint_pictures(
    job: Job, folder: RunFolder, controls: PlayedControls | None, num_done: int
) -> None:
    """Make the pictures that a text-to-image model gives, before the video model needs the memory.

    Those of clip 0 and of every scene still to be made that starts from the prompt.
    """
    model = job.start.image_model
    if model is None:
        return
    assert controls is not None, "a first frame is made from controls"
    for spec in job.specs[num_done:]:
        made = folder.scene_picture(spec.index)
        if not (spec.index == 0 or spec.starts_scene) or made.is_file():
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
        write_atomic(made, png_bytes(picture))


def _first_picture(
    job: Job,
    spec: ClipSpec,
    folder: RunFolder,
    generator: ClipGenerator,
    dense: NDArray[np.uint8] | None,
    sparse: NDArray[np.uint8] | None,
) -> NDArray[np.uint8]:
    """Return the picture a new video or scene starts from, made where none is given."""
    if not spec.starts_scene and job.start.image is not None:
        return job.start.image
    if spec.starts_scene and not job.start.scenes_from_prompt:
        picture = job.source.picture(spec.first_frame)
        assert picture is not None, "checked when the job was decided"
        return picture
    made = folder.scene_picture(spec.index)
    if not made.is_file():
        assert dense is not None and sparse is not None, "a first frame is made from controls"
        picture = generator.first_frame(
            job.prompts[spec.index], dense=dense[0], sparse=sparse[0], seed=job.seeds[0]
        )
        write_atomic(made, png_bytes(picture))
    return read_image(made, height=job.preset.height, width=job.preset.width, fit="native")


def _commit(
    job: Job,
    folder: RunFolder,
    spec: ClipSpec,
    added: NDArray[np.uint8],
    tail: NDArray[np.uint8],
    seconds: float,
) -> None:
    video, preset = folder.clip_video(spec.index), job.preset
    with VideoWriter(
        video,
        height=preset.height,
        width=preset.width,
        fps=preset.fps,
        crf=job.delivery.crf,
    ) as writer:
        for frame in added:
            writer.write(frame)
    save_tail(folder.tail(spec.index), tail)
    record = ClipRecord(
        index=spec.index,
        frames=len(added),
        video_hash=hash_file(video),
        tail_hash=hash_file(folder.tail(spec.index)),
        seconds=seconds,
        seed=job.seeds[spec.index],
        prompt=job.prompts[spec.index],
    )
    # Last of all: with its record the clip exists.
    write_record(folder.clip_record(spec.index), record)


def _load_generator(
    job: Job, folder: RunFolder, offload: Offload, progress: Progress
) -> ClipGenerator:
    from longvie_cli.engine.clip_generator import ClipGenerator
    from longvie_cli.engine.loader import load_pipeline
    from longvie_cli.engine.prompt_cache import prompt_embeds

    sampling = job.sampling
    negative = [] if sampling.guidance_scale == 1 else [sampling.negative_prompt]
    # Before the transformer is loaded: the two are never in memory together.
    embeds = prompt_embeds(
        folder,
        job.preset,
        [*job.prompts, *negative],
        model_hashes=read_manifest(folder.run_json).model_hashes,
        device=sampling.device,
        dtype=sampling.dtype,
        offload=offload,
    )
    pipeline = load_pipeline(
        job.preset,
        device=sampling.device,
        dtype=sampling.dtype,
        offload=offload,
        quantize=sampling.quantize,
        attention=sampling.attention,
        text_encoder=False,
        loras=[(lora.path, lora.scale) for lora in sampling.loras],
        warn=progress.warning,
    )
    return ClipGenerator(
        pipeline,
        job.preset,
        seed=sampling.seed,
        num_inference_steps=sampling.num_inference_steps,
        guidance_scale=sampling.guidance_scale,
        negative_prompt=sampling.negative_prompt,
        dense_scale=sampling.depth_strength,
        sparse_scale=sampling.track_strength,
        prompt_embeds=embeds,
        control_start=sampling.control_start,
        control_end=sampling.control_end,
        progress=progress,
    )
