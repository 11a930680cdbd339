"""Bytes to model pixels and back."""

from __future__ import annotations

import numpy as np
import torch

from longvie_cli.media.frames import frames_from_pixels, pixels_from_frames


def test_pixels_are_bytes_over_127_5_less_1():
    frames = np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3)
    pixels = pixels_from_frames(frames)
    assert pixels.shape == (3, 2, 4, 6)
    assert pixels.dtype == torch.float32
    assert pixels[2, 1, 3, 5] == torch.tensor(int(frames[1, 3, 5, 2])) / 127.5 - 1


def test_bytes_are_truncated_and_clamped():
    values = torch.tensor([-1.5, -1.0, 0.0, 0.0039, 0.9999, 1.0, 3.0])
    pixels = values.reshape(1, 1, 1, 7).expand(3, 1, 1, 7)
    assert frames_from_pixels(pixels)[0, 0, :, 0].tolist() == [0, 0, 127, 127, 254, 255, 255]


def test_read_only_frames_are_fine():
    frames = np.frombuffer(bytes(range(24)), np.uint8).reshape(1, 2, 4, 3)
    assert pixels_from_frames(frames)[0, 0, 0, 0] == -1
