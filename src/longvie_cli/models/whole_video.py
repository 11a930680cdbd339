"""The Wan autoencoder over a whole video at once, and over a still part of one only once.

diffusers encodes and decodes four frames at a time and copies the ends of every layer's input for
the next four, which bounds memory and on small videos costs more than the convolutions. Here each
layer sees all frames: a norm writes behind two empty frames, which are the causal padding of the
convolution after it, and on the CPU channels lie last, as oneDNN wants them.

Three of the five videos that condition a clip are one frame and then grey (spec 3.2). A causal
convolution over frames that are all the same gives frames that are all the same, from two frames
later on. So each layer computes up to there, and the next one repeats the last frame as often as it
needs: of 81 frames the first stage of LongVie 2 computes 12.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import (
    WanCausalConv3d,
    WanMidBlock,
    WanResample,
    WanResidualBlock,
    WanResidualDownBlock,
    WanResidualUpBlock,
    WanRMS_norm,
    WanUpBlock,
    patchify,
    unpatchify,
)
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from longvie_cli.kernels.causal_conv3d import use_stacked_causal_convolutions
from longvie_cli.kernels.cpu_conv3d import conv3d
from longvie_cli.models.autoencoders import VideoAutoencoder

# Of one layer's output, three of which are alive at once. LongVie 2 at 832x480 has 1.7 GiB for one
# frame and then grey, and 11.6 GiB for other videos, which diffusers then cuts up.
LARGEST_BYTES = 2 << 30

# Frames that a causal convolution over three frames looks back.
_PAST = 2


@dataclass(frozen=True)
class _Video:
    """Frames of a layer: the first `n` of `length`, the last of which stands for all that follow.

    Args:
        frames: [1, channels, n, height, width].
        length: Frames that it stands for, at least n.
    """

    frames: Tensor
    length: int

    def reaching(self, count: int) -> _Video:
        """Return it with at least `count` frames written out, or all there are."""
        missing = min(count, self.length) - self.frames.shape[2]
        if missing <= 0:
            return self
        last = self.frames[:, :, -1:].expand(-1, -1, missing, -1, -1)
        return replace(self, frames=torch.cat((self.frames, last), dim=2))


def fits_whole(vae: VideoAutoencoder, size: Sequence[int], *, still_after: int | None) -> bool:
    """Return whether a video's largest layer stays below `LARGEST_BYTES`.

    Args:
        vae: The autoencoder.
        size: Frames, height and width of the video.
        still_after: As in `encode_whole`; for a decoding None.
    """
    if not isinstance(vae, AutoencoderKLWan) or vae.use_tiling or torch.is_grad_enabled():
        return False
    num_frames, height, width = size
    patch = vae.config.patch_size or 1
    if still_after is not None:
        # The first stage's own convolutions, and the one before them.
        num_frames = min(num_frames, still_after + _PAST + 2 * _PAST * vae.config.num_res_blocks)
    # A stage has at most twice the channels of the one before it at a quarter of its pixels.
    channels = max(vae.config.base_dim, vae.config.decoder_base_dim or 0)
    pixels = num_frames * (height // patch) * (width // patch)
    return pixels * channels * vae.dtype.itemsize <= LARGEST_BYTES


def suit_cpu(vae: VideoAutoencoder, dtype: torch.dtype) -> None:
    """Give an autoencoder the form that it has on the CPU, in place.

    Args:
        vae: The autoencoder.
        dtype: Of the transformer. Where that is bfloat16, the Wan autoencoder computes in it too,
            and is twice as fast (AMX): after one pass pictures differ by 62 dB from those of
            float32, after ten by 52, with no drift (docs/engine.md). On a GPU it takes too little
            of the time.
    """
    use_stacked_causal_convolutions(vae)
    if dtype == torch.bfloat16 and isinstance(vae, AutoencoderKLWan):
        vae.to(dtype)


def encode_videos(
    vae: VideoAutoencoder, videos: Tensor, still_after: Sequence[int | None]
) -> Tensor:
    """Return the mean latents [B, z_dim, frames, height, width] of videos.

    Args:
        vae: The autoencoder.
        videos: [B, 3, frames, height, width] in [-1, 1], of the autoencoder's type and device. Of n
            frames the first 1 + 4 * ((n - 1) // 4) are read.
        still_after: Of each, as in `encode_whole`.
    """
    size = videos.shape[2:]
    is_whole = [fits_whole(vae, size, still_after=still) for still in still_after]
    latents: dict[int, Tensor] = {}
    if others := [index for index, whole in enumerate(is_whole) if not whole]:
        # In one batch: a small video alone is slow on the CPU.
        batch = videos if len(others) == len(videos) else videos[others]
        latents |= zip(others, vae.encode(batch).latent_dist.mean.split(1), strict=True)
    for index, still in enumerate(still_after):
        if is_whole[index]:
            latents[index] = encode_whole(vae, videos[index : index + 1], still)
    return torch.cat([latents[index] for index in range(len(videos))])


def decode_videos(vae: VideoAutoencoder, latents: Tensor) -> Tensor:
    """Return the videos [B, 3, frames, height, width] in [-1, 1] of latents [B, z_dim, ...]."""
    config = vae.config
    num_frames, *sides = latents.shape[2:]
    height, width = (side * config.scale_factor_spatial for side in sides)
    size = ((num_frames - 1) * config.scale_factor_temporal + 1, height, width)
    if not fits_whole(vae, size, still_after=None):
        return vae.decode(latents, return_dict=False)[0]
    return torch.cat([decode_whole(vae, video) for video in latents.split(1)])


@apply_forward_hook
def encode_whole(vae: AutoencoderKLWan, video: Tensor, still_after: int | None = None) -> Tensor:
    """Return the mean latents [1, z_dim, frames, height, width] of one video.

    Args:
        vae: The autoencoder; what it is hooked to (offloading) is honoured.
        video: [1, 3, frames, height, width] in [-1, 1], of the autoencoder's type. Of n frames the
            first 1 + 4 * ((n - 1) // 4) are read.
        still_after: That many frames, at least 1, after which all others are equal; they are then
            not looked at but for the first of them. None where they are not.
    """
    encoder, length = vae.encoder, 1 + (video.shape[2] - 1) // 4 * 4
    video = video[:, :, : length if still_after is None else min(length, still_after + 1)]
    if vae.config.patch_size is not None:
        video = patchify(video, vae.config.patch_size)
    x = _Video(_laid_out(video), length)
    x = _convolved(x, encoder.conv_in)
    for layer in encoder.down_blocks:
        x = _down(x, layer)
    x = _middle(x, encoder.mid_block)
    x = _convolved(x, encoder.conv_out, encoder.norm_out)
    moments = _convolution(x.reaching(x.length).frames, vae.quant_conv)
    return moments[:, : vae.config.z_dim].contiguous()


@apply_forward_hook
def decode_whole(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Return the video [1, 3, frames, height, width] in [-1, 1] of latents [1, z_dim, ...]."""
    decoder = vae.decoder
    x = _Video(_convolution(_laid_out(latents), vae.post_quant_conv), latents.shape[2])
    x = _middle(_convolved(x, decoder.conv_in), decoder.mid_block)
    for block in decoder.up_blocks:
        x = _up(x, block)
    video = _convolved(x, decoder.conv_out, decoder.norm_out).frames
    if vae.config.patch_size is not None:
        video = unpatchify(video, vae.config.patch_size)
    return video.clamp_(-1, 1).contiguous()


def _down(x: _Video, layer: nn.Module) -> _Video:
    if isinstance(layer, WanResidualBlock):
        return _residual(x, layer)
    if isinstance(layer, WanResample):
        return _downsampled(x, layer)
    assert isinstance(layer, WanResidualDownBlock)
    y = x
    for block in layer.resnets:
        y = _residual(y, block)
    if layer.downsampler is not None:
        y = _downsampled(y, layer.downsampler)
    num_frames, factor = y.frames.shape[2], layer.avg_shortcut.factor_t
    # Frame 0 is a group of its own, behind empty frames.
    shortcut = layer.avg_shortcut(
        x.reaching(1 + factor * (num_frames - 1)).frames[:, :, : 1 + factor * (num_frames - 1)]
    )
    return replace(y, frames=y.frames.add_(shortcut))


def _middle(x: _Video, middle: WanMidBlock) -> _Video:
    x = _residual(x, middle.resnets[0])
    for attention, block in zip(middle.attentions, middle.resnets[1:], strict=True):
        x = _residual(replace(x, frames=attention(x.frames)), block)
    return x


def _up(x: _Video, block: nn.Module) -> _Video:
    y = x
    assert isinstance(block, WanUpBlock | WanResidualUpBlock)
    for resnet in block.resnets:
        y = _residual(y, resnet)
    if isinstance(block, WanUpBlock):
        return y if block.upsamplers is None else _upsampled(y, block.upsamplers[0])
    if block.upsampler is not None:
        y = _upsampled(y, block.upsampler)
    if block.avg_shortcut is None:
        return y
    return replace(y, frames=y.frames.add_(block.avg_shortcut(x.frames, first_chunk=True)))


def _residual(x: _Video, block: WanResidualBlock) -> _Video:
    x = x.reaching(x.frames.shape[2] + 2 * _PAST)
    # Nothing of the first half has a name, so that it is gone before the second is computed.
    y = _normalized(
        _convolution(_normalized(x.frames, block.norm1, _PAST), block.conv1), block.norm2, _PAST
    )
    y = _convolution(y, block.conv2)
    is_same = isinstance(block.conv_shortcut, nn.Identity)
    return replace(
        x, frames=y.add_(x.frames if is_same else _convolution(x.frames, block.conv_shortcut))
    )


def _convolved(x: _Video, conv: WanCausalConv3d, norm: WanRMS_norm | None = None) -> _Video:
    """Return the causal convolution of a video, normalized and bent before it where asked."""
    x = x.reaching(x.frames.shape[2] + _PAST)
    if norm is None:
        padded = F.pad(x.frames, (0, 0, 0, 0, _PAST, 0))
    else:
        padded = _normalized(x.frames, norm, _PAST)
    return replace(x, frames=_convolution(padded, conv))


def _downsampled(x: _Video, layer: WanResample) -> _Video:
    x = replace(x, frames=_each_frame(x.frames, layer.resample))
    if layer.mode != "downsample3d" or x.length == 1:
        return x
    # Frame 0 stays, frame j > 0 is made of the frames 2 j - 2 to 2 j. Where those from `still` on
    # are equal, so are these from ceil(still / 2) + 1 on.
    length, still = (x.length - 1) // 2 + 1, x.frames.shape[2] - 1
    num_frames = length if still + 1 == x.length else min(length, (still + 1) // 2 + 2)
    given = x.reaching(2 * num_frames - 1).frames[:, :, : 2 * num_frames - 1]
    later = _convolution(given, layer.time_conv)
    return _Video(torch.cat((given[:, :, :1], later), dim=2), length)


def _upsampled(x: _Video, layer: WanResample) -> _Video:
    frames = x.frames
    if layer.mode == "upsample3d" and frames.shape[2] > 1:
        # Frame 0 stays; the others, which do not look back at it, become two each.
        padded = F.pad(frames[:, :, 1:], (0, 0, 0, 0, _PAST, 0))
        pairs = _convolution(padded, layer.time_conv)
        pairs = pairs.unflatten(1, (2, -1)).permute(0, 2, 3, 1, 4, 5).flatten(2, 3)
        frames = torch.cat((frames[:, :, :1], pairs), dim=2)
    frames = _each_frame(frames, layer.resample)
    return _Video(frames, frames.shape[2])


def _convolution(x: Tensor, conv: WanCausalConv3d) -> Tensor:
    """Return the convolution of frames that have their past before them."""
    columns, _, rows, *_ = conv._padding
    return conv3d(x, _laid_out(conv.weight), conv.bias, conv.stride, (0, rows, columns))


def _normalized(x: Tensor, norm: WanRMS_norm, past: int) -> Tensor:
    """Return silu(norm(x)) behind `past` empty frames."""
    batch, channels, num_frames, height, width = x.shape
    made = torch.empty(
        (batch, channels, past + num_frames, height, width),
        dtype=x.dtype,
        device=x.device,
        memory_format=_layout(x),
    )
    made[:, :, :past] = 0
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32)
    inverse = length.clamp_min_(1e-12).reciprocal_().to(x.dtype)
    scaled = torch.mul(x, inverse, out=made[:, :, past:])
    scaled.mul_((norm.gamma * norm.scale).view(-1, 1, 1, 1))
    if isinstance(norm.bias, Tensor):
        scaled.add_(norm.bias.view(-1, 1, 1, 1))
    return F.silu(made, inplace=True)


def _each_frame(x: Tensor, layer: nn.Module) -> Tensor:
    """Return a layer's output for each frame of [1, channels, n, height, width], likewise."""
    return layer(x[0].transpose(0, 1)).transpose(0, 1)[None]


def _laid_out(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=_layout(x))


def _layout(x: Tensor) -> torch.memory_format:
    return torch.channels_last_3d if x.device.type == "cpu" else torch.contiguous_format
