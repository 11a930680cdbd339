"""Trains the sketcher: frames from depth and words."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor
from transformers import ByT5Tokenizer, UMT5EncoderModel

from longvie_cli.models.depth_colours import depth_maps
from longvie_cli.models.sketcher import Sketcher, mean_of_words
from longvie_cli.training.loop import process_place
from longvie_cli.training.tiny.config import TinyTraining
from longvie_cli.training.tiny.flights import controls_of, depth_of_flight
from longvie_cli.training.tiny.prompts import look_labels, paraphrase
from longvie_cli.training.tiny.stage import StageSettings, load_stage, run_stage
from longvie_cli.training.tiny.text import build_tokenizer, tokenize
from longvie_cli.worlds.looks import PALETTES, TIMES_OF_DAY, WEATHERS, Look, caption_for
from longvie_cli.worlds.terrain import random_geometry

FOLDER = "frames"
# Prompts of each look.
_PROMPTS = 16
# Steps of gradient descent that fit the classes of words: a minute.
_WORD_STEPS = 400
# Beside the error itself: of edges, and of means over 4x4 and 16x16 pixels.
_EDGE_WEIGHT = 1.0
_MEANS = ((4, 0.5), (16, 0.5))


def write_frames(config: TinyTraining, path: Path, out: Path) -> None:
    """Write some frames of a flight under all its looks, and their depth."""
    rng = np.random.default_rng(int(path.stem) + 55)
    depth, _ = depth_of_flight(controls_of(path), rng)
    chosen = np.sort(rng.choice(len(depth), config.sketch_frames, replace=False))
    with safe_open(path, "numpy") as file:
        rgb, metadata = file.get_tensor("rgb"), file.metadata()
    part = out.with_suffix(".part")
    # In the order of its axes, which choosing frames changes; the file has no other.
    chosen_frames = np.ascontiguousarray(rgb[:, chosen])
    save_file(
        {"rgb": chosen_frames, "depth": depth[chosen]}, part, metadata={"looks": metadata["looks"]}
    )
    os.replace(part, out)


def write_library(config: TinyTraining, folder: Path, *, worker: int, num_workers: int) -> None:
    """Write frames of every `num_workers`-th flight."""
    target = folder / FOLDER
    target.mkdir(exist_ok=True)
    for path in sorted((folder / "flights").glob("*.safetensors"))[worker::num_workers]:
        out = target / path.name
        if not out.exists():
            write_frames(config, path, out)


class Prompts:
    """What prompts of every look say, embedded once: a step takes no longer for them.

    Half of them are worlds' own captions, the others are as people write.

    Args:
        config: Of the recipe.
        text_encoder: As its stage left it.

    Attributes:
        words: `mean_of_words` [prompts, text_dim]; those of a look in a row.
        labels: What each asks for, [prompts, 3], as `look_labels` says.
    """

    def __init__(self, config: TinyTraining, text_encoder: UMT5EncoderModel) -> None:
        rng = np.random.default_rng(config.seed)
        tokenizer = build_tokenizer()
        words, labels = [], []
        self._first: dict[Look, int] = {}
        for number, parts in enumerate(itertools.product(PALETTES, TIMES_OF_DAY, WEATHERS)):
            look = Look(*parts)
            self._first[look] = number * _PROMPTS
            told = [paraphrase(look, rng) for _ in range(_PROMPTS // 2)]
            for seed in rng.integers(2**31, size=_PROMPTS - len(told)).tolist():
                text = caption_for(look, random_geometry(seed), seed=seed)
                told.append((text, (True, True, True)))
            words.append(_embedded(text_encoder, tokenizer, [text for text, _ in told], config))
            labels += [look_labels(look, named) for _, named in told]
        self.words, self.labels = torch.cat(words), torch.tensor(labels)

    def draw(self, look: Look, rng: np.random.Generator) -> Tensor:
        """Return the words [text_dim] of a prompt that asks for a look."""
        return self.words[self._first[look] + int(rng.integers(_PROMPTS))]


@torch.no_grad()
def _embedded(
    encoder: UMT5EncoderModel, tokenizer: ByT5Tokenizer, prompts: list[str], config: TinyTraining
) -> Tensor:
    ids, mask = tokenize(tokenizer, prompts, config.max_text_tokens)
    embeddings = encoder(ids, attention_mask=mask).last_hidden_state.float()
    return mean_of_words(embeddings * mask.unsqueeze(-1))


def fit_words(sketcher: Sketcher, prompts: Prompts, seed: int) -> float:
    """Fit the classes of words to what the prompts ask for; return the share of right ones."""
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(sketcher.words.parameters(), lr=0.02, weight_decay=0.01)
    sizes = list(sketcher.config.word_classes)
    for step in range(_WORD_STEPS):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / _WORD_STEPS)
        kinds = sketcher.words(prompts.words).split(sizes, dim=1)
        losses = [F.cross_entropy(kind, prompts.labels[:, n]) for n, kind in enumerate(kinds)]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
    found = torch.stack([kind.argmax(dim=1) for kind in kinds], dim=1)
    return float((found == prompts.labels).float().mean())


class _Examples:
    """Draws batches from what `write_library` wrote."""

    def __init__(self, config: TinyTraining, folder: Path, prompts: Prompts) -> None:
        self.config = config
        self.paths = sorted((folder / FOLDER).glob("*.safetensors"))
        if not self.paths:
            raise FileNotFoundError(f"{folder / FOLDER} is empty; run the stage frames first")
        self.prompts = prompts

    def draw(self, rng: np.random.Generator, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return pixels [batch, 3, H / 2, W / 2], maps alike and words of crops."""
        rows = [self._example(rng) for _ in range(batch)]
        pixels, maps, words = (torch.stack(each) for each in zip(*rows, strict=True))
        return pixels, maps, words

    def _example(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        config = self.config
        path = self.paths[int(rng.integers(len(self.paths)))]
        look = int(rng.integers(config.looks_per_flight))
        frame = int(rng.integers(config.sketch_frames))
        with safe_open(path, "numpy") as file:
            rgb: NDArray[np.uint8] = file.get_slice("rgb")[look, frame]
            depth: NDArray[np.uint8] = file.get_slice("depth")[frame]
            asked = Look(*json.loads(file.metadata()["looks"])[look])
        if rng.random() < 0.5:
            rgb, depth = (np.ascontiguousarray(each[:, ::-1]) for each in (rgb, depth))
        y = 2 * int(rng.integers(config.height // 4 + 1))
        x = 2 * int(rng.integers(config.width // 4 + 1))
        crop = (..., slice(y, y + config.height // 2), slice(x, x + config.width // 2))
        pixels = torch.from_numpy(rgb).permute(2, 0, 1).float() / 127.5 - 1
        # Of a crop's own depth the places in the picture would be others.
        maps = depth_maps(torch.from_numpy(depth)[None])[0]
        return pixels[crop], maps[crop], self.prompts.draw(asked, rng)


def sketch_loss(drawn: Tensor, target: Tensor) -> Tensor:
    """Return the error of frames [B, 3, H, W]: of pixels, edges and means.

    Means, since what nothing determines, clouds and single stones, would make a picture of small
    errors everywhere the best one.
    """
    error = drawn - target
    loss = error.abs().mean()
    for dim in (-1, -2):
        loss = loss + _EDGE_WEIGHT * error.diff(dim=dim).abs().mean()
    for size, share in _MEANS:
        loss = loss + share * F.avg_pool2d(error, size).abs().mean()
    return loss


def train_sketcher(
    config: TinyTraining,
    folder: Path,
    text_encoder: UMT5EncoderModel,
    *,
    stop_after_seconds: float | None = None,
) -> None:
    """Train the sketcher on what the stage `frames` wrote."""
    torch.manual_seed(config.seed + 50)
    sketcher = build_sketcher(config).to(memory_format=torch.channels_last)
    prompts = Prompts(config, text_encoder)
    fit_words(sketcher, prompts, config.seed + 52)
    examples = _Examples(config, folder, prompts)
    batch = config.sketch_batch // process_place()[1]

    def compute_loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        pixels, maps, words = examples.draw(rng, batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.autocast):
            drawn = sketcher(maps, sketcher.shares(words).float())
        return sketch_loss(drawn.float(), pixels), {}

    run_stage(
        "sketch",
        folder,
        {"sketcher": sketcher},
        compute_loss,
        StageSettings(
            config.sketch_steps,
            config.sketch_learning_rate,
            config.seed + 51,
            ema_decay=config.ema_decay,
        ),
        stop_after_seconds=stop_after_seconds,
    )


def build_sketcher(config: TinyTraining) -> Sketcher:
    """Return the sketcher with random weights."""
    return Sketcher(
        text_dim=config.text_width,
        word_classes=(1 + len(PALETTES), 1 + len(TIMES_OF_DAY), 1 + len(WEATHERS)),
    )


def load_sketcher(config: TinyTraining, folder: Path) -> Sketcher:
    """Return the sketcher as its stage left it.

    Raises:
        FileNotFoundError: the stage has not run yet.
    """
    sketcher = build_sketcher(config)
    load_stage(folder, "sketch", {"sketcher": sketcher})
    return sketcher
