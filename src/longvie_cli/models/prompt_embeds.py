"""Prompts to the embeddings the transformer reads; needs only the tokenizer and text encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

from longvie_cli.models.prompt_tokens import clean_prompt


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase,
    text_encoder: UMT5EncoderModel,
    prompts: Sequence[str],
    *,
    text_tokens: int,
    device: torch.device,
) -> Tensor:
    """Return [prompt, text_tokens, text_dim]; rows past a prompt's end are zero (spec 1.3).

    Args:
        tokenizer: Of the text encoder.
        text_encoder: UMT5 encoder.
        prompts: Texts; longer ones than the model reads are cut (`cut_prompt` says where).
        text_tokens: Text tokens of every prompt, padding included.
        device: Where the encoder computes.
    """
    cleaned = [clean_prompt(prompt) for prompt in prompts]
    tokens = tokenizer(
        cleaned,
        padding="max_length",
        max_length=text_tokens,
        truncation=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    mask = tokens.attention_mask.to(device)
    embeds = text_encoder(tokens.input_ids.to(device), mask).last_hidden_state
    return embeds * mask.unsqueeze(-1)
