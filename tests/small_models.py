"""Real components at the smallest sizes, random weights from fixed seeds."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler
from transformers import (
    ByT5Tokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    UMT5Config,
    UMT5EncoderModel,
)

from longvie_cli.models.longvie import LongVieTransformer3DModel
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.models.sketcher import Sketcher

# Of a transformer whose heads two and four processes can share.
EVEN_HEADS = {
    "num_attention_heads": 8,
    "added_kv_proj_dim": 96,
    "control_num_attention_heads": 4,
}


def small_transformer(**changes: object) -> LongVieTransformer3DModel:
    torch.manual_seed(0)
    sizes: dict[str, object] = {
        "patch_size": (1, 1, 1),
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": 16,
        "out_channels": 6,
        "text_dim": 16,
        "freq_dim": 8,
        "ffn_dim": 32,
        "num_layers": 3,
        "image_dim": 16,
        "added_kv_proj_dim": 24,
        "num_control_layers": 2,
        "control_num_attention_heads": 1,
        "control_ffn_dim": 16,
        "text_tokens": 20,
    }
    transformer = LongVieTransformer3DModel(**(sizes | changes))
    return transformer.eval()


def let_controls_act(transformer: LongVieTransformer3DModel) -> None:
    """Give the control linears that start at zero random values."""
    torch.manual_seed(1)
    for linear in (
        transformer.dense_proj_in,
        transformer.sparse_proj_in,
        *transformer.control_proj_out,
    ):
        torch.nn.init.normal_(linear.weight, std=0.2)
        torch.nn.init.normal_(linear.bias, std=0.2)


def small_vae(z_dim: int = 6) -> AutoencoderKLWan:
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=8,
        z_dim=z_dim,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        patch_size=2,
        in_channels=12,
        out_channels=12,
        scale_factor_spatial=8,
        scale_factor_temporal=4,
        latents_mean=[0.1] * z_dim,
        latents_std=[0.5] * z_dim,
    )
    return vae.eval()


def small_sketcher() -> Sketcher:
    torch.manual_seed(3)
    sizes = {"word_classes": (3, 2), "widths": (8, 16), "blocks": (1, 1), "asked_dim": 16}
    return Sketcher(text_dim=16, **sizes).eval()


def small_pipeline(sketcher: Sketcher | None = None) -> LongViePipeline:
    transformer = small_transformer()
    let_controls_act(transformer)
    torch.manual_seed(2)
    tokenizer = ByT5Tokenizer(extra_ids=0)
    text_encoder = UMT5EncoderModel(
        UMT5Config(
            vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2
        )
    )
    image_encoder = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
        )
    )
    return LongViePipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder.eval(),
        image_encoder=image_encoder.eval(),
        vae=small_vae(),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        sketcher=sketcher,
    )


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return normal numbers of a seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def prompt(tokens: int, seed: int) -> torch.Tensor:
    """Return embeddings of a prompt of that many tokens, padded to 20 with zero rows."""
    embeds = drawn(1, 20, 16, seed=seed)
    embeds[:, tokens:] = 0
    return embeds
