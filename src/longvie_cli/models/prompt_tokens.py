"""How much of a prompt a text encoder reads; needs no more than its tokenizer."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ftfy

from longvie_cli.disk.documents import MAX_JSON_BYTES, parse_json, read_document
from longvie_cli.errors import MissingResourceError
from longvie_cli.settings.presets import Preset, preset_folder

# A token of a sentence-piece model stands for this much text in the mean: four letters or marks of
# a Western script, one or two of any other.
_BYTES_A_TOKEN = 4
# The end of the text, and what some tokenizers put before it.
_ADDED_TOKENS = 2
# Tokenizers without a limit of their own name a number far beyond this.
_MOST_TOKENS = 1 << 20
# Of the end of what is kept.
_SHOWN_CHARACTERS = 40


@dataclass(frozen=True)
class CutPrompt:
    """A prompt that is longer than what is read of it.

    Args:
        num_tokens: All it has.
        num_kept: Those that are read, the one for the end of the text included.
        kept: The text that is read.
        estimated: Whether these are guesses, for want of the tokenizer.
    """

    num_tokens: int
    num_kept: int
    kept: str
    estimated: bool = False

    @property
    def words(self) -> str:
        """That it is cut, and where, in words that follow its name and a colon."""
        last = self.kept[-_SHOWN_CHARACTERS:]
        shown = repr(last if last == self.kept else f"...{last.lstrip()}")
        if self.estimated:
            return (
                f"about {self.num_tokens} tokens, more than the {self.num_kept} that are read (an "
                f"estimate: the tokenizer is not here); what is read ends near {shown}."
            )
        return (
            f"{self.num_tokens} tokens, more than are read; kept are the first {self.num_kept}, "
            f"up to {shown}."
        )


def clean_prompt(prompt: str) -> str:
    """Return the prompt with Unicode mended, HTML unescaped and single spaces (spec 1.3)."""
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(prompt))).split())


def cut_prompt(prompt: str, preset: Preset) -> CutPrompt | None:
    """Return what is read of a prompt by a preset's text encoder, None where it reads all of it.

    Where the tokenizer was not fetched, this is an estimate.
    """
    text, limit = clean_prompt(prompt), preset.max_text_tokens
    # No tokenizer makes more tokens than there are bytes.
    if len(text.encode()) + _ADDED_TOKENS <= limit:
        return None
    folder = _tokenizer_folder(preset)
    if folder is not None and _reads_bytes(folder):
        return _cut_bytes(text, limit)
    tokenizer = None if folder is None else _tokenizer_in(folder)
    return _estimated_cut(text, limit) if tokenizer is None else cut_by(tokenizer, text, limit)


def cut_by(tokenizer: Any, text: str, limit: int) -> CutPrompt | None:
    """Return what a tokenizer keeps of a cleaned text in `limit` tokens, None where it is all."""
    num_tokens = len(tokenizer(text).input_ids)
    if num_tokens <= limit:
        return None
    read = tokenizer(text, truncation=True, max_length=limit).input_ids
    return CutPrompt(num_tokens, len(read), tokenizer.decode(read, skip_special_tokens=True))


def cut_by_image_model(prompt: str, folder: Path) -> CutPrompt | None:
    """Return what is read of a prompt by a text-to-image pipeline, None where it reads all of it.

    Of its text encoders the one that reads most counts.

    Args:
        prompt: Text, which such pipelines read as it is.
        folder: Where the pipeline lies, in diffusers layout.
    """
    cuts = []
    for part in sorted(folder.glob("tokenizer*")):
        tokenizer = _tokenizer_in(part)
        if tokenizer is None or not 0 < tokenizer.model_max_length <= _MOST_TOKENS:
            continue
        cut = cut_by(tokenizer, prompt, tokenizer.model_max_length)
        if cut is None:
            return None
        cuts.append(cut)
    return max(cuts, key=lambda cut: len(cut.kept), default=None)


def _cut_bytes(text: str, limit: int) -> CutPrompt | None:
    data = text.encode()
    if len(data) + 1 <= limit:
        return None
    return CutPrompt(len(data) + 1, limit, data[: limit - 1].decode(errors="ignore"))


def _estimated_cut(text: str, limit: int) -> CutPrompt | None:
    weights = [1 if character.isascii() else 2 for character in text]
    num_tokens = -(-sum(weights) // _BYTES_A_TOKEN)
    if num_tokens <= limit:
        return None
    length = used = 0
    while used < limit * _BYTES_A_TOKEN:
        used += weights[length]
        length += 1
    return CutPrompt(num_tokens, limit, text[:length], estimated=True)


def _tokenizer_folder(preset: Preset) -> Path | None:
    """Return where the tokenizer of a preset lies, None where it was not fetched."""
    if preset.weights is None and not preset.models:
        return preset_folder(preset.name) / "tokenizer"
    from longvie_cli.models.weights.sources import ReleasedFiles, base_files, find_weights

    try:
        source = find_weights(preset)
    except MissingResourceError:
        return None
    if isinstance(source, ReleasedFiles):
        return base_files(source.base).tokenizer
    return source / "tokenizer"


def _reads_bytes(folder: Path) -> bool:
    """Return whether a tokenizer makes one token a byte, which needs no library to count."""
    try:
        config = parse_json(read_document(folder / "tokenizer_config.json", MAX_JSON_BYTES))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("tokenizer_class") == "ByT5Tokenizer"


def _tokenizer_in(folder: Path) -> Any:
    """Return the tokenizer in a folder, None where there is no complete one."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError):
        return None
