"""The Wan autoencoder over whole videos: what diffusers computes four frames at a time."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from longvie_cli.models.autoencoders import empty_autoencoder
from longvie_cli.models.whole_video import (
    LARGEST_BYTES,
    decode_videos,
    decode_whole,
    encode_videos,
    encode_whole,
    fits_whole,
)
from longvie_cli.settings.presets import preset_folder

# As LongVie 2 has it, and as the embedded model: residual stages on patches of 2x2.
CONFIGS = {
    "plain": {
        "dim_mult": [1, 2, 4, 4],
        "num_res_blocks": 2,
        "temperal_downsample": [False, True, True],
    },
    "residual": {
        "dim_mult": [1, 2, 2],
        "num_res_blocks": 1,
        "temperal_downsample": [True, True],
        "is_residual": True,
        "patch_size": 2,
        "in_channels": 12,
        "out_channels": 12,
    },
}


@pytest.fixture(scope="module", params=CONFIGS)
def vae(request: pytest.FixtureRequest) -> AutoencoderKLWan:
    torch.manual_seed(3)
    return AutoencoderKLWan(base_dim=8, z_dim=4, **CONFIGS[request.param]).eval()


def drawn(num_frames: int, *, still_after: int | None = None, videos: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(num_frames)
    pixels = 2 * torch.rand((videos, 3, num_frames, 32, 48), generator=generator) - 1
    if still_after is not None:
        pixels[:, :, still_after:] = 0.25
    return pixels


def close(found: Tensor, wanted: Tensor) -> None:
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    assert (found - wanted).abs().max() <= 1e-5 * max(1, wanted.abs().max().item())


@pytest.mark.parametrize("num_frames", [1, 5, 8, 9, 33])
def test_latents_are_those_of_diffusers(vae: AutoencoderKLWan, num_frames: int) -> None:
    video = drawn(num_frames)
    with torch.no_grad():
        close(encode_whole(vae, video), vae.encode(video).latent_dist.mean)


@pytest.mark.parametrize("num_frames", [1, 5, 9, 33, pytest.param(81, marks=pytest.mark.slow)])
@pytest.mark.parametrize("still_after", [1, 3])
def test_what_stands_still_is_computed_once(
    vae: AutoencoderKLWan, num_frames: int, still_after: int
) -> None:
    video = drawn(num_frames, still_after=still_after)
    with torch.no_grad():
        wanted = vae.encode(video).latent_dist.mean
        close(encode_whole(vae, video, still_after), wanted)
        if num_frames > still_after + 1:
            # Nothing behind the first of the equal frames is looked at.
            video[:, :, still_after + 1 :] = torch.nan
            close(encode_whole(vae, video, still_after), wanted)


@pytest.mark.slow
def test_it_is_a_part_of_the_work() -> None:
    """At LongVie 2's full size, by PyTorch's own count."""
    with torch.device("meta"):
        vae = empty_autoencoder(preset_folder("longvie2") / "vae")
        video = torch.empty(1, 3, 81, 480, 832)
    counts = []
    for still_after in (None, 1):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            latents = encode_whole(vae, video, still_after)
        assert latents.shape == (1, 16, 21, 60, 104)
        counts.append(counter.get_total_flops())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        vae.encode(video)
    assert counts[0] == counter.get_total_flops()
    share = counts[1] / counts[0]
    print(f"\none frame and 80 equal ones: {share:.3f} of {counts[0] / 1e12:.1f} TFLOP")
    assert share < 0.4


@pytest.mark.parametrize("latent_frames", [1, 2, 3, 9])
def test_videos_are_those_of_diffusers(vae: AutoencoderKLWan, latent_frames: int) -> None:
    factor = vae.config.scale_factor_spatial
    latents = torch.randn(
        (1, 4, latent_frames, 32 // factor, 48 // factor),
        generator=torch.Generator().manual_seed(1),
    )
    with torch.no_grad():
        close(decode_whole(vae, latents), vae.decode(latents, return_dict=False)[0])


def test_bfloat16_differs_as_its_rounding_does(vae: AutoencoderKLWan) -> None:
    video = drawn(17, still_after=1)
    with torch.no_grad():
        wanted = encode_whole(vae, video, 1)
        half = vae.bfloat16()
        try:
            errors = [
                (found.float() - wanted).pow(2).mean().sqrt() / wanted.std()
                for found in (
                    encode_whole(half, video.bfloat16(), 1),
                    half.encode(video.bfloat16()).latent_dist.mean,
                )
            ]
        finally:
            vae.float()
    assert errors[0] <= 1.2 * errors[1] and errors[1] < 0.1


def test_each_video_goes_the_way_it_fits(
    vae: AutoencoderKLWan, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = torch.cat((drawn(17), drawn(17, still_after=1), drawn(17, videos=2)[1:]))
    # The still one between the others: each result must come back to its own place.
    stills = (None, 1, None)
    with torch.no_grad():
        wanted = vae.encode(videos).latent_dist.mean
        batches: list[int] = []
        encode = vae.encode

        def counted(batch: Tensor) -> object:
            batches.append(len(batch))
            return encode(batch)

        monkeypatch.setattr(vae, "encode", counted)
        close(encode_videos(vae, videos, stills), wanted)
        assert batches == []
        patch = vae.config.patch_size or 1
        whole = 17 * (32 // patch) * (48 // patch) * 8 * 4
        monkeypatch.setattr("longvie_cli.models.whole_video.LARGEST_BYTES", whole - 1)
        close(encode_videos(vae, videos, stills), wanted)
        assert batches == [2]
        monkeypatch.setattr("longvie_cli.models.whole_video.LARGEST_BYTES", 0)
        close(encode_videos(vae, videos, stills), wanted)
        assert batches == [2, 3]
        close(decode_videos(vae, wanted), vae.decode(wanted, return_dict=False)[0])


def test_a_full_sized_video_is_cut_up_and_a_still_one_is_not() -> None:
    with torch.device("meta"):
        vae = empty_autoencoder(preset_folder("longvie2") / "vae")
    with torch.no_grad():
        assert not fits_whole(vae, (81, 480, 832), still_after=None)
        assert fits_whole(vae, (81, 480, 832), still_after=1)
        # Eleven frames of the first stage and one that stands for the others.
        assert 12 * 480 * 832 * 96 * 4 < LARGEST_BYTES < 15 * 480 * 832 * 96 * 4
    # A gradient is not taken through what is written in place.
    assert not fits_whole(vae, (5, 32, 48), still_after=None)


def test_an_autoencoder_that_is_offloaded_is_fetched(vae: AutoencoderKLWan) -> None:
    fetched: list[object] = []
    vae._hf_hook = SimpleNamespace(pre_forward=fetched.append)
    try:
        with torch.no_grad():
            latents = encode_whole(vae, drawn(5))
            decode_whole(vae, latents)
    finally:
        del vae._hf_hook
    assert fetched == [vae, vae]
