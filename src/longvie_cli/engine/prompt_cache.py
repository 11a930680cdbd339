"""Prompts of a run, encoded once each and kept in its folder.

The text encoder of LongVie 2 weighs 11 GB and is needed for seconds: it is loaded alone, reads
every prompt that is not there yet, and leaves before the rest is loaded. A run whose prompts are
all there never loads it.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from longvie_cli.disk.durable import write_atomic
from longvie_cli.disk.hashing import fingerprint
from longvie_cli.engine.loader import load_preset_text_encoder
from longvie_cli.models.prompt_embeds import encode_prompts
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.settings.presets import Preset
from longvie_cli.settings.sampling import Sampling

logger = logging.getLogger(__name__)

_NAME = "prompt_embeds"
# Where a text encoder's files lie: in our layout and the diffusers repository, in the original one.
_TEXT_FOLDERS = {"text_encoder", "tokenizer", "umt5-xxl"}
_TEXT_ARCHIVE = "models_t5_"


def prompt_embeds(
    folder: RunFolder,
    preset: Preset,
    texts: Sequence[str],
    sampling: Sampling,
    *,
    model_hashes: Mapping[str, str],
) -> dict[str, Tensor]:
    """Return the embeddings [1, text_tokens, text_dim] of each distinct text, on the CPU.

    They are those the pipeline itself would compute, bit for bit and in the type it would compute
    them: each text is encoded alone. A missing or damaged file is made again.

    Args:
        folder: The run.
        preset: Whose text encoder reads them.
        texts: In any order, with repetitions.
        sampling: Of it count device, dtype and offload: where and in what the text encoder
            computes.
        model_hashes: Hash of each weights and settings file of the preset, as in run.json.

    Raises:
        MissingResourceError: The text encoder is needed and not there.
        ResumableError: The disk is full.
    """
    device = torch.device(sampling.device)
    identity = {
        "text_encoder": {
            name: content
            for name, content in model_hashes.items()
            if _TEXT_FOLDERS & {*name.split("/")} or _TEXT_ARCHIVE in name
        },
        "text_tokens": preset.max_text_tokens,
        "dtype": sampling.dtype,
        # Another kind of device rounds otherwise.
        "device": device.type,
    }
    keys = {text: _key(text, identity) for text in dict.fromkeys(texts)}
    found = {text: _read(folder.prompt(key), key) for text, key in keys.items()}
    missing = [text for text, embeds in found.items() if embeds is None]
    if missing:
        tokenizer, text_encoder = load_preset_text_encoder(preset, sampling)
        with torch.no_grad():
            for text in missing:
                embeds = encode_prompts(
                    tokenizer,
                    text_encoder,
                    [text],
                    text_tokens=preset.max_text_tokens,
                    device=device,
                ).cpu()
                found[text] = embeds
                _write(folder.prompt(keys[text]), keys[text], embeds)
        # Its memory is wanted for the transformer now, not when Python next looks for cycles.
        del text_encoder
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return {text: embeds for text, embeds in found.items() if embeds is not None}


def _key(text: str, identity: Mapping[str, object]) -> str:
    return fingerprint({"text": text, **identity})


def _write(path: Path, key: str, embeds: Tensor) -> None:
    embeds = embeds.contiguous()
    # One entry: safetensors writes several in no fixed order.
    write_atomic(path, save({_NAME: embeds}, metadata={"hash": _content_hash(key, embeds)}))


def _read(path: Path, key: str) -> Tensor | None:
    """Return stored embeddings, or None where there are none or the file is damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # A copy: the file may be replaced while its pages are mapped.
            embeds: Tensor = file.get_tensor(_NAME).clone()
    except (SafetensorError, OSError) as error:
        logger.warning("%s: damaged (%s); the prompt is encoded again.", path, error)
        return None
    if metadata.get("hash") != _content_hash(key, embeds):
        logger.warning("%s: damaged; the prompt is encoded again.", path)
        return None
    return embeds


def _content_hash(key: str, embeds: Tensor) -> str:
    shape = f"{key} {embeds.dtype} {tuple(embeds.shape)} "
    data = embeds.view(torch.uint8).numpy().tobytes()
    return xxhash.xxh3_128_hexdigest(shape.encode() + data)
