"""A folder with the entry points of a Video-Depth-Anything checkout and a network of one weight.

Written from the description of the interface, not from its code. As the real one does, it gives
every call a scale and a shift of its own.
"""

from __future__ import annotations

from pathlib import Path

import torch

_VIDEO_DEPTH = """
import numpy as np
import torch
from utils.util import level_of


class VideoDepthAnything(torch.nn.Module):
    def __init__(self, encoder="vitl", features=256, out_channels=(), use_bn=False):
        super().__init__()
        assert (encoder, features, list(out_channels)) == ("vits", 64, [48, 96, 192, 384])
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.most_frames = 0

    def infer_video_depth(self, frames, target_fps, input_size=518, device="cuda", fp32=False):
        assert (device, fp32, input_size) == ("cpu", True, 518)
        self.most_frames = max(self.most_frames, len(frames))
        rng = np.random.default_rng(int(frames.astype(np.int64).sum()) % 2**32)
        scale, shift = np.exp(rng.normal(0, 0.1)), rng.normal(0, 0.2)
        depth = scale * (level_of(frames) + float(self.weight)) + shift
        return depth + rng.normal(0, 0.005, depth.shape), target_fps
"""

_UTIL = """
def level_of(frames):
    return frames.astype("float64").mean(axis=-1) / 255 * 4
"""


def make_stand_in(folder: Path) -> Path:
    """Write the checkout and its weights; return its folder."""
    for name, text in (
        ("video_depth_anything/video_depth.py", _VIDEO_DEPTH),
        ("utils/util.py", _UTIL),
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (folder / "checkpoints").mkdir()
    state = {"weight": torch.tensor([0.5])}
    torch.save(state, folder / "checkpoints" / "video_depth_anything_vits.pth")
    return folder
