"""The pipeline around the model: encoders, noise, one clip's call, saving."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from longvie_cli.errors import ControlError, InputError
from longvie_cli.models.conditioning import FIRST_LATENT_SIGMA
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.models.prompt_tokens import clean_prompt
from small_models import small_pipeline, small_vae

HEIGHT, WIDTH, NUM_FRAMES = 32, 48, 9
QUICK: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 3.0}


@pytest.fixture(scope="module")
def pipeline() -> LongViePipeline:
    return small_pipeline()


def frames(count: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)


def starts(pipeline: LongViePipeline) -> tuple[list[Tensor], Any]:
    """Return a list that every evaluation's main input is added to, and the hook that does it."""
    seen: list[Tensor] = []
    hook = pipeline.transformer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    return seen, hook


def test_two_clips_in_a_row(pipeline: LongViePipeline) -> None:
    dense, sparse = frames(NUM_FRAMES, 1), frames(NUM_FRAMES, 2)
    first = pipeline("a hill", frames(1)[0], dense, sparse, **QUICK).frames
    assert first.shape == (NUM_FRAMES, HEIGHT, WIDTH, 3) and first.dtype == np.uint8
    noise = pipeline.prepare_noise(0, NUM_FRAMES, HEIGHT, WIDTH)
    kept = noise.clone()
    seen, hook = starts(pipeline)
    try:
        second = pipeline(
            "a hill", first[-1], dense, sparse, history=first[-8:], noise=noise, **QUICK
        ).frames
    finally:
        hook.remove()
    assert second.shape == first.shape
    assert torch.equal(noise, kept)
    start, channels = seen[0], noise.shape[1]
    assert torch.equal(start[:, :channels, 1:], noise[:, :, 1:])
    history = pipeline.prepare_conditioning(
        (NUM_FRAMES, HEIGHT, WIDTH), prompt="a hill", image=first[-1], history=first[-8:]
    ).history_latents
    blend = (1 - FIRST_LATENT_SIGMA) * history[:, :, -1] + FIRST_LATENT_SIGMA * noise[:, :, 0]
    assert torch.allclose(start[:, :channels, 0], blend, atol=1e-5)


def test_same_seed_same_frames(pipeline: LongViePipeline) -> None:
    def run(seed: int) -> np.ndarray:
        return pipeline("a hill", frames(1)[0], frames(NUM_FRAMES), seed=seed, **QUICK).frames

    assert np.array_equal(run(3), run(3))
    assert not np.array_equal(run(3), run(4))


def test_first_frame_without_image(pipeline: LongViePipeline) -> None:
    seen, hook = starts(pipeline)
    try:
        made = pipeline("a hill", None, frames(1), frames(1, 1), **QUICK).frames
    finally:
        hook.remove()
    assert made.shape == (1, HEIGHT, WIDTH, 3)
    channels = pipeline.vae.config.z_dim
    assert not seen[0][:, channels : channels + 4].any(), "the mask says that nothing is given"
    grey = pipeline.encode_video(torch.zeros(1, 3, 1, HEIGHT, WIDTH))
    # Encoded beside the controls there: another order of the same sums.
    assert torch.allclose(seen[0][:, channels + 4 :], grey, atol=1e-5)


def test_guidance_of_one_evaluates_once_a_step(pipeline: LongViePipeline) -> None:
    seen, hook = starts(pipeline)
    try:
        for guidance_scale, evaluations in ((1.0, 3), (2.0, 6)):
            seen.clear()
            pipeline(
                "a hill",
                frames(1)[0],
                num_frames=5,
                num_inference_steps=3,
                guidance_scale=guidance_scale,
            )
            assert len(seen) == evaluations
    finally:
        hook.remove()


