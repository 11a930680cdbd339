"""Says in words what the tensors of a weight file look like, for files given in the wrong place."""

from __future__ import annotations

import re
from collections.abc import Mapping

Shape = tuple[int, ...]

# First match wins; each pattern is searched in every name.
_KINDS = [
    (r"\blora_|\.alpha$|\.diff$", "a LoRA"),
    (r"^model\.diffusion_model\.", "a checkpoint packed for another program"),
    (r"vace_blocks", "a Wan VACE model"),
    (r"^(dense_blocks|control_proj_out)\.", "a transformer written by longvie models convert"),
    (r"control_blocks_(dense|sparse)\.", "control.safetensors of LongVie2"),
    (r"^visual\.|^textual\.", "the image encoder of the original Wan repository"),
    (r"embeddings\.class_embedding$", "an image encoder in transformers layout"),
    (r"^token_embedding\.", "the text encoder of the original Wan repository"),
    (r"^encoder\.block\.\d+\.layer\.", "a text encoder in transformers layout"),
    (r"^decoder\.upsamples\.", "the VAE of the original Wan repository"),
    (r"^decoder\.up_blocks\.", "a VAE in diffusers layout"),
]
_SELF_ATTENTION = re.compile(r"(^|\.)blocks\.\d+\.self_attn\.")
_FIRST_LAYER = re.compile(r"(^|\.)patch_embedding\.weight$")


def describe_kind(shapes: Mapping[str, Shape]) -> str | None:
    """Return what a file with these tensors looks like, as in "it looks like ...", or None."""
    if not shapes:
        return "an empty file"
    for pattern, words in _KINDS:
        if any(re.search(pattern, name) for name in shapes):
            return words
    if all(_SELF_ATTENTION.search(name) for name in shapes):
        return "dit.safetensors of LongVie2"
    return _describe_transformer(shapes)


def _describe_transformer(shapes: Mapping[str, Shape]) -> str | None:
    if any(re.search(r"^blocks\.\d+\.attn1\.", name) for name in shapes):
        words = "a diffusers transformer"
    elif any(_SELF_ATTENTION.search(name) for name in shapes):
        words = "a transformer of the original Wan repository"
    else:
        return None
    first = next((shape for name, shape in shapes.items() if _FIRST_LAYER.search(name)), None)
    if first is not None and len(first) == 5:
        channels = f"patch_embedding has {first[1]} input channels"
        # Noise alone, without mask and image latents: 16 channels in Wan 2.1 (spec 1).
        words += f", a text-to-video (T2V) one: {channels}" if first[1] == 16 else f": {channels}"
    return words
