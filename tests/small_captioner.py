"""A BLIP captioning model of random weights and a dozen words, as a user would have it on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertTokenizerFast,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
)

WORDS = ("a", "picture", "of", "hills", "snow", "red", "wall")
_SIGNS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]")


def save_captioner(folder: Path) -> Path:
    """Save the model and return its folder."""
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join((*_SIGNS, *WORDS)))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
    torch.manual_seed(0)
    size: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    size |= {"intermediate_size": 32, "projection_dim": 16}
    text = {"vocab_size": len(_SIGNS + WORDS), "encoder_hidden_size": 16, "pad_token_id": 0}
    text |= {"bos_token_id": 5, "eos_token_id": 3, "sep_token_id": 3, "max_position_embeddings": 99}
    config = BlipConfig(
        text_config=size | text,
        vision_config=size | {"image_size": 32, "patch_size": 16},
        projection_dim=16,
    )
    BlipForConditionalGeneration(config).save_pretrained(folder)
    pictures = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(pictures, tokenizer).save_pretrained(folder)
    return folder
