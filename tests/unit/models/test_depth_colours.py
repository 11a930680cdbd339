"""Colours as a function of depth: haze that thins as places come near, gaps filled by likeness."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from longvie_cli.models.carrying import ClipTracks, carry
from longvie_cli.models.depth_colours import Haze, Look, fill_by_depth

HEIGHT, WIDTH = 56, 96


def ridges(shift: float = 0.0) -> Tensor:
    """Return depth bytes [H, W] of two ridges before a sky; `shift` moves the camera sideways."""
    x = torch.linspace(0, 6, WIDTH) + shift
    y = torch.arange(HEIGHT)[:, None]
    depth = torch.full((HEIGHT, WIDTH), 255.0)
    for horizon, far in ((14, 225.0), (26, 150.0)):
        top = horizon + 5 * torch.sin(1.3 * x + far)
        below = y > top
        slope = far - 2.2 * (y - top)
        depth = torch.where(below, slope.clamp(0, 254), depth)
    return depth.round().to(torch.uint8)


def own_colours(depth: Tensor) -> Tensor:
    """Return the colours [H, W, 3] of a world in which depth and row alone decide them."""
    near = 1 - depth.float() / 255
    row = torch.linspace(0, 1, HEIGHT)[:, None].expand_as(near)
    return torch.stack((60 + 120 * near, 200 - 150 * near * row, 90 + 60 * row), dim=-1)


def through_haze(colours: Tensor, depth: Tensor, density: float) -> Tensor:
    """Return colours seen through haze of a known density and colour."""
    light = torch.exp(-density / (1 - depth.float() / 255 + 0.03))[..., None]
    return torch.tensor((170.0, 180.0, 200.0)) * (1 - light) + light * colours


def material() -> Tensor:
    """Return colours [H, W, 3] that have nothing to do with distance."""
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    waves = [torch.sin(x / 3 + k) * torch.cos(y / (4 + k)) for k in range(3)]
    return 80 + 25 * torch.stack(waves, dim=-1)


@pytest.mark.parametrize("density", [0.05, 0.2])
def test_haze_thins_as_places_come_nearer(density: float) -> None:
    depth = ridges()
    seen = through_haze(material(), depth, density)
    nearer = (depth.float() - 25).clamp(min=0).where(depth < 250, depth.float())
    truth = through_haze(material(), nearer, density)
    land = depth < 250
    moved = Haze(seen, depth).moved(seen, depth, nearer)
    carried = (seen - truth)[land].abs().mean()
    assert (moved - truth)[land].abs().mean() < 0.5 * carried
    assert torch.equal(moved[~land], seen[~land])


def test_clear_air_leaves_colours_as_they_are() -> None:
    depth = ridges()
    nearer = (depth.float() - 25).clamp(min=0)
    moved = Haze(material(), depth).moved(material(), depth, nearer)
    assert (moved - material()).abs().mean() < 1.5


def test_a_picture_without_land_has_no_haze() -> None:
    sky = torch.full((HEIGHT, WIDTH), 255, dtype=torch.uint8)
    assert torch.equal(Haze(material(), sky).moved(material(), sky, sky), material())


def test_gaps_get_the_colours_of_places_like_them_and_the_rest_stays() -> None:
    depth = torch.stack([ridges(0.3 * index) for index in range(4)])
    truth = torch.stack([own_colours(each) for each in depth]).round().to(torch.uint8)
    confidence = torch.ones(4, HEIGHT, WIDTH)
    confidence[1:, :, 60:] = 0
    frames = truth.clone()
    frames[1:, :, 60:] = 255
    filled = fill_by_depth(frames, depth, confidence)
    known = confidence > 0.4
    assert torch.equal(filled[known], truth[known])
    error = (filled.float() - truth.float()).abs()
    # Jumps from ridge to ridge are where smooth features are least sure.
    assert error[1:, :, 60:].mean() < 6
    assert error[1:, :, 60:].median() < 4
    assert torch.equal(filled, fill_by_depth(frames, depth, confidence))


def test_a_look_teaches_what_the_clip_itself_has_lost() -> None:
    """A clip that begins faded is coloured as the video's first frame where it does not know."""
    first, depth = ridges(), torch.stack([ridges(0.3 * index) for index in range(3)])
    truth = torch.stack([own_colours(each) for each in depth])
    faded = (0.4 * truth + 0.6 * 150).round().to(torch.uint8)
    confidence = torch.zeros(3, HEIGHT, WIDTH)
    confidence[0] = 1
    look = Look(own_colours(first).round().to(torch.uint8).numpy(), first.numpy())
    alone, taught = (fill_by_depth(faded, depth, confidence, given) for given in (None, look))

    def error(frames: Tensor) -> Tensor:
        return (frames.float() - truth).abs()[1:].mean()

    assert error(taught) < 0.75 * error(alone)
    assert torch.equal(taught[0], faded[0])


def test_between_known_and_unknown_both_are_mixed() -> None:
    depth = torch.stack((ridges(), ridges()))
    frames = torch.stack((own_colours(depth[0]),) * 2).round().to(torch.uint8)
    frames[1] = 255
    confidence = torch.ones(2, HEIGHT, WIDTH)
    shown = []
    for sure in (0.1, 0.25, 0.4):
        confidence[1] = sure
        shown.append((255.0 - fill_by_depth(frames, depth, confidence)[1].float()).mean())
    assert shown[0] > 1.5 * shown[1] > 0
    assert shown[2] == 0


@pytest.mark.parametrize("byte", [0, 120, 255])
def test_flat_depth_says_nothing_and_breaks_nothing(byte: int) -> None:
    depth = torch.full((3, HEIGHT, WIDTH), byte, dtype=torch.uint8)
    frames = torch.full((3, HEIGHT, WIDTH, 3), 77, dtype=torch.uint8)
    confidence = torch.zeros(3, HEIGHT, WIDTH)
    confidence[0] = 1
    assert torch.equal(fill_by_depth(frames, depth, confidence), frames)


def test_pictures_carried_together_come_out_as_each_alone() -> None:
    depth = torch.stack([ridges(0.2 * index) for index in range(3)]).numpy()
    looks = [through_haze(own_colours(ridges()), ridges(), d) for d in (0.01, 0.3)]
    pictures = [look.round().to(torch.uint8).numpy() for look in looks]
    points = np.stack(np.meshgrid(np.arange(4, 92, 8.0), np.arange(4, 52, 8.0)), -1).reshape(-1, 2)
    moved = points[None] - np.arange(3)[:, None, None] * np.array((WIDTH * 0.2 / 6, 0.0))
    tracks = ClipTracks(moved.astype(np.float32), np.ones(moved.shape[:2], bool))
    together = carry(np.concatenate(pictures, axis=-1), depth, tracks)
    for which, picture in enumerate(pictures):
        alone = carry(picture, depth, tracks)
        assert np.array_equal(together.confidence, alone.confidence)
        part = together.frames[..., 3 * which : 3 * which + 3]
        assert np.abs(part.astype(int) - alone.frames).max() <= 1
    assert math.isclose(together.confidence[0].min(), 1)
