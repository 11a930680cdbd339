"""Text and image encoder against plain references that read the original names (spec 1, 1.3, 1.4).

The references are written from the specification alone. They take the tensors of the original
repository's files; ours are loaded from the same tensors. So class, config and name map are
proven together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import (
    ByT5Tokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    UMT5Config,
    UMT5EncoderModel,
)

from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.models.weights.components import plan_component
from longvie_cli.models.weights.plan import fill_module, without_weights
from longvie_cli.settings.presets import preset_folder
from small_models import small_transformer

LIMIT = 1e-5
Weights = dict[str, Tensor]

TEXT = {"vocab_size": 259, "d_model": 24, "d_kv": 6, "d_ff": 40, "num_heads": 4, "num_layers": 3}
TEXT_TOKENS = 512
IMAGE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "patch_size": 32,
}


def text_weights() -> Weights:
    """Return random weights under the names of `models_t5_umt5-xxl-enc-bf16.pth`.

    Embeddings are small enough for the norm's epsilon to show, not so small that rounding does.
    """
    width, hidden = TEXT["d_model"], TEXT["d_ff"]
    inner = TEXT["num_heads"] * TEXT["d_kv"]
    shapes: dict[str, tuple[int, ...]] = {
        "token_embedding.weight": (TEXT["vocab_size"], width),
        "norm.weight": (width,),
    }
    for block in range(TEXT["num_layers"]):
        prefix = f"blocks.{block}"
        shapes |= {f"{prefix}.attn.{name}.weight": (inner, width) for name in "qkv"}
        shapes |= {
            f"{prefix}.norm1.weight": (width,),
            f"{prefix}.norm2.weight": (width,),
            f"{prefix}.attn.o.weight": (width, inner),
            f"{prefix}.ffn.gate.0.weight": (hidden, width),
            f"{prefix}.ffn.fc1.weight": (hidden, width),
            f"{prefix}.ffn.fc2.weight": (width, hidden),
            f"{prefix}.pos_embedding.embedding.weight": (32, TEXT["num_heads"]),
        }
    generator = torch.Generator().manual_seed(3)
    weights = {
        name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()
    }
    for name, value in weights.items():
        if "norm" in name:
            value += 1
    return weights


def bucket(distance: int) -> int:
    """Return the bucket of a key `distance` tokens after the query: 32, half for each direction.

    Of the 16, 8 are exact and 8 logarithmic up to 128.
    """
    behind, steps = (16 if distance > 0 else 0), abs(distance)
    if steps < 8:
        return behind + steps
    # In float32, as the release evaluates it: at powers of two the logarithm is a whole number.
    ratio = torch.log(torch.tensor(steps / 8.0)) / math.log(128 / 8) * 8
    return behind + min(8 + int(ratio), 15)


def exact(weights: Weights) -> Weights:
    """Return the weights in float64: the references shall add no rounding of their own."""
    return {name: value.double() for name, value in weights.items()}


def text_reference(weights: Weights, ids: list[int], length: int, eps: float = 1e-6) -> Tensor:
    """Return [token, width] for ids of which the first `length` are attended."""

    def norm(values: Tensor, name: str) -> Tensor:
        scale = (values.square().mean(-1, keepdim=True) + eps).rsqrt()
        return values * scale * weights[f"{name}.weight"]

    def tanh_gelu(values: Tensor) -> Tensor:
        cubic = values + 0.044715 * values**3
        return 0.5 * values * (1 + torch.tanh(math.sqrt(2 / math.pi) * cubic))

    heads, size = TEXT["num_heads"], TEXT["d_kv"]
    by_distance = torch.tensor([bucket(key) for key in range(-len(ids), len(ids) + 1)])
    position = torch.arange(len(ids))
    buckets = by_distance[position[None] - position[:, None] + len(ids)]
    hidden = weights["token_embedding.weight"][torch.tensor(ids)]
    for block in range(TEXT["num_layers"]):
        prefix = f"blocks.{block}"
        normed = norm(hidden, f"{prefix}.norm1")
        query, key, value = (
            (normed @ weights[f"{prefix}.attn.{name}.weight"].T).unflatten(-1, (heads, size))
            for name in "qkv"
        )
        # Each layer has its own bias; the scores are not scaled.
        bias = weights[f"{prefix}.pos_embedding.embedding.weight"][buckets].permute(2, 0, 1)
        scores = torch.einsum("qhc,khc->hqk", query, key) + bias
        scores[:, :, length:] = -torch.inf
        mixed = torch.einsum("hqk,khc->qhc", scores.softmax(-1), value).flatten(1)
        hidden = hidden + mixed @ weights[f"{prefix}.attn.o.weight"].T
        normed = norm(hidden, f"{prefix}.norm2")
        gate = tanh_gelu(normed @ weights[f"{prefix}.ffn.gate.0.weight"].T)
        gated = gate * (normed @ weights[f"{prefix}.ffn.fc1.weight"].T)
        hidden = hidden + gated @ weights[f"{prefix}.ffn.fc2.weight"].T
    return norm(hidden, "norm")


def image_weights() -> Weights:
    """Return random weights under the names of the original repository's CLIP, text half too."""
    width, hidden, patch = IMAGE["hidden_size"], IMAGE["intermediate_size"], IMAGE["patch_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "visual.patch_embedding.weight": (width, 3, patch, patch),
        "visual.cls_embedding": (1, 1, width),
        "visual.pos_embedding": (1, (224 // patch) ** 2 + 1, width),
        "visual.head": (width, 8),
        "textual.norm.weight": (8,),
        "log_scale": (),
    }
    for name in ("visual.pre_norm", "visual.post_norm"):
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    for block in range(IMAGE["num_hidden_layers"]):
        prefix = f"visual.transformer.{block}"
        for name, rows, columns in (
            ("attn.to_qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("mlp.0", hidden, width),
            ("mlp.2", width, hidden),
        ):
            shapes |= {f"{prefix}.{name}.weight": (rows, columns), f"{prefix}.{name}.bias": (rows,)}
        for name in ("norm1", "norm2"):
            shapes |= {f"{prefix}.{name}.weight": (width,), f"{prefix}.{name}.bias": (width,)}
    generator = torch.Generator().manual_seed(4)
    weights = {n: torch.randn(shape, generator=generator) * 0.1 for n, shape in shapes.items()}
    for name, value in weights.items():
        if "norm" in name and name.endswith("weight"):
            value += 1
    # Small enough for the first norm's epsilon to matter.
    for name in ("patch_embedding.weight", "cls_embedding", "pos_embedding"):
        weights[f"visual.{name}"] *= 0.01 if "patch" in name else 0.3
    return weights


def bicubic(size: int, target: int) -> Tensor:
    """Return the matrix [target, size] of cubic interpolation: half-pixel centres, no antialias."""
    a = -0.75

    def weight(distance: float) -> float:
        if distance <= 1:
            return (a + 2) * distance**3 - (a + 3) * distance**2 + 1
        return a * (distance**3 - 5 * distance**2 + 8 * distance - 4) if distance < 2 else 0.0

    matrix = torch.zeros(target, size, dtype=torch.float64)
    for row in range(target):
        # Positions in float32 as in PyTorch: in noise, their rounding alone is worth 1e-4.
        centre = float(np.float32(size / target) * np.float32(row + 0.5) - np.float32(0.5))
        for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
            matrix[row, min(max(tap, 0), size - 1)] += weight(abs(centre - tap))
    return matrix


def image_reference(weights: Weights, frame: np.ndarray, eps: float = 1e-5) -> Tensor:
    """Return [token, width] of a uint8 frame: the output of the last block but one."""

    def norm(values: Tensor, name: str) -> Tensor:
        centred = values - values.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + eps).rsqrt()
        return centred * scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(values: Tensor, name: str) -> Tensor:
        return values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    height, width, _ = frame.shape
    pixels = torch.from_numpy(frame).double() / 127.5 - 1
    squashed = torch.einsum("yh,hwc,xw->cyx", bicubic(height, 224), pixels, bicubic(width, 224))
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    pixels = ((squashed + 1) / 2 - mean) / std

    size = IMAGE["patch_size"]
    patches = pixels.unfold(1, size, size).unfold(2, size, size).permute(1, 2, 0, 3, 4)
    tokens = (
        patches.flatten(0, 1).flatten(1) @ weights["visual.patch_embedding.weight"].flatten(1).T
    )
    hidden = torch.cat((weights["visual.cls_embedding"][0], tokens))
    hidden = norm(hidden + weights["visual.pos_embedding"][0], "visual.pre_norm")
    heads = IMAGE["num_attention_heads"]
    for block in range(IMAGE["num_hidden_layers"] - 1):
        prefix = f"visual.transformer.{block}"
        qkv = linear(norm(hidden, f"{prefix}.norm1"), f"{prefix}.attn.to_qkv")
        query, key, value = qkv.unflatten(-1, (3, heads, -1)).unbind(1)
        scores = torch.einsum("qhc,khc->hqk", query, key) / math.sqrt(query.shape[-1])
        mixed = torch.einsum("hqk,khc->qhc", scores.softmax(-1), value).flatten(1)
        hidden = hidden + linear(mixed, f"{prefix}.attn.proj")
        inner = linear(norm(hidden, f"{prefix}.norm2"), f"{prefix}.mlp.0")
        inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
        hidden = hidden + linear(inner, f"{prefix}.mlp.2")
    return hidden


def published(name: str, **sizes: int) -> dict[str, object]:
    """Return the published config of an encoder at other sizes: activation, epsilon etc. stay."""
    kind = {"text_encoder": UMT5Config, "image_encoder": CLIPVisionConfig}[name]
    config = kind.from_pretrained(preset_folder("longvie2") / name).to_dict()
    return config | sizes


def filled(name: str, module: nn.Module, weights: Weights) -> nn.Module:
    plan = plan_component(name, module, weights, is_original=True)
    fill_module(module, [plan], dtype=torch.float32, device="cpu")
    return module


@pytest.fixture(scope="module")
def pipeline() -> Iterator[LongViePipeline]:
    """Tiny encoders of the published configs, filled from original names."""
    with without_weights():
        text = UMT5EncoderModel(UMT5Config(**published("text_encoder", **TEXT)))
        image = CLIPVisionModel(CLIPVisionConfig(**published("image_encoder", **IMAGE)))
    yield LongViePipeline(
        ByT5Tokenizer(extra_ids=0),
        filled("text_encoder", text, text_weights()),
        filled("image_encoder", image, image_weights()),
        None,
        small_transformer(text_tokens=TEXT_TOKENS, text_dim=TEXT["d_model"]),
        None,
    )


def byte_ids(text: str) -> list[int]:
    """Return what the byte tokenizer makes of a text: bytes from 3 on, then the end mark."""
    return [byte + 3 for byte in text.encode()] + [1]


@torch.no_grad()
@pytest.mark.parametrize(
    ("prompt", "cleaned"),
    [
        ("  a caf\u00c3\u00a9 &amp;amp; a lake \n\t at dawn ", "a caf\u00e9 & a lake at dawn"),
        ("", ""),
        ("a long walk through the hills. " * 12, None),
        ("a walk that is longer than the model can read. " * 20, None),
    ],
    ids=["unclean", "empty", "past the exact buckets", "truncated"],
)
def test_prompts(pipeline: LongViePipeline, prompt: str, cleaned: str | None) -> None:
    ids = byte_ids(prompt.strip() if cleaned is None else cleaned)
    if len(ids) > TEXT_TOKENS:
        ids = [*ids[: TEXT_TOKENS - 1], 1]
    length = len(ids)
    padded = ids + [0] * (TEXT_TOKENS - length)
    ours = pipeline.encode_prompt([prompt])[0]
    assert ours.shape == (TEXT_TOKENS, TEXT["d_model"])
    expected = text_reference(exact(text_weights()), padded, length)
    assert (ours[:length] - expected[:length]).abs().max() <= LIMIT
    assert (ours[length:] == 0).all()
    # The comparison notices what it is meant to notice.
    other = text_reference(exact(text_weights()), padded, length, eps=1e-5)
    assert (other[:length] - expected[:length]).abs().max() > 10 * LIMIT


@torch.no_grad()
def test_prompts_of_a_batch_do_not_meet(pipeline: LongViePipeline) -> None:
    both = pipeline.encode_prompt(["a hill", "a much longer prompt about a lake"])
    for index, prompt in enumerate(("a hill", "a much longer prompt about a lake")):
        alone = pipeline.encode_prompt([prompt])[0]
        assert (both[index] - alone).abs().max() <= LIMIT


@torch.no_grad()
@pytest.mark.parametrize("size", [(352, 640), (90, 61), (224, 224)])
def test_image(pipeline: LongViePipeline, size: tuple[int, int]) -> None:
    frame = np.random.default_rng(5).integers(0, 256, (*size, 3), dtype=np.uint8)
    ours = pipeline.encode_image(frame)[0]
    expected = image_reference(exact(image_weights()), frame)
    assert ours.shape == (50, IMAGE["hidden_size"])
    assert (ours - expected).abs().max() <= LIMIT
    other = image_reference(exact(image_weights()), frame, eps=1e-6)
    assert (other - expected).abs().max() > 10 * LIMIT
