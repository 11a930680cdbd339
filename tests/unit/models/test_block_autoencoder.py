"""The block autoencoder: a projection whatever its network says, behind the pipeline's own door."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan

from longvie_cli.media.frames import frames_from_pixels, pixels_from_frames
from longvie_cli.models.autoencoders import autoencoder_class, empty_autoencoder
from longvie_cli.models.block_autoencoder import BlockAutoencoder, cells_of, pixels_of
from longvie_cli.training.tiny.block_code import cell_moments, fit_code
from small_models import small_vae

SIDE, FRAMES, CHANNELS = 8, 4, 12


def smooth_clips(num_clips: int, num_frames: int = 5, seed: int = 0) -> torch.Tensor:
    """Return soft random pictures that move a little, [clips, 3, frames, 32, 48]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(num_clips, 3, 2, 4, 6, generator=generator) * 1.6 - 0.8
    return torch.nn.functional.interpolate(
        coarse, (num_frames, 32, 48), mode="trilinear", align_corners=True
    )


@pytest.fixture
def autoencoder() -> BlockAutoencoder:
    """Return an autoencoder with a fitted code and a network of random weights."""
    torch.manual_seed(0)
    autoencoder = BlockAutoencoder(z_dim=CHANNELS, width=16, num_layers=2)
    first, after = cell_moments([smooth_clips(24)], SIDE, FRAMES)
    codes = fit_code(first, after, num_channels=CHANNELS, side=SIDE, frames=FRAMES, edge_weight=1.0)
    autoencoder.set_code(*codes, torch.ones(CHANNELS))
    for head in (autoencoder.proj_out_first, autoencoder.proj_out_after):
        torch.nn.init.normal_(head.weight, std=0.05)
    return autoencoder.eval()


def test_cells_are_cut_and_put_together() -> None:
    pixels = torch.rand(2, 3, 8, 16, 24)
    cells = cells_of(pixels, 8, 4)
    assert cells.shape == (2, 2, 2, 3, 768)
    assert torch.equal(cells[1, 1, 0, 2, :64].view(8, 8), pixels[1, 0, 4, :8, 16:])
    assert torch.equal(pixels_of(cells, 8, 4), pixels)


def test_encoding_what_was_decoded_gives_the_latents_back(autoencoder: BlockAutoencoder) -> None:
    latents = torch.randn(2, CHANNELS, 3, 4, 6)
    with torch.no_grad():
        decoded = autoencoder.decode_unclamped(latents)
        again = autoencoder.encode(decoded).latent_dist.mean
        plain = BlockAutoencoder.from_config(autoencoder.config, num_layers=0)
        plain.load_state_dict(autoencoder.state_dict(), strict=False)
        omitted = decoded - plain.decode_unclamped(latents)
    assert decoded.shape == (2, 3, 9, 32, 48)
    assert omitted.abs().max() > 0.01, "the network says nothing"
    # Latents of one, codes of 768 values in float32.
    assert torch.allclose(again, latents, atol=2e-5)


def test_thirty_passes_lose_no_more_than_one(autoencoder: BlockAutoencoder) -> None:
    truth = frames_from_pixels(smooth_clips(1, seed=5)[0])
    frames, after_one = truth, truth
    for count in range(30):
        with torch.no_grad():
            frames = frames_from_pixels(autoencoder(pixels_from_frames(frames)[None]).sample[0])
        after_one = frames if count == 0 else after_one
    lost = np.abs(after_one.astype(int) - truth).mean()
    assert np.abs(frames.astype(int) - truth).mean() < lost + 0.3
    # Bytes are cut off, not rounded; the decoder allows for it.
    assert abs(frames.astype(float).mean() - truth.mean()) < 0.1


def test_grey_is_zero_and_the_first_frame_stands_alone(autoencoder: BlockAutoencoder) -> None:
    pixels = smooth_clips(1, 9)
    held = torch.zeros_like(pixels)
    held[:, :, 0] = pixels[:, :, 0]
    latents = autoencoder.encode(held).latent_dist.mean
    assert torch.equal(latents[:, :, 1:], torch.zeros_like(latents[:, :, 1:]))
    whole = autoencoder.encode(pixels).latent_dist.mean
    assert torch.equal(latents[:, :, 0], whole[:, :, 0])
    # Of a history of 8 frames five are read.
    five = autoencoder.encode(pixels[:, :, :8]).latent_dist.mean
    assert torch.allclose(five, whole[:, :, :2], atol=1e-6)


def test_a_still_picture_has_nearly_one_code_in_first_and_later_frames(
    autoencoder: BlockAutoencoder,
) -> None:
    still = smooth_clips(8)[:, :, :1].expand(-1, -1, 5, -1, -1)
    latents = autoencoder.encode(still).latent_dist.mean
    first, after = latents[:, :, 0], latents[:, :, 1]
    assert (first - after).square().mean() < 0.02 * after.square().mean()


def test_batches_may_be_sliced(autoencoder: BlockAutoencoder) -> None:
    latents = torch.randn(3, CHANNELS, 2, 4, 6)
    with torch.no_grad():
        whole = autoencoder.decode(latents).sample
        autoencoder.enable_slicing()
        assert torch.allclose(autoencoder.decode(latents).sample, whole, atol=1e-5)


def test_a_code_that_is_no_projection_is_refused(autoencoder: BlockAutoencoder) -> None:
    first = (autoencoder.analysis_first, autoencoder.synthesis_first)
    after = (autoencoder.analysis_after, 2 * autoencoder.synthesis_after)
    with pytest.raises(ValueError, match="after"):
        autoencoder.set_code(first, after, torch.ones(CHANNELS))


def test_folders_say_their_class(autoencoder: BlockAutoencoder, tmp_path: Path) -> None:
    autoencoder.save_pretrained(tmp_path / "block")
    small_vae().save_config(tmp_path / "wan")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    assert autoencoder_class(tmp_path / "block") is BlockAutoencoder
    assert autoencoder_class(tmp_path / "wan") is AutoencoderKLWan
    assert empty_autoencoder(tmp_path / "block").config.z_dim == CHANNELS
    with pytest.raises(ValueError, match="not AutoencoderKL"):
        autoencoder_class(tmp_path / "other")
    loaded = BlockAutoencoder.from_pretrained(tmp_path / "block")
    pixels = smooth_clips(1)
    with torch.no_grad():
        assert torch.equal(loaded(pixels).sample, autoencoder(pixels).sample)