def test_control_that_is_off_is_not_encoded(pipeline: LongViePipeline) -> None:
    def run(**options: Any) -> np.ndarray:
        return pipeline("a hill", frames(1)[0], num_frames=5, **options, **QUICK).frames

    control = {"dense": frames(5), "sparse": frames(5, 1)}
    assert np.array_equal(run(**control, depth_strength=0.0, track_strength=0.0), run())
    assert not np.array_equal(run(**control), run())


def test_steps_are_those_of_the_scheduler() -> None:
    class OtherScheduler(FlowMatchEulerDiscreteScheduler):
        """What is no Euler scheduler of diffusers makes its steps itself."""

    made = []
    for kind in (FlowMatchEulerDiscreteScheduler, OtherScheduler):
        pipeline = small_pipeline()
        pipeline.scheduler = kind(shift=5.0)
        made.append(
            pipeline("a hill", frames(1)[0], num_frames=5, output_type="latent", **QUICK).frames
        )
    assert torch.equal(*made)


def test_timesteps_are_rounded_to_the_models_type() -> None:
    pipeline = small_pipeline()
    given: list[Tensor] = []
    pipeline.transformer.register_forward_pre_hook(lambda _, args: given.append(args[1]))
    for dtype in ("float32", "bfloat16"):
        pipeline.register_to_config(timestep_dtype=dtype)
        pipeline("a hill", frames(1)[0], num_frames=5, num_inference_steps=4, guidance_scale=1.0)
    # Sigma 0.9375 is the second of four at shift 5 (golden/README.md: 937.5 becomes 936).
    assert [value.item() for value in given[1::4]] == [937.5, 936.0]


def test_callback_sees_every_step_and_may_end_or_change_the_call(
    pipeline: LongViePipeline,
) -> None:
    steps: list[int] = []

    def listen(
        _: LongViePipeline, step_index: int, timestep: Tensor, values: dict[str, Any]
    ) -> None:
        steps.append(step_index)
        assert values["latents"].shape[2] == 2 and 0 < timestep <= 1000

    arguments: dict[str, Any] = {
        "prompt": "a hill",
        "image": frames(1)[0],
        "num_frames": 5,
        **QUICK,
    }
    pipeline(**arguments, callback_on_step_end=listen)
    assert steps == [0, 1]

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline(**arguments, callback_on_step_end=stop)

    def replace(_: LongViePipeline, _i: int, _t: Tensor, values: dict[str, Any]) -> dict[str, Any]:
        return {"latents": torch.zeros_like(values["latents"])}

    latents = pipeline(**arguments, callback_on_step_end=replace, output_type="latent").frames
    assert not latents.any()


