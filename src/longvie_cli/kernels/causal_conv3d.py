"""Causal 3-D convolution as one 2-D convolution over time-stacked channels.

PyTorch runs the small 3-D convolutions of one float32 video through `slow_conv3d` on the CPU. A
kernel that spans k frames reads k frames for each output frame; laid side by side on the channel
axis they make an ordinary 2-D convolution with the same weights, reshaped: twice as fast there.
For a batch of two videos or more, and under bfloat16 autocast, the stock convolution is as fast
forward and faster backward.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from torch import Tensor, nn


def causal_conv3d(
    video: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: tuple[int, int, int] = (1, 1, 1),
    padding: tuple[int, int] = (0, 0),
) -> Tensor:
    """Return the 3-D convolution [B, O, T', H', W'] of a video already padded in time.

    Args:
        video: [B, C, T, H, W] with every past frame the first output frame reads.
        weight: [O, C, k_t, k_h, k_w], as of `torch.nn.Conv3d`.
        bias: [O] or None.
        stride: Of frames, rows and columns.
        padding: Zero rows and columns added on both sides.
    """
    batch, channels, num_frames, height, width = video.shape
    kernel_frames = weight.shape[2]
    num_frames = (num_frames - kernel_frames) // stride[0] + 1
    last = (num_frames - 1) * stride[0] + 1
    frames = video.transpose(1, 2)
    # Slices joined, not `Tensor.unfold`: the backward of the latter is slow on the CPU.
    stacked = torch.cat(
        [frames[:, past : past + last : stride[0]] for past in range(kernel_frames)], dim=2
    )
    flat = F.conv2d(
        stacked.reshape(batch * num_frames, kernel_frames * channels, height, width),
        weight.transpose(1, 2).flatten(1, 2),
        bias,
        stride=stride[1:],
        padding=padding,
    )
    return flat.unflatten(0, (batch, num_frames)).transpose(1, 2)


class StackedCausalConv3d(WanCausalConv3d):
    """A `WanCausalConv3d` of the same parameters that computes by `causal_conv3d`."""

    @classmethod
    def sharing(cls, conv: WanCausalConv3d) -> StackedCausalConv3d:
        """Return a stacked convolution on the very parameters of `conv`."""
        with torch.device("meta"):
            stacked = cls(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride)
        stacked.weight, stacked.bias = conv.weight, conv.bias
        stacked._padding = conv._padding
        return stacked.train(conv.training)

    def forward(self, x: Tensor, cache_x: Tensor | None = None) -> Tensor:
        columns, _, rows, _, past, _ = self._padding
        if cache_x is not None and past > 0:
            x = torch.cat((cache_x.to(x.device), x), dim=2)
            past -= cache_x.shape[2]
        if past > 0:
            x = F.pad(x, (0, 0, 0, 0, past, 0))
        return causal_conv3d(x, self.weight, self.bias, stride=self.stride, padding=(rows, columns))


def use_stacked_causal_convolutions(vae: nn.Module) -> None:
    """Make every causal convolution of a VAE compute by `causal_conv3d`, in place.

    Parameters, their names and the results stay (to float32 rounding); calling twice is harmless,
    as is an autoencoder that has none.
    """
    for parent in vae.modules():
        for name, child in parent.named_children():
            if type(child) is WanCausalConv3d:
                setattr(parent, name, StackedCausalConv3d.sharing(child))
