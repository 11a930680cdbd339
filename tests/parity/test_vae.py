"""The VAE against the released code: encoding, normalisation, history's tail, decoding, names."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from longvie_cli.kernels.causal_conv3d import use_stacked_causal_convolutions
from longvie_cli.media.frames import pixels_from_frames
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.models.weights.names import vae_names

from .golden import Golden, difference, golden_vae, read_golden

# golden/README.md
LIMIT = 1e-5


@cache
def cases() -> Golden:
    return read_golden("vae_cases")


def vae() -> AutoencoderKLWan:
    return golden_vae(cases()["latent_mean"], cases()["latent_std"])


@pytest.fixture(params=["stock", "stacked"])
def pipeline(request: pytest.FixtureRequest) -> LongViePipeline:
    """Our pipeline on the golden VAE alone, with stock and with stacked convolutions."""
    loaded = vae()
    if request.param == "stacked":
        use_stacked_causal_convolutions(loaded)
    return LongViePipeline(None, None, None, loaded, None, None)


def pixels(name: str) -> Tensor:
    return pixels_from_frames(cases()[name].numpy())[None]


@torch.no_grad()
def test_posterior(pipeline: LongViePipeline) -> None:
    posterior = pipeline.vae.encode(pixels("video_uint8")).latent_dist
    assert difference(posterior.parameters, cases()["encode.moments"]) <= LIMIT


@torch.no_grad()
def test_video_latents(pipeline: LongViePipeline) -> None:
    latents = pipeline.encode_video(pixels("video_uint8"))
    assert difference(latents, cases()["encode.latents"]) <= LIMIT


@torch.no_grad()
def test_history_reads_only_whole_groups_of_frames(pipeline: LongViePipeline) -> None:
    history = pixels("history_uint8")
    latents = pipeline.encode_video(history)
    assert difference(latents, cases()["encode_history.latents"]) <= LIMIT
    consumed = cases().config["history_frames_consumed"]
    changed = torch.cat((history[:, :, :consumed], -history[:, :, consumed:]), dim=2)
    assert torch.equal(pipeline.encode_video(changed), latents)


@torch.no_grad()
def test_first_frame_latents(pipeline: LongViePipeline) -> None:
    video = pixels("video_uint8")
    then_grey = torch.cat((video[:, :, :1], torch.zeros_like(video[:, :, 1:])), dim=2)
    for name, frames in (("first_frame_then_zeros", then_grey), ("single_frame", video[:, :, :1])):
        latents = pipeline.encode_video(frames)
        assert difference(latents, cases()[f"encode_{name}.latents"]) <= LIMIT


@torch.no_grad()
def test_decoded_pixels(pipeline: LongViePipeline) -> None:
    decoded = pipeline.decode_latents(cases()["encode.latents"])
    assert difference(decoded, cases()["decode.video"]) <= LIMIT
    assert difference(decoded, cases()["decode.unclamped"].clamp(-1, 1)) <= LIMIT
    random = pipeline.decode_latents(cases()["decode_random.latents"])
    assert difference(random, cases()["decode_random.video"]) <= LIMIT


def test_names_translate_both_ways() -> None:
    weights = read_golden("vae_weights")
    own = vae().state_dict()
    names = vae_names(len(weights.config["dim_mult"]), weights.config["vae"]["num_res_blocks"])
    assert {names.to_ours(name) for name in weights} == own.keys()
    assert all(names.to_released(names.to_ours(name)) == name for name in weights)
