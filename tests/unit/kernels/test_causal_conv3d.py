"""The stacked causal convolution against diffusers' own, forward and backward."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

from longvie_cli.kernels.causal_conv3d import StackedCausalConv3d, use_stacked_causal_convolutions

# Sums of up to 27 * 7 products of order one in another order: some float32 roundings.
LIMIT = 3e-6


@pytest.mark.parametrize("cached_frames", [0, 1, 2])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        ((3, 3, 3), (1, 1, 1), (1, 1, 1)),
        ((3, 1, 1), (1, 1, 1), (1, 0, 0)),
        ((3, 1, 1), (2, 1, 1), (0, 0, 0)),
        ((1, 1, 1), (1, 1, 1), (0, 0, 0)),
        ((3, 3, 3), (2, 2, 2), (1, 1, 1)),
    ],
)
def test_equals_the_stock_convolution(
    kernel: tuple[int, int, int],
    stride: tuple[int, int, int],
    padding: tuple[int, int, int],
    batch: int,
    cached_frames: int,
) -> None:
    torch.manual_seed(0)
    stock = WanCausalConv3d(7, 5, kernel, stride, padding)
    stacked = StackedCausalConv3d.sharing(stock)
    video = torch.randn(batch, 7, 5, 9, 6, requires_grad=True)
    cache = torch.randn(batch, 7, cached_frames, 9, 6) if cached_frames else None
    results = []
    for conv in (stock, stacked):
        output = conv(video, cache)
        results.append((output, *torch.autograd.grad(output.square().sum(), (video, stock.weight))))
    for ours, theirs in zip(*results, strict=True):
        assert ours.shape == theirs.shape
        scale = max(1.0, theirs.abs().max().item())
        assert (ours - theirs).abs().max().item() <= LIMIT * scale


def small_vae(**changes: object) -> AutoencoderKLWan:
    torch.manual_seed(0)
    sizes = {"base_dim": 8, "z_dim": 6, "dim_mult": [1, 2, 2], "num_res_blocks": 1}
    return AutoencoderKLWan(
        **(sizes | changes),
        temperal_downsample=[True, True],
        latents_mean=[0.0] * 6,
        latents_std=[1.0] * 6,
    )


@pytest.mark.parametrize("patch", [None, 2])
def test_vae_keeps_its_results_and_names(patch: int | None) -> None:
    channels = 3 * (patch or 1) ** 2
    stock = small_vae(patch_size=patch, in_channels=channels, out_channels=channels)
    stacked = copy.deepcopy(stock)
    use_stacked_causal_convolutions(stacked)
    use_stacked_causal_convolutions(stacked)
    assert stacked.state_dict().keys() == stock.state_dict().keys()
    assert not any(type(module) is WanCausalConv3d for module in stacked.modules())
    video = torch.rand(1, 3, 13, 24, 16) * 2 - 1
    with torch.no_grad():
        latents = stock.encode(video).latent_dist.mean
        assert (stacked.encode(video).latent_dist.mean - latents).abs().max() <= LIMIT
        frames = stock.decode(latents).sample
        assert (stacked.decode(latents).sample - frames).abs().max() <= LIMIT


def test_trains_the_very_parameters_under_autocast() -> None:
    vae = small_vae()
    before = dict(vae.named_parameters())
    use_stacked_causal_convolutions(vae)
    assert all(after is before[name] for name, after in vae.named_parameters())
    video = torch.rand(1, 3, 5, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        loss = vae.decode(vae.encode(video).latent_dist.mean).sample.float().square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vae.parameters())
