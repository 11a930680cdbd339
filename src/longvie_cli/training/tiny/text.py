"""The embedded text encoder: bytes into a small UMT5, first taught to tell looks apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import ByT5Tokenizer, UMT5Config, UMT5EncoderModel

from longvie_cli.training.tiny.config import TinyTraining
from longvie_cli.training.tiny.prompts import look_labels, paraphrase
from longvie_cli.training.tiny.stage import StageSettings, load_stage, run_stage
from longvie_cli.worlds.looks import PALETTES, TIMES_OF_DAY, WEATHERS, caption_for, random_look
from longvie_cli.worlds.terrain import random_geometry


def build_tokenizer() -> ByT5Tokenizer:
    """Return the byte tokenizer: no vocabulary file, 256 bytes and three special tokens."""
    return ByT5Tokenizer(extra_ids=0)


def build_text_encoder(config: TinyTraining) -> UMT5EncoderModel:
    """Return the text encoder with random weights."""
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=len(build_tokenizer()),
            d_model=config.text_width,
            d_kv=32,
            d_ff=2 * config.text_width,
            num_layers=config.text_layers,
            num_heads=config.text_width // 32,
            dropout_rate=0.0,
            tie_word_embeddings=False,
        )
    )


def tokenize(
    tokenizer: ByT5Tokenizer, prompts: list[str], max_tokens: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and mask [prompts, longest], cut at `max_tokens`."""
    batch = tokenizer(
        prompts, padding=True, truncation=True, max_length=max_tokens, return_tensors="pt"
    )
    return batch.input_ids, batch.attention_mask


class LookClassifier(nn.Module):
    """Reads palette, time of day and weather off the mean of the text embeddings."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Linear(width, 1 + len(words)) for words in (PALETTES, TIMES_OF_DAY, WEATHERS)
        )

    def forward(self, embeddings: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
        weights = mask.unsqueeze(-1).to(embeddings.dtype)
        mean = (embeddings * weights).sum(1) / weights.sum(1)
        return [head(mean) for head in self.heads]


def random_prompt(rng: np.random.Generator) -> tuple[str, tuple[int, int, int]]:
    """Return a prompt and its labels: half captions of worlds, half paraphrases."""
    seed = int(rng.integers(2**40))
    look = random_look(seed)
    if rng.random() < 0.5:
        text, named = caption_for(look, random_geometry(seed), seed=seed), (True, True, True)
    else:
        text, named = paraphrase(look, rng)
    return text, look_labels(look, named)


def train_text_encoder(
    config: TinyTraining, folder: Path, *, stop_after_seconds: float | None = None
) -> UMT5EncoderModel:
    """Teach the text encoder to tell looks apart, so that the transformer finds words it can use.

    A byte model learns words slowly through a denoising loss alone; naming the look of a prompt
    takes minutes and needs no picture. The classifier is thrown away.
    """
    torch.manual_seed(config.seed + 10)
    tokenizer = build_tokenizer()
    encoder = build_text_encoder(config)
    classifier = LookClassifier(config.text_width)

    def compute_loss(
        step: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, float]]:
        rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        prompts, labels = zip(*(random_prompt(rng) for _ in range(config.text_batch)), strict=True)
        ids, mask = tokenize(tokenizer, list(prompts), config.max_text_tokens)
        with torch.autocast("cpu", torch.bfloat16):
            embeddings = encoder(ids, attention_mask=mask).last_hidden_state.float()
        logits = classifier(embeddings, mask)
        targets = torch.tensor(labels)
        losses = [F.cross_entropy(logit, targets[:, k]) for k, logit in enumerate(logits)]
        hits = [
            (logit.argmax(-1) == targets[:, k]).float().mean().item()
            for k, logit in enumerate(logits)
        ]
        return torch.stack(losses).sum(), {"accuracy": sum(hits) / 3}

    run_stage(
        "text",
        folder,
        {"encoder": encoder, "classifier": classifier},
        compute_loss,
        StageSettings(config.text_steps, 1e-3, config.seed + 11),
        stop_after_seconds=stop_after_seconds,
    )
    return encoder


def load_text_encoder(config: TinyTraining, folder: Path) -> UMT5EncoderModel:
    """Return the text encoder as the stage `text` left it."""
    encoder = build_text_encoder(config)
    load_stage(folder, "text", {"encoder": encoder})
    return encoder