def test_output_types_agree(pipeline: LongViePipeline) -> None:
    arguments: dict[str, Any] = {
        "prompt": "a hill",
        "image": frames(1)[0],
        "num_frames": 5,
        **QUICK,
    }
    (latents,) = pipeline(**arguments, output_type="latent", return_dict=False)
    pixels = pipeline(**arguments, output_type="pt").frames
    made = pipeline(**arguments).frames
    with torch.no_grad():
        assert torch.equal(pipeline.decode_latents(latents), pixels)
    bytes_ = ((pixels[0] + 1) * 127.5).clamp(0, 255).byte().permute(1, 2, 3, 0)
    assert np.array_equal(bytes_.numpy(), made)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"dense": frames(8)}, ControlError, "dense control: 8 frames of 48x32"),
        ({"sparse": frames(9)[:, :16]}, ControlError, "sparse control: 9 frames of 48x16"),
        ({"image": frames(1)[0][:, :40], "height": 32, "width": 48}, InputError, "image: 40x32"),
        ({"history": frames(8)[:, :24]}, InputError, "history: 8 frames of 48x24"),
        ({"num_frames": 8}, InputError, "4k\\+1"),
        ({"image": frames(1)[0][:20], "height": 20, "width": 48}, InputError, "height of 8"),
        ({"num_frames": None}, InputError, "num_frames"),
        ({"prompt": None}, InputError, "prompt"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(
    pipeline: LongViePipeline, changes: dict[str, Any], error: type[Exception], said: str
) -> None:
    arguments: dict[str, Any] = {"prompt": "a", "image": frames(1)[0], "num_frames": NUM_FRAMES}
    with pytest.raises(error, match=said):
        pipeline(**(arguments | changes), **QUICK)


@torch.no_grad()
def test_prompt_embeds_end_with_the_prompt(
    pipeline: LongViePipeline, caplog: pytest.LogCaptureFixture
) -> None:
    embeds = pipeline.encode_prompt(["ab", ""])
    text_tokens = pipeline.transformer.config.text_tokens
    assert embeds.shape[:2] == (2, text_tokens)
    # Two bytes and the end mark.
    assert embeds[0, :3].abs().sum(-1).all() and not embeds[0, 3:].any()
    assert embeds[1, :1].any() and not embeds[1, 1:].any()
    alone = pipeline.encode_prompt(["ab"])
    assert torch.allclose(alone[0], embeds[0], atol=1e-6)
    with caplog.at_level(logging.WARNING):
        pipeline.encode_prompt(["x" * text_tokens])
    assert f"{text_tokens + 1} tokens" in caplog.text


def test_prompts_are_cleaned() -> None:
    assert clean_prompt("  a &amp;amp; b\n\n c\t") == "a & b c"
    assert clean_prompt("sch\u00c3\u00b6n") == "sch\u00f6n"


@torch.no_grad()
def test_image_is_squeezed_to_the_encoders_square(pipeline: LongViePipeline) -> None:
    image = frames(1)[0]
    size = pipeline.image_encoder.config.image_size
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
    squeezed = F.interpolate(pixels, (size, size), mode="bicubic", align_corners=False)
    mean = torch.tensor((0.48145466, 0.4578275, 0.40821073)).view(1, 3, 1, 1)
    std = torch.tensor((0.26862954, 0.26130258, 0.27577711)).view(1, 3, 1, 1)
    states = pipeline.image_encoder(
        ((squeezed + 1) / 2 - mean) / std, output_hidden_states=True
    ).hidden_states
    assert len(states) == pipeline.image_encoder.config.num_hidden_layers + 1
    assert torch.allclose(pipeline.encode_image(image), states[-2], atol=1e-6)
    grey = pipeline.encode_image(None)
    assert grey.shape == states[-2].shape and not torch.allclose(grey, states[-2])


def test_noise_is_the_released_one() -> None:
    # The values of the spec, 4.4, for seed 0 at 81 frames of 640x352.
    pipeline = LongViePipeline(None, None, None, small_vae(z_dim=16), None, None)
    noise = pipeline.prepare_noise(0, 81, 352, 640)
    assert noise.shape == (1, 16, 21, 44, 80) and noise.dtype == torch.float32
    expected = torch.tensor([-1.1258398, -1.1523602, -0.2505786, -0.4338788, 0.8487104])
    assert torch.allclose(noise.flatten()[:5], expected, atol=1e-7)
    assert noise.flatten()[-1].item() == pytest.approx(-0.6191810, abs=1e-7)


def test_saved_pipeline_makes_the_same_clip(
    pipeline: LongViePipeline, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments: dict[str, Any] = {
        "prompt": "a hill",
        "image": frames(1)[0],
        "dense": frames(NUM_FRAMES, 1),
        **QUICK,
    }
    pipeline.save_pretrained(tmp_path)
    loaded = LongViePipeline.from_pretrained(tmp_path, local_files_only=True)
    assert loaded.config.timestep_dtype == pipeline.config.timestep_dtype
    assert np.array_equal(loaded(**arguments).frames, pipeline(**arguments).frames)


def test_unknown_timestep_type_is_refused() -> None:
    with pytest.raises(ValueError, match="int8"):
        LongViePipeline(None, None, None, small_vae(), None, None, timestep_dtype="int8")
