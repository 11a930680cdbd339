"""What the sketcher draws, what it listens to, and how it comes with a pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from longvie_cli.errors import MissingResourceError
from longvie_cli.models.depth_colours import DEPTH_MAPS, depth_maps
from longvie_cli.models.sketcher import Sketcher, mean_of_words
from longvie_cli.models.weights.load import load_weights, random_weights
from small_models import drawn, small_pipeline, small_sketcher

HEIGHT, WIDTH = 24, 40


def slope() -> NDArray[np.uint8]:
    """Return depth that falls towards the bottom."""
    rows = np.linspace(240, 40, HEIGHT)
    return np.repeat(rows[:, None], WIDTH, axis=1).astype(np.uint8)


@pytest.mark.parametrize("size", [(16, 16), (24, 40), (17, 23), (112, 192)])
def test_frames_of_any_size_are_drawn_at_that_size(size: tuple[int, int]) -> None:
    found = small_sketcher().sketch(np.full(size, 120, np.uint8), drawn(1, 5, 16))
    assert found.shape == (*size, 3)
    assert found.dtype == np.uint8


def test_depth_and_words_both_count() -> None:
    sketcher, words = small_sketcher(), drawn(1, 5, 16)
    first = sketcher.sketch(slope(), words)
    assert np.array_equal(first, sketcher.sketch(slope(), words))
    assert not np.array_equal(first, sketcher.sketch(255 - slope(), words))
    assert not np.array_equal(first, sketcher.sketch(slope(), 4 * drawn(1, 5, 16, seed=9)))


def test_what_lies_past_a_prompts_end_does_not_count() -> None:
    words = drawn(2, 7, 16)
    words[0, 4:] = 0
    found = mean_of_words(words)
    assert torch.allclose(found[0], words[0, :4].mean(dim=0), atol=1e-6)
    assert torch.allclose(found[1], words[1].mean(dim=0), atol=1e-6)
    assert torch.equal(mean_of_words(torch.zeros(1, 3, 16)), torch.zeros(1, 16))
    sketcher = small_sketcher()
    alone = sketcher.sketch(slope(), words[:1, :4])
    assert np.array_equal(alone, sketcher.sketch(slope(), words[:1]))


def test_words_are_read_as_shares_of_classes() -> None:
    shares = small_sketcher().shares(drawn(4, 16))
    assert shares.shape == (4, 5)
    for kind in shares.split([3, 2], dim=1):
        assert torch.allclose(kind.sum(dim=1), torch.ones(4), atol=1e-6)
        assert bool((kind > 0).all())


def test_a_crop_is_drawn_as_the_whole_is() -> None:
    """Training shows it quarters of frames; far from their borders they have to agree."""
    torch.manual_seed(0)
    sketcher, maps = Sketcher(widths=(8, 16), blocks=(1, 1)), torch.randn(1, DEPTH_MAPS, 64, 64)
    shares = sketcher.shares(drawn(1, 192))
    with torch.no_grad():
        whole, crop = sketcher(maps, shares), sketcher(maps[..., :32, :32], shares)
    assert torch.allclose(whole[..., :8, :8], crop[..., :8, :8], atol=1e-5)
    assert not torch.allclose(whole[..., :32, :32], crop, atol=1e-5)


def test_it_learns_colours_by_depth_and_word() -> None:
    """Near is red under one word and green under another; far is blue."""
    torch.manual_seed(0)
    sketcher = Sketcher(16, (2,), widths=(8, 16), blocks=(1, 1), asked_dim=16)
    depth = torch.from_numpy(np.stack((slope(), slope())))
    words = torch.stack((torch.ones(16), -torch.ones(16)))
    near = 1 - depth.float() / 255
    target = torch.zeros(2, 3, HEIGHT, WIDTH)
    target[:, 2], target[0, 0], target[1, 1] = 1 - near, near[0], near[1]
    optimizer = torch.optim.AdamW(sketcher.parameters(), lr=5e-3)
    for _ in range(100):
        error = (sketcher(depth_maps(depth), sketcher.shares(words)) - target).abs().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    assert error < 0.05


def test_a_pipeline_is_saved_and_loaded_with_its_sketcher(tmp_path: Path) -> None:
    sketcher = small_sketcher()
    small_pipeline(sketcher).save_pretrained(tmp_path)
    loaded = load_weights(tmp_path, dtype=torch.float32).sketcher
    assert loaded is not None
    for name, value in sketcher.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])
    random = random_weights(tmp_path, dtype=torch.float32, device="cpu").sketcher
    assert random is not None
    assert all(bool(torch.isfinite(each).all()) for each in random.parameters())
    (tmp_path / "sketcher" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(MissingResourceError, match="sketcher"):
        load_weights(tmp_path, dtype=torch.float32)


def test_a_pipeline_without_one_has_none(tmp_path: Path) -> None:
    small_pipeline().save_pretrained(tmp_path)
    assert load_weights(tmp_path, dtype=torch.float32).sketcher is None
    assert type(small_pipeline()).from_pretrained(tmp_path).sketcher is None
