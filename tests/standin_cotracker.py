"""A repository that torch.hub can load in CoTracker's place: same entries, same calls, own code.

Its predictors take the picture to move as a whole and find by how much with a phase correlation
to frame 0, times a weight that is 1 in the files written here.
"""

from __future__ import annotations

from pathlib import Path

import torch

HUBCONF = '''
import torch

dependencies = ["torch"]
print("noise while importing")


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.zeros(1))

    def shift(self, first, frames):
        """Return the motion [T, 2] of frames [T, 3, H, W] against first [3, H, W]."""
        height, width = first.shape[-2:]
        window = torch.hann_window(height)[:, None] * torch.hann_window(width)[None]

        def spectrum(x):
            grey = x.mean(-3)
            return torch.fft.rfft2((grey - grey.mean((-2, -1), keepdim=True)) * window)

        cross = spectrum(frames) * spectrum(first).conj()
        surface = torch.fft.irfft2(cross / cross.abs().clamp(min=1e-3), s=(height, width))
        best = surface.flatten(1).argmax(1)
        y, x = best // width, best % width
        y = torch.where(y > height // 2, y - height, y)
        x = torch.where(x > width // 2, x - width, x)
        return torch.stack([x, y], -1).float() * self.gain


class Predictor(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = Model()

    def answer(self, first, frames, queries):
        print("noise while tracking")
        assert frames.dtype == torch.float32 and 0 <= frames.min() and frames.max() <= 255
        assert queries.dtype == torch.float32 and (queries[..., 0] == 0).all()
        assert not self.training and not torch.is_grad_enabled()
        # Should not change from call to call, nor change the caller's numbers.
        draw = 1e-3 * torch.rand(1)
        moved = self.model.shift(first, frames)
        tracks = queries[:, None, :, 1:] + moved[None, :, None] + draw
        return tracks, torch.ones(tracks.shape[:3], dtype=torch.bool)


class Offline(Predictor):
    def forward(
        self, video, queries=None, segm_mask=None, grid_size=0, grid_query_frame=0,
        backward_tracking=False,
    ):
        assert video.ndim == 5 and video.shape[2] == 3 and not backward_tracking
        return self.answer(video[0, 0], video[0], queries)


class Online(Predictor):
    def __init__(self):
        super().__init__()
        self.step = 8

    def forward(
        self, video_chunk, is_first_step=False, queries=None, grid_size=5, grid_query_frame=0,
        add_support_grid=False,
    ):
        assert video_chunk.shape[1] == 2 * self.step
        if is_first_step:
            self.first, self.queries, self.done, self.tracks = video_chunk[0, 0], queries, 0, None
            return None, None
        tracks, _ = self.answer(self.first, video_chunk[0], self.queries)
        before = [] if self.tracks is None else [self.tracks[:, : self.done]]
        self.tracks = torch.cat([*before, tracks], 1)
        self.done += self.step
        return self.tracks, torch.ones(self.tracks.shape[:3], dtype=torch.bool)


def cotracker3_offline(*, pretrained=True, **kwargs):
    assert not pretrained, "would download"
    print("noise while building")
    return Offline()


def cotracker3_online(*, pretrained=True, **kwargs):
    assert not pretrained, "would download"
    return Online()
'''


def write_standin(folder: Path) -> Path:
    """Write the repository into a folder, with its weights, and return the folder."""
    folder.mkdir(parents=True)
    (folder / "hubconf.py").write_text(HUBCONF, encoding="utf-8")
    for name in ("scaled_offline.pth", "scaled_online.pth"):
        write_weights(folder / name)
    return folder


def write_weights(path: Path, gain: float = 1.0) -> None:
    """Write a state dict, as the published files are."""
    torch.save({"gain": torch.tensor([gain])}, path)
