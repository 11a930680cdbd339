"""Many clips from one pipeline: each starts on the last frame of the one before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from longvie_cli.errors import InputError
from longvie_cli.media.frames import last_frames
from longvie_cli.models.carrying import Carrying
from longvie_cli.models.depth_colours import Look

if TYPE_CHECKING:
    from torch import Tensor

    from longvie_cli.models.pipeline import LongViePipeline

ControlPair = tuple[np.ndarray | None, np.ndarray | None]
"""Dense and sparse control of one clip, each uint8 [frames, height, width, 3] or None."""

Controls = Iterable[ControlPair] | Callable[[int], ControlPair]


class _ClipInputs(NamedTuple):
    """What is asked of one clip."""

    prompt: str
    seed: int
    controls: ControlPair


def generate_clips(
    pipeline: LongViePipeline,
    prompt: str | Sequence[str],
    image: np.ndarray | None = None,
    controls: Controls | None = None,
    *,
    num_clips: int | None = None,
    history: np.ndarray | None = None,
    history_frames: int = 8,
    seed: int | Sequence[int] = 0,
    **arguments: Any,
) -> Iterator[np.ndarray]:
    """Yield the clips of a long video one by one, each as the frames it adds.

    A clip after the first starts on the last frame before it and is told the last few; its
    own frame 0 repeats that frame and is dropped, so the clips joined are the video. All
    clips start from one noise. Memory does not grow with their number.

    Args:
        pipeline: Makes each clip; this is its method `generate`.
        prompt: One text, or one a clip.
        image: First frame, uint8 [height, width, 3]; the last of `history` where not given.
        controls: (dense, sparse) of each clip, see `ControlPair`: a sequence, an iterable
            read clip by clip, or a function of the clip's index. A clip begins on the last
            frame of the one before, so neighbours share one frame, as in the released
            examples. None makes clips without control.
        num_clips: Clips to make. Only needed where neither the prompts nor the seeds nor the
            controls say it; an iterable may have more, but not fewer.
        history: Last frames of an earlier video to go on from, uint8 [n, height, width, 3].
        history_frames: Frames handed from clip to clip.
        seed: Draws the one noise; or one seed a clip, which gives each a noise of its own.
        arguments: Further ones of `LongViePipeline.__call__`: negative prompt, sizes, steps,
            strengths, callback.

    Yields:
        uint8 [frames, height, width, 3]: all frames of the first clip of a new video, and all
        but the shared one of every other.

    Raises:
        InputError: prompts, seeds, controls and `num_clips` disagree.
        ControlError, InputError: see `LongViePipeline.__call__`.
    """
    lengths = {
        name: len(value)
        for name, value in (("prompt", prompt), ("seed", seed), ("controls", controls))
        if isinstance(value, Sized) and not isinstance(value, str)
    }
    if num_clips is not None:
        lengths["num_clips"] = num_clips
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        given = ", ".join(f"{name} {number}" for name, number in lengths.items())
        raise InputError(f"generate() needs one number of clips, at least 1, not {given}.")
    if not lengths and (controls is None or callable(controls)):
        raise InputError("generate() needs num_clips: nothing else says how many clips.")
    num_clips = next(iter(lengths.values()), None)
    inputs = _inputs(prompt, seed, controls, num_clips)
    return _clips(pipeline, inputs, image, history, history_frames, arguments)


def _inputs(
    prompt: str | Sequence[str],
    seed: int | Sequence[int],
    controls: Controls | None,
    num_clips: int | None,
) -> Iterator[_ClipInputs]:
    """Yield what is asked of each clip; without a number of them, until the controls end."""
    pairs = None if controls is None or callable(controls) else iter(controls)
    for index in count() if num_clips is None else range(num_clips):
        pair: ControlPair | None
        if pairs is None:
            pair = controls(index) if callable(controls) else (None, None)
        else:
            pair = next(pairs, None)
        if pair is None:
            if num_clips is not None:
                raise InputError(f"The controls end after {index} of {num_clips} clips.")
            return
        yield _ClipInputs(
            prompt if isinstance(prompt, str) else prompt[index],
            seed[index] if isinstance(seed, Sequence) else seed,
            pair,
        )


def _clips(
    pipeline: LongViePipeline,
    inputs: Iterator[_ClipInputs],
    image: np.ndarray | None,
    history: np.ndarray | None,
    history_frames: int,
    arguments: dict[str, Any],
) -> Iterator[np.ndarray]:
    # Neighbouring clips mostly share a prompt and a noise, and all the negative prompt.
    embeds = lru_cache(maxsize=4)(lambda text: _prompt_embeds(pipeline, text))
    noise_of = lru_cache(maxsize=1)(pipeline.prepare_noise)
    negative_prompt = arguments.pop("negative_prompt", "")
    guided = arguments.get("guidance_scale") != 1
    look: Look | None = None
    # Of the prompts of the look and of the clip before, where there are any.
    look_words: Tensor | None = None
    words_before: Tensor | None = None
    sizes = [arguments.get(name) for name in ("num_frames", "height", "width")]
    for index, clip in enumerate(inputs):
        dense, sparse = clip.controls
        if history is not None:
            image = history[-1] if image is None or index > 0 else image
        shape = pipeline.clip_shape(image, dense, sparse, history, *sizes)
        (frames,) = pipeline(
            image=image,
            dense=dense,
            sparse=sparse,
            history=history,
            carrying=Carrying(
                look=look,
                look_words=look_words,
                words_before=words_before,
            ),
            noise=noise_of(clip.seed, *shape),
            prompt_embeds=embeds(clip.prompt),
            negative_prompt_embeds=embeds(negative_prompt) if guided else None,
            return_dict=False,
            **arguments,
        )
        assert isinstance(frames, np.ndarray), "generate() hands on frames, not latents"
        if look is None and dense is not None:
            look = Look.of(frames[0] if image is None else image, dense[0])
            look_words = embeds(clip.prompt) if words_before is None else words_before
        added = frames if history is None else frames[1:]
        history, words_before = last_frames(history, added, history_frames), embeds(clip.prompt)
        yield added


@torch.no_grad()
def _prompt_embeds(pipeline: LongViePipeline, prompt: str) -> Tensor:
    return pipeline.encode_prompt([prompt])
