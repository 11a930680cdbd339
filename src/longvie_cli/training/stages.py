"""What each training stage trains, and where the control branches start.

The paper (arXiv 2512.13604, section 3 and supplement 7.3) trains the control branches alone in
stages 1 and 2, and all self-attention of the base with them in stage 3; the release's published
`dit.safetensors` (self-attention only) confirms the latter, its training script does not do it.
"""

from __future__ import annotations

import torch
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from torch import Tensor, nn

from longvie_cli.errors import InputError
from longvie_cli.models.longvie import LongVieTransformer3DModel
from longvie_cli.models.weights.components import is_self_attention
from longvie_cli.models.weights.names import CONTROL_NAMES
from longvie_cli.settings.training import BranchStart, Stage


def trained_names(transformer: nn.Module, stage: Stage) -> tuple[str, ...]:
    """Return the names of the parameters that a stage trains, in the model's order.

    `base`: everything but the control branches. `control` and `degradation`: the control branches
    (their blocks, input, text, time and output linears). `history`: these and the self-attention of
    every base block.
    """

    def trains(name: str) -> bool:
        is_control = CONTROL_NAMES.owns(name)
        if stage == "base":
            return not is_control
        return is_control or (stage == "history" and is_self_attention(name))

    return tuple(name for name, _ in transformer.named_parameters() if trains(name))


def freeze_for(transformer: nn.Module, stage: Stage) -> tuple[str, ...]:
    """Let exactly the parameters of a stage have gradients; return their names."""
    names = trained_names(transformer, stage)
    chosen = set(names)
    for name, parameter in transformer.named_parameters():
        parameter.requires_grad_(name in chosen)
    return names


@torch.no_grad()
def start_branches(
    transformer: LongVieTransformer3DModel, start: BranchStart, *, seed: int = 0
) -> None:
    """Put the control branches where stage 1 starts; the model then equals its base exactly.

    The input and output linears are zero either way, the text and time linears that both branches
    share are random (the paper says nothing of them).

    Args:
        transformer: Its base is read, its branches are overwritten.
        start: `half_copy`: the base's first blocks, one half of the positions in each branch, as
            `half_of` says. `random`: as the blocks' class begins.
        seed: Of what is random.

    Raises:
        InputError: `half_copy` where a branch is not half as wide as the base.
    """
    if start == "half_copy":
        check_halves(transformer)
    head_dim = transformer.config.attention_head_dim
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for linear in (transformer.control_text_proj, transformer.control_time_proj):
            linear.reset_parameters()
        for first, blocks in ((0, transformer.dense_blocks), (1, transformer.sparse_blocks)):
            for base, block in zip(transformer.blocks, blocks, strict=False):
                if start == "random":
                    block.load_state_dict(_new_block(transformer).state_dict())
                    continue
                source = dict(base.named_parameters())
                for name, parameter in block.named_parameters():
                    parameter.copy_(half_of(source[name], name, first, head_dim))
    for linear in (
        transformer.dense_proj_in,
        transformer.sparse_proj_in,
        *transformer.control_proj_out,
    ):
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)


def half_of(tensor: Tensor, name: str, first: int, head_dim: int) -> Tensor:
    """Return every second position of a block's parameter, on each axis that has the width.

    The paper interleaves "even positions to the dense branch, odd ones to the sparse". Channels of
    the residual stream and of the feed-forward are taken so, one by one. The channels inside the
    attention are taken by whole heads: one by one would part the pairs that the rotary positions
    turn and mix two heads into one. Undetermined in the release (spec 7.2).

    Args:
        tensor: A parameter of a base block.
        name: Its name within the block.
        first: 0 takes positions (or heads) 0, 2, 4, ..; 1 takes 1, 3, 5, ..
        head_dim: Channels of a head.
    """
    in_attention = name.startswith(("attn1.", "attn2."))
    leaves_heads = ".to_out." in name
    if name == "scale_shift_table":
        return tensor[..., first::2]
    if not in_attention:
        halved = tensor[first::2]
        return halved[:, first::2] if tensor.ndim == 2 else halved
    if leaves_heads:
        halved = tensor[first::2]
        return _half_of_heads(halved, 1, first, head_dim) if tensor.ndim == 2 else halved
    # Queries, keys, values and their norms: heads come out, the residual stream goes in.
    halved = _half_of_heads(tensor, 0, first, head_dim)
    return halved[:, first::2] if tensor.ndim == 2 else halved


def check_halves(transformer: LongVieTransformer3DModel) -> None:
    """Do nothing if a branch is half as wide as the base, so that it can be a half copy.

    Raises:
        InputError: It is not.
    """
    config = transformer.config
    for what, base, branch in (
        ("heads", config.num_attention_heads, config.control_num_attention_heads),
        ("feed-forward channels", config.ffn_dim, config.control_ffn_dim),
    ):
        if base != 2 * branch:
            raise InputError(
                f"branches: half_copy: a branch has {branch} {what}, half of the base's {base} is "
                f"{base / 2:g}.",
                hint="Use `branches: random` for this model.",
            )


def _half_of_heads(tensor: Tensor, axis: int, first: int, head_dim: int) -> Tensor:
    heads = tensor.unflatten(axis, (-1, head_dim))
    chosen = torch.arange(first, heads.shape[axis], 2, device=tensor.device)
    return heads.index_select(axis, chosen).flatten(axis, axis + 1)


def _new_block(transformer: LongVieTransformer3DModel) -> WanTransformerBlock:
    config = transformer.config
    width = config.control_num_attention_heads * config.attention_head_dim
    return WanTransformerBlock(
        width,
        config.control_ffn_dim,
        config.control_num_attention_heads,
        config.qk_norm,
        config.cross_attn_norm,
        config.eps,
        None if config.added_kv_proj_dim is None else width,
    )
